//! AdamW: the mean and the mean square of each number's gradient.

use luthier_model::Parameter;
use luthier_tensor::{AdamW, DType, Device, Tensor};

use super::{Moments, Now, Rule};

#[derive(Debug)]
pub(super) struct AdamWState {
    moments: Moments,
    mean: Tensor,
    mean_square: Tensor,
}

/// Zeros of a parameter's shape.
pub(super) fn zeros(device: &Device, parameter: &Parameter) -> Tensor {
    device.zeros(DType::F32, parameter.value.rows(), parameter.value.columns())
}

/// The numbers of AdamW now.
pub(super) fn numbers(moments: Moments, now: &Now) -> AdamW {
    AdamW {
        learning_rate: now.learning_rate as f32,
        beta_1: moments.beta_1 as f32,
        beta_2: moments.beta_2 as f32,
        epsilon: moments.epsilon as f32,
        weight_decay: now.weight_decay as f32,
        max_gradient_norm: now.gate.max_norm,
        step: now.step,
    }
}

impl AdamWState {
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments) -> Self {
        Self { moments, mean: zeros(device, parameter), mean_square: zeros(device, parameter) }
    }
}

impl Rule for AdamWState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean), ("mean_square", &self.mean_square)]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let moments = [&self.mean, &self.mean_square];
        device.adamw(&numbers(self.moments, now), now.gate.norm, &parameter.gradient, &parameter.value, moments);
    }
}
