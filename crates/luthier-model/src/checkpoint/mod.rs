//! A model's files as a checked model: configuration, tensors by name, and what else they say. Loading is a function of
//! bytes; weights are not copied unless they lie badly.

mod encode;
mod expand;
mod files;
mod gguf;
mod gguf_carried;
mod gguf_config;
mod gguf_export;
mod gguf_model;
mod gguf_names;
mod gguf_rope;
mod gguf_storage;
mod gguf_target;
mod gguf_tokenizer;
mod gguf_writer;
mod inventory;
mod quantise;
mod safetensors;
mod scratch;
mod stored;
mod writer;

use std::collections::BTreeMap;

use luthier_tensor::DType;
use serde_json::Value;

use crate::error::Error;
use crate::families::{ModelDescription, describe};

pub(crate) use encode::encode_on;
pub use encode::{OutOfRange, encode};
pub use expand::{ExpandedLayer, expanded_layers};
pub(crate) use files::parse_json;
pub use files::{INDEX_FILE, ModelFiles, WEIGHTS_FILE, shard_names};
pub use gguf_carried::GgufCarried;
pub use gguf_export::{GgufPlan, GgufSource, GgufTensor, plan_gguf};
pub use gguf_storage::{GgufFileType, GgufStorage};
pub use gguf_target::{folder_families, gguf_families};
pub use gguf_tokenizer::GgufTokenizer;
pub use gguf_writer::{GgufValue, gguf_bytes, write_gguf};
pub use inventory::needed_tensors;
pub use quantise::{Quantisation, Quantiser};
pub use safetensors::{read_safetensors, read_state};
pub use stored::StoredTensor;
pub use writer::{Shard, TensorSpec, index_json, plan_shards, write_shard};

/// A model whose every tensor is accounted for.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the user called it; for messages.
    pub label: String,
    /// `config.json`; for a GGUF file one that says the same.
    pub config: Value,
    /// `generation_config.json`, where there is one.
    pub generation_config: Option<Value>,
    /// The decoder that the configuration describes.
    pub model: ModelDescription,
    /// Exactly the tensors that the model needs, by their Hugging Face names.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// Names of tensors that were left out because they hold nothing new: rotary buffers, copies of a tied head.
    pub ignored: Vec<String>,
    /// The tokenizer of a GGUF file.
    pub gguf_tokenizer: Option<GgufTokenizer>,
}

impl Checkpoint {
    /// Reads a model.
    ///
    /// # Errors
    /// When a file is missing or damaged, the family is not supported, or the tensors are not those of the configuration.
    pub fn from_files(files: &ModelFiles) -> Result<Self, Error> {
        let mut ignored = Vec::new();
        if let Some(name) = files.gguf_name() {
            let gguf = gguf_model::read(&files.path(name), &files.files[name], &mut ignored)?;
            let weights = files.path(name);
            let (config, tensors, tokenizer) = (gguf.config, gguf.tensors, gguf.tokenizer);
            return Self::settled(files, &weights, &weights, config, tensors, ignored, Some(tokenizer));
        }
        let Some(config) = files.json("config.json")? else {
            return Err(Error::MissingFile {
                label: files.label.clone(),
                file: "config.json".into(),
                hint: "it describes the model; give the folder that has it, or a .gguf file".into(),
            });
        };
        // The family first: its refusal says more than a missing tensor.
        describe(&files.path("config.json"), &config)?;
        let mut tensors: BTreeMap<String, StoredTensor> = BTreeMap::new();
        let shards = files.weight_files()?;
        for shard in &shards {
            let path = files.path(shard);
            let buffer = |name: &str| name.ends_with("rotary_emb.inv_freq");
            let found = read_safetensors(&path, &files.files[shard], |name| {
                let skip = buffer(name);
                if skip {
                    ignored.push(name.to_owned());
                }
                skip
            })?;
            for (name, tensor) in found {
                if let Some(other) = tensors.get(&name) {
                    return Err(Error::DuplicateTensor {
                        label: files.label.clone(),
                        tensor: name,
                        first: other.file().into(),
                        second: path,
                    });
                }
                tensors.insert(name, tensor);
            }
        }
        let weights = files.path(if let [single] = shards.as_slice() { single } else { INDEX_FILE });
        Self::settled(files, &files.path("config.json"), &weights, config, tensors, ignored, None)
    }

    fn settled(
        files: &ModelFiles,
        config_file: &str,
        weights: &str,
        config: Value,
        mut tensors: BTreeMap<String, StoredTensor>,
        mut ignored: Vec<String>,
        gguf_tokenizer: Option<GgufTokenizer>,
    ) -> Result<Self, Error> {
        let mut model = describe(config_file, &config)?;
        inventory::settle(weights, &mut model, &mut tensors, &mut ignored)?;
        let generation_config = files.json("generation_config.json")?;
        if let Some(generation) = &generation_config {
            let file = files.path("generation_config.json");
            let ends = crate::families::raw::Raw::new(&file, generation)?.token_ids("eos_token_id")?;
            for id in ends.into_iter().flatten() {
                if !model.decoder.end_token_ids.contains(&id) {
                    model.decoder.end_token_ids.push(id);
                }
            }
        }
        ignored.sort_unstable();
        let label = files.label.clone();
        Ok(Self { label, config, generation_config, model, tensors, ignored, gguf_tokenizer })
    }

    /// `config.json` for weights that are stored anew as `dtype`.
    pub fn config_json(&self, dtype: DType) -> Vec<u8> {
        let mut config = self.config.clone();
        if let Some(object) = config.as_object_mut() {
            let name = match dtype {
                DType::Bf16 => "bfloat16",
                DType::F16 => "float16",
                _ => "float32",
            };
            let key = if object.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            object.insert(key.into(), name.into());
            object.insert("tie_word_embeddings".into(), self.model.decoder.tied_head.into());
        }
        pretty(&config)
    }
}

/// JSON as Hugging Face's tools write it.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    // The alternate form of a `Value` is indented JSON and cannot fail.
    format!("{value:#}\n").into_bytes()
}
