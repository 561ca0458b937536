//! Adam-mini: one mean of squared gradients for a block of a parameter, such as a head or a row, instead of one for each
//! number.

use super::Gate;
use crate::{Device, Tensor};

/// The numbers of one step. From: Zhang et al. 2024, algorithm 1.
#[derive(Clone, Copy, Debug)]
pub struct AdamMini {
    /// This step's rate.
    pub learning_rate: f32,
    /// Decay of the mean.
    pub beta_1: f32,
    /// Decay of the mean square.
    pub beta_2: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// The step's number, from 1.
    pub step: u32,
}

impl Device {
    /// One step of one parameter. `value`, `gradient` and `mean` are f32 of one shape; `mean_square`, f32 `[blocks, 1]`,
    /// divides their numbers, row by row, into blocks of equal length.
    pub fn adam_mini(
        &self,
        rule: &AdamMini,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        mean: &Tensor,
        mean_square: &Tensor,
    ) {
        let blocks = mean_square.len();
        assert!(blocks > 0 && value.len().is_multiple_of(blocks), "{blocks} blocks of {value:?}");
        self.run("optimiser", |cpu| cpu.adam_mini(rule, gate, gradient, value, mean, mean_square));
    }
}
