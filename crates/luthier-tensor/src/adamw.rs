//! AdamW over a list of parameters, and the norm of all their gradients together.

use crate::cpu::PIECE;
use crate::{DType, Device, Tensor};

/// The numbers of one AdamW step. From: Loshchilov & Hutter 2019, algorithm 2.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// This step's rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled decay of the parameter itself.
    pub weight_decay: f32,
    /// Gradients are scaled down to this norm of all of them together.
    pub max_gradient_norm: Option<f32>,
    /// The step's number, from 1.
    pub step: u32,
}

impl Device {
    /// The root of the sum of squares of all `gradients` (f32), as f32 `[1, 1]`: summed in pieces of fixed size, then in
    /// order in f64, so that threads do not change it. NaN where `loss`, f32 `[1, 1]`, is not finite: one number says
    /// whether a step counts.
    pub fn gradient_norm(&self, gradients: &[Tensor], loss: &Tensor) -> Tensor {
        let pieces: usize = gradients.iter().map(|gradient| gradient.len().div_ceil(PIECE)).sum();
        let partial = self.empty(DType::F32, pieces.max(1), 1);
        let out = self.empty(DType::F32, 1, 1);
        if gradients.is_empty() {
            self.fill_zero(&partial);
        }
        let mut first = 0;
        for gradient in gradients {
            let count = gradient.len().div_ceil(PIECE);
            let sums = partial.slice_rows(first, count).reshape(1, count);
            self.run("gradient norm", |cpu| cpu.squares(gradient, &sums));
            first += count;
        }
        self.run("gradient norm", |cpu| cpu.root_of_sum(&partial, loss, &out));
        out
    }

    /// One step of one parameter: `value`, `gradient` and the two moments are f32 of one shape. Where `norm` is not finite
    /// nothing changes.
    pub fn adamw(&self, rule: &AdamW, norm: &Tensor, gradient: &Tensor, value: &Tensor, moments: [&Tensor; 2]) {
        self.run("optimiser", |cpu| cpu.adamw(rule, norm, gradient, value, moments));
    }
}
