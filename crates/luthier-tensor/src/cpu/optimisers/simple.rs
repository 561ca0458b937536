//! Lion, SGD and schedule-free AdamW, each in one pass.

use super::{Cpu, correction};
use crate::Tensor;
use crate::optimisers::{Gate, Lion, ScheduleFree, Sgd};

impl Cpu {
    pub(crate) fn lion(&self, rule: &Lion, gate: Gate, gradient: &Tensor, value: &Tensor, mean: &Tensor) {
        let Some(clip) = self.clip(gate) else { return };
        let keep = 1.0 - rule.learning_rate * rule.weight_decay;
        self.pieces(
            gradient,
            [value, mean],
            #[inline(always)]
            |gradient, [value, mean]| {
                for ((gradient, value), mean) in gradient.iter().zip(value).zip(mean) {
                    let g = gradient * clip;
                    let ahead = rule.beta_1 * *mean + (1.0 - rule.beta_1) * g;
                    let sign = f32::from(i8::from(ahead > 0.0) - i8::from(ahead < 0.0));
                    *value = *value * keep - rule.learning_rate * sign;
                    *mean = rule.beta_2 * *mean + (1.0 - rule.beta_2) * g;
                }
            },
        );
    }

    pub(crate) fn sgd(&self, rule: &Sgd, gate: Gate, gradient: &Tensor, value: &Tensor, sum: Option<&Tensor>) {
        let Some(clip) = self.clip(gate) else { return };
        let Some(sum) = sum else {
            return self.pieces(
                gradient,
                [value],
                #[inline(always)]
                |gradient, [value]| {
                    for (gradient, value) in gradient.iter().zip(value) {
                        *value -= rule.learning_rate * (gradient * clip + rule.weight_decay * *value);
                    }
                },
            );
        };
        let share = if rule.is_first { 1.0 } else { 1.0 - rule.dampening };
        let ahead = if rule.nesterov { rule.momentum } else { 0.0 };
        let own = if rule.nesterov { 1.0 } else { 0.0 };
        let of_sum = if rule.nesterov { ahead } else { 1.0 };
        self.pieces(
            gradient,
            [value, sum],
            #[inline(always)]
            |gradient, [value, sum]| {
                for ((gradient, value), sum) in gradient.iter().zip(value).zip(sum) {
                    let g = gradient * clip + rule.weight_decay * *value;
                    *sum = rule.momentum * *sum + share * g;
                    *value -= rule.learning_rate * (own * g + of_sum * *sum);
                }
            },
        );
    }

    pub(crate) fn schedule_free(
        &self,
        rule: &ScheduleFree,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        iterate: &Tensor,
        mean_square: &Tensor,
    ) {
        let Some(clip) = self.clip(gate) else { return };
        let inverse = (1.0 / correction(rule.beta_2, rule.step)) as f32;
        let rate = rule.learning_rate;
        let step = rate * (rule.beta_1 * (1.0 - rule.share) - 1.0);
        self.pieces(
            gradient,
            [value, iterate, mean_square],
            #[inline(always)]
            |gradient, [value, iterate, mean_square]| {
                for (((gradient, value), iterate), square) in gradient.iter().zip(value).zip(iterate).zip(mean_square) {
                    let g = gradient * clip;
                    *square = rule.beta_2 * *square + (1.0 - rule.beta_2) * g * g;
                    let direction = g / ((*square * inverse).sqrt() + rule.epsilon) + rule.weight_decay * *value;
                    *value = *value + rule.share * (*iterate - *value) + step * direction;
                    *iterate -= rate * direction;
                }
            },
        );
    }

    pub(crate) fn interpolate(&self, value: &Tensor, end: &Tensor, weight: f32) {
        self.pieces(
            end,
            [value],
            #[inline(always)]
            |end, [value]| {
                for (end, value) in end.iter().zip(value) {
                    *value += weight * (end - *value);
                }
            },
        );
    }
}
