//! In what the run computes and what it keeps its numbers in: `precision` and the switches that LLaMA-Factory has for it.

use luthier_train::LossScaling;

use super::Precision;
use super::check::Check;

/// Each switch with what it means as a `precision`.
const SWITCHES: [(&str, &str, Precision); 2] = [("bf16", "bf16", Precision::Bf16), ("fp16", "fp16", Precision::F16)];

impl Check<'_> {
    /// What is multiplied, and how the loss is scaled should that be fp16.
    pub(super) fn precision(&mut self) -> (Precision, LossScaling) {
        let precision = match self.settings.text("precision") {
            Some("fp32") => Precision::F32,
            Some("bf16") => Precision::Bf16,
            Some("fp16") => Precision::F16,
            _ => Precision::Auto,
        };
        let mut found = precision;
        for (name, value, meant) in SWITCHES {
            match self.settings.switch(name) {
                Some(true) if found == Precision::Auto || found == meant => found = meant,
                Some(true) => {
                    let given = match self.settings.text("precision") {
                        Some(given) if precision != Precision::Auto => format!("precision: {given}"),
                        _ => "bf16: true".to_owned(),
                    };
                    self.problem(name, format!("{name}: true and {given} exclude one another; expected one of them"));
                }
                Some(false) if precision == meant && self.settings.is_given(name) => {
                    let sentence =
                        format!("{name}: false and precision: {value} exclude one another; expected one of them");
                    self.problem(name, sentence);
                }
                _ => {}
            }
        }
        // `bf16: false` alone says what LLaMA-Factory's default is; with fp16 it says nothing more.
        if found == Precision::Auto && self.settings.switch("bf16") == Some(false) {
            found = Precision::F32;
        }
        (self.with_pure_bf16(found), self.loss_scaling())
    }

    fn loss_scaling(&mut self) -> LossScaling {
        let usual = LossScaling::default();
        let scaling = LossScaling {
            initial: self.number("loss_scale"),
            growth: self.number("loss_scale_growth"),
            growth_steps: self.count("loss_scale_growth_steps"),
            back_off: self.number("loss_scale_backoff"),
            floor: self.number("loss_scale_floor"),
        };
        if scaling.back_off >= 1.0 || scaling.back_off <= 0.0 {
            self.problem("loss_scale_backoff", "loss_scale_backoff must lie between 0 and 1, both left out");
            return usual;
        }
        if !(scaling.initial as f32).is_finite() {
            self.problem("loss_scale", "loss_scale must be a number of fp32; expected less than 3e38");
            return usual;
        }
        if scaling.floor <= 0.0 || scaling.floor > scaling.initial {
            self.problem("loss_scale_floor", "loss_scale_floor must be above 0 and at most loss_scale");
            return usual;
        }
        scaling
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::read;
    use super::*;

    #[test]
    fn the_switches_say_what_precision_says() {
        let of = |text| read(text).map(|config| config.machine.precision);
        for (text, expected) in [
            ("threads: 1", Precision::Auto),
            ("bf16: true", Precision::Bf16),
            ("fp16: true", Precision::F16),
            ("precision: fp16", Precision::F16),
            ("fp16: true\nbf16: false", Precision::F16),
            ("fp16: false", Precision::Auto),
            ("bf16: false", Precision::F32),
            ("bf16: false\nprecision: fp32", Precision::F32),
            ("fp16: true\nprecision: fp16", Precision::F16),
        ] {
            assert_eq!(of(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("fp16: true\nbf16: true", "fp16: true and bf16: true exclude one another"),
            ("fp16: true\nprecision: fp32", "fp16: true and precision: fp32 exclude one another"),
            ("bf16: true\nprecision: fp32", "bf16: true and precision: fp32 exclude one another"),
            ("bf16: false\nprecision: bf16", "bf16: false and precision: bf16 exclude one another"),
            ("loss_scale_backoff: 1", "loss_scale_backoff must lie between 0 and 1"),
            ("loss_scale: 8\nloss_scale_floor: 16", "loss_scale_floor must be above 0"),
        ] {
            let problems: Vec<String> = of(text).expect_err(text);
            assert!(problems[0].contains(expected), "{text}: {}", problems[0]);
        }
    }
}
