//! Normal numbers that are a function of a stream and an index, so that nothing needs to keep them.

use super::{Cpu, PIECE};
use crate::Tensor;
use crate::cpu::element::Rows;

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 to below 1.
fn uniform(stream: u64, index: u64) -> f64 {
    (mix(stream ^ mix(index)) >> 11) as f64 / (1u64 << 53) as f64
}

/// From: Box & Muller 1958.
fn normal(stream: u64, index: u64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(stream, 2 * index)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(stream, 2 * index + 1)).cos()
}

impl Cpu {
    /// Fills an f32 tensor with normal numbers of mean 0 and this deviation.
    pub(super) fn normal(&self, stream: u64, deviation: f64, out: &Tensor) {
        let rows = Rows::<f32>::of_mut(&out.reshape(1, out.len()));
        self.pool.run_rows(out.len(), PIECE, |range| {
            // SAFETY: each task has its own range.
            let numbers = unsafe { rows.part_mut(0, range.start, range.len()) };
            for (index, number) in range.zip(numbers) {
                *number = (normal(stream, index as u64) * deviation) as f32;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_normal() {
        let numbers: Vec<f64> = (0..40_000).map(|index| normal(7, index)).collect();
        let moment = |power| numbers.iter().map(|number| number.powi(power)).sum::<f64>() / numbers.len() as f64;
        for (power, expected, within) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.06), (4, 3.0, 0.15)] {
            assert!((moment(power) - expected).abs() < within, "moment {power}: {}", moment(power));
        }
    }
}
