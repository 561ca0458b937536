//! Lion: the sign of a mean, which is all that it keeps.

use luthier_model::Parameter;
use luthier_tensor::{Device, Lion, Tensor};

use super::{Moments, Now, Rule, adamw};

#[derive(Debug)]
pub(super) struct LionState {
    moments: Moments,
    mean: Tensor,
}

impl LionState {
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments) -> Self {
        Self { moments, mean: adamw::zeros(device, parameter) }
    }
}

impl Rule for LionState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean)]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let rule = Lion {
            learning_rate: now.learning_rate as f32,
            beta_1: self.moments.beta_1 as f32,
            beta_2: self.moments.beta_2 as f32,
            weight_decay: now.weight_decay as f32,
        };
        device.lion(&rule, now.gate, &parameter.gradient, &parameter.value, &self.mean);
    }
}
