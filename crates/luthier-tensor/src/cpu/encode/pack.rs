//! Blocks of 256 as ggml lays them out: the inverse of [`decode_run`](crate::cpu::gemm::decode_run).

use super::half;
use super::large::{Affine, N, Symmetric};

/// `scales and minima [16], codes [64], d, e`
#[inline(always)]
pub(super) fn q2_k(found: &Affine<16>, block: &mut [u8]) {
    for (byte, (scale, minimum)) in block.iter_mut().zip(found.scales.iter().zip(found.minima)) {
        *byte = scale | minimum << 4;
    }
    quarters(&found.codes, &mut block[16..80]);
    block[80..82].copy_from_slice(&half(found.scale).to_le_bytes());
    block[82..84].copy_from_slice(&half(found.minimum).to_le_bytes());
}

/// `high bits [32], codes [64], scales [12], d`
#[inline(always)]
pub(super) fn q3_k(found: &Symmetric<16>, block: &mut [u8]) {
    let codes = found.codes.map(|code| (code + 4) as u8);
    high_bits(&codes, 2, &mut block[..32]);
    quarters(&codes.map(|code| code & 3), &mut block[32..96]);
    let scales = found.scales.map(|scale| (i32::from(scale) + 32) as u8);
    for p in 0..8 {
        block[96 + p] = scales[p] & 15 | (scales[p + 8] & 15) << 4;
    }
    for p in 0..4 {
        block[104 + p] = [0, 4, 8, 12].iter().rev().fold(0, |bits, more| bits << 2 | scales[p + more] >> 4);
    }
    block[108..110].copy_from_slice(&half(found.scale).to_le_bytes());
}

/// `d, e, scales and minima [12], codes [128]`
#[inline(always)]
pub(super) fn q4_k(found: &Affine<8>, block: &mut [u8]) {
    factors(found, &mut block[..16]);
    halves(&found.codes, &mut block[16..]);
}

/// `d, e, scales and minima [12], high bits [32], codes [128]`
#[inline(always)]
pub(super) fn q5_k(found: &Affine<8>, block: &mut [u8]) {
    factors(found, &mut block[..16]);
    high_bits(&found.codes, 4, &mut block[16..48]);
    halves(&found.codes.map(|code| code & 15), &mut block[48..]);
}

/// `low bits [128], high bits [64], scales [16], d`
#[inline(always)]
pub(super) fn q6_k(found: &Symmetric<16>, block: &mut [u8]) {
    for (i, code) in found.codes.iter().enumerate() {
        let code = (code + 32) as u8;
        // Runs of 32: a half of the block has four.
        let (of_half, quarter, place) = (i / 128, i / 32 % 4, i % 32);
        let low = &mut block[64 * of_half + quarter % 2 * 32 + place];
        *low = if quarter < 2 { code & 15 } else { *low | (code & 15) << 4 };
        let high = &mut block[128 + 32 * of_half + place];
        *high = if quarter == 0 { code >> 4 } else { *high | (code >> 4) << (2 * quarter) };
    }
    for (byte, scale) in block[192..208].iter_mut().zip(found.scales) {
        *byte = scale as u8;
    }
    block[208..210].copy_from_slice(&half(found.scale).to_le_bytes());
}

/// Two factors, and eight scales and eight minima of six bits in twelve bytes.
#[inline(always)]
fn factors(found: &Affine<8>, block: &mut [u8]) {
    block[..2].copy_from_slice(&half(found.scale).to_le_bytes());
    block[2..4].copy_from_slice(&half(found.minimum).to_le_bytes());
    let packed = &mut block[4..16];
    for p in 0..4 {
        packed[p] = found.scales[p] | found.scales[p + 4] >> 4 << 6;
        packed[p + 4] = found.minima[p] | found.minima[p + 4] >> 4 << 6;
        packed[p + 8] = found.scales[p + 4] & 15 | (found.minima[p + 4] & 15) << 4;
    }
}

/// Codes of four bits: runs of 32 in pairs, the second in the upper halves.
#[inline(always)]
fn halves(codes: &[u8; N], bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        let (pair, place) = (i / 32, i % 32);
        *byte = codes[64 * pair + place] | codes[64 * pair + 32 + place] << 4;
    }
}

/// Codes of two bits: runs of 32 by fours.
#[inline(always)]
fn quarters(codes: &[u8; N], bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        let (four, place) = (i / 32, i % 32);
        *byte = (0..4).rev().fold(0, |bits, quarter| bits << 2 | codes[128 * four + 32 * quarter + place]);
    }
}

/// One bit of each code: bit r of byte i is that of number i of run r.
#[inline(always)]
fn high_bits(codes: &[u8; N], bit: u32, bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (0..8).rev().fold(0, |bits, run| bits << 1 | codes[32 * run + i] >> bit & 1);
    }
}
