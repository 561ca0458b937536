//! Gradient descent. It keeps a sum of gradients where there is momentum, else nothing.

use luthier_model::Parameter;
use luthier_tensor::{Device, Sgd, Tensor};

use super::{Now, Rule, SgdSettings, adamw};

#[derive(Debug)]
pub(super) struct SgdState {
    settings: SgdSettings,
    sum: Option<Tensor>,
}

impl SgdState {
    pub(super) fn new(device: &Device, parameter: &Parameter, settings: SgdSettings) -> Self {
        Self { settings, sum: (settings.momentum != 0.0).then(|| adamw::zeros(device, parameter)) }
    }
}

impl Rule for SgdState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        self.sum.iter().map(|sum| ("momentum", sum)).collect()
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let rule = Sgd {
            learning_rate: now.learning_rate as f32,
            momentum: self.settings.momentum as f32,
            dampening: self.settings.dampening as f32,
            nesterov: self.settings.nesterov,
            weight_decay: now.weight_decay as f32,
            is_first: now.step == 1,
        };
        device.sgd(&rule, now.gate, &parameter.gradient, &parameter.value, self.sum.as_ref());
    }
}
