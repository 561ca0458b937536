//! AdamW in one pass over a parameter: clip, moments, decay, write back. From: Loshchilov & Hutter 2019, algorithm 2.

use super::Cpu;
use super::element::Rows;
use crate::{AdamW, Tensor};

const PIECE: usize = 1 << 13;

impl Cpu {
    /// Updates `value` and both moments, all f32 of one shape. norm f32 `[1, 1]`: the norm of all gradients together;
    /// when it is not finite nothing changes.
    pub(crate) fn adamw(&self, rule: &AdamW, norm: &Tensor, gradient: &Tensor, value: &Tensor, moments: [&Tensor; 2]) {
        // SAFETY: the norm is there, and nothing writes it now.
        let norm = unsafe { Rows::<f32>::of(norm).row(0) }[0];
        if !norm.is_finite() {
            return;
        }
        let clip = rule.max_gradient_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let length = value.len();
        let flat = |tensor: &Tensor| Rows::<f32>::of_mut(&tensor.reshape(1, length));
        let (gradient, value) = (flat(gradient), flat(value));
        let [first, second] = moments.map(flat);
        let correction_1 = 1.0 - f64::from(rule.beta_1).powi(rule.step as i32);
        let correction_2 = (1.0 - f64::from(rule.beta_2).powi(rule.step as i32)).sqrt() as f32;
        let rate = (f64::from(rule.learning_rate) / correction_1) as f32;
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        self.pool.run_rows(length, PIECE, |range| {
            // SAFETY: each task has its own range of each tensor.
            let (gradient, value, first, second) = unsafe {
                let (start, count) = (range.start, range.len());
                let moments = (first.part_mut(0, start, count), second.part_mut(0, start, count));
                (gradient.part(0, start, count), value.part_mut(0, start, count), moments.0, moments.1)
            };
            self.isa.run(
                #[inline(always)]
                || {
                    for (((value, gradient), first), second) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                        let g = gradient * clip;
                        *first = rule.beta_1 * *first + (1.0 - rule.beta_1) * g;
                        *second = rule.beta_2 * *second + (1.0 - rule.beta_2) * g * g;
                        *value = *value * keep - rate * *first / (second.sqrt() / correction_2 + rule.epsilon);
                    }
                },
            );
        });
    }
}
