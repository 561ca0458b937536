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
    /// Factor of the gradients before all else: 1 / the scale of the loss.
    pub gradient_scale: f32,
    /// The step's number, from 1.
    pub step: u32,
}

/// How numbers of a state in bf16 are rounded. Each step is far smaller than what bf16 can add to a weight, so rounding
/// to the nearest would lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Up or down at random, with the probability that makes the mean right. The random number is a function of the stream
    /// and the index. From: Zamirai et al. 2021, section 3.
    Stochastic,
    /// To the nearest, and what was lost is kept in a third tensor and added the next time. From: Kahan 1965. The moments
    /// are rounded at random, as their losses are not kept.
    Kahan,
}

/// The state of a parameter in bf16, with what its rounding needs.
#[derive(Clone, Copy, Debug)]
pub struct Bf16State<'t> {
    /// What all random numbers of this step and parameter follow from.
    pub stream: u64,
    /// bf16, of the parameter's shape: what rounding has lost, with [`Rounding::Kahan`].
    pub lost: Option<&'t Tensor>,
}

impl Device {
    /// The root of the sum of squares of all `gradients` (f32), as f32 `[1, 1]`: summed in pieces of fixed size, then in
    /// order in f64, so that threads do not change it, and times `scale`. NaN where `loss`, f32 `[1, 1]`, is not finite: one
    /// number says whether a step counts.
    pub fn gradient_norm(&self, gradients: &[Tensor], loss: &Tensor, scale: f32) -> Tensor {
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
        self.run("gradient norm", |cpu| cpu.root_of_sum(&partial, loss, scale, &out));
        out
    }

    /// One step of one parameter: `value`, `gradient` and the two moments are f32 of one shape. Where `norm` is not finite
    /// nothing changes.
    pub fn adamw(&self, rule: &AdamW, norm: &Tensor, gradient: &Tensor, value: &Tensor, moments: [&Tensor; 2]) {
        self.run("optimiser", |cpu| cpu.adamw(rule, norm, gradient, value, moments));
    }

    /// As [`adamw`](Self::adamw), with `value` and both moments in bf16. The step itself is computed in f32.
    pub fn adamw_bf16(
        &self,
        rule: &AdamW,
        norm: &Tensor,
        gradient: &Tensor,
        value: &Tensor,
        moments: [&Tensor; 2],
        state: &Bf16State,
    ) {
        self.run("optimiser", |cpu| cpu.adamw_bf16(rule, norm, gradient, value, moments, state));
    }
}
