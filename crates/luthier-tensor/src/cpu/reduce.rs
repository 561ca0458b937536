//! Sums over a whole tensor in an order that no thread count changes.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::lanes::{LaneTask, Lanes, each_vector};
use crate::Tensor;

/// Numbers whose squares make one partial sum.
pub(crate) const PIECE: usize = 1 << 14;
const COLUMNS: usize = 64;

impl Cpu {
    /// `sums += scale * column sums of columns first .. first + sums.len()` of `input`. f32 `[1, n]`.
    pub(crate) fn add_column_sums(&self, input: &Tensor, first: usize, scale: f32, sums: &Tensor) {
        with_element!(input.dtype(), E, {
            let (rows, out) = (Rows::<E>::of(input), Rows::<f32>::of_mut(sums));
            self.pool.run_rows(sums.columns(), COLUMNS, |columns| {
                // SAFETY: each task has its own columns.
                let sums = unsafe { out.part_mut(0, columns.start, columns.len()) };
                self.isa.run(
                    #[inline(always)]
                    || {
                        for row in 0..input.rows() {
                            // SAFETY: the row is there by the tensor's shape.
                            let numbers = unsafe { rows.part(row, first + columns.start, columns.len()) };
                            for (sum, number) in sums.iter_mut().zip(numbers) {
                                *sum += number.load() * scale;
                            }
                        }
                    },
                );
            });
        });
    }

    /// `partial[i]` = sum of squares of piece i of an f32 tensor. f32 `[1, pieces]`.
    pub(crate) fn squares(&self, input: &Tensor, partial: &Tensor) {
        let numbers = Rows::<f32>::of(&input.reshape(1, input.len()));
        let out = Rows::<f32>::of_mut(partial);
        self.pool.run_rows(input.len(), PIECE, |range| {
            // SAFETY: the range lies within the tensor; each task writes its own partial sum.
            let (numbers, out) =
                unsafe { (numbers.part(0, range.start, range.len()), out.part_mut(0, range.start / PIECE, 1)) };
            out[0] = self.isa.lanes(Squares(numbers));
        });
    }

    /// `scale` times the root of the sum of f32 `[n, 1]`, added in order; NaN where `loss` is not finite.
    pub(crate) fn root_of_sum(&self, partial: &Tensor, loss: &Tensor, scale: f32, out: &Tensor) {
        let (sums, out) = (Rows::<f32>::of(&partial.reshape(1, partial.len())), Rows::<f32>::of_mut(out));
        // SAFETY: both rows are there, and nothing else runs.
        let (sums, out) = unsafe { (sums.row(0), out.row_mut(0)) };
        // SAFETY: as above.
        let loss = unsafe { Rows::<f32>::of(loss).row(0) }[0];
        let norm = (sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt() * f64::from(scale)) as f32;
        out[0] = if loss.is_finite() { norm } else { f32::NAN };
    }

    /// `out += sum of input[0][i] * weights[0][i]`, in f64, in order. f32 `[1, 1]`.
    pub(crate) fn weighted_sum(&self, input: &Tensor, column: usize, weights: &Tensor, out: &Tensor) {
        let (input_rows, weights, out) = (Rows::<f32>::of(input), Rows::<f32>::of(weights), Rows::<f32>::of_mut(out));
        // SAFETY: all rows are there by the shapes; the output is other memory.
        let (weights, out) = unsafe { (weights.row(0), out.row_mut(0)) };
        let sum: f64 = (0..input.rows())
            // SAFETY: as above.
            .map(|row| f64::from(unsafe { input_rows.row(row) }[column]) * f64::from(weights[row]))
            .sum();
        out[0] += sum as f32;
    }
}

/// The sum of squares of a row.
struct Squares<'a>(&'a [f32]);

impl LaneTask for Squares<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        // Four chains, so that one addition need not wait for the last.
        let mut sums = [L::splat(0.0); 4];
        let mut next = 0;
        each_vector!(
            self.0.len(),
            |i| {
                let numbers = L::load(&self.0[i..]);
                sums[next] = numbers.mul_add(numbers, sums[next]);
                next = (next + 1) % 4;
            },
            {
                let numbers = L::load_some(&self.0[i..]);
                sums[next] = numbers.mul_add(numbers, sums[next]);
            }
        );
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).sum()
    }
}
