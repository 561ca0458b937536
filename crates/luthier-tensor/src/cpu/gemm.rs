//! Matrix products of any operands with everything that belongs to them: several products in one sum, operands decoded
//! while they are packed, and one epilogue that scales, adds bias and addend, and rounds once.
//!
//! Each element of the output is one chain of additions in f32 over the products in their order and over k upwards. The
//! chain depends on nothing but the products and the instruction set: blocks continue it in the same accumulators, and
//! edges are padded with zeros. So a row's bytes do not depend on its neighbours, its position, or the number of threads.
//!
//! It refuses nothing at run time: shapes are chosen by code. It never reads outside an operand, nor writes outside the
//! output; what it reads as padding is its own zeros.

pub(crate) mod decode;
pub(super) mod decode_run;
mod driver;
mod epilogue;
pub(crate) mod four_bits;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod kernel_amx;
#[cfg(target_arch = "x86_64")]
mod kernel_avx2;
#[cfg(target_arch = "x86_64")]
mod kernel_avx512;
mod kernel_portable;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_avx512;
mod packed;
mod plan;
mod strip;
#[cfg(test)]
mod tests;

use crate::DType;
use crate::cpu::isa::Isa;
use crate::cpu::pool::Pool;
pub(crate) use decode::Coding;
use kernel::MicroKernel;
pub(crate) use packed::Kernels;

/// How an operand `[rows, k]` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Element (row i, k) is number `i * stride + k`.
    KContiguous,
    /// Element (row i, k) is number `k * stride + i`.
    KStrided,
}

/// A matrix `[rows, k]` in memory. Numbers in blocks lie along the contiguous direction; the address is a block's start
/// and the stride a whole number of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) address: *const u8,
    pub(crate) coding: Coding,
    /// In numbers.
    pub(crate) stride: usize,
    pub(crate) layout: Layout,
}

/// One term of the sum: A is `[m, k]`, B is `[n, k]`, the product is A B^T.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) a: Operand,
    pub(crate) b: Operand,
    pub(crate) k: usize,
}

/// What the operands are multiplied as. Sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compute {
    F32,
    /// Rounded to bf16 where they are not bf16 already; on an instruction set without such products, as `F32`.
    Bf16,
}

/// A matrix `[m, n]` to write: f32, bf16 or f16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) address: *mut u8,
    pub(crate) dtype: DType,
    /// In numbers.
    pub(crate) stride: usize,
}

/// A matrix `[m, n]` to add: f32, bf16 or f16. It may be the very memory of the output, then with the same type and stride.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addend {
    pub(crate) address: *const u8,
    pub(crate) dtype: DType,
    /// In numbers.
    pub(crate) stride: usize,
}

/// What happens to a sum before it is written: `out = scale * sum + bias + addend`, in this order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue {
    pub(crate) scale: f32,
    /// `[n]`.
    pub(crate) bias: Option<*const f32>,
    pub(crate) addend: Option<Addend>,
}

impl Epilogue {
    /// The sum as it is.
    pub(crate) const NONE: Self = Self { scale: 1.0, bias: None, addend: None };
}

// SAFETY: these name memory without owning it; kernels read operands only and write disjoint parts of the output.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}
// SAFETY: as above.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}
// SAFETY: as above.
unsafe impl Send for Addend {}
// SAFETY: as above.
unsafe impl Sync for Addend {}
// SAFETY: as above.
unsafe impl Send for Epilogue {}
// SAFETY: as above.
unsafe impl Sync for Epilogue {}

impl Operand {
    /// How its numbers are stored.
    pub(crate) fn dtype(&self) -> DType {
        self.coding.dtype
    }

    /// The operand that begins at `row` and `k`. In the contiguous direction that is a block's start.
    pub(crate) fn at(&self, row: usize, k: usize) -> Self {
        let (strided, contiguous) = match self.layout {
            Layout::KContiguous => (row, k),
            Layout::KStrided => (k, row),
        };
        debug_assert!(contiguous.is_multiple_of(self.dtype().block_len()), "a block is not divided");
        let bytes = strided * self.dtype().bytes(self.stride) + self.dtype().bytes(contiguous);
        Self { address: self.address.wrapping_add(bytes), ..*self }
    }
}

/// Calls a function that is generic over the micro-kernel, for the one that an instruction set and a way to compute use.
macro_rules! with_kernel {
    ($isa:expr, $compute:expr, $function:ident ( $($argument:expr),* )) => {
        match ($isa, $compute) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Amx, Compute::Bf16) => $function::<crate::cpu::gemm::kernel_amx::Amx>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Compute::Bf16) if $isa.bf16_multiplies() => {
                $function::<crate::cpu::gemm::kernel_avx512::Avx512Bf16>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Amx | Isa::Avx512, _) => $function::<crate::cpu::gemm::kernel_avx512::Avx512F32>($($argument),*),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => $function::<crate::cpu::gemm::kernel_avx2::Avx2>($($argument),*),
            _ => $function::<crate::cpu::gemm::kernel_portable::Portable>($($argument),*),
        }
    };
}
use with_kernel;

/// `out = scale * sum of A B^T + bias + addend`, `[m, n]`.
///
/// # Safety
/// Operands are readable and the output writable in the shapes given; the output overlaps no operand; nothing else
/// writes any of them meanwhile. `isa` is available.
#[expect(clippy::too_many_arguments, reason = "the whole of a product in one call, as BLAS has it")]
pub(crate) unsafe fn gemm(
    pool: &Pool,
    isa: Isa,
    compute: Compute,
    m: usize,
    n: usize,
    products: &[Product],
    out: Output,
    epilogue: &Epilogue,
) {
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: passed on.
    unsafe { with_kernel!(isa, compute, run_driver(pool, m, n, products, out, epilogue)) };
}

use driver::run as run_driver;

/// Runs `body` with the matrix unit configured for this thread, where `Isa::Amx` is available.
#[cfg(target_arch = "x86_64")]
pub(crate) fn with_tiles(body: impl FnOnce()) {
    // SAFETY: the caller has `Isa::Amx`; every entry is left again on the same thread.
    unsafe {
        kernel_amx::Amx::enter();
        body();
        kernel_amx::Amx::leave();
    }
}

/// Scratch memory that [`gemm`] takes from each thread that works, whatever the shapes.
pub(crate) fn scratch_bytes(isa: Isa, compute: Compute) -> usize {
    with_kernel!(isa, compute, scratch_of())
}

const fn scratch_of<K: MicroKernel>() -> usize {
    driver::scratch_bytes::<K>()
}
