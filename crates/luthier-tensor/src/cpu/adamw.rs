//! AdamW in one pass over a parameter: unscale, clip, moments, decay, write back. From: Loshchilov & Hutter 2019,
//! algorithm 2. One version keeps everything in f32, the other value and moments in bf16.

use super::Cpu;
use super::copy::{counted, row_stream};
use super::element::{Bf16, Element, Rows};
use crate::{AdamW, Bf16State, Tensor};

const PIECE: usize = 1 << 13;

/// What a step comes down to once the norm is known.
#[derive(Clone, Copy)]
struct Factors {
    clip: f32,
    correction_2: f32,
    rate: f32,
    keep: f32,
}

impl Factors {
    /// `None` when the norm is not finite.
    fn of(rule: &AdamW, norm: f32) -> Option<Self> {
        let clip = rule.max_gradient_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0)) * rule.gradient_scale;
        let correction_1 = 1.0 - f64::from(rule.beta_1).powi(rule.step as i32);
        let correction_2 = (1.0 - f64::from(rule.beta_2).powi(rule.step as i32)).sqrt() as f32;
        let rate = (f64::from(rule.learning_rate) / correction_1) as f32;
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        norm.is_finite().then_some(Self { clip, correction_2, rate, keep })
    }
}

/// One number's step: the moments in place, and the new value.
#[inline(always)]
fn updated(rule: &AdamW, factors: &Factors, gradient: f32, value: f32, first: &mut f32, second: &mut f32) -> f32 {
    let g = gradient * factors.clip;
    *first = rule.beta_1 * *first + (1.0 - rule.beta_1) * g;
    *second = rule.beta_2 * *second + (1.0 - rule.beta_2) * g * g;
    value * factors.keep - factors.rate * *first / (second.sqrt() / factors.correction_2 + rule.epsilon)
}

/// Up or down by the upper or lower half of a random number: the upper half of the result, and with it the mean.
#[inline(always)]
fn at_random(value: f32, random: u32) -> Bf16 {
    let rounded = Bf16((value.to_bits().wrapping_add(random & 0xffff) >> 16) as u16);
    // Neither a NaN nor the largest numbers may wrap around.
    if value.abs() < 3.0e38 { rounded } else { Bf16::store(value) }
}

impl Cpu {
    /// Updates `value` and both moments, all f32 of one shape. norm f32 `[1, 1]`: the norm of all gradients together;
    /// when it is not finite nothing changes.
    pub(crate) fn adamw(&self, rule: &AdamW, norm: &Tensor, gradient: &Tensor, value: &Tensor, moments: [&Tensor; 2]) {
        // SAFETY: the norm is there, and nothing writes it now.
        let norm = unsafe { Rows::<f32>::of(norm).row(0) }[0];
        let Some(factors) = Factors::of(rule, norm) else { return };
        let length = value.len();
        let flat = |tensor: &Tensor| Rows::<f32>::of_mut(&tensor.reshape(1, length));
        let (gradient, value) = (flat(gradient), flat(value));
        let [first, second] = moments.map(flat);
        self.pool.run_rows(length, PIECE, |range| {
            // SAFETY: each task has its own range of each tensor.
            let (gradient, value, first, second) = unsafe {
                let (start, count) = (range.start, range.len());
                let moments = (first.part_mut(0, start, count), second.part_mut(0, start, count));
                (gradient.part(0, start, count), value.part_mut(0, start, count), moments.0, moments.1)
            };
            self.isa.run(
                #[inline(always)]
                || {
                    for (((value, gradient), first), second) in value.iter_mut().zip(gradient).zip(first).zip(second) {
                        *value = updated(rule, &factors, *gradient, *value, first, second);
                    }
                },
            );
        });
    }

    /// As [`adamw`](Self::adamw), with value, moments and what rounding has lost in bf16.
    pub(crate) fn adamw_bf16(
        &self,
        rule: &AdamW,
        norm: &Tensor,
        gradient: &Tensor,
        value: &Tensor,
        moments: [&Tensor; 2],
        state: &Bf16State,
    ) {
        // SAFETY: the norm is there, and nothing writes it now.
        let norm = unsafe { Rows::<f32>::of(norm).row(0) }[0];
        let Some(factors) = Factors::of(rule, norm) else { return };
        let length = value.len();
        let gradient = Rows::<f32>::of(&gradient.reshape(1, length));
        let flat = |tensor: &Tensor| Rows::<Bf16>::of_mut(&tensor.reshape(1, length));
        let value = flat(value);
        let [first, second] = moments.map(flat);
        let lost = state.lost.map(flat);
        self.pool.run_rows(length, PIECE, |range| {
            let (start, count) = (range.start, range.len());
            // SAFETY: each task has its own range of each tensor.
            let (gradient, value, first, second, lost) = unsafe {
                (
                    gradient.part(0, start, count),
                    value.part_mut(0, start, count),
                    first.part_mut(0, start, count),
                    second.part_mut(0, start, count),
                    lost.map(|lost| lost.part_mut(0, start, count)),
                )
            };
            // A stream for each piece, since an index alone has 32 bits.
            let stream = row_stream(state.stream, (start / PIECE) as u32);
            self.isa.run(
                #[inline(always)]
                || {
                    let mut numbers = gradient.iter().zip(value).zip(first).zip(second).enumerate();
                    let step = |index: usize, gradient: f32, value: f32, first: &mut Bf16, second: &mut Bf16| {
                        let (mut mean, mut square) = (first.load(), second.load());
                        let new = updated(rule, &factors, gradient, value, &mut mean, &mut square);
                        let random = counted(stream, 2 * index as u32);
                        (*first, *second) = (at_random(mean, random), at_random(square, random >> 16));
                        new
                    };
                    match lost {
                        None => numbers.for_each(|(index, (((gradient, value), first), second))| {
                            let new = step(index, *gradient, value.load(), first, second);
                            *value = at_random(new, counted(stream, 2 * index as u32 + 1));
                        }),
                        Some(lost) => {
                            for lost in lost {
                                let Some((index, (((gradient, value), first), second))) = numbers.next() else { break };
                                let new = step(index, *gradient, value.load() + lost.load(), first, second);
                                *value = Bf16::store(new);
                                *lost = Bf16::store(new - value.load());
                            }
                        }
                    }
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_rounding_has_the_right_mean() {
        for value in [1.0f32, 1.003, -0.123_456, 3e-20, 0.0] {
            let mean =
                (0..4096).map(|index| f64::from(at_random(value, counted(7, index)).load())).sum::<f64>() / 4096.0;
            assert!((mean - f64::from(value)).abs() <= 2e-4 * f64::from(value.abs()), "{value}: {mean}");
        }
        assert!(at_random(f32::NAN, 0xffff).load().is_nan());
        assert!(at_random(f32::from_bits(0x7fff_ffff), 0xffff).load().is_nan());
        assert_eq!(at_random(f32::INFINITY, 0xffff).load(), f32::INFINITY);
        assert_eq!(at_random(f32::MAX, 0xffff).load(), f32::INFINITY, "as rounding to the nearest");
    }
}
