//! The AVX2 micro-kernel: 6 x 16 numbers of the output in twelve registers, in f32.

use std::arch::x86_64::*;

use super::kernel::{Group, MicroKernel, Side};
use super::kernel_portable::pack_f32;
use crate::cpu::isa::Isa;

const ROWS: usize = 6;
const COLUMNS: usize = 16;

/// Products of f32.
pub(super) struct Avx2;

impl MicroKernel for Avx2 {
    const ISA: Isa = Isa::Avx2;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNIT: usize = 1;
    const ELEMENT_BYTES: usize = 4;
    const CHUNK: usize = 320;
    const BLOCK_K: usize = 320;
    const B_BYTES: usize = 256 << 10;
    const C_BYTES: usize = 512 << 10;
    const OPERATIONS_PER_PACKED: usize = 40;

    unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
        // SAFETY: passed on.
        Self::ISA.run(
            #[inline(always)]
            || unsafe {
                match side {
                    Side::A => pack_f32::<ROWS>(group, out.cast()),
                    Side::B => pack_f32::<COLUMNS>(group, out.cast()),
                }
            },
        );
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
        unsafe { multiply(units, a.cast(), b.cast(), c, c_stride, accumulate) };
    }
}

/// # Safety
/// The panels have `steps` steps; the tile is readable and writable.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply(steps: usize, mut a: *const f32, mut b: *const f32, c: *mut f32, c_stride: usize, accumulate: bool) {
    // SAFETY: the addresses stay within the panels and the tile.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        if accumulate {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (half, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(c.add(row * c_stride + half * 8));
                }
            }
        }
        for _ in 0..steps {
            let b0 = _mm256_loadu_ps(b);
            let b1 = _mm256_loadu_ps(b.add(8));
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = _mm256_set1_ps(*a.add(row));
                sums[0] = _mm256_fmadd_ps(factor, b0, sums[0]);
                sums[1] = _mm256_fmadd_ps(factor, b1, sums[1]);
            }
            a = a.add(ROWS);
            b = b.add(COLUMNS);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(c.add(row * c_stride + half * 8), *sum);
            }
        }
    }
}
