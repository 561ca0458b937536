//! LoRA adapters. Which modules are adapted is what the tensors say; the configuration gives ranks and scales. From: PEFT
//! 0.18.1, `utils/save_and_load.py`.

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};

use super::file::{CONFIG_FILE, refused};
use super::lora_config::{LoraConfig, read_config};
use super::target::pattern_entry;
use crate::checkpoint::read_safetensors;
use crate::error::{Error, shape};
use crate::families::raw::Raw;

/// A LoRA adapter.
#[derive(Clone, Debug)]
pub struct LoraAdapter {
    /// Its config.
    pub config: LoraConfig,
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
    /// DoRA's, as many numbers as the module gives.
    pub magnitude: Option<Tensor>,
    /// The rank of this pair.
    pub rank: usize,
    /// The alpha of this pair.
    pub alpha: f64,
}

impl LoraAdapter {
    pub(super) fn read(
        config_file: &str,
        config: &Raw<'_>,
        weights_file: &str,
        weights: &SharedBytes,
    ) -> Result<Self, Error> {
        let config = read_config(config_file, config)?;
        let mut halves: BTreeMap<String, [Option<Tensor>; 3]> = BTreeMap::new();
        let mut saved_modules = BTreeMap::new();
        for (name, tensor) in read_safetensors(weights_file, weights, |_| false)? {
            let tensor = tensor.tensor().clone();
            let path = name.strip_prefix("base_model.model.").map(|path| path.replace(".modules_to_save.", "."));
            let Some(path) = path else {
                return Err(refused(weights_file, format!("tensor `{name}` does not begin with `base_model.model.`")));
            };
            if let Some(module) = path.strip_suffix(".lora_A.weight") {
                halves.entry(module.to_owned()).or_default()[0] = Some(tensor);
            } else if let Some(module) = path.strip_suffix(".lora_B.weight") {
                halves.entry(module.to_owned()).or_default()[1] = Some(tensor);
            } else if let Some(module) = path.strip_suffix(".lora_magnitude_vector").filter(|_| config.dora) {
                halves.entry(module.to_owned()).or_default()[2] = Some(tensor);
            } else if path.contains(".lora_") {
                let reason = format!("tensor `{name}` belongs to a variant of LoRA that is not supported yet");
                return Err(refused(weights_file, reason));
            } else {
                saved_modules.insert(path, tensor);
            }
        }
        let mut modules = BTreeMap::new();
        for (module, pair) in halves {
            let [Some(a), Some(b), magnitude] = pair else {
                let reason = format!("module `{module}` has only one of lora_A and lora_B");
                return Err(refused(weights_file, reason));
            };
            if config.dora != magnitude.is_some() {
                let reason = format!("module `{module}` has no lora_magnitude_vector, but use_dora is on");
                return Err(refused(weights_file, reason));
            }
            let rank = pattern_entry(config_file, "rank_pattern", &config.rank_pattern, &module)?;
            let rank = rank.map_or(config.rank, |rank| rank as usize);
            let alpha = pattern_entry(config_file, "alpha_pattern", &config.alpha_pattern, &module)?;
            check_rank(weights_file, &format!("{module}.lora_A.weight"), &a, a.rows(), rank)?;
            check_rank(weights_file, &format!("{module}.lora_B.weight"), &b, b.columns(), rank)?;
            modules.insert(module, LoraPair { a, b, magnitude, rank, alpha: alpha.unwrap_or(config.alpha) });
        }
        Ok(Self { config, modules, saved_modules })
    }

    /// The factor of a pair's `B A x`.
    pub fn scale_of(&self, pair: &LoraPair) -> f32 {
        let rank = pair.rank as f64;
        (pair.alpha / if self.config.rslora { rank.sqrt() } else { rank }) as f32
    }
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
