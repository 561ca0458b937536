//! What tuning adds to a model, as files: PEFT's folder format, as bytes in and bytes out, so that PEFT and vLLM load ours
//! and we theirs. One file for each `peft_type`.

mod file;
mod lora;
mod lora_config;
mod target;

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};

use crate::checkpoint::parse_json;
use crate::error::Error;
use crate::families::raw::Raw;

pub use file::{CONFIG_FILE, FileTensor, WEIGHTS_FILE, adapter_shard};
pub use lora::{LoraAdapter, LoraPair};
pub use lora_config::{LoraConfig, adapter_config};
pub(crate) use target::pattern_entry;
pub use target::{TargetModules, matches_target};

/// An adapter of any kind, by the `peft_type` of its `adapter_config.json`.
#[derive(Clone, Debug)]
pub enum Adapter {
    /// `LORA`
    Lora(LoraAdapter),
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors`; `folder` is where they are, for messages.
    ///
    /// # Errors
    /// When a file is damaged, the adapter is of a kind that is not supported, or it is incomplete.
    pub fn read(folder: &str, config: &[u8], weights: &SharedBytes) -> Result<Self, Error> {
        let (config_file, weights_file) = (format!("{folder}/{CONFIG_FILE}"), format!("{folder}/{WEIGHTS_FILE}"));
        let value = parse_json(&config_file, config)?;
        let config = Raw::new(&config_file, &value)?;
        match config.text("peft_type")?.ok_or_else(|| config.missing("peft_type", "`LORA`"))? {
            "LORA" => Ok(Self::Lora(LoraAdapter::read(&config_file, &config, &weights_file, weights)?)),
            _ => Err(config.unsupported("peft_type", "only LORA adapters are read yet")),
        }
    }

    /// The `finetuning_type` that makes such an adapter.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
        }
    }

    /// What it is, for people: `a LoRA adapter of rank 8`.
    pub fn description(&self) -> String {
        match self {
            Self::Lora(lora) => format!("a LoRA adapter of rank {}", lora.config.rank),
        }
    }

    /// `base_model_name_or_path`
    pub fn base_model(&self) -> &str {
        match self {
            Self::Lora(lora) => &lora.config.base_model,
        }
    }

    /// Tensors of `modules_to_save`, by their name in the base model, such as `lm_head.weight`.
    pub fn saved_modules(&self) -> &BTreeMap<String, Tensor> {
        match self {
            Self::Lora(lora) => &lora.saved_modules,
        }
    }

    /// Paths of the modules that it changes.
    pub fn modules(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Lora(lora) => Box::new(lora.modules.keys().map(String::as_str)),
        }
    }

    /// The low-rank adapter that it is.
    pub fn lora(&self) -> Option<&LoraAdapter> {
        match self {
            Self::Lora(lora) => Some(lora),
        }
    }
}
