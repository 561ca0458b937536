//! Muon: a mean, of which the step is the nearest orthogonal matrix.

use luthier_model::Parameter;
use luthier_tensor::{Device, Muon, Tensor};

use super::{MuonSettings, Now, Rule, adamw};

#[derive(Debug)]
pub(super) struct MuonState {
    settings: MuonSettings,
    mean: Tensor,
}

impl MuonState {
    pub(super) fn new(device: &Device, parameter: &Parameter, settings: MuonSettings) -> Self {
        Self { settings, mean: adamw::zeros(device, parameter) }
    }
}

impl Rule for MuonState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("mean", &self.mean)]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let (rows, columns) = (parameter.value.rows() as f64, parameter.value.columns() as f64);
        let factor =
            if self.settings.matches_adamw { 0.2 * rows.max(columns).sqrt() } else { (rows / columns).max(1.0).sqrt() };
        let rule = Muon {
            learning_rate: now.learning_rate as f32,
            adjusted_rate: (now.learning_rate * factor) as f32,
            momentum: self.settings.momentum as f32,
            nesterov: self.settings.nesterov,
            weight_decay: now.weight_decay as f32,
            iterations: self.settings.iterations,
        };
        device.muon(&rule, now.gate, &parameter.gradient, &parameter.value, &self.mean);
    }
}
