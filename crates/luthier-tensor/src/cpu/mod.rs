//! The processor. Kernels work on raw rows because threads write disjoint parts of one tensor; each kernel's partition is
//! next to its loop. All unsafe code of the engine is below this folder, but for the arena's. Elementwise loops are plain Rust, written once
//! and compiled for each instruction set by [`Isa::run`]; only the GEMM has kernels of its own per set.

mod activation;
mod adamw;
mod attention;
mod cayley;
mod copy;
mod element;
mod encode;
pub(crate) mod gemm;
pub(crate) mod gemv;
mod head;
mod head_choice;
mod isa;
mod lanes;
mod math;
mod norm;
mod optimisers;
mod peak;
mod pool;
mod quantise;
mod reduce;
mod rotary;
mod scale;

pub(crate) use activation::Activated;
pub(crate) use attention::{AttentionShape, KeySource};
pub(crate) use cayley::Cayley;
pub(crate) use element::bytes_of;
pub use element::{bf16_bits, f16_bits};
pub use encode::encode_blocks;
pub(crate) use gemm::Coding;
pub(crate) use head::{HeadCoefficients, HeadRows, STATE};
pub(crate) use head_choice::{IdRows, UnitRows};
pub use isa::Isa;
pub(crate) use norm::RowNorm;
pub use quantise::{QuantiseError, Quantised, quantise};
pub(crate) use reduce::PIECE;
pub(crate) use rotary::{HeadNorm, RotaryShape};
pub(crate) use scale::{Magnitudes, ScaledRows};

use crate::HeadLayout;
use gemm::{Compute, Epilogue, Output, Product};
use pool::Pool;

/// Threads and the instructions that they use.
pub(crate) struct Cpu {
    pool: Pool,
    isa: Isa,
}

impl Cpu {
    pub(crate) fn new(isa: Isa, threads: usize) -> std::io::Result<Self> {
        Ok(Self { pool: Pool::new(threads)?, isa })
    }

    /// Scratch memory of all threads at most, with heads of this layout.
    pub(crate) fn scratch_bytes(&self, compute: Compute, threads: usize, layout: &HeadLayout) -> usize {
        let kernels = gemm::Kernels::new(self.isa, compute);
        threads * (gemm::scratch_bytes(self.isa, compute) + attention::scratch_bytes(&kernels, layout))
    }

    /// As [`multiply`](Self::multiply), for generation: few rows are multiplied without packing the weight, and their
    /// last bits may differ.
    pub(crate) fn multiply_few(
        &self,
        compute: Compute,
        m: usize,
        n: usize,
        products: &[Product],
        out: Output,
        epilogue: &Epilogue,
    ) {
        if m > gemv::MOST_ROWS {
            return self.multiply(compute, m, n, products, out, epilogue);
        }
        // SAFETY: as in `multiply`.
        unsafe { gemv::gemv(&self.pool, self.isa, m, n, products, out, epilogue) };
    }

    /// `out = epilogue(sum of products)`, `[m, n]`.
    pub(crate) fn multiply(
        &self,
        compute: Compute,
        m: usize,
        n: usize,
        products: &[Product],
        out: Output,
        epilogue: &Epilogue,
    ) {
        // SAFETY: operations build operands from live tensors in their shapes; an output is a tensor of its own, and the
        // tape runs one operation at a time.
        unsafe { gemm::gemm(&self.pool, self.isa, compute, m, n, products, out, epilogue) };
    }
}
