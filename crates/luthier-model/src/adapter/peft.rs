//! LoRA adapters in PEFT's folder format, as bytes in and bytes out, so that PEFT and vLLM load ours and we theirs. Which
//! modules are adapted is what the tensors say; the configuration gives ranks and scales. From: PEFT 0.18.1,
//! `utils/save_and_load.py`.

use std::collections::BTreeMap;

use luthier_tensor::{DType, SharedBytes, Tensor};

use super::settings::{AdapterSettings, config, settings};
use super::target::pattern_entry;
use crate::checkpoint::{Shard, TensorSpec, parse_json, pretty, read_safetensors};
use crate::error::{Error, shape};
use crate::families::raw::Raw;

/// The file with the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter.
#[derive(Clone, Debug)]
pub struct LoraAdapter {
    /// Its settings.
    pub settings: AdapterSettings,
    /// The pairs, by the path of their module, such as `model.layers.0.self_attn.q_proj`.
    pub modules: BTreeMap<String, LoraPair>,
    /// Tensors of `modules_to_save`, by their name in the base model, such as `lm_head.weight`.
    pub saved_modules: BTreeMap<String, Tensor>,
}

/// The two matrices that a module got.
#[derive(Clone, Debug)]
pub struct LoraPair {
    /// `[rank, in_features]`
    pub a: Tensor,
    /// `[out_features, rank]`
    pub b: Tensor,
    /// The rank of this pair.
    pub rank: usize,
    /// The alpha of this pair.
    pub alpha: f64,
}

impl LoraAdapter {
    /// Reads `adapter_config.json` and `adapter_model.safetensors`; `folder` is where they are, for messages.
    ///
    /// # Errors
    /// When a file is damaged, the adapter is no plain LoRA, or a pair is incomplete or of another rank than it should be.
    pub fn read(folder: &str, config: &[u8], weights: &SharedBytes) -> Result<Self, Error> {
        let config_file = format!("{folder}/{CONFIG_FILE}");
        let weights_file = format!("{folder}/{WEIGHTS_FILE}");
        let value = parse_json(&config_file, config)?;
        let settings = settings(&config_file, &Raw::new(&config_file, &value)?)?;
        let mut halves: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        let mut saved_modules = BTreeMap::new();
        for (name, tensor) in read_safetensors(&weights_file, weights, |_| false)? {
            let tensor = tensor.tensor().clone();
            let path = name.strip_prefix("base_model.model.").map(|path| path.replace(".modules_to_save.", "."));
            let Some(path) = path else {
                return Err(refused(&weights_file, format!("tensor `{name}` does not begin with `base_model.model.`")));
            };
            if let Some(module) = path.strip_suffix(".lora_A.weight") {
                halves.entry(module.to_owned()).or_default()[0] = Some(tensor);
            } else if let Some(module) = path.strip_suffix(".lora_B.weight") {
                halves.entry(module.to_owned()).or_default()[1] = Some(tensor);
            } else if path.contains(".lora_") {
                let reason = format!("tensor `{name}` belongs to a variant of LoRA that is not supported yet");
                return Err(refused(&weights_file, reason));
            } else {
                saved_modules.insert(path, tensor);
            }
        }
        let mut modules = BTreeMap::new();
        for (module, pair) in halves {
            let [Some(a), Some(b)] = pair else {
                let reason = format!("module `{module}` has only one of lora_A and lora_B");
                return Err(refused(&weights_file, reason));
            };
            let rank = pattern_entry(&config_file, "rank_pattern", &settings.rank_pattern, &module)?;
            let rank = rank.map_or(settings.rank, |rank| rank as usize);
            let alpha = pattern_entry(&config_file, "alpha_pattern", &settings.alpha_pattern, &module)?;
            check_rank(&weights_file, &format!("{module}.lora_A.weight"), &a, a.rows(), rank)?;
            check_rank(&weights_file, &format!("{module}.lora_B.weight"), &b, b.columns(), rank)?;
            modules.insert(module, LoraPair { a, b, rank, alpha: alpha.unwrap_or(settings.alpha) });
        }
        Ok(Self { settings, modules, saved_modules })
    }

    /// The factor of a pair's `B A x`.
    pub fn scale_of(&self, pair: &LoraPair) -> f32 {
        let rank = pair.rank as f64;
        (pair.alpha / if self.settings.rslora { rank.sqrt() } else { rank }) as f32
    }
}

/// The content of `adapter_config.json`, as PEFT 0.18.1 writes it.
pub fn adapter_config(settings: &AdapterSettings) -> Vec<u8> {
    pretty(&config(settings))
}

/// `adapter_model.safetensors` as [`write_shard`](crate::checkpoint::write_shard) takes it, of tensors with names such as
/// `base_model.model.{module}.lora_A.weight` and their dimensions, outermost first.
pub fn adapter_shard<'t>(tensors: impl IntoIterator<Item = (&'t str, &'t [usize])>) -> Shard {
    let spec = |(name, dims): (&str, &[usize])| TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.into() };
    let mut tensors: Vec<TensorSpec> = tensors.into_iter().map(spec).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Shard { file: WEIGHTS_FILE.into(), tensors }
}

fn refused(file: &str, reason: String) -> Error {
    Error::Adapter { file: file.to_owned(), reason }
}

fn check_rank(file: &str, name: &str, tensor: &Tensor, found: usize, rank: usize) -> Result<(), Error> {
    if found == rank {
        return Ok(());
    }
    Err(Error::TensorShape {
        file: file.to_owned(),
        tensor: name.to_owned(),
        found: shape(&[tensor.rows(), tensor.columns()]),
        expected: format!("a matrix of rank {rank}, as {CONFIG_FILE} says"),
    })
}
