//! A matrix into blocks: bitsandbytes' four bits, with double quantisation or without, and ggml's `Q8_0`. Codes, scales and
//! scales of scales are those of bitsandbytes 0.50 on a processor, to the bit, with one exception that no program can share:
//! the mean of the scales is rounded once here, while PyTorch's depends on its threads in the last bit.
//!
//! The source is read once, some rows at a time, by several threads; the caller is told of each part that is done, so that it
//! can let go of it.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::element::f16_bits;
use super::gemm::{Coding, decode::decode_row, four_bits};
use super::isa::Isa;
use crate::nested::{DYNAMIC_MAP, GROUP};
use crate::{DType, Tensor};

/// Numbers that a thread takes at a time.
const PART: usize = 1 << 20;

/// A matrix in blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantised {
    /// The blocks, row by row.
    pub blocks: Vec<u8>,
    /// The offset and the scales of [`Tensor::with_nested_scales`], where the storage type has them.
    pub nested: Option<(f32, Vec<f32>)>,
}

/// Why a matrix cannot be quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantiseError {
    /// Rows are no whole number of blocks.
    #[error("its rows have {columns} numbers, which is no multiple of the {block} that {dtype} stores together")]
    Columns {
        /// Numbers of a row.
        columns: usize,
        /// Numbers of a block.
        block: usize,
        /// The storage type asked for.
        dtype: DType,
    },
    /// A block has a number that is not finite.
    #[error("row {row} has a number that is not finite, or too large for {dtype}")]
    NotFinite {
        /// Counted from 0.
        row: usize,
        /// The storage type asked for.
        dtype: DType,
    },
}

/// `source`, in any storage type, as one of [`DType::BITSANDBYTES`] or as `Q8_0`. `done` is told of rows that are not read again.
///
/// # Errors
/// When rows are no whole number of blocks, or a number is not finite.
///
/// # Panics
/// When `dtype` is another: a caller chooses it, no input does.
pub fn quantise(
    source: &Tensor,
    dtype: DType,
    threads: usize,
    done: &(dyn Fn(Range<usize>) + Sync),
) -> Result<Quantised, QuantiseError> {
    assert!(dtype == DType::Q8_0 || DType::BITSANDBYTES.contains(&dtype), "{dtype} is not made here");
    let (rows, columns, block) = (source.rows(), source.columns(), dtype.block_len());
    if !columns.is_multiple_of(block) {
        return Err(QuantiseError::Columns { columns, block, dtype });
    }
    let part_rows = (PART / columns.max(1)).max(1);
    let row_bytes = dtype.bytes(columns);
    let mut blocks = vec![0; row_bytes * rows];
    let mut largest = vec![0.0f32; rows * columns / block];
    let isa = Isa::detect();
    let failed = Mutex::new(None);
    {
        let parts = blocks
            .chunks_mut((part_rows * row_bytes).max(1))
            .zip(largest.chunks_mut((part_rows * columns / block).max(1)));
        let parts = Mutex::new(parts.enumerate());
        let work = || {
            let mut numbers = vec![0.0f32; columns];
            loop {
                let taken = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((part, (blocks, largest))) = taken else { break };
                let first = part * part_rows;
                let lines = blocks.chunks_exact_mut(row_bytes).zip(largest.chunks_exact_mut(columns / block));
                let count = lines.len();
                for (row, (blocks, largest)) in (first..).zip(lines) {
                    read_row(isa, source, row, &mut numbers);
                    if !isa.run(
                        #[inline(always)]
                        || encode_row(&numbers, dtype, blocks, largest),
                    ) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(row);
                        return;
                    }
                }
                done(first..first + count);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
    }
    if let Some(row) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(QuantiseError::NotFinite { row, dtype });
    }
    let nested = dtype.has_nested_scales().then(|| nest(&largest, blocks.chunks_exact_mut(dtype.block_bytes())));
    Ok(Quantised { blocks, nested })
}

fn read_row(isa: Isa, source: &Tensor, row: usize, numbers: &mut [f32]) {
    let address = source.address().wrapping_add(row * source.dtype().bytes(source.columns()));
    let coding: Coding = source.coding();
    isa.run(
        #[inline(always)]
        // SAFETY: the row is there by the tensor's shape.
        || unsafe { decode_row(coding, address, 0, numbers.len(), numbers.as_mut_ptr()) },
    );
}

/// Encodes a row; `largest` gets each block's largest magnitude. False when a number is not finite.
#[inline(always)]
fn encode_row(numbers: &[f32], dtype: DType, blocks: &mut [u8], largest: &mut [f32]) -> bool {
    if dtype == DType::Q8_0 {
        let blocks = blocks.as_chunks_mut::<34>().0;
        return numbers.as_chunks::<32>().0.iter().zip(blocks).all(|(numbers, block)| q8_0(numbers, block));
    }
    let scheme = Scheme::of(dtype);
    let head = dtype.block_bytes() - 32;
    let blocks = blocks.chunks_exact_mut(dtype.block_bytes());
    for ((numbers, block), largest) in numbers.as_chunks::<64>().0.iter().zip(blocks).zip(largest) {
        *largest = magnitude(numbers);
        if !largest.is_finite() {
            return false;
        }
        let (scale, codes) = block.split_at_mut(head);
        if let Ok(scale) = <&mut [u8; 4]>::try_from(scale) {
            *scale = largest.to_le_bytes();
        }
        scheme.encode(numbers, *largest, codes);
    }
    true
}

/// The largest magnitude; infinite when a number is not finite.
#[inline(always)]
fn magnitude(numbers: &[f32; 64]) -> f32 {
    // Magnitudes order as their bits do, and what is not finite is above all that is.
    let bits = numbers.iter().fold(0, |most: u32, number| most.max(number.to_bits() & 0x7fff_ffff));
    if bits < 0x7f80_0000 { f32::from_bits(bits) } else { f32::INFINITY }
}

/// How a scaled number becomes a code: by the middles between neighbours, in order.
struct Scheme {
    middles: [f32; 15],
    /// The codes in the order of their values.
    order: [u8; 16],
}

impl Scheme {
    fn of(dtype: DType) -> Self {
        let values = four_bits::values(dtype);
        let order = match dtype {
            // -0 and 0 are one value; PyTorch's order has 0 first.
            DType::Fp4 | DType::Fp4Double => [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3],
            _ => std::array::from_fn(|i| i as u8),
        };
        let value = |place: usize| values[usize::from(order[place])];
        let middles = std::array::from_fn(|i| (value(i) + value(i + 1)) / 2.0);
        Self { middles, order }
    }

    /// Two codes a byte, the earlier number in the upper half.
    #[inline(always)]
    fn encode(&self, numbers: &[f32; 64], largest: f32, codes: &mut [u8]) {
        let inverse = 1.0 / largest.max(1e-38);
        let mut places = [0i32; 64];
        for (place, number) in places.iter_mut().zip(numbers) {
            let scaled = (number * inverse).clamp(-1.0, 1.0);
            *place = self.middles.iter().map(|middle| i32::from(*middle < scaled)).sum();
        }
        for (code, pair) in codes.iter_mut().zip(places.as_chunks::<2>().0) {
            let [earlier, later] = pair.map(|place| self.order[place as usize & 15]);
            *code = earlier << 4 | later;
        }
    }
}

/// As ggml's `quantize_row_q8_0_ref`: codes follow from the scale before it is rounded. False when that has no place in f16.
#[inline(always)]
fn q8_0(numbers: &[f32; 32], block: &mut [u8; 34]) -> bool {
    const TOO_LARGE: f32 = 65_520.0;
    let finite = numbers.iter().all(|number| number.is_finite());
    let scale = numbers.iter().fold(0.0f32, |most, number| most.max(number.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&f16_bits(scale).to_le_bytes());
    for (code, number) in block[2..].iter_mut().zip(numbers) {
        // Away from zero at halves, as C's `round`.
        *code = (number * inverse).round() as i8 as u8;
    }
    finite && scale < TOO_LARGE
}

/// Quantises the scales of all blocks to 8 bits, which become the first byte of each block.
fn nest<'b>(scales: &[f32], blocks: impl Iterator<Item = &'b mut [u8]>) -> (f32, Vec<f32>) {
    let sum: f64 = scales.iter().map(|&scale| f64::from(scale)).sum();
    let offset = (sum / scales.len().max(1) as f64) as f32;
    let mut nested = Vec::with_capacity(scales.len().div_ceil(GROUP));
    let codes = code_table();
    let mut blocks = blocks;
    for group in scales.chunks(GROUP) {
        let largest = group.iter().fold(0.0f32, |most, scale| most.max((scale - offset).abs()));
        nested.push(largest);
        for (scale, block) in group.iter().zip(&mut blocks) {
            let inverse = 1.0 / largest;
            let scaled = ((scale - offset) * inverse).clamp(-1.0, 1.0);
            let place = ((scaled + 1.0) * 0.5).mul_add(LAST, 0.5);
            block[0] = if largest == 0.0 { 0 } else { codes[place as usize] };
        }
    }
    (offset, nested)
}

/// The last place of the table that bitsandbytes finds 8-bit codes in.
const LAST: f32 = 65_535.0;

/// The codes of evenly spaced numbers from -1 to 1: bitsandbytes finds a code by the place of a number in this table, which
/// may be the neighbour of the nearest.
fn code_table() -> Vec<u8> {
    let map = &*DYNAMIC_MAP;
    let middles: [f32; 255] = std::array::from_fn(|i| (map[i] + map[i + 1]) * 0.5);
    let mut code = 0;
    (0..=LAST as u32)
        .map(|place| {
            let number = 2.0 * place as f32 / LAST - 1.0;
            while code < middles.len() && middles[code] < number {
                code += 1;
            }
            code as u8
        })
        .collect()
}
