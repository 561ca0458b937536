//! Blocks of the formats that frozen weights are quantised to, decoded straight to bf16 for the kernels that multiply it: half of
//! the bytes of an f32 strip, and the faster way to pack. A number is the decoded f32 rounded to nearest, ties to even, which is
//! what those kernels make of an f32 themselves.

#[cfg(not(target_arch = "x86_64"))]
use super::decode::Coding;
use super::pack::WIDTH;
use crate::DType;

/// Lines of bf16 for a kernel to pack.
pub(super) type Strip = [[u16; WIDTH]; WIDTH];

/// Whether [`decode_strip`] takes this type.
pub(super) const fn has_strip(dtype: DType) -> bool {
    cfg!(target_arch = "x86_64")
        && matches!(dtype, DType::Nf4 | DType::Fp4 | DType::Nf4Double | DType::Fp4Double | DType::Q8_0)
}

/// There are no kernels of bf16 here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn decode_strip(_: Coding, _: *const u8, _: usize, _: usize, _: usize, _: usize, _: *mut Strip) {
    unreachable!("bf16 products are computed in f32 on this processor");
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::decode_strip;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::super::decode::{Coding, f16_to_f32};
    use super::super::decode_run::RUN;
    use super::super::four_bits;
    use super::{Strip, WIDTH};
    use crate::DType;

    /// Decodes numbers `first .. first + count` of `lines` lines; `count` is at most a line of the strip. What follows them in the
    /// strip is undefined.
    ///
    /// # Safety
    /// The lines hold these numbers, the type [has a strip](super::has_strip), and the processor multiplies bf16.
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
        // SAFETY: passed on.
        unsafe {
            if coding.dtype == DType::Q8_0 {
                decode_lines(coding.dtype, line, stride_bytes, lines, first, count, strip, |block, _| {
                    let scale = _mm512_set1_ps(f16_to_f32(u16::from_le_bytes(block.cast::<[u8; 2]>().read())));
                    [2, 2 + RUN / 2].map(|at| {
                        let codes = _mm_loadu_si128(block.add(at).cast());
                        _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)))
                    })
                });
            } else {
                let table = _mm512_loadu_ps(four_bits::values(coding.dtype).as_ptr());
                decode_lines(coding.dtype, line, stride_bytes, lines, first, count, strip, |block, run| {
                    let (scale, codes) = four_bits::open(coding, block);
                    four_bits::x86_64::numbers(table, scale, codes.add(run * RUN / 2))
                });
            }
        }
    }

    /// As [`decode_strip`], with `decode` giving a run of a block.
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")]
    #[expect(clippy::too_many_arguments, reason = "a rectangle of a matrix, and where it goes")]
    unsafe fn decode_lines(
        dtype: DType,
        line: *const u8,
        stride_bytes: usize,
        lines: usize,
        first: usize,
        count: usize,
        strip: *mut Strip,
        decode: impl Fn(*const u8, usize) -> [__m512; 2],
    ) {
        let rounded = |block, run| {
            let [low, high] = decode(block, run);
            // SAFETY: vectors of bf16 and of integers have the same bits.
            unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
        };
        let (at, skip) = (first / RUN * RUN, first % RUN);
        let (runs, run) = (dtype.block_len() / RUN, at % dtype.block_len() / RUN);
        for i in 0..lines {
            // SAFETY: blocks are whole, so a run that has one of the numbers can be read; a line of the strip has room for a run.
            unsafe {
                let block = line.add(i * stride_bytes + dtype.bytes(at));
                let out = strip.cast::<u16>().add(i * WIDTH);
                if skip == 0 {
                    _mm512_storeu_si512(out.cast(), rounded(block, run));
                    continue;
                }
                let mut both = [0u16; 2 * RUN];
                _mm512_storeu_si512(both.as_mut_ptr().cast(), rounded(block, run));
                if skip + count > RUN {
                    let (block, run) = match run + 1 {
                        next if next < runs => (block, next),
                        _ => (block.add(dtype.block_bytes()), 0),
                    };
                    _mm512_storeu_si512(both.as_mut_ptr().add(RUN).cast(), rounded(block, run));
                }
                std::ptr::copy_nonoverlapping(both.as_ptr().add(skip), out, count);
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::decode::{Coding, bf16_to_f32, decode_row, f32_to_bf16};
    use super::*;
    use crate::cpu::isa::Isa;
    use crate::nested::NestedScales;

    #[test]
    fn a_strip_is_the_decoded_row_rounded() {
        if !Isa::detect().bf16_multiplies() {
            return;
        }
        for dtype in DType::BITSANDBYTES.into_iter().chain([DType::Q8_0]) {
            let row = dtype.bytes(192);
            let mut bytes: Vec<u8> = (0..2 * row).map(|i| (i * 37 % 251) as u8).collect();
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                match dtype {
                    DType::Nf4 | DType::Fp4 => block[..4].copy_from_slice(&0.37f32.to_le_bytes()),
                    DType::Q8_0 => block[..2].copy_from_slice(&0x2e66u16.to_le_bytes()),
                    _ => {}
                }
            }
            let nested = NestedScales::new(bytes.as_ptr(), dtype.block_bytes(), 0.7, [0.9].into());
            let coding = Coding::new(dtype, dtype.has_nested_scales().then_some(&nested));
            for (first, count) in [(0, 32), (32, 32), (31, 2), (33, 31), (40, 14), (160, 32), (190, 1), (5, 32)] {
                let mut strip: Strip = [[0; WIDTH]; WIDTH];
                let mut expected = vec![0.0; count];
                // SAFETY: there are two rows of 192 numbers, and the processor multiplies bf16.
                unsafe {
                    decode_strip(coding, bytes.as_ptr(), row, 2, first, count, &raw mut strip);
                    decode_row(coding, bytes[row..].as_ptr(), first, count, expected.as_mut_ptr());
                }
                let bits = |number: f32| number.to_bits();
                let expected: Vec<u32> = expected.into_iter().map(|n| bits(bf16_to_f32(f32_to_bf16(n)))).collect();
                let found: Vec<u32> = strip[1][..count].iter().map(|half| bits(bf16_to_f32(*half))).collect();
                assert_eq!(found, expected, "{dtype} {first} {count}");
            }
        }
    }
}
