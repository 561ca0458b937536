//! ggml's block formats: 32 numbers of a block to f32, in plain Rust that the compiler vectorises inside `Isa::run`.
//! Products are rounded where ggml rounds them, so every number is ggml's to the bit. From: ggml, `ggml-common.h` (layouts) and
//! `ggml-quants.c` (values).
//!
//! Byte i of 4-bit codes holds number i in its lower half and number i + 16 of the run in its upper half, except in the blocks
//! of 256, where the upper halves are the next run.

use super::decode::f16_to_f32;
use crate::DType;

/// Numbers that are decoded at once: a small block, or an eighth of a large one.
pub(super) const RUN: usize = 32;

/// Twice the values of the codes of `MXFP4`.
pub(in crate::cpu) const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The numbers `32 run .. 32 run + 32` of a block.
///
/// # Safety
/// `block` is a whole block of this type, which is one of [`DType::BLOCKS`]; `run` lies in it.
#[inline(always)]
pub(super) unsafe fn decode_run(dtype: DType, block: *const u8, run: usize) -> [f32; RUN] {
    // SAFETY: a block has as many bytes as its layout.
    unsafe {
        match dtype {
            DType::Q4_0 => q4_0(&block.cast::<[u8; 18]>().read()),
            DType::Q4_1 => q4_1(&block.cast::<[u8; 20]>().read()),
            DType::Q5_0 => q5_0(&block.cast::<[u8; 22]>().read()),
            DType::Q5_1 => q5_1(&block.cast::<[u8; 24]>().read()),
            DType::Q2K => q2_k(&*block.cast::<[u8; 84]>(), run),
            DType::Q3K => q3_k(&*block.cast::<[u8; 110]>(), run),
            DType::Q4K => q4_k(&*block.cast::<[u8; 144]>(), run),
            DType::Q5K => q5_k(&*block.cast::<[u8; 176]>(), run),
            DType::Q6K => q6_k(&*block.cast::<[u8; 210]>(), run),
            DType::Mxfp4 => mxfp4(&block.cast::<[u8; 17]>().read()),
            _ => q8_0(&block.cast::<[u8; 34]>().read()),
        }
    }
}

/// `N` bytes from `at` on.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes(block, at)))
}

/// The 4-bit codes of a small block, number by number.
#[inline(always)]
fn nibbles(codes: [u8; RUN / 2]) -> [u8; RUN] {
    let mut out = [0; RUN];
    for (i, code) in codes.into_iter().enumerate() {
        out[i] = code & 15;
        out[i + RUN / 2] = code >> 4;
    }
    out
}

/// Adds a fifth bit to 4-bit codes: bit i of `high` is that of number i.
#[inline(always)]
fn with_fifth_bit(codes: [u8; RUN / 2], high: u32) -> [u8; RUN] {
    let mut out = nibbles(codes);
    for (i, code) in out.iter_mut().enumerate() {
        *code |= ((high >> i & 1) << 4) as u8;
    }
    out
}

#[inline(always)]
fn q4_0(block: &[u8; 18]) -> [f32; RUN] {
    let scale = half(block, 0);
    nibbles(bytes(block, 2)).map(|code| scale * (i32::from(code) - 8) as f32)
}

#[inline(always)]
fn q4_1(block: &[u8; 20]) -> [f32; RUN] {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    nibbles(bytes(block, 4)).map(|code| scale * i32::from(code) as f32 + minimum)
}

#[inline(always)]
fn q5_0(block: &[u8; 22]) -> [f32; RUN] {
    let (scale, high) = (half(block, 0), u32::from_le_bytes(bytes(block, 2)));
    with_fifth_bit(bytes(block, 6), high).map(|code| scale * (i32::from(code) - 16) as f32)
}

#[inline(always)]
fn q5_1(block: &[u8; 24]) -> [f32; RUN] {
    let (scale, minimum, high) = (half(block, 0), half(block, 2), u32::from_le_bytes(bytes(block, 4)));
    with_fifth_bit(bytes(block, 8), high).map(|code| scale * i32::from(code) as f32 + minimum)
}

#[inline(always)]
fn q8_0(block: &[u8; 34]) -> [f32; RUN] {
    let scale = half(block, 0);
    bytes::<RUN>(block, 2).map(|code| scale * i32::from(code as i8) as f32)
}

#[inline(always)]
fn mxfp4(block: &[u8; 17]) -> [f32; RUN] {
    // Half of the power of two, since the table is doubled; the two smallest are subnormal.
    let scale = match block[0] {
        small @ 0..2 => f32::from_bits(0x0020_0000 << small),
        exponent => f32::from_bits((u32::from(exponent) - 1) << 23),
    };
    nibbles(bytes(block, 1)).map(|code| scale * f32::from(E2M1_DOUBLED[usize::from(code)]))
}

/// Two halves of a run with a scale, and a minimum to be taken off, each.
#[inline(always)]
fn halves(codes: [u8; RUN], scales: [f32; 2], minima: [f32; 2]) -> [f32; RUN] {
    let mut out = [0.0; RUN];
    for (i, code) in codes.into_iter().enumerate() {
        let half = i / (RUN / 2);
        out[i] = scales[half] * f32::from(code) - minima[half];
    }
    out
}

/// `scales [16], codes [64], d, e`
#[inline(always)]
fn q2_k(block: &[u8; 84], run: usize) -> [f32; RUN] {
    let (d, e) = (half(block, 80), half(block, 82));
    let parts = [block[2 * run], block[2 * run + 1]];
    let codes = bytes::<RUN>(block, 16 + run / 4 * RUN).map(|code| code >> (2 * (run % 4)) & 3);
    halves(codes, parts.map(|part| d * f32::from(part & 15)), parts.map(|part| e * f32::from(part >> 4)))
}

/// `high bits [32], codes [64], scales [12], d`
#[inline(always)]
fn q3_k(block: &[u8; 110], run: usize) -> [f32; RUN] {
    let d = half(block, 108);
    let scale = |part: usize| {
        let low = block[96 + part % 8] >> (part / 8 * 4) & 15;
        let high = block[104 + part % 4] >> (part / 4 * 2) & 3;
        d * (i32::from(low | high << 4) - 32) as f32
    };
    let scales = [scale(2 * run), scale(2 * run + 1)];
    let (low, high) = (bytes::<RUN>(block, 32 + run / 4 * RUN), bytes::<RUN>(block, 0));
    let mut out = [0.0; RUN];
    for i in 0..RUN {
        let code = low[i] >> (2 * (run % 4)) & 3 | (high[i] >> run & 1) << 2;
        out[i] = scales[i / (RUN / 2)] * (i32::from(code) - 4) as f32;
    }
    out
}

/// The 6-bit scale and minimum of a part, of eight that lie in twelve bytes.
#[inline(always)]
fn scale_and_minimum(packed: [u8; 12], part: usize) -> [u8; 2] {
    if part < 4 {
        return [packed[part] & 63, packed[part + 4] & 63];
    }
    let high = |byte: u8| byte >> 6 << 4;
    [packed[part + 4] & 15 | high(packed[part - 4]), packed[part + 4] >> 4 | high(packed[part])]
}

/// Four bits of 32 codes of a large block: a run's are the lower or the upper halves of 32 bytes.
#[inline(always)]
fn run_nibbles(block: &[u8], at: usize, run: usize) -> [u8; RUN] {
    bytes::<RUN>(block, at + run / 2 * RUN).map(|code| code >> (run % 2 * 4) & 15)
}

/// `d, e, scales and minima [12], codes [128]`
#[inline(always)]
fn q4_k(block: &[u8; 144], run: usize) -> [f32; RUN] {
    let [scale, minimum] = scale_and_minimum(bytes(block, 4), run);
    let (scale, minimum) = (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(minimum));
    run_nibbles(block, 16, run).map(|code| scale * f32::from(code) - minimum)
}

/// `d, e, scales and minima [12], high bits [32], codes [128]`
#[inline(always)]
fn q5_k(block: &[u8; 176], run: usize) -> [f32; RUN] {
    let [scale, minimum] = scale_and_minimum(bytes(block, 4), run);
    let (scale, minimum) = (half(block, 0) * f32::from(scale), half(block, 2) * f32::from(minimum));
    let (low, high) = (run_nibbles(block, 48, run), bytes::<RUN>(block, 16));
    let mut out = [0.0; RUN];
    for i in 0..RUN {
        out[i] = scale * f32::from(low[i] | (high[i] >> run & 1) << 4) - minimum;
    }
    out
}

/// `low bits [128], high bits [64], scales [16], d`
#[inline(always)]
fn q6_k(block: &[u8; 210], run: usize) -> [f32; RUN] {
    let d = half(block, 208);
    let scales = [2 * run, 2 * run + 1].map(|part| d * f32::from(block[192 + part] as i8));
    let (of_half, quarter) = (run / 4, run % 4);
    let low = bytes::<RUN>(block, 64 * of_half + quarter % 2 * RUN);
    let high = bytes::<RUN>(block, 128 + of_half * RUN);
    let mut out = [0.0; RUN];
    for i in 0..RUN {
        let code = low[i] >> (quarter / 2 * 4) & 15 | (high[i] >> (2 * quarter) & 3) << 4;
        out[i] = scales[i / (RUN / 2)] * (i32::from(code) - 32) as f32;
    }
    out
}
