//! The micro-kernel for every processor: 4 x 8 numbers of the output in plain Rust. It is the definition that the others
//! are tested against, and what its panels look like serves AVX2 as well: f32, `[k][rows of the panel]`.

use super::Layout;
use super::decode::bf16_to_f32;
use super::kernel::{Group, MicroKernel, Native, Side};
use crate::cpu::isa::Isa;

const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Products of f32.
pub(super) struct Portable;

impl MicroKernel for Portable {
    const ISA: Isa = Isa::Portable;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const UNIT: usize = 1;
    const ELEMENT_BYTES: usize = 4;
    const CHUNK: usize = 256;
    const BLOCK_K: usize = 256;
    const B_BYTES: usize = 192 << 10;
    const C_BYTES: usize = 256 << 10;
    const OPERATIONS_PER_PACKED: usize = 16;

    unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
        // SAFETY: passed on.
        unsafe {
            match side {
                Side::A => pack_f32::<ROWS>(group, out.cast()),
                Side::B => pack_f32::<COLUMNS>(group, out.cast()),
            }
        }
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
        let mut sums = [[0.0f32; COLUMNS]; ROWS];
        let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
        // SAFETY: panels of `units` steps, and a whole tile.
        unsafe {
            if accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = c.add(row * c_stride).cast::<[f32; COLUMNS]>().read();
                }
            }
            for _ in 0..units {
                let line = b.cast::<[f32; COLUMNS]>().read();
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = *a.add(row);
                    for (sum, value) in sums.iter_mut().zip(line) {
                        *sum += factor * value;
                    }
                }
                a = a.add(ROWS);
                b = b.add(COLUMNS);
            }
            for (row, sums) in sums.iter().enumerate() {
                c.add(row * c_stride).cast::<[f32; COLUMNS]>().write(*sums);
            }
        }
    }
}

/// Packs a group as f32 `[k][WIDTH]`.
///
/// # Safety
/// The group is readable; `group.k * WIDTH` numbers are writable.
#[inline(always)]
pub(super) unsafe fn pack_f32<const WIDTH: usize>(group: &Group, out: *mut f32) {
    // SAFETY: rows below `group.rows` and steps below `group.k` only.
    unsafe {
        match group.native {
            Native::F32 => pack_lines::<WIDTH, f32>(group, out, |value| value),
            Native::Bf16 => pack_lines::<WIDTH, u16>(group, out, bf16_to_f32),
        }
    }
}

/// # Safety
/// As for [`pack_f32`]; the group's numbers are `T`.
#[inline(always)]
unsafe fn pack_lines<const WIDTH: usize, T: Copy>(group: &Group, out: *mut f32, widen: impl Fn(T) -> f32) {
    // SAFETY: as for the caller.
    unsafe {
        match group.layout {
            Layout::KStrided => {
                for k in 0..group.k {
                    let line = group.address.add(k * group.stride_bytes).cast::<T>();
                    let out = out.add(k * WIDTH);
                    for row in 0..group.rows {
                        *out.add(row) = widen(line.add(row).read_unaligned());
                    }
                    for row in group.rows..WIDTH {
                        *out.add(row) = 0.0;
                    }
                }
            }
            Layout::KContiguous => {
                for row in 0..WIDTH {
                    let line = group.address.wrapping_add(row * group.stride_bytes).cast::<T>();
                    for k in 0..group.k {
                        let value = if row < group.rows { widen(line.add(k).read_unaligned()) } else { 0.0 };
                        *out.add(k * WIDTH + row) = value;
                    }
                }
            }
        }
    }
}
