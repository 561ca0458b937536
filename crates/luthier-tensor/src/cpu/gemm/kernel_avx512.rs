//! The AVX-512 micro-kernels: 14 x 32 numbers of the output in 28 registers, of which each step along k multiplies two
//! registers of B by 14 broadcast numbers of A. In f32, and in pairs of bf16 where the processor has `vdpbf16ps`.
//!
//! Panels are `[k][14]` and `[k][32]` for f32, `[k / 2][14][2]` and `[k / 2][32][2]` for bf16.

use std::arch::x86_64::*;

use super::epilogue::Destination;
use super::kernel::{Group, MicroKernel, Side};
use super::pack_avx512::{finish_bf16, finish_f32, pack_f32, pack_pairs};
use crate::cpu::isa::Isa;

const ROWS: usize = 14;
const COLUMNS: usize = 32;
/// Steps along k that B is fetched ahead.
const AHEAD: usize = 8;

/// Products of f32.
pub(super) struct Avx512F32;
/// Products of bf16.
pub(super) struct Avx512Bf16;

impl MicroKernel for Avx512F32 {
    const ISA: Isa = Isa::Avx512;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNIT: usize = 1;
    const ELEMENT_BYTES: usize = 4;
    const CHUNK: usize = 384;
    const BLOCK_K: usize = 384;
    const B_BYTES: usize = 576 << 10;
    const C_BYTES: usize = 768 << 10;
    const OPERATIONS_PER_PACKED: usize = 60;

    unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
        let width = if side == Side::A { ROWS } else { COLUMNS };
        // SAFETY: passed on.
        unsafe { pack_f32(group, width, out) };
    }

    unsafe fn multiply(
        _rows: usize,
        _columns: usize,
        units: usize,
        a: *const u8,
        b: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: passed on.
        unsafe { multiply_f32(units, a.cast(), b.cast(), c, c_stride, accumulate) };
    }

    unsafe fn finish(tile: *const f32, rows: usize, columns: usize, to: &Destination) {
        // SAFETY: passed on.
        unsafe { finish_f32(tile, COLUMNS, rows, columns, to) };
    }
}

impl MicroKernel for Avx512Bf16 {
    const ISA: Isa = Isa::Avx512;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNIT: usize = 2;
    const ELEMENT_BYTES: usize = 2;
    const CHUNK: usize = 768;
    const BLOCK_K: usize = 768;
    const B_BYTES: usize = 576 << 10;
    const C_BYTES: usize = 768 << 10;
    const OPERATIONS_PER_PACKED: usize = 120;

    unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
        let width = if side == Side::A { ROWS } else { COLUMNS };
        // SAFETY: passed on.
        unsafe { pack_pairs(group, width, out) };
    }

    unsafe fn multiply(
        _rows: usize,
        _columns: usize,
        units: usize,
        a: *const u8,
        b: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: passed on.
        unsafe { multiply_bf16(units, a.cast(), b.cast(), c, c_stride, accumulate) };
    }

    unsafe fn finish(tile: *const f32, rows: usize, columns: usize, to: &Destination) {
        // SAFETY: passed on.
        unsafe { finish_bf16(tile, COLUMNS, rows, columns, to) };
    }
}

/// Defines a micro-kernel over steps of 14 and 32 numbers of 32 bits; `$step` is `(accumulator, a, b) -> accumulator`.
macro_rules! multiply_function {
    ($name:ident, $features:literal, $step:expr) => {
        /// # Safety
        /// The panels have `steps` steps; the tile is readable and writable.
        #[target_feature(enable = $features)]
        unsafe fn $name(
            steps: usize,
            mut a: *const f32,
            mut b: *const f32,
            c: *mut f32,
            c_stride: usize,
            accumulate: bool,
        ) {
            // SAFETY: the addresses stay within the panels and the tile; what is fetched ahead is not read.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                if accumulate {
                    for (row, sums) in sums.iter_mut().enumerate() {
                        for (half, sum) in sums.iter_mut().enumerate() {
                            *sum = _mm512_loadu_ps(c.add(row * c_stride + half * 16));
                        }
                    }
                }
                for _ in 0..steps {
                    let b0 = _mm512_loadu_ps(b);
                    let b1 = _mm512_loadu_ps(b.add(16));
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLUMNS).cast());
                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLUMNS + 16).cast());
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let factor = _mm512_set1_ps(*a.add(row));
                        sums[0] = $step(sums[0], factor, b0);
                        sums[1] = $step(sums[1], factor, b1);
                    }
                    a = a.add(ROWS);
                    b = b.add(COLUMNS);
                }
                for (row, sums) in sums.iter().enumerate() {
                    for (half, sum) in sums.iter().enumerate() {
                        _mm512_storeu_ps(c.add(row * c_stride + half * 16), *sum);
                    }
                }
            }
        }
    };
}

multiply_function!(multiply_f32, "avx512f,avx512dq,avx512bw,avx512vl", |sum, a, b| _mm512_fmadd_ps(a, b, sum));
multiply_function!(multiply_bf16, "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16", |sum, a, b| {
    _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
});
