//! RMS norm of rows. From: Zhang & Sennrich 2019, equation 4. Backward reads the input and one number a row; the
//! normalised row is never kept.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::math::sum_over;
use crate::Tensor;

/// Rows that one task takes.
const GRAIN: usize = 16;
/// Columns that one task of a weight gradient takes.
const COLUMNS: usize = 64;

/// What the norm of each row is made from.
pub(crate) struct RowNorm<'a> {
    /// `[rows, width]`
    pub(crate) input: &'a Tensor,
    /// f32 `[1, width]`
    pub(crate) weight: &'a Tensor,
    /// f32 `[1, rows]`: 1 / root of the mean square; written by forward, read by backward.
    pub(crate) inverse_rms: &'a Tensor,
    pub(crate) epsilon: f32,
}

impl Cpu {
    /// `output = input * inverse_rms * weight`, row by row.
    pub(crate) fn rms_norm(&self, norm: &RowNorm, output: &Tensor) {
        with_element!(norm.input.dtype(), E, {
            let (input, output) = (Rows::<E>::of(norm.input), Rows::<E>::of_mut(output));
            let (weight, inverse) = (Rows::<f32>::of(norm.weight), Rows::<f32>::of_mut(norm.inverse_rms));
            self.pool.run_rows(norm.input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (x, y, w, r) =
                        unsafe { (input.row(row), output.row_mut(row), weight.row(0), inverse.part_mut(0, row, 1)) };
                    r[0] = self.isa.run(
                        #[inline(always)]
                        || forward_row(x, w, y, norm.epsilon),
                    );
                }
            });
        });
    }

    /// `gradient (+)= d loss / d input`, given `output_gradient`; added when `accumulate`.
    pub(crate) fn rms_norm_backward(
        &self,
        norm: &RowNorm,
        output_gradient: &Tensor,
        gradient: &Tensor,
        accumulate: bool,
    ) {
        with_element!(norm.input.dtype(), E, {
            let (input, upstream) = (Rows::<E>::of(norm.input), Rows::<E>::of(output_gradient));
            let (weight, inverse) = (Rows::<f32>::of(norm.weight), Rows::<f32>::of(norm.inverse_rms));
            let gradient = Rows::<E>::of_mut(gradient);
            self.pool.run_rows(norm.input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as in forward.
                    let (x, dy, w, r, dx) = unsafe {
                        let inverse = inverse.row(0)[row];
                        (input.row(row), upstream.row(row), weight.row(0), inverse, gradient.row_mut(row))
                    };
                    self.isa.run(
                        #[inline(always)]
                        || backward_row(x, w, r, dy, dx, accumulate),
                    );
                }
            });
        });
    }

    /// `weight_gradient += sum over rows of output_gradient * input * inverse_rms`; f32 `[1, width]`.
    pub(crate) fn rms_norm_weight_gradient(&self, norm: &RowNorm, output_gradient: &Tensor, weight_gradient: &Tensor) {
        with_element!(norm.input.dtype(), E, {
            let (input, upstream) = (Rows::<E>::of(norm.input), Rows::<E>::of(output_gradient));
            let inverse = Rows::<f32>::of(norm.inverse_rms);
            let gradient = Rows::<f32>::of_mut(weight_gradient);
            self.pool.run_rows(input.width(), COLUMNS, |columns| {
                // SAFETY: each task writes its own columns; the rest is only read.
                let sums = unsafe { gradient.part_mut(0, columns.start, columns.len()) };
                self.isa.run(
                    #[inline(always)]
                    || {
                        for row in 0..norm.input.rows() {
                            // SAFETY: rows are there by the tensors' shapes, and nobody writes them.
                            let (x, dy, r) = unsafe {
                                let x = input.part(row, columns.start, columns.len());
                                (x, upstream.part(row, columns.start, columns.len()), inverse.row(0)[row])
                            };
                            for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                                *sum += dy.load() * (x.load() * r);
                            }
                        }
                    },
                );
            });
        });
    }
}

/// Writes the normalised row and returns 1 / root of the mean square.
#[inline(always)]
pub(super) fn forward_row<E: Element>(x: &[E], w: &[f32], y: &mut [E], epsilon: f32) -> f32 {
    let count = x.len();
    let square = sum_over(count, |i| x[i].load() * x[i].load());
    let inverse = 1.0 / (square / count as f32 + epsilon).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y = E::store(x.load() * inverse * w);
    }
    inverse
}

/// `dx (+)= r * (dy * w) - x * r^3 / n * sum(dy * w * x)`
#[inline(always)]
pub(super) fn backward_row<E: Element>(x: &[E], w: &[f32], r: f32, dy: &[E], dx: &mut [E], accumulate: bool) {
    let count = x.len();
    let (dy, w) = (&dy[..count], &w[..count]);
    let dot = sum_over(count, |i| dy[i].load() * w[i] * x[i].load());
    let factor = dot * r * r * r / count as f32;
    if accumulate {
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = E::store(dx.load() + (dy.load() * w * r - x.load() * factor));
        }
    } else {
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = E::store(dy.load() * w * r - x.load() * factor);
        }
    }
}
