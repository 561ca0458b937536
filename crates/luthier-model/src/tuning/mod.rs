//! What is trained: everything, the last layers, or an adapter on chosen modules. A function from that choice and a
//! checkpoint to weights, each frozen or registered as a parameter. One file for each kind of adapter.

mod bottleneck;
mod builder;
mod lora;
mod prompt;
mod random;

use std::ops::Range;

use crate::adapter::{BottleneckConfig, LoraConfig, PromptConfig, adapter_config};

pub(crate) use bottleneck::Block;
pub use bottleneck::BottleneckSettings;
pub(crate) use builder::Builder;
pub use lora::LoraSettings;
pub use prompt::PromptSettings;
pub(crate) use random::{mix, stream};

/// What training changes.
#[derive(Clone, Debug)]
pub enum Tuning {
    /// Nothing: generation and evaluation.
    Nothing,
    /// Every tensor.
    Full,
    /// The tensors of some layers.
    Freeze {
        /// The layers that are trained.
        layers: Range<usize>,
    },
    /// Low-rank adapters.
    Lora(LoraSettings),
    /// A learned prefix or prompt.
    Prompt(PromptSettings),
    /// Bottleneck adapters.
    Bottleneck(BottleneckSettings),
}

impl Tuning {
    /// Whether what is trained is saved as an adapter, beside a base that stays as it is.
    pub fn is_adapter(&self) -> bool {
        match self {
            Self::Lora(_) | Self::Prompt(_) | Self::Bottleneck(_) => true,
            Self::Nothing | Self::Full | Self::Freeze { .. } => false,
        }
    }

    /// Modules that an adapter trains as a whole.
    pub fn saved_modules(&self) -> &[String] {
        match self {
            Self::Lora(lora) => &lora.saved_modules,
            Self::Prompt(_) | Self::Bottleneck(_) | Self::Nothing | Self::Full | Self::Freeze { .. } => &[],
        }
    }

    /// Share of numbers that are dropped in training.
    pub fn dropout(&self) -> f32 {
        match self {
            Self::Lora(lora) => lora.dropout,
            Self::Prompt(_) | Self::Bottleneck(_) | Self::Nothing | Self::Full | Self::Freeze { .. } => 0.0,
        }
    }

    /// The content of `adapter_config.json`; `None` where a model is saved instead. `base_model` is where the base comes
    /// from, `revision` which of it, where that is a hub.
    pub fn adapter_config(&self, base_model: String, revision: Option<String>) -> Option<Vec<u8>> {
        match self {
            Self::Lora(lora) => Some(adapter_config(&LoraConfig {
                rank: lora.rank,
                alpha: lora.alpha,
                dropout: f64::from(lora.dropout),
                rslora: lora.rslora,
                target_modules: lora.targets.clone(),
                modules_to_save: lora.saved_modules.clone(),
                rank_pattern: lora.rank_pattern.clone(),
                alpha_pattern: lora.alpha_pattern.clone(),
                base_model,
                revision,
            })),
            Self::Prompt(prompt) => Some(PromptConfig { base_model, revision, ..prompt.config.clone() }.to_json()),
            Self::Bottleneck(bottleneck) => {
                Some(BottleneckConfig { base_model, revision, ..bottleneck.config.clone() }.to_json())
            }
            Self::Nothing | Self::Full | Self::Freeze { .. } => None,
        }
    }
}

/// Whether `modules_to_save` names the module, or one that it is a part of. As in PEFT a name matches the end of a path
/// wherever it begins: `norm` is every norm.
pub(crate) fn is_saved(module: &str, saved: &[String]) -> bool {
    let ends = module.match_indices('.').map(|(end, _)| end).chain([module.len()]);
    ends.into_iter().any(|end| saved.iter().any(|name| module[..end].ends_with(name.as_str())))
}
