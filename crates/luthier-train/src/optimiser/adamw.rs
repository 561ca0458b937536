//! AdamW: the mean and the mean square of each number's gradient, stored as the parameter is.

use luthier_model::Parameter;
use luthier_tensor::{AdamW, Bf16State, DType, Device, Rounding, Tensor};

use super::{Moments, Now, PureBf16, Rule};

#[derive(Debug)]
pub(super) struct AdamWState {
    moments: Moments,
    mean: Tensor,
    mean_square: Tensor,
    /// Where all of it is bf16.
    bf16: Option<PureBf16>,
    /// What rounding to bf16 has lost, where that is kept.
    lost: Option<Tensor>,
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
        gradient_scale: now.gate.gradient_scale,
        step: now.step,
    }
}

impl AdamWState {
    /// `bf16` is for parameters that are stored so.
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments, bf16: Option<PureBf16>) -> Self {
        let value = &parameter.value;
        let like_it = || device.zeros(value.dtype(), value.rows(), value.columns());
        let bf16 = bf16.filter(|_| value.dtype() == DType::Bf16);
        let keeps_lost = bf16.is_some_and(|bf16| bf16.rounding == Rounding::Kahan);
        Self { moments, mean: like_it(), mean_square: like_it(), bf16, lost: keeps_lost.then(like_it) }
    }
}

impl Rule for AdamWState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let moments = [("mean", &self.mean), ("mean_square", &self.mean_square)];
        moments.into_iter().chain(self.lost.iter().map(|lost| ("lost", lost))).collect()
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let (rule, moments) = (numbers(self.moments, now), [&self.mean, &self.mean_square]);
        let (norm, gradient, value) = (now.gate.norm, &parameter.gradient, &parameter.value);
        match self.bf16 {
            None => device.adamw(&rule, norm, gradient, value, moments),
            Some(bf16) => {
                let stream = mix(mix(bf16.seed ^ u64::from(now.step)) ^ now.index as u64);
                let state = Bf16State { stream, lost: self.lost.as_ref() };
                device.adamw_bf16(&rule, norm, gradient, value, moments, &state);
            }
        }
    }
}

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
