//! The leading singular vectors of a gradient. A block of vectors, some more than are wanted, is multiplied by the matrix
//! and its transpose again and again; then the small problem that is left is solved exactly. Where the block has as many
//! vectors as the matrix has columns, it is exact at once. From: Halko, Martinsson & Tropp 2011, algorithm 4.4.

use super::product::Factor::{Columns, Rows as Across};
use super::{Cpu, numbers, numbers_mut};
use crate::Tensor;
use crate::cpu::element::Rows;
use crate::optimisers::Side;

/// Times that the block goes through the matrix.
const ROUNDS: usize = 12;
/// Sweeps over all pairs after which a symmetric matrix is diagonal, with room to spare.
const SWEEPS: usize = 30;

impl Cpu {
    /// Writes the leading singular vectors of `matrix` into `vectors`, f32 `[rank, side]`: right ones for [`Side::Right`].
    /// `carried` `[more, side]` and `images` `[other side, more]` are to work in.
    pub(super) fn singular_vectors(
        &self,
        matrix: &Tensor,
        side: Side,
        stream: u64,
        vectors: &Tensor,
        [carried, images]: [&Tensor; 2],
    ) {
        let (count, length) = (carried.rows(), carried.columns());
        // As a function of vectors: rows of the image are rows of the matrix for the right side.
        let apply = |carried: &Tensor| match side {
            Side::Right => self.product(Across(matrix), Across(carried), 1.0, images, false),
            Side::Left => self.product(Columns(matrix), Across(carried), 1.0, images, false),
        };
        let back = |carried: &Tensor| match side {
            Side::Right => self.product(Columns(images), Columns(matrix), 1.0, carried, false),
            Side::Left => self.product(Columns(images), Across(matrix), 1.0, carried, false),
        };
        if count == length {
            self.fill_zero(carried);
            // SAFETY: nothing else uses it now.
            let numbers = unsafe { numbers_mut(carried) };
            (0..count).for_each(|index| numbers[index * length + index] = 1.0);
        } else {
            self.normal(stream, 1.0, carried);
            for _ in 0..ROUNDS {
                // SAFETY: nothing else uses it now.
                orthonormalise(unsafe { numbers_mut(carried) }, length);
                apply(carried);
                back(carried);
            }
            // SAFETY: as above.
            orthonormalise(unsafe { numbers_mut(carried) }, length);
        }
        apply(carried);
        let gram = self.gram(images);
        let (values, directions) = eigen(gram, count);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&one, &other| values[other].total_cmp(&values[one]));
        // SAFETY: the products have ended, and these are different memory.
        let (from, out) = unsafe { (numbers(carried), numbers_mut(vectors)) };
        for (vector, &place) in out.chunks_exact_mut(length).zip(&order) {
            let mut sum = vec![0.0f64; length];
            for (index, row) in from.chunks_exact(length).enumerate() {
                let share = directions[index * count + place];
                sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += share * f64::from(*number));
            }
            // A sign is free; moments outlive the vectors, so it is always the same one.
            let largest =
                sum.iter().fold(0.0f64, |largest, number| if number.abs() > largest.abs() { *number } else { largest });
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            vector.iter_mut().zip(sum).for_each(|(number, sum)| *number = (sign * sum) as f32);
        }
    }

    /// The products of all columns of f32 `[rows, n]` with one another, in f64 `[n, n]`.
    fn gram(&self, images: &Tensor) -> Vec<f64> {
        let count = images.columns();
        let mut gram = vec![0.0f64; count * count];
        let rows = Rows::<f32>::of(images);
        let out = GramRows(gram.as_mut_ptr());
        self.pool.run(count, |one| {
            // SAFETY: each task has its own row of the gram matrix.
            let sums = unsafe { out.row(one, count) };
            for row in 0..images.rows() {
                // SAFETY: the row is there.
                let numbers = unsafe { rows.row(row) };
                let own = f64::from(numbers[one]);
                sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += own * f64::from(*number));
            }
        });
        gram
    }
}

/// The rows of a matrix on the host, for tasks that write different ones.
#[derive(Clone, Copy)]
struct GramRows(*mut f64);

// SAFETY: an address only; tasks keep rows apart.
unsafe impl Send for GramRows {}
// SAFETY: as above.
unsafe impl Sync for GramRows {}

impl GramRows {
    /// # Safety
    /// The matrix is `[n, n]`, lives during `'a`, and nobody else uses this row.
    unsafe fn row<'a>(self, row: usize, count: usize) -> &'a mut [f64] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(row * count), count) }
    }
}

/// Makes the rows orthogonal and of length one, by Gram and Schmidt, twice. A row that nothing is left of becomes zero.
fn orthonormalise(numbers: &mut [f32], length: usize) {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        let mut sums = [0.0f64; 8];
        let (ones, rest) = one.as_chunks::<8>();
        let (others, other_rest) = other.as_chunks::<8>();
        for (one, other) in ones.iter().zip(others) {
            for ((sum, one), other) in sums.iter_mut().zip(one).zip(other) {
                *sum += f64::from(*one) * f64::from(*other);
            }
        }
        let rest: f64 = rest.iter().zip(other_rest).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum();
        sums.iter().sum::<f64>() + rest
    };
    for start in (0..numbers.len()).step_by(length) {
        let (before, rest) = numbers.split_at_mut(start);
        let row = &mut rest[..length];
        let size = dot(row, row).sqrt();
        row.iter_mut().for_each(|number| *number = (f64::from(*number) / size.max(f64::MIN_POSITIVE)) as f32);
        for _ in 0..2 {
            for earlier in before.chunks_exact(length) {
                let share = dot(row, earlier) as f32;
                row.iter_mut().zip(earlier).for_each(|(number, earlier)| *number -= share * earlier);
            }
            let size = dot(row, row).sqrt();
            let scale = if size > 1e-6 { 1.0 / size } else { 0.0 };
            row.iter_mut().for_each(|number| *number = (f64::from(*number) * scale) as f32);
        }
    }
}

/// Eigenvalues of a symmetric matrix `[n, n]`, and its eigenvectors as columns. From: Jacobi 1846, in cyclic order.
fn eigen(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|index| vectors[index * n + index] = 1.0);
    let scale = (0..n).map(|index| matrix[index * n + index].abs()).fold(0.0, f64::max);
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for p in 0..n {
            for q in p + 1..n {
                let off = matrix[p * n + q];
                largest = largest.max(off.abs());
                if off.abs() <= scale * 1e-18 {
                    continue;
                }
                let theta = (matrix[q * n + q] - matrix[p * n + p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                // Rows p and q, then columns p and q.
                let (upper, lower) = matrix.split_at_mut(q * n);
                for (one, other) in upper[p * n..][..n].iter_mut().zip(&mut lower[..n]) {
                    (*one, *other) = (c * *one - s * *other, s * *one + c * *other);
                }
                for row in matrix.chunks_exact_mut(n).chain(vectors.chunks_exact_mut(n)) {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
            }
        }
        if largest <= scale * 1e-15 {
            break;
        }
    }
    ((0..n).map(|index| matrix[index * n + index]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symmetric_matrix_is_its_eigenvectors_and_values() {
        let n = 7;
        let at = |row: usize, column: usize| ((row * column + 3) as f64).sin() + ((column + row) as f64).cos();
        let matrix: Vec<f64> = (0..n * n).map(|index| at(index / n, index % n) + at(index % n, index / n)).collect();
        let (values, vectors) = eigen(matrix.clone(), n);
        for row in 0..n {
            for column in 0..n {
                let found: f64 = (0..n).map(|k| vectors[row * n + k] * values[k] * vectors[column * n + k]).sum();
                assert!((found - matrix[row * n + column]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn rows_become_orthonormal_and_what_depends_on_others_zero() {
        let mut numbers = vec![1.0, 2.0, 2.0, 3.0, 0.0, 1.0, 4.0, 2.0, 3.0];
        orthonormalise(&mut numbers, 3);
        let rows: Vec<&[f32]> = numbers.chunks(3).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(rows[0], rows[0]) - 1.0).abs() < 1e-6 && dot(rows[0], rows[1]).abs() < 1e-6);
        assert_eq!(rows[2], [0.0; 3]);
    }
}
