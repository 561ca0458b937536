//! AdamW with both moments in eight bits: a quarter of the memory, and what that rounds away.

use luthier_model::Parameter;
use luthier_tensor::{Device, EightBitMoments, Tensor};

use super::{Moments, Now, Rule, adamw};

/// Smaller parameters keep moments in f32, as in bitsandbytes (`min_8bit_size`).
pub(super) const LEAST: usize = 4096;

#[derive(Debug)]
pub(super) struct EightBitState {
    moments: Moments,
    state: EightBitMoments,
}

impl EightBitState {
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments) -> Self {
        Self { moments, state: EightBitMoments::new(device, parameter.value.len()) }
    }
}

impl Rule for EightBitState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![
            ("mean", &self.state.mean),
            ("mean_largest", &self.state.mean_largest),
            ("mean_square", &self.state.mean_square),
            ("mean_square_largest", &self.state.mean_square_largest),
        ]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let rule = adamw::numbers(self.moments, now);
        device.adamw_8bit(&rule, now.gate, &parameter.gradient, &parameter.value, &self.state);
    }
}
