//! The learning rate as a function of the step. Names and formulas are those of `transformers.get_scheduler`.

use std::f64::consts::PI;

/// The shape of a schedule. A rate is a share of the highest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScheduleKind {
    /// The same rate from the first step on; warm-up does not apply.
    Constant,
    /// The same rate after warm-up.
    ConstantWithWarmup,
    /// Straight down to zero.
    Linear,
    /// A cosine from one down to `least`.
    Cosine {
        /// Waves; half a one goes down once.
        cycles: f64,
        /// The lowest rate.
        least: f64,
    },
    /// `cosine_warmup_with_min_lr`: as `Cosine`, but a step ahead, and warm-up begins above zero.
    CosineAhead {
        /// Waves.
        cycles: f64,
        /// The lowest rate.
        least: f64,
        /// The first rate; `None`: the first of as many equal parts as warm-up has steps.
        first: Option<f64>,
    },
    /// Half a cosine down to zero, so many times.
    CosineWithRestarts {
        /// How many times.
        cycles: f64,
    },
    /// Down to `end` as a power of what is left.
    Polynomial {
        /// The last rate.
        end: f64,
        /// 1 is straight.
        power: f64,
    },
    /// One over the root of the steps, counted in `timescale`; `None`: that of warm-up, or 10,000.
    InverseSqrt {
        /// Steps after which the rate is as high as at the end of warm-up.
        timescale: Option<f64>,
    },
    /// `warmup_stable_decay`.
    Stable(StableDecay),
}

impl ScheduleKind {
    /// Half a cosine down to zero.
    pub const COSINE: Self = Self::Cosine { cycles: 0.5, least: 0.0 };
}

/// A rate that stays before it falls. Hägele et al. 2024.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StableDecay {
    /// Steps that it stays; `None`: those that are left.
    pub stable_steps: Option<usize>,
    /// Steps in which it falls; `None`: two thirds of those after warm-up, the other third being stable, as LLaMA-Factory
    /// has it.
    pub decay_steps: Option<usize>,
    /// How it rises.
    pub rise: Slope,
    /// How it falls.
    pub fall: Slope,
    /// The lowest rate.
    pub least: f64,
    /// Waves of a cosine in which it falls.
    pub cycles: f64,
}

impl Default for StableDecay {
    fn default() -> Self {
        Self {
            stable_steps: None,
            decay_steps: None,
            rise: Slope::Linear,
            fall: Slope::Cosine,
            least: 0.0,
            cycles: 0.5,
        }
    }
}

/// How a rate rises or falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slope {
    /// In equal parts.
    Linear,
    /// As a cosine.
    Cosine,
    /// As one minus a root.
    OneMinusRoot,
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
        let (warmup, peak) = (self.warmup_steps, self.learning_rate);
        match self.kind {
            ScheduleKind::Constant => return peak,
            ScheduleKind::Stable(stable) => return peak * self.stable(&stable, step),
            ScheduleKind::CosineAhead { first, .. } if step < warmup => {
                return peak
                    * match first {
                        None => (step as f64 + 1.0) / warmup.max(1) as f64,
                        Some(first) => first + (1.0 - first) * step as f64 / (warmup - 1).max(1) as f64,
                    };
            }
            _ => {}
        }
        if step < warmup {
            return peak * step as f64 / warmup.max(1) as f64;
        }
        let rest = self.total_steps.saturating_sub(warmup).max(1) as f64;
        let progress = (step - warmup) as f64 / rest;
        let cosine = |cycles: f64, least: f64, progress: f64| {
            let factor = 0.5 * (1.0 + (PI * cycles * 2.0 * progress).cos());
            (factor * (1.0 - least) + least).max(0.0)
        };
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup | ScheduleKind::Stable(_) => peak,
            ScheduleKind::Linear => peak * (1.0 - progress).max(0.0),
            ScheduleKind::Cosine { cycles, least } => peak * cosine(cycles, least, progress),
            ScheduleKind::CosineAhead { cycles, least, .. } => {
                peak * cosine(cycles, least, ((step - warmup) as f64 + 1.0) / rest)
            }
            ScheduleKind::CosineWithRestarts { .. } if progress >= 1.0 => 0.0,
            ScheduleKind::CosineWithRestarts { cycles } => peak * cosine(0.5, 0.0, (cycles * progress).fract()),
            ScheduleKind::Polynomial { end, .. } if step > self.total_steps => peak * end,
            ScheduleKind::Polynomial { end, power } => peak * ((1.0 - end) * (1.0 - progress).powf(power) + end),
            ScheduleKind::InverseSqrt { timescale } => {
                let scale = timescale.unwrap_or(if warmup == 0 { 10_000.0 } else { warmup as f64 });
                peak / ((step as f64 + scale - warmup as f64) / scale).sqrt()
            }
        }
    }

    fn stable(&self, stable: &StableDecay, step: usize) -> f64 {
        let rest = self.total_steps.saturating_sub(self.warmup_steps);
        let decay_steps = stable.decay_steps.unwrap_or(rest - rest / 3);
        let stable_steps = stable.stable_steps.unwrap_or_else(|| match stable.decay_steps {
            Some(decay_steps) => rest.saturating_sub(decay_steps),
            None => rest / 3,
        });
        let above = |factor: f64| (factor * (1.0 - stable.least) + stable.least).max(0.0);
        if step < self.warmup_steps {
            let progress = step as f64 / self.warmup_steps.max(1) as f64;
            return above(match stable.rise {
                Slope::Linear => progress,
                Slope::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                Slope::OneMinusRoot => 1.0 - (1.0 - progress).sqrt(),
            });
        }
        let after = step - self.warmup_steps;
        if after < stable_steps {
            return 1.0;
        }
        if after < stable_steps + decay_steps {
            let progress = (after - stable_steps) as f64 / decay_steps.max(1) as f64;
            return above(match stable.fall {
                Slope::Linear => 1.0 - progress,
                Slope::Cosine => 0.5 * (1.0 + (PI * stable.cycles * 2.0 * progress).cos()),
                Slope::OneMinusRoot => 1.0 - progress.sqrt(),
            });
        }
        stable.least
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// A schedule of the fixture: its name in transformers and what was given besides.
    fn kind(name: &str, given: &Value) -> ScheduleKind {
        let number = |key: &str| given[key].as_f64();
        let least = || number("min_lr_rate").or(number("min_lr").map(|rate| rate / 1e-3)).unwrap_or(0.0);
        let slope = |key: &str, default: Slope| match given[key].as_str() {
            Some("linear") => Slope::Linear,
            Some("cosine") => Slope::Cosine,
            Some("1-sqrt") => Slope::OneMinusRoot,
            _ => default,
        };
        let cycles = |default: f64| number("num_cycles").unwrap_or(default);
        match name {
            "linear" => ScheduleKind::Linear,
            "constant" => ScheduleKind::Constant,
            "constant_with_warmup" => ScheduleKind::ConstantWithWarmup,
            "cosine" | "cosine_with_min_lr" => ScheduleKind::Cosine { cycles: cycles(0.5), least: least() },
            "cosine_warmup_with_min_lr" => {
                ScheduleKind::CosineAhead { cycles: cycles(0.5), least: least(), first: number("warmup_lr_rate") }
            }
            "cosine_with_restarts" => ScheduleKind::CosineWithRestarts { cycles: cycles(1.0) },
            "polynomial" => ScheduleKind::Polynomial {
                end: number("lr_end").unwrap_or(1e-7) / 1e-3,
                power: number("power").unwrap_or(1.0),
            },
            "inverse_sqrt" => ScheduleKind::InverseSqrt { timescale: number("timescale") },
            "warmup_stable_decay" => ScheduleKind::Stable(StableDecay {
                stable_steps: number("num_stable_steps").map(|steps| steps as usize),
                decay_steps: number("num_decay_steps").map(|steps| steps as usize),
                rise: slope("warmup_type", Slope::Linear),
                fall: slope("decay_type", Slope::Cosine),
                least: number("min_lr_ratio").unwrap_or(0.0),
                cycles: cycles(0.5),
            }),
            other => panic!("{other} is not known"),
        }
    }

    /// Made with transformers 5.6.0 by `tests/external/optimisers.py`.
    #[test]
    fn rates_are_those_of_transformers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/schedules.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let rates = case["rates"].as_array().unwrap();
            let schedule = Schedule {
                kind: kind(name, &case["kwargs"]),
                learning_rate: 1e-3,
                warmup_steps: case["warmup_steps"].as_u64().unwrap() as usize,
                total_steps: rates.len(),
            };
            for (step, expected) in rates.iter().enumerate() {
                let (found, expected) = (schedule.rate(step), expected.as_f64().unwrap());
                assert!((found - expected).abs() < 1e-15, "{case}: step {step} is {found}");
            }
        }
        assert!(cases.len() > 30);
    }

    #[test]
    fn a_stable_rate_takes_a_third_where_nothing_is_said() {
        let kind = ScheduleKind::Stable(StableDecay::default());
        let schedule = Schedule { kind, learning_rate: 1.0, warmup_steps: 1, total_steps: 10 };
        let rates: Vec<f64> = (0..10).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates[..5], [0.0, 1.0, 1.0, 1.0, 1.0]);
        assert!(rates[5] < 1.0 && rates[9] < 0.1, "{rates:?}");
    }
}
