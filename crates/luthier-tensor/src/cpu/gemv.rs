//! Products with few rows, as in generation: each row of the weight is read once, straight from where it lies, decoded
//! and multiplied by all rows of x. Nothing is packed; memory sets the pace.
//!
//! A sum is 64 interleaved chains, so its last bits may differ from [`gemm`](super::gemm::gemm)'s; they depend neither on
//! the other rows nor on the number of threads. Its tests stand with those of the other products.

use super::gemm::decode::{bf16_to_f32, decode_row, decode_row_with, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::gemm::{Epilogue, Layout, Output, Product};
use super::isa::Isa;
use super::pool::Pool;
use crate::DType;

/// The most rows of x.
pub(crate) const MOST_ROWS: usize = 4;
/// Numbers of a weight row that are decoded at a time.
const CHUNK: usize = 512;
/// Chains that a sum is made of; four registers of sixteen.
const CHAINS: usize = 64;
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

    // x as f32 `[products][m][k]`, each row padded with zeros to whole steps.
    let padded = |k: usize| k.next_multiple_of(CHAINS);
    let mut x = vec![0.0f32; products.iter().map(|product| m * padded(product.k)).sum()];
    let mut offset = 0;
    for Product { a, k, .. } in products {
        for row in 0..m {
            let line = &mut x[offset..][..*k];
            // SAFETY: the row holds k numbers, and so does its place in x.
            unsafe { decode_row(a.coding, a.at(row, 0).address, 0, *k, line.as_mut_ptr()) };
            offset += padded(*k);
        }
    }
    pool.run_rows(n, GRAIN, |columns| {
        isa.run(
            #[inline(always)]
            || {
                for column in columns {
                    // SAFETY: each column is written by one task; the weights have this row.
                    unsafe {
                        let sums = dot(isa, products, &x, m, column);
                        for (row, sum) in sums.into_iter().enumerate().take(m) {
                            finish(sum, row, column, &out, epilogue);
                        }
                    }
                }
            },
        );
    });
}

/// Row `column` of all weights times each row of x.
///
/// # Safety
/// The weights have this row, and x is as [`gemv`] makes it.
#[inline(always)]
unsafe fn dot(isa: Isa, products: &[Product], x: &[f32], m: usize, column: usize) -> [f32; MOST_ROWS] {
    let mut chains = [[0.0f32; CHAINS]; MOST_ROWS];
    let mut decoded = [0.0f32; CHUNK];
    let mut offset = 0;
    for Product { b, k, .. } in products {
        let weight = b.at(column, 0).address;
        let padded = k.next_multiple_of(CHAINS);
        for first in (0..*k).step_by(CHUNK) {
            let count = CHUNK.min(k - first);
            let used = count.next_multiple_of(CHAINS);
            let in_place = b.dtype() == DType::F32 && count == CHUNK && weight.addr().is_multiple_of(4);
            let line = if in_place {
                weight.wrapping_add(4 * first).cast::<[f32; CHUNK]>()
            } else {
                decoded[count..used].fill(0.0);
                // SAFETY: the weight's row holds the numbers.
                unsafe { decode_row_with(isa, b.coding, weight, first, count, decoded.as_mut_ptr()) };
                &raw const decoded
            };
            // SAFETY: a whole chunk of f32, in the weight or decoded.
            let (line, _) = unsafe { &*line }[..used].as_chunks::<CHAINS>();
            for (row, chains) in chains.iter_mut().enumerate().take(m) {
                let (x, _) = x[offset + row * padded + first..][..used].as_chunks::<CHAINS>();
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the set is available.
                    Isa::Amx | Isa::Avx512 => unsafe { x86_64::add_products_avx512(line, x, chains) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: the set is available.
                    Isa::Avx2 => unsafe { x86_64::add_products_avx2(line, x, chains) },
                    _ => add_products(line, x, chains),
                }
            }
        }
        offset += m * padded;
    }
    let mut sums = [0.0; MOST_ROWS];
    for (sum, chains) in sums.iter_mut().zip(&mut chains).take(m) {
        let mut width = CHAINS / 2;
        while width > 0 {
            for i in 0..width {
                chains[i] += chains[i + width];
            }
            width /= 2;
        }
        *sum = chains[0];
    }
    sums
}

/// `chains += line * x`, lane by lane.
fn add_products(line: &[[f32; CHAINS]], x: &[[f32; CHAINS]], chains: &mut [f32; CHAINS]) {
    for (line, x) in line.iter().zip(x) {
        for ((chain, weight), x) in chains.iter_mut().zip(line).zip(x) {
            *chain += weight * x;
        }
    }
}

/// [`add_products`] with chains in registers, which the compiler does not manage by itself.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::CHAINS;

    macro_rules! add_products {
        ($name:ident, $features:literal, $lanes:literal, $load:ident, $fused:ident, $store:ident) => {
            #[inline]
            #[target_feature(enable = $features)]
            pub(super) fn $name(line: &[[f32; CHAINS]], x: &[[f32; CHAINS]], chains: &mut [f32; CHAINS]) {
                // SAFETY: each array has CHAINS numbers.
                unsafe {
                    let mut sums: [_; CHAINS / $lanes] =
                        std::array::from_fn(|i| $load(chains.as_ptr().add($lanes * i)));
                    for (line, x) in line.iter().zip(x) {
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let (line, x) = (line.as_ptr().add($lanes * i), x.as_ptr().add($lanes * i));
                            *sum = $fused($load(line), $load(x), *sum);
                        }
                    }
                    for (i, sum) in sums.into_iter().enumerate() {
                        $store(chains.as_mut_ptr().add($lanes * i), sum);
                    }
                }
            }
        };
    }

    add_products!(add_products_avx512, "avx512f", 16, _mm512_loadu_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
    add_products!(add_products_avx2, "avx2,fma", 8, _mm256_loadu_ps, _mm256_fmadd_ps, _mm256_storeu_ps);
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
                DType::F16 => f16_to_f32(*addend.address.cast::<u16>().add(at)),
                _ => *addend.address.cast::<f32>().add(at),
            };
        }
        let at = row * out.stride + column;
        match out.dtype {
            DType::Bf16 => *out.address.cast::<u16>().add(at) = f32_to_bf16(value),
            DType::F16 => *out.address.cast::<u16>().add(at) = f32_to_f16(value),
            _ => *out.address.cast::<f32>().add(at) = value,
        }
    }
}
