//! Stored numbers to f32, and f32 to bf16: plain Rust that the compiler vectorises when it is inlined into `Isa::run`.
//! The scalar functions are exact for every bit pattern; a bf16 is rounded to nearest, ties to even.
//!
//! Block formats are ggml's: a block of 32 numbers starts with its f16 scale; byte i of 4-bit codes holds number i in its
//! lower half and number i + 16 in its upper half.

use crate::DType;

const BLOCK: usize = 32;

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

/// Decodes numbers `first .. first + count` of the row that starts at `row` to `out`.
///
/// # Safety
/// The row holds the numbers (for blocks: the blocks that they lie in), `out` has room for `count`.
#[inline(always)]
pub(crate) unsafe fn decode_row(dtype: DType, row: *const u8, first: usize, count: usize, out: *mut f32) {
    // SAFETY: the addresses stay within the row and `out`, as the caller promises; reads need no alignment.
    unsafe {
        match dtype {
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
            DType::Q4_0 | DType::Q4_1 | DType::Q8_0 => decode_blocks(dtype, row, first, count, out),
        }
    }
}

/// # Safety
/// As for [`decode_row`].
#[inline(always)]
unsafe fn decode_blocks(dtype: DType, row: *const u8, first: usize, count: usize, out: *mut f32) {
    let mut done = 0;
    while done < count {
        let (block, skip) = ((first + done) / BLOCK, (first + done) % BLOCK);
        let taken = (BLOCK - skip).min(count - done);
        // SAFETY: the block is one that the numbers lie in; `taken` numbers are left to write.
        unsafe {
            let block = row.add(block * dtype.block_bytes());
            if taken == BLOCK {
                decode_block(dtype, block, out.add(done));
            } else {
                let mut whole = [0.0; BLOCK];
                decode_block(dtype, block, whole.as_mut_ptr());
                std::ptr::copy_nonoverlapping(whole.as_ptr().add(skip), out.add(done), taken);
            }
        }
        done += taken;
    }
}

/// # Safety
/// `block` is a whole block of this type; `out` has room for 32 numbers.
#[inline(always)]
unsafe fn decode_block(dtype: DType, block: *const u8, out: *mut f32) {
    // Codes and numbers pass through arrays of our own: the compiler then knows that they do not overlap.
    let mut numbers = [0.0f32; BLOCK];
    // SAFETY: offsets are inside a block, whose length `DType::block_bytes` tells.
    unsafe {
        let scale = f16_to_f32(block.cast::<u16>().read_unaligned());
        match dtype {
            DType::Q4_0 => {
                let codes = block.add(2).cast::<[u8; BLOCK / 2]>().read();
                for (i, code) in codes.into_iter().enumerate() {
                    numbers[i] = scale * (i32::from(code & 15) - 8) as f32;
                    numbers[i + BLOCK / 2] = scale * (i32::from(code >> 4) - 8) as f32;
                }
            }
            DType::Q4_1 => {
                let minimum = f16_to_f32(block.add(2).cast::<u16>().read_unaligned());
                let codes = block.add(4).cast::<[u8; BLOCK / 2]>().read();
                for (i, code) in codes.into_iter().enumerate() {
                    numbers[i] = scale * i32::from(code & 15) as f32 + minimum;
                    numbers[i + BLOCK / 2] = scale * i32::from(code >> 4) as f32 + minimum;
                }
            }
            _ => {
                let codes = block.add(2).cast::<[i8; BLOCK]>().read();
                for (number, code) in numbers.iter_mut().zip(codes) {
                    *number = scale * i32::from(code) as f32;
                }
            }
        }
        out.cast::<[f32; BLOCK]>().write_unaligned(numbers);
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
                    unsafe { decode_row(dtype, bytes.as_ptr(), i, count, out.as_mut_ptr()) };
                    assert_eq!(out[0], expected, "{dtype} {i}");
                    assert!(out[count..].iter().all(|value| value.is_nan()));
                }
            }
        }
    }
}
