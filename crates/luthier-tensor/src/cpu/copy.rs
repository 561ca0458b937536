//! Moving numbers: in, out, between storage types, and rows by index.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::gemm::decode::decode_row;
use crate::{DType, HeadLayout, Tensor};

const GRAIN: usize = 16;

impl Cpu {
    pub(crate) fn fill_zero(&self, tensor: &Tensor) {
        self.fill_byte(tensor, 0);
    }

    /// Sets every byte.
    pub(crate) fn fill_byte(&self, tensor: &Tensor, byte: u8) {
        const PIECE: usize = 1 << 18;
        let (address, bytes) = (Rows::<u8>::bytes(tensor), tensor.bytes());
        self.pool.run_rows(bytes, PIECE, |range| {
            // SAFETY: each task has its own range of the tensor's bytes; zero bytes are the number zero in every type.
            unsafe { address.at(0, range.start).write_bytes(byte, range.len()) };
        });
    }

    pub(crate) fn write(&self, tensor: &Tensor, bytes: &[u8]) {
        // SAFETY: the caller compared the lengths; a device's memory and the caller's slice do not overlap.
        unsafe { tensor.address_mut().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub(crate) fn read(&self, tensor: &Tensor, values: &mut [f32]) {
        for (row, values) in values.chunks_mut(tensor.columns().max(1)).enumerate() {
            // SAFETY: the row is there by the tensor's shape.
            unsafe { decode_row(tensor.coding(), row_address(tensor, row), 0, values.len(), values.as_mut_ptr()) };
        }
    }

    pub(crate) fn read_bytes(&self, tensor: &Tensor, bytes: &mut [u8]) {
        // SAFETY: the caller made it as long as the tensor; a device's memory and the caller's slice do not overlap.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(tensor.address(), bytes.len()) };
    }

    pub(crate) fn read_ids(&self, tensor: &Tensor, ids: &mut [u32]) {
        // SAFETY: the caller compared the lengths; a device's memory and the caller's slice do not overlap.
        unsafe { ids.as_mut_ptr().copy_from_nonoverlapping(tensor.address().cast(), ids.len()) };
    }

    /// `out[i] = numbers of tensor[i]`, in the storage type of `out`.
    pub(crate) fn convert(&self, tensor: &Tensor, out: &Tensor) {
        self.copy_rows(tensor, out, |row| row, 1.0);
    }

    /// `out[i] = table[ids[i]] * scale`. ids u32 `[1, rows of out]`, each below the rows of `table`; any storage type.
    pub(crate) fn embed(&self, table: &Tensor, ids: &Tensor, scale: f32, out: &Tensor) {
        // SAFETY: ids hold one u32 for each row of `out`.
        let ids = unsafe { std::slice::from_raw_parts(ids.address().cast::<u32>(), ids.len()) };
        assert!(ids.len() == out.rows() && ids.iter().all(|&id| (id as usize) < table.rows()), "ids of {table:?}");
        self.copy_rows(table, out, |row| ids[row] as usize, scale);
    }

    /// `gradient[ids[i]] += output_gradient[i] * scale`, in the order of i. f32 gradient.
    pub(crate) fn embed_backward(&self, ids: &Tensor, scale: f32, output_gradient: &Tensor, gradient: &Tensor) {
        const COLUMNS: usize = 32;
        // SAFETY: ids hold one u32 for each row of the output.
        let ids = unsafe { std::slice::from_raw_parts(ids.address().cast::<u32>(), ids.len()) };
        with_element!(output_gradient.dtype(), E, {
            let (upstream, sums) = (Rows::<E>::of(output_gradient), Rows::<f32>::of_mut(gradient));
            let last = gradient.rows() - 1;
            self.pool.run_rows(gradient.columns(), COLUMNS, |columns| {
                for (row, &id) in ids.iter().enumerate() {
                    // SAFETY: each task has its own columns of the gradient, and rows are bounded by the shapes.
                    let (sums, upstream) = unsafe {
                        let sums = sums.part_mut((id as usize).min(last), columns.start, columns.len());
                        (sums, upstream.part(row, columns.start, columns.len()))
                    };
                    for (sum, upstream) in sums.iter_mut().zip(upstream) {
                        *sum += upstream.load() * scale;
                    }
                }
            });
        });
    }

    /// `out[i] = input[rows[i]]`, of the same storage type.
    pub(crate) fn gather(&self, input: &Tensor, rows: &Tensor, out: &Tensor) {
        // SAFETY: rows hold one u32 for each row of `out`.
        let rows = unsafe { std::slice::from_raw_parts(rows.address().cast::<u32>(), rows.len()) };
        assert!(rows.len() == out.rows() && rows.iter().all(|&row| (row as usize) < input.rows()), "rows of {input:?}");
        self.copy_rows(input, out, |row| rows[row] as usize, 1.0);
    }

    /// `out[rows[i]] = input[i]` and zero elsewhere. Rows are distinct.
    pub(crate) fn scatter(&self, input: &Tensor, rows: &Tensor, out: &Tensor) {
        self.fill_zero(out);
        let (bytes, width) = (Rows::<u8>::bytes(out), out.dtype().bytes(out.columns()));
        // SAFETY: rows hold one u32 for each row of `input`.
        let rows = unsafe { std::slice::from_raw_parts(rows.address().cast::<u32>(), rows.len()) };
        for (row, &target) in rows.iter().enumerate() {
            assert!((target as usize) < out.rows(), "row {target} of {out:?}");
            // SAFETY: both rows are there; the tensors are different memory.
            unsafe {
                let source = row_address(input, row);
                bytes.at(0, target as usize * width).copy_from_nonoverlapping(source, width);
            }
        }
    }

    /// `target += addition`, of one shape and storage type.
    pub(crate) fn add(&self, target: &Tensor, addition: &Tensor) {
        with_element!(target.dtype(), E, {
            let (sums, rows) = (Rows::<E>::of_mut(target), Rows::<E>::of(addition));
            self.pool.run_rows(target.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (sums, row) = unsafe { (sums.row_mut(row), rows.row(row)) };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (sum, number) in sums.iter_mut().zip(row) {
                                *sum = E::store(sum.load() + number.load());
                            }
                        },
                    );
                }
            });
        });
    }

    /// `out[i] = input[i][first..]`, as many columns as `out` has, of one storage type.
    pub(crate) fn take_columns(&self, input: &Tensor, first: usize, out: &Tensor) {
        assert!(first + out.columns() <= input.columns() && out.rows() <= input.rows(), "{out:?} of {input:?}");
        with_element!(out.dtype(), E, {
            let (rows, out) = (Rows::<E>::of(input), Rows::<E>::of_mut(out));
            let count = out.width();
            self.pool.run_rows(input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows and columns are there by the assertion; each row belongs to one task.
                    unsafe { out.row_mut(row).copy_from_slice(rows.part(row, first, count)) };
                }
            });
        });
    }

    /// `target[i][first..] += addition[i]`, of one storage type.
    pub(crate) fn add_to_columns(&self, target: &Tensor, first: usize, addition: &Tensor) {
        let fits = first + addition.columns() <= target.columns() && addition.rows() <= target.rows();
        assert!(fits, "{addition:?} into {target:?}");
        with_element!(target.dtype(), E, {
            let (sums, rows) = (Rows::<E>::of_mut(target), Rows::<E>::of(addition));
            let count = rows.width();
            self.pool.run_rows(addition.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as above.
                    let (sums, row) = unsafe { (sums.part_mut(row, first, count), rows.row(row)) };
                    for (sum, number) in sums.iter_mut().zip(row) {
                        *sum = E::store(sum.load() + number.load());
                    }
                }
            });
        });
    }

    /// `out = base + factor * input`, of one shape and storage type; without a base, zero stands for it.
    pub(crate) fn add_scaled(&self, base: Option<&Tensor>, input: &Tensor, factor: f32, out: &Tensor) {
        with_element!(out.dtype(), E, {
            let (base, rows, out) = (base.map(Rows::<E>::of), Rows::<E>::of(input), Rows::<E>::of_mut(out));
            self.pool.run_rows(input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (input, out) = unsafe { (rows.row(row), out.row_mut(row)) };
                    // SAFETY: as above.
                    let base = base.map(|base| unsafe { base.row(row) });
                    self.isa.run(
                        #[inline(always)]
                        || match base {
                            Some(base) => {
                                for ((out, base), input) in out.iter_mut().zip(base).zip(input) {
                                    *out = E::store(base.load() + factor * input.load());
                                }
                            }
                            None => {
                                out.iter_mut().zip(input).for_each(|(out, x)| *out = E::store(factor * x.load()));
                            }
                        },
                    );
                }
            });
        });
    }

    /// Copies each row's key and value heads to the cache's rows from `first` on.
    pub(crate) fn store_keys(&self, heads: &Tensor, layout: &HeadLayout, keys: &Tensor, values: &Tensor, first: usize) {
        assert!(first + heads.rows() <= keys.rows().min(values.rows()), "rows from {first} of {keys:?}");
        with_element!(heads.dtype(), E, {
            let (rows, keys, values) = (Rows::<E>::of(heads), Rows::<E>::of_mut(keys), Rows::<E>::of_mut(values));
            let width = layout.head_dim;
            for row in 0..heads.rows() {
                // SAFETY: rows are there by the assertion above; the cache is other memory than the heads.
                let (row, keys, values) =
                    unsafe { (rows.row(row), keys.row_mut(first + row), values.row_mut(first + row)) };
                for head in 0..layout.key_value_heads {
                    keys[head * width..][..width].copy_from_slice(&row[layout.key_column(head)..][..width]);
                    values[head * width..][..width].copy_from_slice(&row[layout.value_column(head)..][..width]);
                }
            }
        });
    }

    /// `out = input * factor`, f32.
    pub(crate) fn scale(&self, input: &Tensor, factor: f32, out: &Tensor) {
        let (rows, out) = (Rows::<f32>::of(input), Rows::<f32>::of_mut(out));
        for row in 0..input.rows() {
            // SAFETY: rows are there by the tensors' shapes, and nothing else runs.
            let (input, out) = unsafe { (rows.row(row), out.row_mut(row)) };
            out.iter_mut().zip(input).for_each(|(out, input)| *out = input * factor);
        }
    }

    /// `out[t][i] = input[t][i] / (1 - share)`, or 0 with probability `share`, by a number that is a function of
    /// `(seed, tokens[t], i)` alone. tokens u32 `[1, rows]`.
    pub(crate) fn drop_out(&self, input: &Tensor, tokens: &Tensor, seed: u64, share: f32, out: &Tensor) {
        // SAFETY: one u32 for each row.
        let tokens = unsafe { std::slice::from_raw_parts(tokens.address().cast::<u32>(), input.rows()) };
        let limit = (f64::from(share) * f64::from(u32::MAX)) as u32;
        let keep = 1.0 / (1.0 - share);
        with_element!(input.dtype(), E, {
            let (rows, out) = (Rows::<E>::of(input), Rows::<E>::of_mut(out));
            self.pool.run_rows(input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (input, out) = unsafe { (rows.row(row), out.row_mut(row)) };
                    let start = row_stream(seed, tokens[row]);
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (index, (out, input)) in out.iter_mut().zip(input).enumerate() {
                                let random = counted(start, index as u32);
                                *out = E::store(if random < limit { 0.0 } else { input.load() * keep });
                            }
                        },
                    );
                }
            });
        });
    }

    /// `values[t][i] += scale * magnitudes[t] * u`, with u uniform in +-1 by a number that is a function of
    /// `(seed, tokens[t], i)` alone. tokens u32 `[1, rows]`, magnitudes f32 `[1, rows]`.
    pub(crate) fn add_noise(&self, values: &Tensor, tokens: &Tensor, magnitudes: &Tensor, seed: u64, scale: f32) {
        // SAFETY: one u32 for each row.
        let tokens = unsafe { std::slice::from_raw_parts(tokens.address().cast::<u32>(), values.rows()) };
        // SAFETY: one f32 for each row, which nothing writes now.
        let magnitudes = unsafe { Rows::<f32>::of(magnitudes).row(0) };
        with_element!(values.dtype(), E, {
            let rows = Rows::<E>::of_mut(values);
            self.pool.run_rows(values.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensor's shape; each row belongs to one task.
                    let values = unsafe { rows.row_mut(row) };
                    let start = row_stream(seed, tokens[row]);
                    let factor = magnitudes[row] * scale;
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (index, value) in values.iter_mut().enumerate() {
                                let random = counted(start, index as u32) >> 8;
                                let uniform = random as f32 * (2.0 / 16_777_215.0) - 1.0;
                                *value = E::store(value.load() + factor * uniform);
                            }
                        },
                    );
                }
            });
        });
    }

    fn copy_rows(&self, table: &Tensor, out: &Tensor, source: impl Fn(usize) -> usize + Sync, scale: f32) {
        let (coding, width) = (table.coding(), table.dtype().bytes(table.columns()));
        let table = Rows::<u8>::bytes(table);
        with_element!(out.dtype(), E, {
            let rows = Rows::<E>::of_mut(out);
            self.pool.run_rows(out.rows(), GRAIN, |range| {
                let mut numbers = vec![0.0; if E::DTYPE == DType::F32 { 0 } else { rows.width() }];
                for row in range {
                    // SAFETY: the source row is there by the caller's bound; each output row belongs to one task.
                    let (out, address) = unsafe { (rows.row_mut(row), table.at(0, source(row) * width).cast_const()) };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            if let Some(out) = f32_slice(out) {
                                // SAFETY: as above.
                                unsafe { decode_row(coding, address, 0, out.len(), out.as_mut_ptr()) };
                                out.iter_mut().for_each(|number| *number *= scale);
                            } else {
                                // SAFETY: as above.
                                unsafe { decode_row(coding, address, 0, numbers.len(), numbers.as_mut_ptr()) };
                                for (out, number) in out.iter_mut().zip(&numbers) {
                                    *out = E::store(number * scale);
                                }
                            }
                        },
                    );
                }
            });
        });
    }
}

/// Where the random numbers of a row begin.
#[inline(always)]
pub(super) fn row_stream(seed: u64, row: u32) -> u32 {
    mix(mix(seed as u32) ^ mix((seed >> 32) as u32 ^ 0x9e37_79b9) ^ mix(row))
}

/// Random number `index` of a stream.
#[inline(always)]
pub(super) fn counted(stream: u32, index: u32) -> u32 {
    mix(stream.wrapping_add(index.wrapping_mul(0x85eb_ca6b)))
}

/// A bijection of 32 bits in which every bit depends on every other. From: Wellons 2018, "lowbias32".
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The slice itself when it already holds f32.
fn f32_slice<E: Element>(values: &mut [E]) -> Option<&mut [f32]> {
    // SAFETY: E is f32 where its storage type says so.
    (E::DTYPE == DType::F32)
        .then(|| unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) })
}

/// The address of a row in whatever storage type.
fn row_address(tensor: &Tensor, row: usize) -> *const u8 {
    tensor.address().wrapping_add(row * tensor.dtype().bytes(tensor.columns()))
}
