//! Vectors that scale the columns of rows or the rows of a matrix, and the sums that are their gradients. All sums have an
//! order that no thread count changes.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::gemm::decode::decode_row;
use super::math::sum_over;
use crate::Tensor;

/// Rows, or columns of a sum, that one task takes.
const GRAIN: usize = 16;
const COLUMNS: usize = 64;

/// Rows of a product that a vector scales on their way to the output.
pub(crate) struct ScaledRows<'a> {
    /// `[rows, n]`
    pub(crate) sums: &'a Tensor,
    /// f32 `[1, n]`
    pub(crate) vector: &'a Tensor,
    /// Of the product alone.
    pub(crate) scale: f32,
    /// f32 `[1, n]`
    pub(crate) bias: Option<&'a Tensor>,
    /// Of the output's shape.
    pub(crate) addend: Option<&'a Tensor>,
}

/// What divides magnitudes: norms of the rows of W + scale * B A.
pub(crate) struct Magnitudes<'a> {
    /// f32 `[1, out]`
    pub(crate) magnitudes: &'a Tensor,
    /// f32 `[1, out]`: |W|^2 of each row.
    pub(crate) squares: &'a Tensor,
    /// f32 `[rank, out]`: A W^T.
    pub(crate) crossed: &'a Tensor,
    /// f32 `[rank, rank]`: A A^T.
    pub(crate) gram: &'a Tensor,
    /// f32 `[out, rank]`: B.
    pub(crate) up: Option<&'a Tensor>,
    pub(crate) scale: f32,
}

impl Cpu {
    /// `tensor[t][first + c] *= factor * vector[c]`. vector f32 `[1, n]`.
    pub(crate) fn scale_columns(&self, tensor: &Tensor, first: usize, vector: &Tensor, factor: f32) {
        // SAFETY: the vector has this one row, and it is other memory.
        let vector = unsafe { Rows::<f32>::of(vector).row(0) };
        with_element!(tensor.dtype(), E, {
            let rows = Rows::<E>::of_mut(tensor);
            self.pool.run_rows(tensor.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: the columns are there by the caller's layout; each row belongs to one task.
                    let numbers = unsafe { rows.part_mut(row, first, vector.len()) };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (number, scale) in numbers.iter_mut().zip(vector) {
                                *number = E::store(number.load() * (factor * scale));
                            }
                        },
                    );
                }
            });
        });
    }

    /// `out[t][first + c] = scale * vector[c] * sums[t][c] + bias[c] + addend[t][first + c]`.
    pub(crate) fn write_scaled(&self, scaled: &ScaledRows, out: &Tensor, first: usize) {
        let vector_row = |vector: &Tensor| {
            // SAFETY: a vector has this one row, and it is other memory than the output.
            unsafe { Rows::<f32>::of(vector).row(0) }
        };
        let (vector, bias) = (vector_row(scaled.vector), scaled.bias.map(vector_row));
        with_element!(out.dtype(), E, {
            let (sums, rows) = (Rows::<E>::of(scaled.sums), Rows::<E>::of_mut(out));
            let addend = scaled.addend.map(Rows::<E>::of);
            self.pool.run_rows(out.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: the columns are there by the caller's layout; each row belongs to one task.
                    let (sums, numbers, addend) = unsafe {
                        let numbers = rows.part_mut(row, first, vector.len());
                        (sums.row(row), numbers, addend.map(|addend| addend.part(row, first, vector.len())))
                    };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (column, number) in numbers.iter_mut().enumerate() {
                                let product = scaled.scale * vector[column] * sums[column].load();
                                let bias = bias.map_or(0.0, |bias| bias[column]);
                                *number = E::store(product + bias + addend.map_or(0.0, |addend| addend[column].load()));
                            }
                        },
                    );
                }
            });
        });
    }

    /// `sums[c] += scale * sum over rows of a[t][first_a + c] * b[t][first_b + c]`. sums f32 `[1, n]`.
    pub(crate) fn add_column_dots(
        &self,
        (a, first_a): (&Tensor, usize),
        (b, first_b): (&Tensor, usize),
        scale: f32,
        sums: &Tensor,
    ) {
        with_element!(a.dtype(), E, {
            let (a_rows, b_rows, out) = (Rows::<E>::of(a), Rows::<E>::of(b), Rows::<f32>::of_mut(sums));
            self.pool.run_rows(sums.columns(), COLUMNS, |columns| {
                // SAFETY: each task has its own columns.
                let sums = unsafe { out.part_mut(0, columns.start, columns.len()) };
                self.isa.run(
                    #[inline(always)]
                    || {
                        for row in 0..a.rows() {
                            // SAFETY: rows and columns are there by the caller's layout.
                            let (a, b) = unsafe {
                                let a = a_rows.part(row, first_a + columns.start, columns.len());
                                (a, b_rows.part(row, first_b + columns.start, columns.len()))
                            };
                            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                                *sum += a.load() * b.load() * scale;
                            }
                        }
                    },
                );
            });
        });
    }

    /// `matrix[i] *= vector[i]`, row by row. Both f32; vector `[1, rows]`.
    pub(crate) fn scale_matrix_rows(&self, matrix: &Tensor, vector: &Tensor) {
        // SAFETY: the vector has this one row, and it is other memory.
        let (rows, vector) = (Rows::<f32>::of_mut(matrix), unsafe { Rows::<f32>::of(vector).row(0) });
        self.pool.run_rows(matrix.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: the row is there by the tensor's shape, and it belongs to one task.
                unsafe { rows.row_mut(row) }.iter_mut().for_each(|number| *number *= vector[row]);
            }
        });
    }

    /// `sums[i] += sum over columns of a[i] * b[i]`. a f32, b of its shape in any storage type, sums f32 `[1, rows]`.
    pub(crate) fn add_row_dots(&self, a: &Tensor, b: &Tensor, sums: &Tensor) {
        let (a_rows, out) = (Rows::<f32>::of(a), Rows::<f32>::of_mut(sums));
        let (b_bytes, b_width) = (Rows::<u8>::bytes(b), b.dtype().bytes(b.columns()));
        self.pool.run_rows(a.rows(), GRAIN, |range| {
            let mut numbers = vec![0.0; b.columns()];
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each sum belongs to one task.
                let (a, sum) = unsafe {
                    let address = b_bytes.at(0, row * b_width).cast_const();
                    decode_row(b.coding(), address, 0, numbers.len(), numbers.as_mut_ptr());
                    (a_rows.row(row), &mut out.part_mut(0, row, 1)[0])
                };
                *sum += sum_over(a.len(), |column| a[column] * numbers[column]);
            }
        });
    }

    /// `sums[i] += sum of squares of row i`. matrix in any storage type, sums f32 `[1, rows]`.
    pub(crate) fn row_squares(&self, matrix: &Tensor, sums: &Tensor) {
        let out = Rows::<f32>::of_mut(sums);
        let (bytes, width) = (Rows::<u8>::bytes(matrix), matrix.dtype().bytes(matrix.columns()));
        self.pool.run_rows(matrix.rows(), GRAIN, |range| {
            let mut numbers = vec![0.0; matrix.columns()];
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each sum belongs to one task.
                let sum = unsafe {
                    let address = bytes.at(0, row * width).cast_const();
                    decode_row(matrix.coding(), address, 0, numbers.len(), numbers.as_mut_ptr());
                    &mut out.part_mut(0, row, 1)[0]
                };
                *sum += sum_over(numbers.len(), |column| numbers[column] * numbers[column]);
            }
        });
    }

    /// `factors[i] = magnitudes[i] / norm of row i`, and the inverse norms. Both f32 `[1, out]`.
    pub(crate) fn divide_by_norms(&self, of: &Magnitudes, factors: &Tensor, inverse_norms: &Tensor) {
        let rank = of.up.map_or(0, Tensor::columns);
        let (factors, inverses) = (Rows::<f32>::of_mut(factors), Rows::<f32>::of_mut(inverse_norms));
        let (crossed, gram, up) = (Rows::<f32>::of(of.crossed), Rows::<f32>::of(of.gram), of.up.map(Rows::<f32>::of));
        // SAFETY: vectors have this one row, and they are other memory than what is written.
        let (magnitudes, squares) =
            unsafe { (Rows::<f32>::of(of.magnitudes).row(0), Rows::<f32>::of(of.squares).row(0)) };
        self.pool.run_rows(magnitudes.len(), GRAIN, |range| {
            for row in range {
                let scale = f64::from(of.scale);
                let mut square = f64::from(squares[row]);
                if let Some(up) = up {
                    // SAFETY: rows are there by the tensors' shapes.
                    let up = unsafe { up.row(row) };
                    for first in 0..rank {
                        // SAFETY: the same.
                        let (crossed, gram) = unsafe { (crossed.row(first)[row], gram.row(first)) };
                        let along: f64 = gram.iter().zip(up).map(|(gram, up)| f64::from(*gram) * f64::from(*up)).sum();
                        square += scale * f64::from(up[first]) * (2.0 * f64::from(crossed) + scale * along);
                    }
                }
                let inverse = 1.0 / square.max(0.0).sqrt();
                // SAFETY: each number belongs to one task.
                unsafe {
                    factors.part_mut(0, row, 1)[0] = (f64::from(magnitudes[row]) * inverse) as f32;
                    inverses.part_mut(0, row, 1)[0] = inverse as f32;
                }
            }
        });
    }
}
