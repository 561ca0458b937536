//! bitsandbytes' 4-bit blocks: 64 numbers, a scale before 32 bytes of codes. The upper half of a byte is the earlier number. A
//! code is looked up in sixteen values and multiplied by its block's scale, which rounds once: every number is bitsandbytes'
//! to the bit. A table in registers is what compilers do not find, so each instruction set has its own lookup here; the plain
//! one is the reference.

use super::decode::Coding;
use super::decode_run::RUN;
use crate::DType;
use crate::cpu::isa::Isa;

/// Quantiles of the normal distribution. From: Dettmers et al. 2023, appendix E.
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A sign, two bits of exponent and one of fraction, over the largest. From: bitsandbytes, `get_4bit_type`.
pub(crate) const FP4: [f32; 16] = {
    let positive = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let mut values = [0.0; 16];
    let mut i = 0;
    while i < 8 {
        values[i] = positive[i] / 12.0;
        // Its zeros are both positive.
        values[8 + i] = 0.0 - positive[i] / 12.0;
        i += 1;
    }
    values
};

/// What the codes of a storage type stand for.
pub(crate) fn values(dtype: DType) -> &'static [f32; 16] {
    match dtype {
        DType::Fp4 | DType::Fp4Double => &FP4,
        _ => &NF4,
    }
}

/// The scale of the block at `block`, and its codes.
///
/// # Safety
/// There is a whole block of this type.
#[inline(always)]
pub(super) unsafe fn open(coding: Coding, block: *const u8) -> (f32, *const u8) {
    // SAFETY: a block begins with its scale, or with its scale's code; a doubly quantised one has scales for it.
    unsafe {
        match coding.dtype {
            DType::Nf4 | DType::Fp4 => (f32::from_le_bytes(block.cast::<[u8; 4]>().read()), block.add(4)),
            _ => ((*coding.nested).scale(block, *block), block.add(1)),
        }
    }
}

/// Decodes numbers `first .. first + count` of the row that starts at `row` to `out`.
///
/// # Safety
/// As for [`super::decode::decode_row_with`].
#[inline(always)]
pub(super) unsafe fn decode_row(isa: Isa, coding: Coding, row: *const u8, first: usize, count: usize, out: *mut f32) {
    let table = values(coding.dtype);
    let mut done = 0;
    while done < count {
        let (at, skip) = ((first + done) / RUN * RUN, (first + done) % RUN);
        let taken = (RUN - skip).min(count - done);
        // SAFETY: the block is one that the numbers lie in; `taken` numbers are left to write.
        unsafe {
            let (scale, codes) = open(coding, row.add(coding.dtype.bytes(at)));
            let codes = codes.add(at % coding.dtype.block_len() / 2);
            if taken == RUN {
                decode_run(isa, table, scale, codes, out.add(done));
            } else {
                let mut numbers = [0.0; RUN];
                decode_run(isa, table, scale, codes, numbers.as_mut_ptr());
                std::ptr::copy_nonoverlapping(numbers.as_ptr().add(skip), out.add(done), taken);
            }
        }
        done += taken;
    }
}

/// # Safety
/// `codes` has 16 bytes, `out` room for 32 numbers; `isa` is available.
#[inline(always)]
unsafe fn decode_run(isa: Isa, table: &[f32; 16], scale: f32, codes: *const u8, out: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512 => x86_64::run_avx512(table, scale, codes, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86_64::run_avx2(table, scale, codes, out),
            _ => run(table, scale, &codes.cast::<[u8; RUN / 2]>().read(), &mut *out.cast::<[f32; RUN]>()),
        }
    }
}

/// The plain twin.
#[inline(always)]
fn run(table: &[f32; 16], scale: f32, codes: &[u8; RUN / 2], out: &mut [f32; RUN]) {
    for (pair, code) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *pair = [table[usize::from(code >> 4)] * scale, table[usize::from(code & 15)] * scale];
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86_64 {
    use std::arch::x86_64::*;

    use super::RUN;

    /// 32 codes one after another in bytes, in their lower halves.
    ///
    /// # Safety
    /// There are 16 bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn spread(codes: *const u8) -> [__m128i; 2] {
        // SAFETY: passed on.
        let bytes = unsafe { _mm_loadu_si128(codes.cast()) };
        // Lookups read no more than four bits of each, so what the shift leaves above them does not matter.
        let earlier = _mm_srli_epi16::<4>(bytes);
        [_mm_unpacklo_epi8(earlier, bytes), _mm_unpackhi_epi8(earlier, bytes)]
    }

    /// 32 numbers.
    ///
    /// # Safety
    /// There are 16 bytes of codes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
    pub(in super::super) unsafe fn numbers(table: __m512, scale: f32, codes: *const u8) -> [__m512; 2] {
        let scale = _mm512_set1_ps(scale);
        // SAFETY: passed on.
        let spread = unsafe { spread(codes) };
        spread.map(|codes| _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), table), scale))
    }

    /// # Safety
    /// As for [`super::decode_run`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
    pub(super) unsafe fn run_avx512(table: &[f32; 16], scale: f32, codes: *const u8, out: *mut f32) {
        // SAFETY: passed on.
        unsafe {
            let [first, second] = numbers(_mm512_loadu_ps(table.as_ptr()), scale, codes);
            _mm512_storeu_ps(out, first);
            _mm512_storeu_ps(out.add(RUN / 2), second);
        }
    }

    /// # Safety
    /// As for [`super::decode_run`].
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn run_avx2(table: &[f32; 16], scale: f32, codes: *const u8, out: *mut f32) {
        // SAFETY: passed on.
        unsafe {
            let (low, high) = (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8)));
            let scale = _mm256_set1_ps(scale);
            for (half, codes) in spread(codes).into_iter().enumerate() {
                for (quarter, codes) in [codes, _mm_srli_si128::<8>(codes)].into_iter().enumerate() {
                    let index = _mm256_cvtepu8_epi32(codes);
                    let (low, high) = (_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index));
                    // The fourth bit of a code says which half of the table it is in.
                    let value = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)));
                    _mm256_storeu_ps(out.add(half * RUN / 2 + quarter * RUN / 4), _mm256_mul_ps(value, scale));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three blocks, every code in every place, and scales that round.
    fn rows(dtype: DType) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in 0..6u8 {
            match dtype {
                DType::Nf4 | DType::Fp4 => bytes.extend((0.3 + f32::from(block) / 7.0).to_le_bytes()),
                _ => bytes.push(200 + block),
            }
            bytes.extend((0..32u8).map(|i| i.wrapping_mul(37).wrapping_add(block * 11)));
        }
        bytes
    }

    #[test]
    fn every_instruction_set_decodes_as_the_plain_one() {
        for dtype in DType::BITSANDBYTES {
            let bytes = rows(dtype);
            let nested = crate::nested::NestedScales::new(bytes.as_ptr(), dtype.block_bytes(), 0.7, [0.9].into());
            let coding = Coding::new(dtype, dtype.has_nested_scales().then_some(&nested));
            let second = bytes[dtype.bytes(192)..].as_ptr();
            for (first, count) in [(0, 192), (5, 180), (31, 2), (64, 64), (190, 1), (33, 31), (96, 32)] {
                let decode = |isa: Isa| {
                    let mut out = vec![f32::NAN; count];
                    // SAFETY: the row has 192 numbers.
                    unsafe { decode_row(isa, coding, second, first, count, out.as_mut_ptr()) };
                    out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let expected = decode(Isa::Portable);
                for isa in Isa::available() {
                    assert_eq!(decode(isa), expected, "{dtype} {isa:?} {first} {count}");
                }
            }
        }
    }
}
