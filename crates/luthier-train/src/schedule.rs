//! The learning rate as a function of the step. Names and formulas are those of `transformers.get_scheduler`.

use std::f64::consts::PI;

/// The shape after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleKind {
    /// The same rate from the first step on; warm-up does not apply.
    Constant,
    /// The same rate after warm-up.
    ConstantWithWarmup,
    /// Straight down to zero.
    Linear,
    /// Half a cosine down to zero.
    Cosine,
}

/// A learning-rate schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Its shape.
    pub kind: ScheduleKind,
    /// The highest rate.
    pub learning_rate: f64,
    /// Steps of warm-up from zero.
    pub warmup_steps: usize,
    /// Steps of the run.
    pub total_steps: usize,
}

impl Schedule {
    /// The rate of step `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        let peak = self.learning_rate;
        if self.kind == ScheduleKind::Constant {
            return peak;
        }
        if step < self.warmup_steps {
            return peak * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = (step - self.warmup_steps) as f64 / rest;
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => peak,
            ScheduleKind::Linear => peak * (1.0 - progress).max(0.0),
            ScheduleKind::Cosine => peak * (0.5 * (1.0 + (PI * progress).cos())).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_transformers() {
        let check = |kind, expected: [f64; 4]| {
            let schedule = Schedule { kind, learning_rate: 1.0, warmup_steps: 2, total_steps: 10 };
            for (step, expected) in [0, 1, 2, 6].into_iter().zip(expected) {
                assert!((schedule.rate(step) - expected).abs() < 1e-12, "{kind:?} step {step}");
            }
        };
        check(ScheduleKind::Constant, [1.0, 1.0, 1.0, 1.0]);
        check(ScheduleKind::ConstantWithWarmup, [0.0, 0.5, 1.0, 1.0]);
        check(ScheduleKind::Linear, [0.0, 0.5, 1.0, 0.5]);
        check(ScheduleKind::Cosine, [0.0, 0.5, 1.0, 0.5]);
    }
}
