//! Packing: a block of an operand becomes panels. Operands of a type that the kernel does not pack itself are decoded,
//! one group at a time, into an f32 strip in the first-level cache, and packed from there.

use super::decode::decode_row_with;
use super::kernel::{GROUP, Group, MAX_PANEL, MicroKernel, Native, Side, unit_bytes};
use super::strip::{Strip, decode_strip, has_strip};
use super::{Layout, Operand};
use crate::DType;

/// Numbers of a line of the strip.
pub(super) const WIDTH: usize = if GROUP > MAX_PANEL { GROUP } else { MAX_PANEL };

/// Packs `rows` rows from `first_row` on and `k` numbers from `first_k` on. Panels are `panel_stride` bytes apart; in each
/// the units begin at `out`.
///
/// # Safety
/// The operand holds these numbers, the panels are writable, `K::ISA` is available.
#[expect(clippy::too_many_arguments, reason = "a rectangle of an operand, and where it goes")]
pub(super) unsafe fn pack<K: MicroKernel>(
    side: Side,
    operand: &Operand,
    first_row: usize,
    rows: usize,
    first_k: usize,
    k: usize,
    out: *mut u8,
    panel_stride: usize,
) {
    let panel_rows = match side {
        Side::A => K::ROWS,
        Side::B => K::COLUMNS,
    };
    let group_bytes = GROUP / K::UNIT * unit_bytes::<K>(side);
    let step = |panel: usize, group: usize| {
        let (row, offset) = (panel * panel_rows, group * GROUP);
        let (group_rows, group_k) = (panel_rows.min(rows - row), GROUP.min(k - offset));
        // SAFETY: a part of the rectangle, and its place in its panel.
        unsafe {
            let to = out.add(panel * panel_stride + group * group_bytes);
            pack_group::<K>(side, operand, first_row + row, group_rows, first_k + offset, group_k, to);
        }
    };
    let (panels, groups) = (rows.div_ceil(panel_rows), k.div_ceil(GROUP));
    // Along the memory: a page that is open is read as far as it is wanted.
    match operand.layout {
        Layout::KContiguous => (0..panels).for_each(|panel| (0..groups).for_each(|group| step(panel, group))),
        Layout::KStrided => (0..groups).for_each(|group| (0..panels).for_each(|panel| step(panel, group))),
    }
}

/// # Safety
/// As for [`pack`], within one group.
unsafe fn pack_group<K: MicroKernel>(
    side: Side,
    operand: &Operand,
    row: usize,
    rows: usize,
    first_k: usize,
    k: usize,
    out: *mut u8,
) {
    let (strided, contiguous, lines, length) = match operand.layout {
        Layout::KContiguous => (row, first_k, rows, k),
        Layout::KStrided => (first_k, row, k, rows),
    };
    let stride_bytes = operand.dtype().bytes(operand.stride);
    let line = operand.address.wrapping_add(strided * stride_bytes);
    let group =
        |address, native, stride_bytes| Group { address, native, layout: operand.layout, stride_bytes, rows, k };
    // SAFETY: the group is inside the operand; the strip has room for each of its lines.
    unsafe {
        match operand.dtype() {
            DType::F32 => K::pack(side, &group(line.wrapping_add(4 * contiguous), Native::F32, stride_bytes), out),
            DType::Bf16 => K::pack(side, &group(line.wrapping_add(2 * contiguous), Native::Bf16, stride_bytes), out),
            dtype if K::ELEMENT_BYTES == 2 && has_strip(dtype) => {
                // Rounded at once, as the kernel would do: half of the strip's bytes, and the faster way to pack.
                let mut strip = std::mem::MaybeUninit::<Strip>::uninit();
                let strip = strip.as_mut_ptr();
                decode_strip(operand.coding, line, stride_bytes, lines, contiguous, length, strip);
                K::pack(side, &group(strip.cast(), Native::Bf16, 2 * WIDTH), out);
            }
            _ => {
                let mut strip = std::mem::MaybeUninit::<[[f32; WIDTH]; WIDTH]>::uninit();
                let strip = strip.as_mut_ptr().cast::<f32>();
                K::ISA.run(
                    #[inline(always)]
                    || {
                        for i in 0..lines {
                            let line = line.add(i * stride_bytes);
                            decode_row_with(K::ISA, operand.coding, line, contiguous, length, strip.add(i * WIDTH));
                        }
                    },
                );
                K::pack(side, &group(strip.cast(), Native::F32, 4 * WIDTH), out);
            }
        }
    }
}
