//! What tuning adds to a model, as files: PEFT's folder format, as bytes in and bytes out, so that PEFT and vLLM load ours
//! and we theirs. One file for each `peft_type`.

mod bottleneck;
mod common;
mod file;
mod ia3;
mod loaded;
mod lora;
mod lora_config;
mod mersenne;
mod oft;
mod prompt;
mod target;
mod vera;

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};

use crate::checkpoint::parse_json;
use crate::error::Error;
use crate::families::raw::Raw;

pub use bottleneck::{BottleneckAdapter, BottleneckConfig, Placement};
pub use common::Origin;
pub use file::{CONFIG_FILE, FileTensor, WEIGHTS_FILE, adapter_shard};
pub(crate) use ia3::ia3_config;
pub use ia3::{Ia3Adapter, Ia3Settings};
pub(crate) use loaded::is_chosen;
pub use loaded::{Chosen, Loaded, check_together};
pub use lora::{LoraAdapter, LoraPair};
pub use lora_config::{LoraConfig, adapter_config};
pub(crate) use oft::oft_config;
pub use oft::{OftAdapter, OftSettings};
pub(crate) use prompt::{EMBEDDINGS, NETWORK};
pub use prompt::{PromptAdapter, PromptConfig, PromptKind, PromptStart};
pub(crate) use target::pattern_entry;
pub use target::{TargetModules, matches_target};
pub(crate) use vera::{VERA_DOWN, VERA_UP, vera_config, vera_matrices};
pub use vera::{VeraAdapter, VeraSettings, VeraVectors};

/// An adapter of any kind, by the `peft_type` of its `adapter_config.json`.
#[derive(Clone, Debug)]
pub enum Adapter {
    /// `LORA`
    Lora(LoraAdapter),
    /// `IA3`
    Ia3(Ia3Adapter),
    /// `VERA`
    Vera(VeraAdapter),
    /// `OFT`
    Oft(OftAdapter),
    /// `PREFIX_TUNING`, `PROMPT_TUNING` or `P_TUNING`
    Prompt(PromptAdapter),
    /// `BOTTLENECK`
    Bottleneck(BottleneckAdapter),
}

/// What has no modules saved as a whole.
static NONE_SAVED: BTreeMap<String, Tensor> = BTreeMap::new();

impl Adapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors`; `folder` is where they are, for messages.
    ///
    /// # Errors
    /// When a file is damaged, the adapter is of a kind that is not supported, or it is incomplete.
    pub fn read(folder: &str, config: &[u8], weights: &SharedBytes) -> Result<Self, Error> {
        const KINDS: &str =
            "LORA, IA3, VERA, OFT, PREFIX_TUNING, PROMPT_TUNING, P_TUNING and BOTTLENECK adapters are read";
        let (config_file, weights_file) = (format!("{folder}/{CONFIG_FILE}"), format!("{folder}/{WEIGHTS_FILE}"));
        let value = parse_json(&config_file, config)?;
        let config = &Raw::new(&config_file, &value)?;
        let (file, of) = (&config_file, &weights_file);
        let prompt = |kind| Ok(Self::Prompt(PromptAdapter::read(kind, config, of, weights)?));
        match config.text("peft_type")?.ok_or_else(|| config.missing("peft_type", "`LORA`"))? {
            "LORA" => Ok(Self::Lora(LoraAdapter::read(file, config, of, weights)?)),
            "IA3" => Ok(Self::Ia3(Ia3Adapter::read(file, config, of, weights)?)),
            "VERA" => Ok(Self::Vera(VeraAdapter::read(file, config, of, weights)?)),
            "OFT" => Ok(Self::Oft(OftAdapter::read(file, config, of, weights)?)),
            "PREFIX_TUNING" => prompt(PromptKind::Prefix),
            "PROMPT_TUNING" => prompt(PromptKind::Prompt),
            "P_TUNING" => prompt(PromptKind::PTuning),
            "BOTTLENECK" => Ok(Self::Bottleneck(BottleneckAdapter::read(config, of, weights)?)),
            _ => Err(config.unsupported("peft_type", KINDS)),
        }
    }

    /// The `finetuning_type` that makes such an adapter.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Ia3(_) => "ia3",
            Self::Vera(_) => "vera",
            Self::Oft(_) => "oft",
            Self::Prompt(prompt) => prompt.config.kind.method(),
            Self::Bottleneck(_) => "bottleneck",
        }
    }

    /// What it is, for people: `a LoRA adapter of rank 8`.
    pub fn description(&self) -> String {
        match self {
            Self::Lora(lora) if lora.config.dora => format!("a DoRA adapter of rank {}", lora.config.rank),
            Self::Lora(lora) => format!("a LoRA adapter of rank {}", lora.config.rank),
            Self::Ia3(_) => "an IA3 adapter".to_owned(),
            Self::Vera(vera) => format!("a VeRA adapter of rank {}", vera.settings.rank),
            Self::Oft(_) => "an OFT adapter".to_owned(),
            Self::Prompt(prompt) => {
                format!("a {} of {} virtual tokens", prompt.config.kind.noun(), prompt.config.virtual_tokens)
            }
            Self::Bottleneck(bottleneck) => format!("bottleneck adapters of size {}", bottleneck.config.size),
        }
    }

    /// `base_model_name_or_path`
    pub fn base_model(&self) -> &str {
        match self {
            Self::Lora(lora) => &lora.config.base_model,
            Self::Ia3(ia3) => &ia3.origin.base_model,
            Self::Vera(vera) => &vera.origin.base_model,
            Self::Oft(oft) => &oft.origin.base_model,
            Self::Prompt(prompt) => &prompt.config.base_model,
            Self::Bottleneck(bottleneck) => &bottleneck.config.base_model,
        }
    }

    /// Tensors of `modules_to_save`, by their name in the base model, such as `lm_head.weight`.
    pub fn saved_modules(&self) -> &BTreeMap<String, Tensor> {
        match self {
            Self::Lora(lora) => &lora.saved_modules,
            Self::Ia3(ia3) => &ia3.saved_modules,
            Self::Vera(vera) => &vera.saved_modules,
            Self::Oft(oft) => &oft.saved_modules,
            Self::Prompt(_) | Self::Bottleneck(_) => &NONE_SAVED,
        }
    }

    /// Paths of the modules that it changes.
    pub fn modules(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Lora(lora) => Box::new(lora.modules.keys().map(String::as_str)),
            Self::Ia3(ia3) => Box::new(ia3.modules.keys().map(String::as_str)),
            Self::Vera(vera) => Box::new(vera.modules.keys().map(String::as_str)),
            Self::Oft(oft) => Box::new(oft.modules.keys().map(String::as_str)),
            Self::Bottleneck(bottleneck) => Box::new(bottleneck.modules()),
            Self::Prompt(_) => Box::new(std::iter::empty()),
        }
    }

    /// The low-rank adapter that it is.
    pub fn lora(&self) -> Option<&LoraAdapter> {
        match self {
            Self::Lora(lora) => Some(lora),
            _ => None,
        }
    }

    /// Why no matrices of the base can hold what it does; `None` where they can.
    pub fn stands_beside(&self) -> Option<&'static str> {
        match self {
            Self::Lora(_) | Self::Ia3(_) | Self::Vera(_) | Self::Oft(_) => None,
            Self::Prompt(prompt) => Some(match prompt.config.kind {
                PromptKind::Prefix => "a learned prefix is keys and values before every row, and no change of a weight",
                PromptKind::Prompt | PromptKind::PTuning => {
                    "a learned prompt is rows before those of the tokens, and no change of a weight"
                }
            }),
            Self::Bottleneck(_) => {
                Some("a bottleneck adapter has an activation inside, so that no change of a weight does the same")
            }
        }
    }

    /// The learned prefix or prompt that it is.
    pub fn prompt(&self) -> Option<&PromptAdapter> {
        match self {
            Self::Prompt(prompt) => Some(prompt),
            _ => None,
        }
    }

    /// The bottleneck adapters that it is.
    pub fn bottleneck(&self) -> Option<&BottleneckAdapter> {
        match self {
            Self::Bottleneck(bottleneck) => Some(bottleneck),
            _ => None,
        }
    }
}

/// Whether a trained tensor of this name is an adapter's own, and not a module's that is trained as a whole.
pub fn is_adapters_own(name: &str) -> bool {
    [".lora_", ".ia3_l", ".vera_lambda_", ".oft_R.", "prompt_e", "_adapter."].iter().any(|part| name.contains(part))
}
