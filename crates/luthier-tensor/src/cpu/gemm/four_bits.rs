//! bitsandbytes' 4-bit blocks: 64 numbers, a scale before 32 bytes of codes. The upper half of a byte is the earlier number. A
//! code is looked up in sixteen values and multiplied by its block's scale, which rounds once: every number is bitsandbytes'
//! to the bit. A table in registers is what compilers do not find, so each instruction set has its own lookup here; the plain
//! one is the reference.

use super::decode::Coding;
use super::decode_run::RUN;
use super::pack::WIDTH;
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
        values[8 + i] = -positive[i] / 12.0;
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
unsafe fn open(coding: Coding, block: *const u8) -> (f32, *const u8) {
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

/// Lines of bf16 for a kernel to pack.
pub(super) type Strip = [[u16; WIDTH]; WIDTH];

/// Whether [`decode_strip`] takes this type.
pub(super) const fn has_strip(dtype: DType) -> bool {
    cfg!(target_arch = "x86_64") && matches!(dtype, DType::Nf4 | DType::Fp4 | DType::Nf4Double | DType::Fp4Double)
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use run_nothing as decode_strip;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::decode_strip;

/// There are no kernels of bf16 here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn run_nothing(_: Coding, _: *const u8, _: usize, _: usize, _: usize, _: usize, _: *mut Strip) {
    unreachable!("bf16 products are computed in f32 on this processor");
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{Coding, RUN, Strip, WIDTH, open, values};

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
    unsafe fn numbers(table: __m512, scale: f32, codes: *const u8) -> [__m512; 2] {
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

    /// Decodes numbers `first .. first + count` of `lines` lines to bf16, rounded to nearest, ties to even; `count` is at most
    /// a line of the strip. What follows them in the strip is undefined.
    ///
    /// # Safety
    /// The lines hold these numbers, and the processor multiplies bf16.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")]
    pub(in super::super) unsafe fn decode_strip(
        coding: Coding,
        line: *const u8,
        stride_bytes: usize,
        lines: usize,
        first: usize,
        count: usize,
        strip: *mut Strip,
    ) {
        let (at, skip) = (first / RUN * RUN, first % RUN);
        let bytes = coding.dtype.bytes(at);
        let in_block = at % coding.dtype.block_len() / 2;
        // SAFETY: blocks are whole, so a run that has one of the numbers can be read; a line of the strip has room for a run.
        unsafe {
            let table = _mm512_loadu_ps(values(coding.dtype).as_ptr());
            let decode = |block: *const u8, in_block: usize| {
                let (scale, codes) = open(coding, block);
                let [first, second] = numbers(table, scale, codes.add(in_block));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
            };
            for i in 0..lines {
                let block = line.add(i * stride_bytes + bytes);
                let out = strip.cast::<u16>().add(i * WIDTH);
                if skip == 0 {
                    _mm512_storeu_si512(out.cast(), decode(block, in_block));
                    continue;
                }
                let mut both = [0u16; 2 * RUN];
                _mm512_storeu_si512(both.as_mut_ptr().cast(), decode(block, in_block));
                if skip + count > RUN {
                    let (block, in_block) = match in_block {
                        0 => (block, RUN / 2),
                        _ => (block.add(coding.dtype.block_bytes()), 0),
                    };
                    _mm512_storeu_si512(both.as_mut_ptr().add(RUN).cast(), decode(block, in_block));
                }
                std::ptr::copy_nonoverlapping(both.as_ptr().add(skip), out, count);
            }
        }
    }
}
