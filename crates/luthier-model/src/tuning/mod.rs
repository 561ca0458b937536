//! What is trained: everything, a part of the model, or an adapter on chosen modules. A function from that choice and a
//! checkpoint to weights, each frozen or registered as a parameter. One file for each kind of adapter.

mod bottleneck;
mod builder;
mod ia3;
mod lora;
mod oft;
mod partial;
mod pissa;
mod prompt;
mod random;
mod vera;

use std::collections::BTreeSet;

use crate::adapter::{
    Adapter, BottleneckConfig, Ia3Settings, LoraConfig, OftSettings, Origin, PromptConfig, VeraSettings,
    adapter_config, ia3_config, oft_config, vera_config,
};

pub(crate) use bottleneck::Block;
pub use bottleneck::BottleneckSettings;
pub(crate) use builder::Builder;
pub use lora::LoraSettings;
pub(crate) use lora::{Start, converted};
pub use partial::{FreezeSettings, PartialError, TrainedLayers, added_targets, biases};
pub use pissa::Pissa;
pub use prompt::PromptSettings;
pub(crate) use random::{mix, stream};
pub(crate) use vera::{Shared, shared_tensors};

/// What training changes.
#[derive(Clone, Debug)]
pub enum Tuning {
    /// Nothing: generation and evaluation.
    Nothing,
    /// Every tensor.
    Full,
    /// A part of the model: layers, modules, biases.
    Freeze {
        /// The names of the tensors that are trained.
        tensors: BTreeSet<String>,
    },
    /// Low-rank adapters.
    Lora(LoraSettings),
    /// Vectors that scale.
    Ia3(Ia3Settings),
    /// Vectors between random matrices.
    Vera(VeraSettings),
    /// Rotations.
    Oft(OftSettings),
    /// A learned prefix or prompt.
    Prompt(PromptSettings),
    /// Bottleneck adapters.
    Bottleneck(BottleneckSettings),
}

impl Tuning {
    /// Whether what is trained is saved as an adapter, beside a base that stays as it is.
    pub fn is_adapter(&self) -> bool {
        match self {
            Self::Lora(_) | Self::Ia3(_) | Self::Vera(_) | Self::Oft(_) | Self::Prompt(_) | Self::Bottleneck(_) => true,
            Self::Nothing | Self::Full | Self::Freeze { .. } => false,
        }
    }

    /// Modules that an adapter trains as a whole.
    pub fn saved_modules(&self) -> &[String] {
        match self {
            Self::Lora(lora) => &lora.saved_modules,
            Self::Ia3(ia3) => &ia3.saved_modules,
            Self::Vera(vera) => &vera.saved_modules,
            Self::Oft(oft) => &oft.saved_modules,
            Self::Prompt(_) | Self::Bottleneck(_) | Self::Nothing | Self::Full | Self::Freeze { .. } => &[],
        }
    }

    /// Share of numbers that are dropped in training.
    pub fn dropout(&self) -> f32 {
        match self {
            Self::Lora(lora) => lora.dropout,
            Self::Vera(vera) => vera.dropout,
            Self::Prompt(_)
            | Self::Bottleneck(_)
            | Self::Nothing
            | Self::Full
            | Self::Freeze { .. }
            | Self::Ia3(_)
            | Self::Oft(_) => 0.0,
        }
    }

    /// The content of `adapter_config.json`; `None` where a model is saved instead. `base_model` is where the base comes
    /// from, `revision` which of it, where that is a hub.
    pub fn adapter_config(&self, base_model: String, revision: Option<String>) -> Option<Vec<u8>> {
        let origin = Origin { base_model, revision };
        match self {
            Self::Lora(lora) => Some(adapter_config(&lora_config(lora, origin))),
            Self::Ia3(ia3) => Some(ia3_config(ia3, &origin)),
            Self::Vera(vera) => Some(vera_config(vera, &origin)),
            Self::Oft(oft) => Some(oft_config(oft, &origin)),
            Self::Prompt(prompt) => {
                let Origin { base_model, revision } = origin;
                Some(PromptConfig { base_model, revision, ..prompt.config.clone() }.to_json())
            }
            Self::Bottleneck(bottleneck) => {
                let Origin { base_model, revision } = origin;
                Some(BottleneckConfig { base_model, revision, ..bottleneck.config.clone() }.to_json())
            }
            Self::Nothing | Self::Full | Self::Freeze { .. } => None,
        }
    }

    /// The method that goes on training an adapter in its own form.
    pub fn of(adapter: &Adapter) -> Self {
        match adapter {
            Adapter::Lora(lora) => {
                let config = &lora.config;
                Self::Lora(LoraSettings {
                    alpha: config.alpha,
                    dropout: config.dropout as f32,
                    rslora: config.rslora,
                    dora: config.dora,
                    targets: config.target_modules.clone(),
                    saved_modules: config.modules_to_save.clone(),
                    rank_pattern: config.rank_pattern.clone(),
                    alpha_pattern: config.alpha_pattern.clone(),
                    ..LoraSettings::of_rank(config.rank)
                })
            }
            Adapter::Ia3(ia3) => Self::Ia3(ia3.settings.clone()),
            Adapter::Vera(vera) => Self::Vera(vera.settings.clone()),
            Adapter::Oft(oft) => Self::Oft(oft.settings.clone()),
            Adapter::Prompt(prompt) => Self::Prompt(PromptSettings::of(prompt, 0)),
            Adapter::Bottleneck(adapter) => {
                Self::Bottleneck(BottleneckSettings { config: adapter.config.clone(), seed: 0 })
            }
        }
    }
}

/// As it is saved: PiSSA as plain LoRA of twice the rank and the same factor.
fn lora_config(lora: &LoraSettings, origin: Origin) -> LoraConfig {
    let (ranks, alphas) = match (&lora.pissa, lora.rslora) {
        (None, _) => (1.0, 1.0),
        (Some(_), false) => (2.0, 2.0),
        (Some(_), true) => (2.0, 2f64.sqrt()),
    };
    let times = |pattern: &[(String, f64)], factor: f64| {
        pattern.iter().map(|(name, number)| (name.clone(), number * factor)).collect()
    };
    LoraConfig {
        rank: lora.rank * ranks as usize,
        alpha: lora.alpha * alphas,
        dropout: f64::from(lora.dropout),
        rslora: lora.rslora,
        dora: lora.dora,
        target_modules: lora.targets.clone(),
        modules_to_save: lora.saved_modules.clone(),
        rank_pattern: times(&lora.rank_pattern, ranks),
        alpha_pattern: times(&lora.alpha_pattern, alphas),
        base_model: origin.base_model,
        revision: origin.revision,
    }
}

/// Whether `modules_to_save` names the module, or one that it is a part of. As in PEFT a name matches the end of a path
/// wherever it begins: `norm` is every norm.
pub(crate) fn is_saved(module: &str, saved: &[String]) -> bool {
    let ends = module.match_indices('.').map(|(end, _)| end).chain([module.len()]);
    ends.into_iter().any(|end| saved.iter().any(|name| module[..end].ends_with(name.as_str())))
}
