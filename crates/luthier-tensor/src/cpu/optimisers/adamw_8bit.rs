//! AdamW with moments of eight bits: a block is decoded, stepped, and encoded with its new largest magnitude.

use std::sync::LazyLock;

use super::{Cpu, correction};
use crate::cpu::element::Rows;
use crate::optimisers::{BLOCK, EightBitMoments, Gate, dynamic_map};
use crate::{AdamW, Tensor};

/// Blocks that one task takes.
const GRAIN: usize = 32;

/// A map with the points between its values.
struct Map {
    values: [f32; 256],
    /// Where the nearest value changes: between value i and value i + 1.
    middles: [f32; 255],
}

static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(true));
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(false));

impl Map {
    fn new(signed: bool) -> Self {
        let values = dynamic_map(signed);
        let mut middles = [0.0; 255];
        for (middle, pair) in middles.iter_mut().zip(values.windows(2)) {
            *middle = (pair[0] + pair[1]) / 2.0;
        }
        Self { values, middles }
    }

    fn decode(&self, codes: &[u8], largest: f32, out: &mut [f32]) {
        for (out, code) in out.iter_mut().zip(codes) {
            *out = self.values[usize::from(*code)] * largest;
        }
    }

    /// The code of the nearest value, the lower one of two.
    fn nearest(&self, number: f32) -> u8 {
        // Eight halvings of 256 places; those past the end are never less.
        let mut place = 0usize;
        for bit in (0..8).rev() {
            let next = place + (1 << bit);
            if self.middles[next - 1] < number {
                place = next;
            }
        }
        place as u8
    }

    /// Returns the largest magnitude.
    fn encode(&self, numbers: &[f32], codes: &mut [u8]) -> f32 {
        let largest = numbers.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
        let divisor = if largest > 0.0 { largest } else { 1.0 };
        for (code, number) in codes.iter_mut().zip(numbers) {
            *code = self.nearest(number / divisor);
        }
        largest
    }
}

impl Cpu {
    pub(crate) fn adamw_8bit(
        &self,
        rule: &AdamW,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        moments: &EightBitMoments,
    ) {
        let Some(clip) = self.clip(gate) else { return };
        let length = value.len();
        let blocks = length.div_ceil(BLOCK);
        let flat = |tensor: &Tensor| Rows::<f32>::of_mut(&tensor.reshape(1, tensor.len()));
        let (gradients, values) = (Rows::<f32>::of(&gradient.reshape(1, length)), flat(value));
        let [first_codes, second_codes] = [&moments.mean, &moments.mean_square].map(Rows::<u8>::bytes_mut);
        let [first_largest, second_largest] = [&moments.mean_largest, &moments.mean_square_largest].map(flat);
        let root_2 = correction(rule.beta_2, rule.step).sqrt() as f32;
        let rate = (f64::from(rule.learning_rate) / correction(rule.beta_1, rule.step)) as f32;
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        self.pool.run_rows(blocks, GRAIN, |range| {
            let (mut first, mut second) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
            for block in range {
                let start = block * BLOCK;
                let count = BLOCK.min(length - start);
                let (first, second) = (&mut first[..count], &mut second[..count]);
                // SAFETY: each block belongs to one task, and the tensors are different memory.
                let (gradient, value, codes, largest) = unsafe {
                    let codes = [first_codes.part_mut(0, start, count), second_codes.part_mut(0, start, count)];
                    let largest = [first_largest.part_mut(0, block, 1), second_largest.part_mut(0, block, 1)];
                    (gradients.part(0, start, count), values.part_mut(0, start, count), codes, largest)
                };
                SIGNED.decode(codes[0], largest[0][0], first);
                UNSIGNED.decode(codes[1], largest[1][0], second);
                self.isa.run(
                    #[inline(always)]
                    || {
                        let moments = first.iter_mut().zip(second.iter_mut());
                        for ((value, gradient), (first, second)) in value.iter_mut().zip(gradient).zip(moments) {
                            let g = gradient * clip;
                            *first = rule.beta_1 * *first + (1.0 - rule.beta_1) * g;
                            *second = rule.beta_2 * *second + (1.0 - rule.beta_2) * g * g;
                            *value = *value * keep - rate * *first / (second.sqrt() / root_2 + rule.epsilon);
                        }
                    },
                );
                let [first_codes, second_codes] = codes;
                largest[0][0] = SIGNED.encode(first, first_codes);
                largest[1][0] = UNSIGNED.encode(second, second_codes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_of_a_map_is_its_own_code_and_others_are_the_nearest() {
        for map in [&SIGNED, &UNSIGNED] {
            for (code, value) in map.values.iter().enumerate() {
                assert_eq!(usize::from(map.nearest(*value)), code);
            }
            for number in [-2.0, -0.7, -1e-5, 1e-9, 0.003, 0.5, 0.999, 3.0] {
                let best = map.values.iter().map(|value| (value - number).abs()).fold(f32::INFINITY, f32::min);
                assert_eq!((map.values[usize::from(map.nearest(number))] - number).abs(), best, "{number}");
            }
        }
    }
}
