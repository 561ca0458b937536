//! Frequencies of the rotary embedding in all their scalings, and the tables of cosine and sine that a batch needs.
//! Angles are computed in f32 as the reference does: a position times a frequency, each rounded.
//! From: Su et al. 2021; Peng et al. 2023 (yarn); Ding et al. 2024 (longrope); the Llama 3.1 model card.

use std::f64::consts::PI;

use luthier_tensor::{Device, RotaryTables, Segment};

use crate::config::{Rotary, RotaryScaling};

impl Rotary {
    /// Whether frequencies depend on how long a row is, so that keys cannot be kept when it grows from `before` to
    /// `after` positions.
    pub fn changes_between(&self, before: usize, after: usize) -> bool {
        match &self.scaling {
            RotaryScaling::Dynamic { trained_positions, .. }
            | RotaryScaling::DynamicAlpha { trained_positions, .. } => after > *trained_positions && after != before,
            RotaryScaling::LongRope { trained_positions, .. } => {
                (before > *trained_positions) != (after > *trained_positions)
            }
            _ => false,
        }
    }

    /// Radians per position of each rotated pair, for a row of `length` positions, and the factor of cosine and sine.
    pub fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let dimensions = self.dimensions as f64;
        let plain = |theta: f64| (0..self.dimensions / 2).map(move |i| theta.powf(-2.0 * i as f64 / dimensions));
        let rounded = |frequencies: &mut dyn Iterator<Item = f64>| frequencies.map(|f| f as f32).collect::<Vec<f32>>();
        match &self.scaling {
            RotaryScaling::None => (rounded(&mut plain(self.theta)), 1.0),
            RotaryScaling::Linear { factor } => (rounded(&mut plain(self.theta).map(|f| f / factor)), 1.0),
            RotaryScaling::Dynamic { factor, trained_positions } => {
                let trained = *trained_positions as f64;
                let length = (length as f64).max(trained);
                let growth = factor * length / trained - (factor - 1.0);
                let theta = self.theta * growth.powf(dimensions / (dimensions - 2.0));
                (rounded(&mut plain(theta)), 1.0)
            }
            RotaryScaling::DynamicAlpha { short_theta, factor, trained_positions } => {
                if length <= *trained_positions {
                    return (rounded(&mut plain(*short_theta)), 1.0);
                }
                let growth = factor * length as f64 / *trained_positions as f64 - (factor - 1.0);
                let theta = self.theta * growth.powf(dimensions / (dimensions - 2.0));
                (rounded(&mut plain(theta)), 1.0)
            }
            RotaryScaling::Yarn { factor, trained_positions, beta_fast, beta_slow, attention_factor, truncate } => {
                let turns = |rotations: f64| {
                    let wavelengths = *trained_positions as f64 / (rotations * 2.0 * PI);
                    dimensions * wavelengths.ln() / (2.0 * self.theta.ln())
                };
                let (low, high) = (turns(*beta_fast), turns(*beta_slow));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dimensions - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                let mut mixed = plain(self.theta).enumerate().map(|(i, frequency)| {
                    let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    frequency / factor * stretched + frequency * (1.0 - stretched)
                });
                (rounded(&mut mixed), *attention_factor as f32)
            }
            RotaryScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, trained_positions } => {
                let trained = *trained_positions as f64;
                let mut mixed = plain(self.theta).map(|frequency| {
                    let wavelength = 2.0 * PI / frequency;
                    if wavelength > trained / low_frequency_factor {
                        frequency / factor
                    } else if wavelength < trained / high_frequency_factor {
                        frequency
                    } else {
                        let smooth = (trained / wavelength - low_frequency_factor)
                            / (high_frequency_factor - low_frequency_factor);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                });
                (rounded(&mut mixed), 1.0)
            }
            RotaryScaling::LongRope { short_factors, long_factors, trained_positions, attention_factor } => {
                let divisors = if length > *trained_positions { long_factors } else { short_factors };
                let mut divided = plain(self.theta).zip(divisors).map(|(frequency, divisor)| frequency / divisor);
                (rounded(&mut divided), *attention_factor as f32)
            }
        }
    }

    /// The tables of a batch of `tokens` tokens. Each segment's frequencies follow from the length of its own row, in
    /// `lengths`, so that a row's numbers do not depend on its neighbours.
    pub fn tables(&self, device: &Device, tokens: usize, segments: &[Segment], lengths: &[usize]) -> RotaryTables {
        let pairs = self.dimensions / 2;
        let (mut cosine, mut sine) = (vec![1.0f32; tokens * pairs], vec![0.0f32; tokens * pairs]);
        for (segment, &length) in segments.iter().zip(lengths).filter(|_| device.has_data()) {
            let (frequencies, factor) = self.frequencies(length);
            for (index, row) in segment.rows.clone().enumerate() {
                let position = (segment.first_position + index) as f32;
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let (s, c) = f64::from(position * frequency).sin_cos();
                    cosine[row * pairs + pair] = c as f32 * factor;
                    sine[row * pairs + pair] = s as f32 * factor;
                }
            }
        }
        RotaryTables {
            cosine: device.upload(&cosine, tokens, pairs),
            sine: device.upload(&sine, tokens, pairs),
            interleaved: self.interleaved,
        }
    }
}
