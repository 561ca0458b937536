//! Adam-mini: a mean for each number, and one mean square for each head of queries and keys, each row of other matrices,
//! each norm as a whole. Biases keep AdamW's.

use luthier_model::Parameter;
use luthier_tensor::{AdamMini, DType, Device, Tensor};

use super::{Moments, Now, Rule, adamw};

/// Parts of the names of query and key projections.
const HEADS: [&str; 6] = ["k_proj", "q_proj", "wq", "wk", "query", "key"];

/// Blocks of a parameter; `None` where each number has its own.
pub(super) fn blocks(parameter: &Parameter, head_dim: usize) -> Option<usize> {
    let name = parameter.name.to_lowercase();
    let rows = parameter.value.rows();
    if name.contains("bias") {
        return None;
    }
    if parameter.dims.len() < 2 {
        return Some(1);
    }
    // An adapter's matrices have other rows.
    let has_heads = !name.contains("lora") && HEADS.iter().any(|part| name.contains(part));
    Some(if has_heads && rows.is_multiple_of(head_dim) { rows / head_dim } else { rows })
}

#[derive(Debug)]
pub(super) struct AdamMiniState {
    moments: Moments,
    mean: Tensor,
    mean_square: Tensor,
}

impl AdamMiniState {
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments, blocks: usize) -> Self {
        let mean_square = device.zeros(DType::F32, blocks, 1);
        Self { moments, mean: adamw::zeros(device, parameter), mean_square }
    }
}

impl Rule for AdamMiniState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean), ("mean_square", &self.mean_square)]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let rule = AdamMini {
            learning_rate: now.learning_rate as f32,
            beta_1: self.moments.beta_1 as f32,
            beta_2: self.moments.beta_2 as f32,
            epsilon: self.moments.epsilon as f32,
            weight_decay: now.weight_decay as f32,
            step: now.step,
        };
        device.adam_mini(&rule, now.gate, &parameter.gradient, &parameter.value, &self.mean, &self.mean_square);
    }
}
