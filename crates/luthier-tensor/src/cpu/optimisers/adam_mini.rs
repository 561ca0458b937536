//! Adam-mini: a block's mean square first, then its numbers.

use super::{Cpu, PIECE, correction, numbers_mut, sum_of_squares};
use crate::Tensor;
use crate::cpu::element::Rows;
use crate::optimisers::{AdamMini, Gate};

impl Cpu {
    pub(crate) fn adam_mini(
        &self,
        rule: &AdamMini,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        mean: &Tensor,
        mean_square: &Tensor,
    ) {
        let Some(clip) = self.clip(gate) else { return };
        let blocks = mean_square.len();
        let length = value.len() / blocks;
        let rate = (f64::from(rule.learning_rate) / correction(rule.beta_1, rule.step)) as f32;
        let root_2 = correction(rule.beta_2, rule.step).sqrt() as f32;
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        let shaped = |tensor: &Tensor| tensor.reshape(blocks, length);
        let gradients = Rows::<f32>::of(&shaped(gradient));
        let [values, means] = [value, mean].map(|tensor| Rows::<f32>::of_mut(&shaped(tensor)));
        let squares = Rows::<f32>::of_mut(&mean_square.reshape(1, blocks));
        self.pool.run_rows(blocks, PIECE.div_ceil(length), |range| {
            for block in range {
                // SAFETY: each block belongs to one task, and the tensors are different memory.
                let (gradient, value, mean, square) = unsafe {
                    let square = &mut squares.part_mut(0, block, 1)[0];
                    (gradients.row(block), values.row_mut(block), means.row_mut(block), square)
                };
                let found = sum_of_squares(gradient) / length as f64;
                *square = rule.beta_2 * *square + (1.0 - rule.beta_2) * (found as f32 * clip * clip);
                let step = rate / (square.sqrt() / root_2 + rule.epsilon);
                self.isa.run(
                    #[inline(always)]
                    || {
                        for ((gradient, value), mean) in gradient.iter().zip(value).zip(mean) {
                            *mean = rule.beta_1 * *mean + (1.0 - rule.beta_1) * (gradient * clip);
                            *value = *value * keep - step * *mean;
                        }
                    },
                );
            }
        });
    }

    /// `tensor *= factor`, f32.
    pub(super) fn shrink(&self, tensor: &Tensor, factor: f32) {
        if factor == 1.0 {
            return;
        }
        let rows = Rows::<f32>::of_mut(&tensor.reshape(1, tensor.len()));
        self.pool.run_rows(tensor.len(), PIECE, |range| {
            // SAFETY: each task has its own range.
            let numbers = unsafe { rows.part_mut(0, range.start, range.len()) };
            numbers.iter_mut().for_each(|number| *number *= factor);
        });
    }

    /// The root of the sum of squares of an f32 tensor, row by row in `sums`, f32 of as many numbers or more.
    pub(super) fn root_of_squares(&self, tensor: &Tensor, sums: &Tensor) -> f64 {
        let (rows, out) = (Rows::<f32>::of(tensor), Rows::<f32>::of_mut(&sums.reshape(1, sums.len())));
        self.pool.run_rows(tensor.rows(), PIECE.div_ceil(tensor.columns().max(1)), |range| {
            for row in range {
                // SAFETY: the row is there; each task writes its own sums.
                let (row_numbers, out) = unsafe { (rows.row(row), out.part_mut(0, row, 1)) };
                out[0] = sum_of_squares(row_numbers) as f32;
            }
        });
        // SAFETY: the tasks have ended.
        let sums = unsafe { numbers_mut(sums) };
        sums[..tensor.rows()].iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt()
    }
}
