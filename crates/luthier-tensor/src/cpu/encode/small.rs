//! Blocks of 32 numbers with a scale of their own, and for some a minimum.

use super::fit::{Line, code, inverse, line_of, scale_of, sums};
use super::{half, round_half};
use crate::cpu::gemm::decode_run::E2M1_DOUBLED;

const N: usize = 32;

/// ggml's rule, which other programs' files follow to the byte: the largest number is 127, and the codes follow from the
/// scale before it is rounded, halves away from zero. A search would gain nothing that 8 bits need.
#[inline(always)]
pub(super) fn q8_0(numbers: &[f32; N], block: &mut [u8]) {
    let largest = numbers.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&half(scale).to_le_bytes());
    for (byte, number) in block[2..].iter_mut().zip(numbers) {
        *byte = (number * inverse).round() as i8 as u8;
    }
}

/// A block with codes around zero: `Q4_0` (`low` -8) and `Q5_0` (-16).
#[inline(always)]
pub(super) fn symmetric(numbers: &[f32; N], low: f32, block: &mut [u8]) {
    let mut scale = exact_scale(numbers, low);
    if scale.is_none() {
        let found = round_half(scale_of(numbers, low));
        let values = numbers.map(|number| found * code(number * inverse(found), low, -low - 1.0));
        // The same numbers may have smaller codes; with the smallest, encoding again gives the same bytes.
        scale = exact_scale(&values, low).or(Some(found));
    }
    let scale = scale.unwrap_or_default();
    block[..2].copy_from_slice(&half(scale).to_le_bytes());
    let inverse = inverse(scale);
    let codes = numbers.map(|number| (code(number * inverse, low, -low - 1.0) - low) as u8);
    put_codes(codes, low < -8.0, &mut block[2..]);
}

/// The scale of numbers that already are whole multiples of one, with the smallest codes; 0 for zeros.
#[inline(always)]
fn exact_scale(numbers: &[f32; N], low: f32) -> Option<f32> {
    let extreme = super::fit::extreme(numbers);
    if extreme == 0.0 {
        return Some(0.0);
    }
    for place in 1..=-low as u32 {
        for place in [place as f32, -(place as f32)] {
            let scale = extreme / place;
            if scale == 0.0 || round_half(scale) != scale {
                continue;
            }
            let inverse = 1.0 / scale;
            let [misses] = sums(numbers, |number| {
                let code = code(number * inverse, low, -low - 1.0);
                [if scale * code == number { 0.0 } else { 1.0 }]
            });
            if misses == 0.0 {
                return Some(scale);
            }
        }
    }
    None
}

/// A block with codes above a minimum: `Q4_1` (`top` 15) and `Q5_1` (31).
#[inline(always)]
pub(super) fn affine(numbers: &[f32; N], top: f32, block: &mut [u8]) {
    let Line { scale, minimum } = line_of(numbers, top, false);
    let (scale, minimum) = (round_half(scale), round_half(minimum));
    block[..2].copy_from_slice(&half(scale).to_le_bytes());
    block[2..4].copy_from_slice(&half(-minimum).to_le_bytes());
    let inverse = inverse(scale);
    let codes = numbers.map(|number| code((number + minimum) * inverse, 0.0, top) as u8);
    put_codes(codes, top > 15.0, &mut block[4..]);
}

/// The codes' lower four bits, and before them their fifth bits where there are some.
#[inline(always)]
fn put_codes(codes: [u8; N], has_fifth: bool, mut block: &mut [u8]) {
    if has_fifth {
        let high = codes.iter().rev().fold(0u32, |bits, code| bits << 1 | u32::from(code >> 4));
        let (bits, rest) = block.split_at_mut(4);
        bits.copy_from_slice(&high.to_le_bytes());
        block = rest;
    }
    for (i, byte) in block.iter_mut().enumerate() {
        *byte = codes[i] & 15 | (codes[i + N / 2] & 15) << 4;
    }
}

/// A power of two, of three that come into question the best, and the nearest of sixteen values.
#[inline(always)]
pub(super) fn mxfp4(numbers: &[f32; N], block: &mut [u8]) {
    const LARGEST: f32 = 12.0;
    let largest = super::fit::extreme(numbers).abs();
    // The scale is half of 2^(exponent - 127), since the table is doubled.
    let scale_of = |exponent: u32| match exponent {
        small @ 0..2 => f32::from_bits(0x0020_0000 << small),
        exponent => f32::from_bits((exponent - 1) << 23),
    };
    let mut first = 0u32;
    while first < 252 && scale_of(first + 1) * LARGEST < largest {
        first += 1;
    }
    let mut best = (f32::INFINITY, 0u32);
    for exponent in first..first + 3 {
        let scale = scale_of(exponent);
        let [error] = sums(numbers, |number| {
            let rest = number.abs() - scale * f32::from(E2M1_DOUBLED[usize::from(e2m1(number.abs() / scale))]);
            [rest * rest]
        });
        best = if error < best.0 { (error, exponent) } else { best };
    }
    let (_, exponent) = best;
    block[0] = exponent as u8;
    let scale = scale_of(exponent);
    let codes = numbers.map(|number| e2m1(number.abs() / scale) | if number < 0.0 { 8 } else { 0 });
    put_codes(codes, false, &mut block[1..]);
}

/// The code of the nearest of 0, 1, 2, 3, 4, 6, 8, 12.
#[inline(always)]
fn e2m1(magnitude: f32) -> u8 {
    const MIDDLES: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];
    MIDDLES.iter().map(|middle| u8::from(magnitude > *middle)).sum()
}
