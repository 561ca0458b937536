//! The learning rate where none is given: a rule for each method, each with its source, which is printed.

use luthier_model::families::pretraining_rate;
use luthier_train::OptimiserKind;

use crate::config::TrainConfig;
use crate::model::Model;

/// A learning rate and why it is that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChosenRate {
    pub(crate) value: f64,
    /// `None` where it was given.
    pub(crate) reason: Option<String>,
}

/// Of weights that are where they should be but for a little: this share of what brought them there.
const SHARE_OF_PRETRAINING: f64 = 0.2;
/// Where a family's own is not published.
const USUAL_PRETRAINING: f64 = 1e-4;

/// Rates of what is trained beside the weights, by `finetuning_type`.
const ADAPTERS: [(&str, f64, &str); 6] = [
    ("lora", 1e-4, "recommended for LoRA are 3e-5 to 1e-4"),
    ("prefix", 5e-5, "Li & Liang 2021"),
    ("prompt", 0.3, "Lester et al. 2021"),
    ("bottleneck", 1e-4, "Pfeiffer et al. 2020"),
    ("ia3", 3e-3, "Liu et al. 2022"),
    ("vera", 4e-3, "Kopiczko et al. 2024"),
];

/// The rate of a run.
pub(crate) fn choose(config: &TrainConfig, model: &Model) -> ChosenRate {
    if let Some(value) = config.optimiser.learning_rate {
        return ChosenRate { value, reason: None };
    }
    let family = &model.checkpoint.model.decoder.model_type;
    by_rule(config.method.name(), config.model.from_scratch, family, &config.optimiser.kind)
}

fn by_rule(method: &str, from_scratch: bool, family: &str, optimiser: &OptimiserKind) -> ChosenRate {
    let (mut value, mut why) = match ADAPTERS.iter().find(|(name, ..)| method.contains(name)) {
        Some((_, rate, source)) => (*rate, (*source).to_owned()),
        None => of_weights(from_scratch, family),
    };
    if *optimiser == OptimiserKind::Lion {
        value /= 3.0;
        why += "; a third of it, since Lion wants 3 to 10 times less than AdamW (Chen et al. 2023)";
    }
    // Shares of decimal numbers are decimal numbers.
    let value: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    ChosenRate { value, reason: Some(format!("{value:e}, by rule: {why}; see luthier lr-find")) }
}

fn of_weights(from_scratch: bool, family: &str) -> (f64, String) {
    let published = pretraining_rate(family);
    let (rate, source) = match published {
        Some(found) => {
            (found.rate, format!("the {:e} that {family} was pre-trained with ({})", found.rate, found.source))
        }
        None => (
            USUAL_PRETRAINING,
            format!("{USUAL_PRETRAINING:e}, since the rate that {family} was pre-trained with is not published"),
        ),
    };
    if from_scratch {
        return (rate, format!("all of {source}, since the weights are drawn"));
    }
    (SHARE_OF_PRETRAINING * rate, format!("20 % of {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_from_method_family_and_optimiser() {
        let rate = |method: &str, family: &str, kind: OptimiserKind| by_rule(method, false, family, &kind);
        let lora = rate("lora", "llama", OptimiserKind::AdamW);
        assert_eq!(lora.value, 1e-4);
        let full = rate("full", "llama", OptimiserKind::AdamW);
        assert_eq!(full.value, 6e-5);
        assert_eq!(
            full.reason.as_deref(),
            Some(
                "6e-5, by rule: 20 % of the 3e-4 that llama was pre-trained with (Touvron et al. 2023, LLaMA of 7B); see \
                 luthier lr-find"
            )
        );
        assert_eq!(rate("freeze", "qwen2", OptimiserKind::AdamW).value, 2e-5);
        assert_eq!(rate("full", "qwen2", OptimiserKind::Lion).value, 6.67e-6);
        assert_eq!(by_rule("full", true, "smollm3", &OptimiserKind::AdamW).value, 2e-4);
    }
}
