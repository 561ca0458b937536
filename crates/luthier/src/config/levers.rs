//! What trades memory, time and rounding against one another without being a method: which layers run again, how the
//! optimiser's state is kept, noise on embeddings, how large a batch is.

use luthier_tensor::Rounding;
use luthier_train::OptimiserKind;

use super::check::Check;
use super::{Method, Precision, Recomputation, TrainConfig};

/// Noise and rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Levers {
    /// Strength of the noise on embeddings; more than 0.
    pub(crate) noise_alpha: Option<f64>,
    /// How trained matrices and moments in bf16 are rounded; `None`: they are f32. Only with AdamW.
    pub(crate) pure_bf16: Option<Rounding>,
}

impl Check<'_> {
    pub(super) fn levers(&self) -> Levers {
        let noise_alpha = self.settings.number("neftune_noise_alpha").filter(|alpha| *alpha > 0.0);
        let rounding = match self.settings.text("pure_bf16_rounding") {
            Some("kahan") => Rounding::Kahan,
            _ => Rounding::Stochastic,
        };
        let pure_bf16 = self.is_on("pure_bf16").then_some(rounding);
        Levers { noise_alpha, pure_bf16 }
    }

    /// What method and optimiser must be where their state is bf16, or where the scale of the loss may spoil a step. Said where
    /// nothing else is wrong, since method and optimiser have rules of their own.
    pub(super) fn levers_beside(&mut self, config: &TrainConfig) {
        if self.found_any() {
            return;
        }
        let optimiser = &config.optimiser;
        let is_plain = match &config.method {
            Method::Full | Method::Freeze(_) => true,
            Method::Lora(lora) => !lora.magnitudes && lora.pissa.is_none(),
            _ => false,
        };
        if config.levers.pure_bf16.is_some() && !is_plain {
            self.problem(
                "pure_bf16",
                "pure_bf16 needs finetuning_type full, freeze, or lora without use_dora and pissa_init",
            );
        } else if config.levers.pure_bf16.is_some() && optimiser.kind != OptimiserKind::AdamW {
            let other = optimiser.kind.describe();
            self.problem(
                "pure_bf16",
                format!("pure_bf16 keeps the state of AdamW, not that of {other}; expected AdamW"),
            );
        }
        if config.machine.precision != Precision::F16 {
            return;
        }
        let key = if self.is_on("fp16") { "fp16" } else { "precision" };
        if optimiser.in_backward {
            let sentence = "fp16 takes back a step whose gradients grew too large, and steps on the way back cannot be taken \
                            back; expected bf16 or fp32";
            self.problem(key, sentence);
        }
        if matches!(optimiser.kind, OptimiserKind::ScheduleFree(_)) {
            let sentence = "fp16 takes back a step whose gradients grew too large, and the average of schedule-free AdamW counts \
                            each; expected bf16 or fp32";
            self.problem(key, sentence);
        }
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

    #[test]
    fn states_of_another_shape_and_steps_that_cannot_be_taken_back_are_refused() {
        let full = "finetuning_type: full";
        for (text, expected) in [
            ("pure_bf16: true\nuse_galore: true", "not that of GaLore of rank 16; expected AdamW"),
            ("pure_bf16: true\noptim: adamw_bnb_8bit", "not that of AdamW with moments of 8 bits"),
            ("pure_bf16: true\noptim: schedule_free_adamw", "not that of schedule-free AdamW"),
            ("pure_bf16: true\nuse_muon: true", "not that of Muon"),
            ("pure_bf16: true\noptim: lion_32bit", "not that of Lion"),
            ("fp16: true\noptimizer_in_bwd: true\nmax_grad_norm: 0", "steps on the way back cannot be taken back"),
            ("precision: fp16\noptim: schedule_free_adamw", "the average of schedule-free AdamW counts each"),
        ] {
            let problems: Vec<String> = read(&format!("{full}\n{text}")).expect_err(text);
            assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
        }
        for method in ["ia3", "vera", "oft", "prefix", "prompt", "p_tuning", "bottleneck", "bitfit"] {
            assert!(read(&format!("pure_bf16: true\nfinetuning_type: {method}")).is_err(), "{method}");
        }
        for text in ["use_adam_mini: true\nfp16: true", "pure_bf16: true\noptimizer_in_bwd: true\nmax_grad_norm: 0"] {
            assert!(read(&format!("{full}\n{text}")).is_ok(), "{text}");
        }
    }
}
