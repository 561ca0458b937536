//! What trades memory, time and rounding against one another without being a method: which layers run again, how the
//! optimiser's state is kept, noise on embeddings, how large a batch is.

use luthier_tensor::Rounding;

use super::check::Check;
use super::{Precision, Recomputation};

/// Noise and rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Levers {
    /// Strength of the noise on embeddings; more than 0.
    pub(crate) noise_alpha: Option<f64>,
    /// How trained matrices and moments in bf16 are rounded; `None`: they are f32. Only with AdamW.
    pub(crate) pure_bf16: Option<Rounding>,
}

/// Switches of optimisers that keep a state of their own shape.
const OTHER_STATES: [&str; 5] = ["use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon"];

impl Check<'_> {
    pub(super) fn levers(&mut self) -> Levers {
        let noise_alpha = self.settings.number("neftune_noise_alpha").filter(|alpha| *alpha > 0.0);
        let rounding = match self.settings.text("pure_bf16_rounding") {
            Some("kahan") => Rounding::Kahan,
            _ => Rounding::Stochastic,
        };
        let pure_bf16 = self.is_on("pure_bf16").then_some(rounding);
        if pure_bf16.is_some() {
            let optimiser = OTHER_STATES.into_iter().find(|name| self.is_on(name)).map(str::to_owned);
            let named = self.settings.text("optim").filter(|name| !name.contains("adamw") || name.contains("bit"));
            let named = named.filter(|name| *name != "paged_adamw_32bit").map(|name| format!("optim: {name}"));
            if let Some(other) = optimiser.or(named) {
                let sentence =
                    format!("pure_bf16 keeps AdamW's state only and goes without {other}; expected one of them");
                self.problem("pure_bf16", sentence);
            }
            let method = self.settings.text("finetuning_type").unwrap_or("lora").to_owned();
            if !["lora", "full", "freeze"].contains(&method.as_str())
                || self.is_on("use_dora")
                || self.is_on("pissa_init")
            {
                self.problem(
                    "pure_bf16",
                    "pure_bf16 needs finetuning_type full, freeze, or lora without use_dora and pissa_init",
                );
            }
        }
        Levers { noise_alpha, pure_bf16 }
    }

    /// What a state in bf16 makes of the precision.
    pub(super) fn with_pure_bf16(&mut self, precision: Precision) -> Precision {
        match precision {
            _ if !self.is_on("pure_bf16") => precision,
            Precision::Auto | Precision::Bf16 => Precision::Bf16,
            Precision::F32 | Precision::F16 => {
                let other = if precision == Precision::F32 { "fp32" } else { "fp16" };
                let sentence =
                    format!("pure_bf16: true and precision: {other} exclude one another; expected one of them");
                self.problem("pure_bf16", sentence);
                precision
            }
        }
    }

    /// Which layers run again.
    pub(super) fn recomputation(&mut self) -> Recomputation {
        let given = self.settings.text("gradient_checkpointing");
        let found = match given {
            Some("on") => Recomputation::Always,
            Some("selective") => Recomputation::FeedForward,
            Some("off") => Recomputation::Never,
            _ => Recomputation::Auto,
        };
        if !self.is_on("disable_gradient_checkpointing") {
            return found;
        }
        if matches!(found, Recomputation::Always | Recomputation::FeedForward) {
            self.problem(
                "gradient_checkpointing",
                "gradient_checkpointing and disable_gradient_checkpointing exclude one another; expected one of them",
            );
        }
        Recomputation::Never
    }

    /// Rows of a batch; `None`: as many as memory holds.
    pub(super) fn batch_rows(&self) -> Option<usize> {
        let is_auto = self.settings.text("per_device_train_batch_size") == Some("auto");
        (!is_auto).then(|| self.count("per_device_train_batch_size"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::read;
    use super::*;

    #[test]
    fn layers_run_again_as_llama_factory_says_it_and_in_words() {
        let of = |text| read(text).map(|config| config.machine.recomputation);
        for (text, expected) in [
            ("threads: 1", Recomputation::Auto),
            ("gradient_checkpointing: auto", Recomputation::Auto),
            ("gradient_checkpointing: null", Recomputation::Auto),
            ("gradient_checkpointing: true", Recomputation::Always),
            ("gradient_checkpointing: on", Recomputation::Always),
            ("gradient_checkpointing: false", Recomputation::Never),
            ("gradient_checkpointing: off", Recomputation::Never),
            ("gradient_checkpointing: selective", Recomputation::FeedForward),
            ("disable_gradient_checkpointing: true", Recomputation::Never),
            ("disable_gradient_checkpointing: true\ngradient_checkpointing: false", Recomputation::Never),
        ] {
            assert_eq!(of(text), Ok(expected), "{text}");
        }
        assert!(of("disable_gradient_checkpointing: true\ngradient_checkpointing: true").is_err());
        assert!(of("gradient_checkpointing: sometimes").is_err());
    }

    #[test]
    fn batches_may_be_as_large_as_memory_holds() {
        let rows = |text| read(text).map(|config| config.batch.rows);
        assert_eq!(rows("batch_size: auto"), Ok(None));
        assert_eq!(rows("per_device_train_batch_size: 3"), Ok(Some(3)));
        assert!(rows("per_device_train_batch_size: 0").is_err() && rows("batch_size: many").is_err());
    }

    #[test]
    fn pure_bf16_is_a_state_of_adamw() {
        let of = |text| read(text).map(|config| (config.levers.pure_bf16, config.machine.precision));
        assert_eq!(of("pure_bf16: true"), Ok((Some(Rounding::Stochastic), Precision::Bf16)));
        assert_eq!(of("pure_bf16: true\npure_bf16_rounding: kahan"), Ok((Some(Rounding::Kahan), Precision::Bf16)));
        assert_eq!(
            of("pure_bf16: true\nfinetuning_type: full\noptim: adamw_torch").map(|found| found.1),
            Ok(Precision::Bf16)
        );
        assert_eq!(of("neftune_noise_alpha: 5"), Ok((None, Precision::Auto)));
        assert!(of("pure_bf16: true\nprecision: fp32").is_err() && of("pure_bf16: true\nfp16: true").is_err());
    }
}
