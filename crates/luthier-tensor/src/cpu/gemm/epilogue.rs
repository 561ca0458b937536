//! The end of a product: a finished f32 tile is scaled, gets bias and addend, and is rounded once to the output's type.
//! One version in plain Rust; the AVX-512 kernels have theirs, which gives the same bytes save for bf16 results below the
//! smallest normal number, which the processor's conversion turns into zero.

use super::decode::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::kernel::MAX_PANEL;
use super::{Epilogue, Output};
use crate::DType;

/// Where a tile goes, and what is added on the way: the fields of [`Epilogue`] and [`Output`], moved to the tile's corner.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) scale: f32,
    pub(super) bias: Option<*const f32>,
    pub(super) addend: Option<(*const u8, DType, usize)>,
    pub(super) address: *mut u8,
    pub(super) dtype: DType,
    pub(super) stride: usize,
}

impl Destination {
    pub(super) fn new(out: &Output, epilogue: &Epilogue, row: usize, column: usize) -> Self {
        let offset = |dtype: DType, stride: usize| dtype.bytes(row * stride + column);
        Self {
            scale: epilogue.scale,
            bias: epilogue.bias.map(|bias| bias.wrapping_add(column)),
            addend: epilogue.addend.map(|addend| {
                let address = addend.address.wrapping_add(offset(addend.dtype, addend.stride));
                (address, addend.dtype, addend.stride)
            }),
            address: out.address.wrapping_add(offset(out.dtype, out.stride)),
            dtype: out.dtype,
            stride: out.stride,
        }
    }
}

/// Writes `rows` x `columns` numbers of a tile whose rows are `tile_stride` apart.
///
/// # Safety
/// The tile and the addend are readable, the bias has `columns` numbers, and the destination is writable.
#[inline(always)]
pub(super) unsafe fn finish(tile: *const f32, tile_stride: usize, rows: usize, columns: usize, to: &Destination) {
    let mut line = [0.0f32; MAX_PANEL];
    let line = &mut line[..columns];
    for row in 0..rows {
        // SAFETY: `row` and the indices below `columns` are inside what the caller promises.
        unsafe {
            let sums = tile.add(row * tile_stride);
            for (i, value) in line.iter_mut().enumerate() {
                *value = to.scale * *sums.add(i);
            }
            if let Some(bias) = to.bias {
                for (i, value) in line.iter_mut().enumerate() {
                    *value += *bias.add(i);
                }
            }
            match to.addend {
                Some((address, DType::Bf16, stride)) => {
                    let addend = address.cast::<u16>().add(row * stride);
                    for (i, value) in line.iter_mut().enumerate() {
                        *value += bf16_to_f32(*addend.add(i));
                    }
                }
                Some((address, DType::F16, stride)) => {
                    let addend = address.cast::<u16>().add(row * stride);
                    for (i, value) in line.iter_mut().enumerate() {
                        *value += f16_to_f32(*addend.add(i));
                    }
                }
                Some((address, _, stride)) => {
                    let addend = address.cast::<f32>().add(row * stride);
                    for (i, value) in line.iter_mut().enumerate() {
                        *value += *addend.add(i);
                    }
                }
                None => (),
            }
            let half = to.address.cast::<u16>().wrapping_add(row * to.stride);
            match to.dtype {
                DType::Bf16 => line.iter().enumerate().for_each(|(i, value)| *half.add(i) = f32_to_bf16(*value)),
                DType::F16 => line.iter().enumerate().for_each(|(i, value)| *half.add(i) = f32_to_f16(*value)),
                _ => {
                    let out = to.address.cast::<f32>().add(row * to.stride);
                    std::ptr::copy_nonoverlapping(line.as_ptr(), out, columns);
                }
            }
        }
    }
}
