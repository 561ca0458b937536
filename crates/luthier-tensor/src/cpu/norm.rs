//! RMS norm of rows, whose factors are the weight's numbers or, in some families, these plus one. From: Zhang & Sennrich
//! 2019, equation 4. Backward reads the input and one number a row; the normalised row is never kept.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::lanes::{LaneTask, Lanes, each_vector};
use crate::Tensor;

/// Rows that one task takes.
const GRAIN: usize = 16;
/// Columns that one task of a weight gradient takes.
const COLUMNS: usize = 96;

/// What the norm of each row is made from.
pub(crate) struct RowNorm<'a> {
    /// `[rows, width]`
    pub(crate) input: &'a Tensor,
    /// f32 `[1, width]`
    pub(crate) weight: &'a Tensor,
    /// f32 `[1, rows]`: 1 / root of the mean square; written by forward, read by backward.
    pub(crate) inverse_rms: &'a Tensor,
    pub(crate) epsilon: f32,
    /// Added to each number of the weight.
    pub(crate) offset: f32,
}

impl Cpu {
    /// `output = input * inverse_rms * (weight + offset)`, row by row.
    pub(crate) fn rms_norm(&self, norm: &RowNorm, output: &Tensor) {
        with_element!(norm.input.dtype(), E, {
            let (input, output) = (Rows::<E>::of(norm.input), Rows::<E>::of_mut(output));
            let (weight, inverse) = (Rows::<f32>::of(norm.weight), Rows::<f32>::of_mut(norm.inverse_rms));
            self.pool.run_rows(norm.input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (x, y, w, r) =
                        unsafe { (input.row(row), output.row_mut(row), weight.row(0), inverse.part_mut(0, row, 1)) };
                    r[0] = self.isa.lanes(ForwardRow { x, w, y, epsilon: norm.epsilon, offset: norm.offset });
                }
            });
        });
    }

    /// `gradient (+)= d loss / d input`, given `output_gradient`; added when `accumulate`. With `output`, writes there what
    /// forward did.
    pub(crate) fn rms_norm_backward(
        &self,
        norm: &RowNorm,
        output_gradient: &Tensor,
        gradient: &Tensor,
        accumulate: bool,
        output: Option<&Tensor>,
    ) {
        with_element!(norm.input.dtype(), E, {
            let (input, upstream) = (Rows::<E>::of(norm.input), Rows::<E>::of(output_gradient));
            let (weight, inverse) = (Rows::<f32>::of(norm.weight), Rows::<f32>::of(norm.inverse_rms));
            let gradient = Rows::<E>::of_mut(gradient);
            let output = output.map(Rows::<E>::of_mut);
            self.pool.run_rows(norm.input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as in forward.
                    let (x, dy, w, r, dx, y) = unsafe {
                        let (inverse, y) = (inverse.row(0)[row], output.map(|output| output.row_mut(row)));
                        (input.row(row), upstream.row(row), weight.row(0), inverse, gradient.row_mut(row), y)
                    };
                    let offset = norm.offset;
                    match y {
                        Some(y) => self.isa.lanes(BackwardRow::<_, true> { x, w, offset, r, dy, dx, accumulate, y }),
                        None => {
                            let y = &mut [];
                            self.isa.lanes(BackwardRow::<_, false> { x, w, offset, r, dy, dx, accumulate, y });
                        }
                    }
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
                // SAFETY: each task writes its own columns; the rest is only read. Rows are there by the tensors' shapes.
                unsafe {
                    let sums = gradient.part_mut(0, columns.start, columns.len());
                    let inverse = inverse.row(0);
                    let parts = |row| {
                        let x = input.part(row, columns.start, columns.len());
                        (x, upstream.part(row, columns.start, columns.len()), inverse[row])
                    };
                    self.isa.lanes(WeightGradient { rows: norm.input.rows(), parts, sums });
                }
            });
        });
    }
}

/// `sums += dy * (x * r)` over rows, for some columns.
struct WeightGradient<'a, P> {
    rows: usize,
    parts: P,
    sums: &'a mut [f32],
}

impl<'x, E: Element, P: Fn(usize) -> (&'x [E], &'x [E], f32)> LaneTask for WeightGradient<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        for row in 0..self.rows {
            let (x, dy, r) = (self.parts)(row);
            let (sums, r) = (&mut *self.sums, L::splat(r));
            each_vector!(
                sums.len(),
                |i| L::load(&dy[i..]).mul_add(L::load(&x[i..]).mul(r), L::load(&sums[i..])).store(&mut sums[i..]),
                L::load_some(&dy[i..])
                    .mul_add(L::load_some(&x[i..]).mul(r), L::load_some(&sums[i..]))
                    .store_some(&mut sums[i..])
            );
        }
    }
}

/// Writes the normalised row and returns 1 / root of the mean square.
pub(super) struct ForwardRow<'a, E> {
    pub(super) x: &'a [E],
    pub(super) w: &'a [f32],
    pub(super) y: &'a mut [E],
    pub(super) epsilon: f32,
    pub(super) offset: f32,
}

impl<E: Element> LaneTask for ForwardRow<'_, E> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let Self { x, w, y, epsilon, offset } = self;
        let mut squares = L::splat(0.0);
        each_vector!(
            x.len(),
            |i| {
                let x = L::load(&x[i..]);
                squares = x.mul_add(x, squares);
            },
            {
                let x = L::load_some(&x[i..]);
                squares = x.mul_add(x, squares);
            }
        );
        let inverse = 1.0 / (squares.sum() / x.len() as f32 + epsilon).sqrt();
        let (factor, offset) = (L::splat(inverse), L::splat(offset));
        each_vector!(
            x.len(),
            |i| L::load(&x[i..]).mul(L::load(&w[i..]).add(offset).mul(factor)).store(&mut y[i..]),
            L::load_some(&x[i..]).mul(L::load_some(&w[i..x.len()]).add(offset).mul(factor)).store_some(&mut y[i..])
        );
        inverse
    }
}

/// `dx (+)= r * (dy * w) - x * r^3 / n * sum(dy * w * x)`, w with the offset; with `OUTPUT`, `y = x * r * w` besides.
pub(super) struct BackwardRow<'a, E, const OUTPUT: bool> {
    pub(super) x: &'a [E],
    pub(super) w: &'a [f32],
    pub(super) offset: f32,
    pub(super) r: f32,
    pub(super) dy: &'a [E],
    pub(super) dx: &'a mut [E],
    pub(super) accumulate: bool,
    pub(super) y: &'a mut [E],
}

impl<E: Element, const OUTPUT: bool> LaneTask for BackwardRow<'_, E, OUTPUT> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { x, w, offset, r, dy, dx, accumulate, y } = self;
        let count = x.len();
        let (mut dot, offset) = (L::splat(0.0), L::splat(offset));
        each_vector!(
            count,
            |i| dot = L::load(&dy[i..]).mul(L::load(&w[i..]).add(offset)).mul_add(L::load(&x[i..]), dot),
            dot = L::load_some(&dy[i..]).mul(L::load_some(&w[i..]).add(offset)).mul_add(L::load_some(&x[i..]), dot)
        );
        let r_lanes = L::splat(r);
        let factor = L::splat(-dot.sum() * r * r * r / count as f32);
        each_vector!(
            count,
            |i| {
                let (x, w) = (L::load(&x[i..]), L::load(&w[i..]).add(offset).mul(r_lanes));
                let gradient = x.mul_add(factor, L::load(&dy[i..]).mul(w));
                let sum = if accumulate { L::load(&dx[i..]).add(gradient) } else { gradient };
                sum.store(&mut dx[i..]);
                if OUTPUT {
                    x.mul(w).store(&mut y[i..]);
                }
            },
            {
                let (x, w) = (L::load_some(&x[i..]), L::load_some(&w[i..]).add(offset).mul(r_lanes));
                let gradient = x.mul_add(factor, L::load_some(&dy[i..]).mul(w));
                let sum = if accumulate { L::load_some(&dx[i..]).add(gradient) } else { gradient };
                sum.store_some(&mut dx[i..]);
                if OUTPUT {
                    x.mul(w).store_some(&mut y[i..]);
                }
            }
        );
    }
}
