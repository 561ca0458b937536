//! Muon: momentum, five products of three matrices, then the step.

use super::product::Factor::{Columns, Rows as Across};
use super::{Cpu, PIECE};
use crate::Tensor;
use crate::cpu::element::Rows;
use crate::optimisers::{Gate, Muon};

/// The quintic that lifts singular values towards one. From: Jordan et al. 2024.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// A norm is at least this.
const EPSILON: f64 = 1e-7;

impl Cpu {
    #[expect(clippy::too_many_arguments, reason = "the whole of a step in one call")]
    pub(crate) fn muon(
        &self,
        rule: &Muon,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        mean: &Tensor,
        [update, next]: [&Tensor; 2],
        [gram, polynomial]: [&Tensor; 2],
    ) {
        let Some(clip) = self.clip(gate) else { return };
        let momentum = rule.momentum;
        self.pieces(
            gradient,
            [mean, update],
            #[inline(always)]
            |gradient, [mean, update]| {
                for ((gradient, mean), update) in gradient.iter().zip(mean).zip(update) {
                    let g = gradient * clip;
                    *mean += (1.0 - momentum) * (g - *mean);
                    *update = if rule.nesterov { g + momentum * (*mean - g) } else { *mean };
                }
            },
        );
        let norm = self.root_of_squares(update, next);
        self.shrink(update, (1.0 / norm.max(EPSILON)) as f32);
        let [a, b, c] = QUINTIC;
        let (mut from, mut to) = (update, next);
        let is_tall = value.rows() > value.columns();
        for _ in 0..rule.iterations {
            let side = if is_tall { Columns(from) } else { Across(from) };
            self.product(side, side, 1.0, gram, false);
            self.scaled_copy(gram, b, polynomial);
            self.product(Across(gram), Across(gram), c, polynomial, true);
            self.scaled_copy(from, a, to);
            // The polynomial is symmetric.
            if is_tall {
                self.product(Across(from), Across(polynomial), 1.0, to, true);
            } else {
                self.product(Across(polynomial), Columns(from), 1.0, to, true);
            }
            std::mem::swap(&mut from, &mut to);
        }
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        self.pieces(
            from,
            [value],
            #[inline(always)]
            |update, [value]| {
                for (update, value) in update.iter().zip(value) {
                    *value = *value * keep - rule.adjusted_rate * update;
                }
            },
        );
    }

    /// `out = factor * input`, f32.
    fn scaled_copy(&self, input: &Tensor, factor: f32, out: &Tensor) {
        let length = input.len();
        let (input, out) = (Rows::<f32>::of(&input.reshape(1, length)), Rows::<f32>::of_mut(&out.reshape(1, length)));
        self.pool.run_rows(length, PIECE, |range| {
            // SAFETY: each task has its own range; the output is other memory.
            let (input, out) =
                unsafe { (input.part(0, range.start, range.len()), out.part_mut(0, range.start, range.len())) };
            out.iter_mut().zip(input).for_each(|(out, input)| *out = factor * input);
        });
    }
}
