//! Numbers as ggml's blocks: the other direction of [`gemm::decode_run`](super::gemm::decode_run), in plain Rust that the
//! compiler vectorises inside `Isa::run`. Scales, minima and codes are searched for the least squared error ([`fit`],
//! [`large`]); only `Q8_0` follows ggml's rule to the byte. The bytes depend on the numbers of the block alone: neither
//! threads nor the instruction set change one. It refuses nothing: whoever calls has made sure that numbers are finite and
//! that scales have a place in f16.

mod fit;
mod large;
mod pack;
mod small;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use super::gemm::decode::f16_to_f32;
use super::{Cpu, Isa, f16_bits};
use crate::DType;

/// Numbers that a thread takes at once.
const GRAIN: usize = 1 << 14;

/// Bits of an f16.
#[inline(always)]
fn half(value: f32) -> u16 {
    f16_bits(value)
}

/// What is left of a number in f16.
#[inline(always)]
fn round_half(value: f32) -> f32 {
    f16_to_f32(f16_bits(value))
}

/// A number in f16, not much smaller than it was: of the smallest numbers f16 has few, and small whole numbers that stand
/// on a factor could not reach as far as they have to.
#[inline(always)]
fn round_factor(value: f32) -> f32 {
    let rounded = round_half(value);
    if rounded.abs() < value.abs() * 0.999 { f16_to_f32(f16_bits(value) + 1) } else { rounded }
}

/// The blocks of finite numbers. `dtype` is one of [`DType::BLOCKS`].
///
/// # Panics
/// When the blocks are not whole, or `bytes` is not as long as they are: a caller chooses both, no input does.
pub fn encode_blocks(dtype: DType, numbers: &[f32], bytes: &mut [u8]) {
    encode_with(Isa::detect(), dtype, numbers, bytes);
}

fn encode_with(isa: Isa, dtype: DType, numbers: &[f32], bytes: &mut [u8]) {
    assert!(DType::BLOCKS.contains(&dtype), "{dtype} has no blocks");
    assert!(numbers.len().is_multiple_of(dtype.block_len()), "{} numbers are no whole blocks", numbers.len());
    assert_eq!(bytes.len(), dtype.bytes(numbers.len()), "bytes of {} numbers", numbers.len());
    isa.run(
        #[inline(always)]
        || match dtype {
            DType::Q8_0 => each(numbers, bytes, dtype, small::q8_0),
            DType::Q4_0 => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| small::symmetric(numbers, -8.0, block),
            ),
            DType::Q5_0 => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| small::symmetric(numbers, -16.0, block),
            ),
            DType::Q4_1 => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| small::affine(numbers, 15.0, block),
            ),
            DType::Q5_1 => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| small::affine(numbers, 31.0, block),
            ),
            DType::Mxfp4 => each(numbers, bytes, dtype, small::mxfp4),
            DType::Q2K => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| pack::q2_k(&large::affine::<16, 16>(numbers, 3.0, 15.0), block),
            ),
            DType::Q3K => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| pack::q3_k(&large::symmetric::<16, 16>(numbers, -4.0, -32.0), block),
            ),
            DType::Q4K => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| pack::q4_k(&large::affine::<32, 8>(numbers, 15.0, 63.0), block),
            ),
            DType::Q5K => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| pack::q5_k(&large::affine::<32, 8>(numbers, 31.0, 63.0), block),
            ),
            _ => each(
                numbers,
                bytes,
                dtype,
                #[inline(always)]
                |numbers, block| pack::q6_k(&large::symmetric::<16, 16>(numbers, -32.0, -128.0), block),
            ),
        },
    );
}

#[inline(always)]
fn each<const N: usize>(numbers: &[f32], bytes: &mut [u8], dtype: DType, encode: impl Fn(&[f32; N], &mut [u8])) {
    for (numbers, block) in numbers.as_chunks::<N>().0.iter().zip(bytes.chunks_exact_mut(dtype.block_bytes())) {
        encode(numbers, block);
    }
}

impl Cpu {
    /// As [`encode_blocks`], on all threads.
    pub(crate) fn encode(&self, dtype: DType, numbers: &[f32], bytes: &mut [u8]) {
        let parts = numbers.chunks(GRAIN).zip(bytes.chunks_mut(dtype.bytes(GRAIN)));
        let parts: Vec<Mutex<(&[f32], &mut [u8])>> = parts.map(Mutex::new).collect();
        self.pool.run(parts.len(), |index| {
            let mut part = parts[index].lock().unwrap_or_else(PoisonError::into_inner);
            let (numbers, bytes) = &mut *part;
            encode_with(self.isa, dtype, numbers, bytes);
        });
    }
}
