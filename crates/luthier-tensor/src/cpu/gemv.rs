//! Products with few rows, as in generation: each row of the weight is read once, straight from where it lies, decoded
//! and multiplied by all rows of x. Nothing is packed; memory sets the pace.
//!
//! A sum is 64 interleaved chains, so its last bits may differ from [`gemm`](super::gemm::gemm)'s; they depend neither on
//! the other rows nor on the number of threads. Its tests stand with those of the other products.

use std::ops::Range;

use super::gemm::decode::{bf16_to_f32, decode_row, f32_to_bf16};
use super::gemm::{Epilogue, Layout, Output, Product};
use super::isa::Isa;
use super::pool::Pool;
use crate::DType;

/// The most rows of x.
pub(crate) const MOST_ROWS: usize = 4;
/// Numbers of a weight row that are decoded at a time.
const CHUNK: usize = 256;
/// Chains that a sum is made of.
const CHAINS: usize = 16;
/// Output columns of a task.
const GRAIN: usize = 32;

/// `out = scale * sum of A B^T + bias + addend`, `[m, n]`, with at most [`MOST_ROWS`] rows. Both operands of each product
/// are `KContiguous`, of any type.
///
/// # Safety
/// As for [`gemm`](super::gemm::gemm).
///
/// # Panics
/// When there are more rows, or another layout: both are chosen by code.
pub(crate) unsafe fn gemv(
    pool: &Pool,
    isa: Isa,
    m: usize,
    n: usize,
    products: &[Product],
    out: Output,
    epilogue: &Epilogue,
) {
    assert!(m <= MOST_ROWS, "{m} rows");
    let layouts = products.iter().flat_map(|product| [product.a.layout, product.b.layout]);
    assert!(layouts.into_iter().all(|layout| layout == Layout::KContiguous), "rows of a weight are read along k");

    // x as f32 `[products][rows][k]`, each row padded with zeros to whole steps, and rows as many as the kernel has.
    let rows = rows_together(m, isa);
    let padded = |k: usize| k.next_multiple_of(CHAINS);
    let mut x = vec![0.0f32; products.iter().map(|product| rows * padded(product.k)).sum()];
    let mut offset = 0;
    for Product { a, k, .. } in products {
        for row in 0..m {
            let line = &mut x[offset + row * padded(*k)..][..*k];
            // SAFETY: the row holds k numbers, and so does its place in x.
            unsafe { decode_row(a.dtype, a.at(row, 0).address, 0, *k, line.as_mut_ptr()) };
        }
        offset += rows * padded(*k);
    }
    let task = |columns: Range<usize>| {
        isa.run(
            #[inline(always)]
            || {
                // SAFETY: each column is written by one task; x is as asked for.
                unsafe {
                    match (m, isa) {
                        (_, Isa::Portable) => columns_of::<MOST_ROWS, false>(columns, products, &x, m, &out, epilogue),
                        (1, _) => columns_of::<1, true>(columns, products, &x, m, &out, epilogue),
                        (2, _) => columns_of::<2, true>(columns, products, &x, m, &out, epilogue),
                        _ => columns_of::<MOST_ROWS, true>(columns, products, &x, m, &out, epilogue),
                    }
                }
            },
        );
    };
    pool.run_rows(n, GRAIN, task);
}

/// Rows of x that are computed together for `m` of them; rows that are not there are zeros.
fn rows_together(m: usize, isa: Isa) -> usize {
    match (m, isa) {
        (1 | 2, Isa::Amx | Isa::Avx512 | Isa::Avx2) => m,
        _ => MOST_ROWS,
    }
}

/// # Safety
/// The weights have these rows, x has `ROWS` rows for each product, the output is writable.
#[inline(always)]
unsafe fn columns_of<const ROWS: usize, const FUSED: bool>(
    columns: Range<usize>,
    products: &[Product],
    x: &[f32],
    m: usize,
    out: &Output,
    epilogue: &Epilogue,
) {
    for column in columns {
        // SAFETY: passed on.
        unsafe {
            let sums = dot::<ROWS, FUSED>(products, x, column);
            for (row, sum) in sums.into_iter().enumerate().take(m) {
                finish(sum, row, column, out, epilogue);
            }
        }
    }
}

/// Row `column` of all weights times each row of x.
///
/// # Safety
/// The weights have this row, and x has `ROWS` rows for each product.
#[inline(always)]
unsafe fn dot<const ROWS: usize, const FUSED: bool>(products: &[Product], x: &[f32], column: usize) -> [f32; ROWS] {
    let mut chains = [[0.0f32; CHAINS]; ROWS];
    let mut decoded = [0.0f32; CHUNK];
    let mut offset = 0;
    for Product { b, k, .. } in products {
        let weight = b.at(column, 0).address;
        let padded = k.next_multiple_of(CHAINS);
        for first in (0..*k).step_by(CHUNK) {
            let count = CHUNK.min(k - first);
            let used = count.next_multiple_of(CHAINS);
            let in_place = b.dtype == DType::F32 && count == CHUNK && weight.addr().is_multiple_of(4);
            let line = if in_place {
                weight.wrapping_add(4 * first).cast::<[f32; CHUNK]>()
            } else {
                decoded[count..used].fill(0.0);
                // SAFETY: the weight's row holds the numbers.
                unsafe { decode_row(b.dtype, weight, first, count, decoded.as_mut_ptr()) };
                &raw const decoded
            };
            // SAFETY: a whole chunk of f32, in the weight or decoded.
            let line = unsafe { &(&*line)[..used] };
            let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &x[offset + row * padded + first..][..used]);
            let (lines, _) = line.as_chunks::<CHAINS>();
            let rows = rows.map(|row| row.as_chunks::<CHAINS>().0);
            // By value, so that the chains stay in registers.
            let mut sums = chains;
            for (index, line) in lines.iter().enumerate() {
                for row in 0..ROWS {
                    let x = &rows[row][index];
                    for lane in 0..CHAINS {
                        let sum = sums[row][lane];
                        let (weight, x) = (line[lane], x[lane]);
                        sums[row][lane] = if FUSED { weight.mul_add(x, sum) } else { sum + weight * x };
                    }
                }
            }
            chains = sums;
        }
        offset += ROWS * padded;
    }
    chains.map(|mut chains| {
        let mut width = CHAINS / 2;
        while width > 0 {
            for i in 0..width {
                chains[i] += chains[i + width];
            }
            width /= 2;
        }
        chains[0]
    })
}

/// # Safety
/// The output, the bias and the addend have this element.
#[inline(always)]
unsafe fn finish(sum: f32, row: usize, column: usize, out: &Output, epilogue: &Epilogue) {
    let mut value = epilogue.scale * sum;
    // SAFETY: passed on.
    unsafe {
        if let Some(bias) = epilogue.bias {
            value += *bias.add(column);
        }
        if let Some(addend) = epilogue.addend {
            let at = row * addend.stride + column;
            value += match addend.dtype {
                DType::Bf16 => bf16_to_f32(*addend.address.cast::<u16>().add(at)),
                _ => *addend.address.cast::<f32>().add(at),
            };
        }
        let at = row * out.stride + column;
        match out.dtype {
            DType::Bf16 => *out.address.cast::<u16>().add(at) = f32_to_bf16(value),
            _ => *out.address.cast::<f32>().add(at) = value,
        }
    }
}
