//! Rotations from angles, a block a task, and the way back. Blocks are small, so plain loops in f64 serve.

use super::Cpu;
use super::element::Rows;
use crate::{RotationSeries, Tensor};

/// What rotations are made of.
pub(crate) struct Cayley<'a> {
    /// f32 `[blocks, block (block - 1) / 2]`
    pub(crate) angles: &'a Tensor,
    pub(crate) block: usize,
    pub(crate) series: RotationSeries,
}

impl Cpu {
    /// Writes f32 `[blocks * block, block]`.
    pub(crate) fn rotations(&self, of: &Cayley, out: &Tensor) {
        let (angles, rows) = (Rows::<f32>::of(of.angles), Rows::<f32>::of_mut(&flat(out, of.block)));
        self.pool.run_rows(of.angles.rows(), 1, |range| {
            for block in range {
                // SAFETY: each block has its own rows, and this task alone.
                let (angles, out) = unsafe { (angles.row(block), rows.row_mut(block)) };
                let rotation = rotation(&skew(angles, of.block), of.series);
                out.iter_mut().zip(&rotation.0).for_each(|(out, &value)| *out = value as f32);
            }
        });
    }

    /// `sums` holds d loss / d rotation, f32 `[blocks * block, block]`; adds d loss / d angle to `gradient`.
    pub(crate) fn add_angle_gradients(&self, of: &Cayley, sums: &Tensor, gradient: &Tensor) {
        let (angles, sums) = (Rows::<f32>::of(of.angles), Rows::<f32>::of(&flat(sums, of.block)));
        let gradients = Rows::<f32>::of_mut(gradient);
        self.pool.run_rows(of.angles.rows(), 1, |range| {
            for block in range {
                // SAFETY: each block has its own rows, and this task alone.
                let (angles, sums, gradient) =
                    unsafe { (angles.row(block), sums.row(block), gradients.row_mut(block)) };
                let upstream = Square(sums.iter().map(|&value| f64::from(value)).collect(), of.block);
                let found = back(&skew(angles, of.block), of.series, &upstream);
                let pairs = (0..of.block).flat_map(|row| (row + 1..of.block).map(move |column| (row, column)));
                for (sum, (row, column)) in gradient.iter_mut().zip(pairs) {
                    *sum += (found.at(row, column) - found.at(column, row)) as f32;
                }
            }
        });
    }
}

/// One row for each block.
fn flat(rotations: &Tensor, block: usize) -> Tensor {
    rotations.reshape(rotations.rows() / block, block * block)
}

/// A square matrix, row by row.
#[derive(Clone)]
struct Square(Vec<f64>, usize);

impl Square {
    fn identity(size: usize, factor: f64) -> Self {
        let mut numbers = vec![0.0; size * size];
        numbers.iter_mut().step_by(size + 1).for_each(|number| *number = factor);
        Self(numbers, size)
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.0[row * self.1 + column]
    }

    fn transposed(&self) -> Self {
        let size = self.1;
        Self((0..size * size).map(|index| self.at(index % size, index / size)).collect(), size)
    }

    fn times(&self, other: &Self) -> Self {
        let size = self.1;
        let mut out = vec![0.0; size * size];
        for (row, out) in out.chunks_exact_mut(size).enumerate() {
            for inner in 0..size {
                let factor = self.at(row, inner);
                let other = &other.0[inner * size..(inner + 1) * size];
                out.iter_mut().zip(other).for_each(|(sum, number)| *sum += factor * number);
            }
        }
        Self(out, size)
    }

    fn plus(mut self, other: &Self, factor: f64) -> Self {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, number)| *sum += factor * number);
        self
    }

    /// By Gauss and Jordan. I + Q with a skew-symmetric Q needs no exchange of rows: no pivot is below 1.
    fn inverse(&self) -> Self {
        let size = self.1;
        let (mut left, mut right) = (self.clone(), Self::identity(size, 1.0));
        for pivot in 0..size {
            let factor = 1.0 / left.at(pivot, pivot);
            let scaled = |of: &mut Self| {
                let row = &mut of.0[pivot * size..(pivot + 1) * size];
                row.iter_mut().for_each(|number| *number *= factor);
                row.to_vec()
            };
            let (pivot_left, pivot_right) = (scaled(&mut left), scaled(&mut right));
            for row in (0..size).filter(|&row| row != pivot) {
                let factor = left.at(row, pivot);
                let subtract = |of: &mut Self, from: &[f64]| {
                    let row = &mut of.0[row * size..(row + 1) * size];
                    row.iter_mut().zip(from).for_each(|(number, from)| *number -= factor * from);
                };
                subtract(&mut left, &pivot_left);
                subtract(&mut right, &pivot_right);
            }
        }
        right
    }
}

/// Q with `angles` above the diagonal.
fn skew(angles: &[f32], block: usize) -> Square {
    let mut out = Square::identity(block, 0.0);
    let pairs = (0..block).flat_map(|row| (row + 1..block).map(move |column| (row, column)));
    for (&angle, (row, column)) in angles.iter().zip(pairs) {
        out.0[row * block + column] = f64::from(angle);
        out.0[column * block + row] = -f64::from(angle);
    }
    out
}

/// The factors of I, Q, Q^2, ... in PEFT's sum of so many terms.
fn coefficients(terms: usize) -> Vec<f64> {
    match terms {
        0 | 1 => vec![1.0],
        2 => vec![1.0, 2.0],
        // The last power has half the weight, and three terms are summed as four.
        _ => {
            let last = terms.max(4) - 1;
            (0..=last).map(|power| if power == 0 || power == last { 1.0 } else { 2.0 }).collect()
        }
    }
}

/// By Horner's rule, all partial sums from the innermost on.
fn partial_sums(q: &Square, terms: usize) -> Vec<Square> {
    let mut sums: Vec<Square> = Vec::new();
    for factor in coefficients(terms).into_iter().rev() {
        let own = Square::identity(q.1, factor);
        sums.push(match sums.last() {
            None => own,
            Some(inner) => q.times(inner).plus(&own, 1.0),
        });
    }
    sums
}

fn rotation(q: &Square, series: RotationSeries) -> Square {
    let one = || Square::identity(q.1, 1.0);
    match series {
        RotationSeries::Exact => one().plus(q, -1.0).times(&one().plus(q, 1.0).inverse()),
        RotationSeries::Terms(terms) => partial_sums(q, terms).pop().unwrap_or_else(one),
    }
}

/// d loss / d Q of d loss / d rotation.
fn back(q: &Square, series: RotationSeries, upstream: &Square) -> Square {
    let one = || Square::identity(q.1, 1.0);
    match series {
        RotationSeries::Exact => {
            // R (I + Q) = I - Q, so dR = -(I + R) dQ (I + Q)^-1.
            let inverse = one().plus(q, 1.0).inverse();
            let sum = one().plus(&rotation(q, series), 1.0);
            let found = sum.transposed().times(upstream).times(&inverse.transposed());
            Square::identity(q.1, 0.0).plus(&found, -1.0)
        }
        RotationSeries::Terms(terms) => {
            let sums = partial_sums(q, terms);
            let (transposed, mut upstream) = (q.transposed(), upstream.clone());
            let mut found = Square::identity(q.1, 0.0);
            for inner in sums.iter().rev().skip(1) {
                found = found.plus(&upstream.times(&inner.transposed()), 1.0);
                upstream = transposed.times(&upstream);
            }
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Square {
        let angles: Vec<f32> = (0..10).map(|index| 0.3 * (f64::from(index) * 1.7).sin() as f32).collect();
        skew(&angles, 5)
    }

    #[test]
    fn rotations_are_orthogonal() {
        let q = example();
        let exact = rotation(&q, RotationSeries::Exact);
        let product = exact.times(&exact.transposed());
        let far =
            product.plus(&Square::identity(5, 1.0), -1.0).0.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        assert!(far < 1e-12, "{far}");
        // The series sums (I + Q)(I - Q)^-1, the rotation the other way round.
        let series = rotation(&q, RotationSeries::Terms(60));
        let far = series.plus(&exact.transposed(), -1.0).0.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        assert!(far < 1e-9, "{far}");
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let (q, step) = (example(), 1e-6);
        let upstream = Square((0..25).map(|index| (f64::from(index) * 0.9).cos()).collect(), 5);
        let loss = |q: &Square, series| -> f64 {
            rotation(q, series).0.iter().zip(&upstream.0).map(|(value, weight)| value * weight).sum()
        };
        for series in
            [RotationSeries::Exact, RotationSeries::Terms(2), RotationSeries::Terms(3), RotationSeries::Terms(5)]
        {
            let found = back(&q, series, &upstream);
            for index in 0..25 {
                let moved = |by: f64| {
                    let mut q = q.clone();
                    q.0[index] += by;
                    loss(&q, series)
                };
                let expected = (moved(step) - moved(-step)) / (2.0 * step);
                assert!((found.0[index] - expected).abs() < 1e-7, "{series:?}, {index}: {} {expected}", found.0[index]);
            }
        }
    }

    #[test]
    fn terms_are_summed_as_peft_does() {
        assert_eq!(coefficients(1), [1.0]);
        assert_eq!(coefficients(2), [1.0, 2.0]);
        assert_eq!(coefficients(3), [1.0, 2.0, 2.0, 1.0]);
        assert_eq!(coefficients(5), [1.0, 2.0, 2.0, 2.0, 1.0]);
    }
}
