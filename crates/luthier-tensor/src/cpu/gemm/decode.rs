//! Stored numbers to f32, and f32 to bf16 and f16: plain Rust that the compiler vectorises when it is inlined into `Isa::run`.
//! The scalar functions are exact for every bit pattern; a bf16 or f16 is rounded to nearest, ties to even.
//!
//! Blocks are decoded in runs of 32 numbers ([`super::decode_run`]).

use super::decode_run::{RUN, decode_run};
use super::four_bits;
use crate::DType;
use crate::cpu::isa::Isa;
use crate::nested::NestedScales;

/// How the numbers of a matrix are read: their storage type, and of doubly quantised ones what decodes their scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    pub(crate) dtype: DType,
    /// Null, or as long-lived as the tensor.
    pub(super) nested: *const NestedScales,
}

// SAFETY: what it names is immutable, and lives as long as the tensor that an operation holds.
unsafe impl Send for Coding {}
// SAFETY: as above.
unsafe impl Sync for Coding {}

impl Coding {
    /// # Panics
    /// When a doubly quantised matrix has no scales for its scales: whoever makes one knows.
    pub(crate) fn new(dtype: DType, nested: Option<&NestedScales>) -> Self {
        assert_eq!(dtype.has_nested_scales(), nested.is_some(), "nested scales of {dtype}");
        Self { dtype, nested: nested.map_or(std::ptr::null(), std::ptr::from_ref) }
    }
}

impl From<DType> for Coding {
    fn from(dtype: DType) -> Self {
        Self::new(dtype, None)
    }
}

/// The value of a bf16.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16; a NaN stays one.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// The value of an f16.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    // Moved into place the exponent is 112 too small, which one multiplication mends, for subnormal numbers too.
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(bits);
    let finite = (f32::from_bits((bits & 0x7fff) << 13) * TWO_TO_112).to_bits();
    let magnitude = if bits & 0x7c00 == 0x7c00 { (bits & 0x7fff) << 13 | 0x7f80_0000 } else { finite };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// The nearest f16, ties to even: infinite from 65520 on; a NaN stays one. Without branches, so that loops become vectors.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    const INFINITY: u32 = 0x7c00;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Below the smallest normal number: multiples of 2^-24, which adding 0.5 leaves in the low bits, rounded.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let normal = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(112 << 23) >> 13;
    let finite = if magnitude < 113 << 23 { small } else { normal };
    let number = if magnitude >= 0x477f_f000 { INFINITY } else { finite };
    let number = if magnitude > 0x7f80_0000 { 0x7e00 } else { number };
    (number | bits >> 16 & 0x8000) as u16
}

/// Decodes numbers `first .. first + count` of the row that starts at `row` to `out`.
///
/// # Safety
/// The row holds the numbers (for blocks: the blocks that they lie in), `out` has room for `count`.
#[inline(always)]
pub(crate) unsafe fn decode_row(coding: Coding, row: *const u8, first: usize, count: usize, out: *mut f32) {
    // SAFETY: passed on.
    unsafe { decode_row_with(Isa::Portable, coding, row, first, count, out) }
}

/// As [`decode_row`], with instructions of `isa` where the compiler finds none by itself. To the bit the same.
///
/// # Safety
/// As for [`decode_row`]; `isa` is available.
#[inline(always)]
pub(crate) unsafe fn decode_row_with(
    isa: Isa,
    coding: Coding,
    row: *const u8,
    first: usize,
    count: usize,
    out: *mut f32,
) {
    // SAFETY: the addresses stay within the row and `out`, as the caller promises; reads need no alignment.
    unsafe {
        match coding.dtype {
            DType::Nf4 | DType::Fp4 | DType::Nf4Double | DType::Fp4Double => {
                four_bits::decode_row(isa, coding, row, first, count, out);
            }
            DType::F32 => std::ptr::copy_nonoverlapping(row.add(4 * first), out.cast(), 4 * count),
            DType::Bf16 => {
                let row = row.cast::<u16>().add(first);
                for i in 0..count {
                    *out.add(i) = bf16_to_f32(row.add(i).read_unaligned());
                }
            }
            DType::F16 => {
                let row = row.cast::<u16>().add(first);
                for i in 0..count {
                    *out.add(i) = f16_to_f32(row.add(i).read_unaligned());
                }
            }
            DType::U32 => {
                let row = row.cast::<u32>().add(first);
                for i in 0..count {
                    *out.add(i) = row.add(i).read_unaligned() as f32;
                }
            }
            DType::U8 => {
                let row = row.add(first);
                for i in 0..count {
                    *out.add(i) = f32::from(row.add(i).read());
                }
            }
            blocks => decode_blocks(blocks, row, first, count, out),
        }
    }
}

/// # Safety
/// As for [`decode_row`].
#[inline(always)]
unsafe fn decode_blocks(dtype: DType, row: *const u8, first: usize, count: usize, out: *mut f32) {
    let mut done = 0;
    while done < count {
        let (at, skip) = ((first + done) / RUN * RUN, (first + done) % RUN);
        let taken = (RUN - skip).min(count - done);
        let (block, run) = (at / dtype.block_len(), at % dtype.block_len() / RUN);
        // SAFETY: the block is one that the numbers lie in; `taken` numbers are left to write.
        unsafe {
            let numbers = decode_run(dtype, row.add(block * dtype.block_bytes()), run);
            if taken == RUN {
                out.add(done).cast::<[f32; RUN]>().write_unaligned(numbers);
            } else {
                std::ptr::copy_nonoverlapping(numbers.as_ptr().add(skip), out.add(done), taken);
            }
        }
        done += taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_exact() {
        for bits in 0..=u16::MAX {
            let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
            };
            let expected = if sign == 1 { -magnitude } else { magnitude };
            let value = f64::from(f16_to_f32(bits));
            assert!(
                value == expected && value.is_sign_negative() == (sign == 1) || value.is_nan() && expected.is_nan()
            );
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for (value, expected) in [
            (1.0, 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (-0.0, 0x8000),
        ] {
            assert_eq!(f32_to_bf16(value), expected, "{value}");
        }
        assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
        for bits in (0..=u16::MAX).filter(|bits| bits & 0x7f80 != 0x7f80) {
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), bits);
        }
    }

    #[test]
    fn blocks_decode_as_ggml_defines_them() {
        let half = [0x00, 0x38];
        let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let q4_0: Vec<u8> = [&half[..], &codes].concat();
        let q4_1: Vec<u8> = [&half[..], &[0x00, 0xbc], &codes].concat();
        let q8_0: Vec<u8> = half.into_iter().chain((0..32).map(|i| (i * 3 - 40) as u8)).collect();
        for i in 0..32 {
            let code = if i < 16 { i as f32 } else { (31 - i) as f32 };
            for (dtype, bytes, expected) in [
                (DType::Q4_0, &q4_0, 0.5 * (code - 8.0)),
                (DType::Q4_1, &q4_1, 0.5 * code - 1.0),
                (DType::Q8_0, &q8_0, 0.5 * (i as f32 * 3.0 - 40.0)),
            ] {
                assert_eq!(bytes.len(), dtype.block_bytes());
                for count in 1..=32 - i {
                    let mut out = [f32::NAN; 32];
                    // SAFETY: one whole block, and numbers inside it.
                    unsafe { decode_row(dtype.into(), bytes.as_ptr(), i, count, out.as_mut_ptr()) };
                    assert_eq!(out[0], expected, "{dtype} {i}");
                    assert!(out[count..].iter().all(|value| value.is_nan()));
                }
            }
        }
    }
}
