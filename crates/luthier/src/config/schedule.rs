//! What the settings say of the schedule: `lr_scheduler_type`, `lr_scheduler_kwargs` and the warm-up.

use luthier_train::{ScheduleKind, Slope, StableDecay};

use super::Span;
use super::check::Check;
use crate::settings::either;

/// The rate over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScheduleSettings {
    /// What follows the warm-up, with rates as shares of the highest, but for `floor`.
    pub(crate) kind: ScheduleKind,
    /// Steps in which the rate rises; a share is rounded up.
    pub(crate) warmup: Span,
    /// The lowest rate, where it was given as such.
    pub(crate) floor: Option<f64>,
}

impl ScheduleSettings {
    /// The shape for this highest rate.
    pub(crate) fn kind(&self, learning_rate: f64) -> ScheduleKind {
        let Some(floor) = self.floor.map(|floor| floor / learning_rate) else { return self.kind };
        match self.kind {
            ScheduleKind::Cosine { cycles, .. } => ScheduleKind::Cosine { cycles, least: floor },
            ScheduleKind::CosineAhead { cycles, first, .. } => {
                ScheduleKind::CosineAhead { cycles, least: floor, first }
            }
            ScheduleKind::Polynomial { power, .. } => ScheduleKind::Polynomial { end: floor, power },
            other => other,
        }
    }
}

const KEY: &str = "lr_scheduler_kwargs";
const SLOPES: [&str; 3] = ["linear", "cosine", "1-sqrt"];

impl Check<'_> {
    pub(super) fn schedule(&mut self, notices: &mut Vec<String>) -> ScheduleSettings {
        let name = self.settings.text("lr_scheduler_type").unwrap_or_default().to_owned();
        let known: &[&str] = match name.as_str() {
            "cosine" | "cosine_with_restarts" => &["num_cycles"],
            "cosine_with_min_lr" => &["num_cycles", "min_lr", "min_lr_rate"],
            "cosine_warmup_with_min_lr" => &["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"],
            "polynomial" => &["lr_end", "power"],
            "inverse_sqrt" => &["timescale"],
            "warmup_stable_decay" => {
                &["num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"]
            }
            _ => &[],
        };
        let options = self.settings.options(KEY).to_vec();
        for (option, _) in options.iter().filter(|(option, _)| !known.contains(&option.as_str())) {
            let expected = match known {
                [] => format!("{name} takes none"),
                known => format!("{name} takes {}", either(known)),
            };
            self.problem(KEY, format!("{KEY} has {option}; {expected}"));
        }
        let given = |option: &str| options.iter().find(|(name, _)| name == option).map(|(_, text)| text.as_str());
        let mut bad: Vec<String> = Vec::new();
        let mut number = |option: &str, least: f64| {
            let text = given(option)?;
            let found = text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= least);
            if found.is_none() {
                bad.push(format!("{KEY}: {option} is {text}; expected a number of {least} or more"));
            }
            found
        };
        let cycles = number("num_cycles", 0.0);
        let steps = |number: Option<f64>| number.map(|steps| steps as usize);
        let floor = number("min_lr", 0.0);
        let least = number("min_lr_rate", 0.0);
        let (first, power) = (number("warmup_lr_rate", 0.0), number("power", 0.0));
        let (timescale, end) = (number("timescale", 1.0), number("lr_end", 0.0));
        let (decay, stable) = (steps(number("num_decay_steps", 0.0)), steps(number("num_stable_steps", 0.0)));
        let ratio = number("min_lr_ratio", 0.0).unwrap_or(0.0);
        let mut slope = |option: &str, default: Slope| match given(option) {
            None => default,
            Some("linear") => Slope::Linear,
            Some("cosine") => Slope::Cosine,
            Some("1-sqrt") => Slope::OneMinusRoot,
            Some(text) => {
                bad.push(format!("{KEY}: {option} is {text}; expected {}", either(&SLOPES)));
                default
            }
        };
        let (rise, fall) = (slope("warmup_type", Slope::Linear), slope("decay_type", Slope::Cosine));
        if name.ends_with("with_min_lr") && floor.is_some() == least.is_some() {
            bad.push(format!("{name} needs one of min_lr and min_lr_rate in {KEY}, such as min_lr_rate=0.1"));
        }
        let kind = match name.as_str() {
            "constant" => ScheduleKind::Constant,
            "constant_with_warmup" => ScheduleKind::ConstantWithWarmup,
            "cosine" | "cosine_with_min_lr" => {
                ScheduleKind::Cosine { cycles: cycles.unwrap_or(0.5), least: least.unwrap_or(0.0) }
            }
            "cosine_warmup_with_min_lr" => {
                ScheduleKind::CosineAhead { cycles: cycles.unwrap_or(0.5), least: least.unwrap_or(0.0), first }
            }
            "cosine_with_restarts" => ScheduleKind::CosineWithRestarts { cycles: cycles.unwrap_or(1.0) },
            "polynomial" => ScheduleKind::Polynomial { end: 0.0, power: power.unwrap_or(1.0) },
            "inverse_sqrt" => ScheduleKind::InverseSqrt { timescale },
            "warmup_stable_decay" => ScheduleKind::Stable(StableDecay {
                stable_steps: stable,
                decay_steps: decay,
                rise,
                fall,
                least: ratio,
                cycles: cycles.unwrap_or(0.5),
            }),
            _ => ScheduleKind::Linear,
        };
        bad.into_iter().for_each(|sentence| self.problem(KEY, sentence));
        let floor = if name == "polynomial" { Some(end.unwrap_or(1e-7)) } else { floor };
        let highest = self.number("learning_rate");
        if let Some(floor) = floor.filter(|floor| highest > 0.0 && *floor >= highest) {
            self.problem(
                KEY,
                format!("{KEY}: the rate is to end at {floor}, and learning_rate is {highest}; expected less"),
            );
        }
        let warmup = match self.settings.number("warmup_ratio") {
            Some(share) => Span::Share(share),
            None => self.span("warmup_steps"),
        };
        if self.settings.text("optim") != Some("schedule_free_adamw") {
            return ScheduleSettings { kind, warmup, floor };
        }
        if self.settings.is_given("lr_scheduler_type") && !name.starts_with("constant") {
            notices.push(format!(
                "lr_scheduler_type: {name} has no effect with optim: schedule_free_adamw: its rate stays after warm-up"
            ));
        }
        ScheduleSettings { kind: ScheduleKind::ConstantWithWarmup, warmup, floor: None }
    }
}
