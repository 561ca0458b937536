//! LoRA adapters in PEFT's folder format, as bytes in and bytes out, so that PEFT and vLLM load ours and we theirs.
//! Reading takes what the tensors say; the configuration gives ranks and scales, and is refused when it asks for
//! something that would change the numbers and that Luthier does not do. From: PEFT 0.18.1, `tuners/lora/config.py`,
//! `utils/save_and_load.py`.

use std::collections::BTreeMap;

use luthier_tensor::{DType, SharedBytes, Tensor};
use serde_json::{Map, Value, json};

use super::target::{TargetModules, pattern_entry};
use crate::checkpoint::{Shard, TensorSpec, parse_json, pretty, read_safetensors, write_shard};
use crate::error::{Error, shape};
use crate::families::raw::Raw;

/// The file with the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What `adapter_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSettings {
    /// `r`
    pub rank: usize,
    /// `lora_alpha`
    pub alpha: f64,
    /// `lora_dropout`
    pub dropout: f64,
    /// `use_rslora`: the scale is `alpha / sqrt(rank)` in place of `alpha / rank`.
    pub rslora: bool,
    /// `target_modules`
    pub target_modules: TargetModules,
    /// `modules_to_save`: modules that are trained as a whole.
    pub modules_to_save: Vec<String>,
    /// `rank_pattern`: ranks of modules that have another one.
    pub rank_pattern: Vec<(String, f64)>,
    /// `alpha_pattern`: alphas of modules that have another one.
    pub alpha_pattern: Vec<(String, f64)>,
    /// `base_model_name_or_path`
    pub base_model: String,
}

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

/// A tensor of an adapter to be written.
#[derive(Clone, Debug)]
pub struct AdapterTensor<'a> {
    /// Its name in the file: `base_model.model.{module}.lora_A.weight`, or `base_model.model.lm_head.weight`.
    pub name: &'a str,
    /// Its dimensions, outermost first.
    pub dims: &'a [usize],
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// The content of `adapter_config.json` and of `adapter_model.safetensors`, as PEFT 0.18.1 writes them.
///
/// # Errors
/// When a tensor has another number of values than its dimensions say.
pub fn write_adapter(settings: &AdapterSettings, tensors: &[AdapterTensor<'_>]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let spec = |tensor: &AdapterTensor<'_>| TensorSpec {
        name: tensor.name.to_owned(),
        dtype: DType::F32,
        dims: tensor.dims.to_vec(),
    };
    let values: BTreeMap<&str, &[f32]> = tensors.iter().map(|tensor| (tensor.name, &*tensor.values)).collect();
    let mut specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let shard = Shard { file: WEIGHTS_FILE.into(), tensors: specs };
    let mut bytes = Vec::new();
    let written = write_shard(&shard, &mut bytes, &mut |spec, writer| {
        let values = values.get(spec.name.as_str()).copied().unwrap_or_default();
        values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
    });
    written.map_err(|source| Error::Write { file: WEIGHTS_FILE.into(), source })?;
    Ok((pretty(&config(settings)), bytes))
}

/// `adapter_config.json`: the keys of PEFT 0.18.1 in its order.
fn config(settings: &AdapterSettings) -> Value {
    let pattern = |entries: &[(String, f64)]| {
        Value::Object(entries.iter().map(|(name, value)| (name.clone(), number(*value))).collect())
    };
    let saved = &settings.modules_to_save;
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": pattern(&settings.alpha_pattern),
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": settings.base_model,
        "bias": "none",
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null,
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": null,
        "loftq_config": {},
        "lora_alpha": number(settings.alpha),
        "lora_bias": false,
        "lora_dropout": settings.dropout,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": if saved.is_empty() { Value::Null } else { json!(saved) },
        "peft_type": "LORA",
        "peft_version": "0.18.1",
        "qalora_group_size": 16,
        "r": settings.rank,
        "rank_pattern": pattern(&settings.rank_pattern),
        "revision": null,
        "target_modules": settings.target_modules.to_json(),
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": settings.rslora,
    })
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

/// A whole number without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Keys that change what the adapter computes, and that nothing here computes.
const REFUSED_WHEN_SET: [(&str, &str); 12] = [
    ("use_dora", "DoRA is not supported yet"),
    ("lora_bias", "a bias on lora_B is not supported yet"),
    ("fan_in_fan_out", "transposed weights are not supported"),
    ("alora_invocation_tokens", "activated LoRA is not supported yet"),
    ("arrow_config", "routed adapters are not supported yet"),
    ("layer_replication", "replicated layers are not supported"),
    ("target_parameters", "adapters on bare parameters are not supported yet"),
    ("trainable_token_indices", "trainable token rows are not supported yet"),
    ("use_qalora", "QA-LoRA is not supported yet"),
    ("megatron_config", "Megatron layers are not supported"),
    ("use_bdlora", "block-diagonal LoRA is not supported"),
    ("kappa_tuner_config", "kappa tuning is not supported"),
];

fn settings(file: &str, config: &Raw<'_>) -> Result<AdapterSettings, Error> {
    let kind = config.text("peft_type")?.ok_or_else(|| config.missing("peft_type", "`LORA`"))?;
    if kind != "LORA" {
        return Err(config.unsupported("peft_type", "only LORA adapters are read yet"));
    }
    for (key, reason) in REFUSED_WHEN_SET {
        let value = config.value(key);
        let empty = value.is_none_or(|value| match value {
            Value::Bool(flag) => !flag,
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        });
        if !empty {
            return Err(config.unsupported(key, reason));
        }
    }
    if config.text("bias")?.is_some_and(|bias| bias != "none") {
        return Err(config.unsupported("bias", "trained biases are not supported yet; train with `bias: none`"));
    }
    if let Some(Value::String(init)) = config.value("init_lora_weights")
        && !["gaussian", "orthogonal", "eva"].contains(&init.as_str())
    {
        let reason = "this initialisation changes the base weights; save the adapter converted to plain LoRA \
                      (`path_initial_model_for_weight_conversion`)";
        return Err(config.unsupported("init_lora_weights", reason));
    }
    let dropout = config.number_if_given("lora_dropout")?.unwrap_or(0.0);
    if !(0.0..1.0).contains(&dropout) {
        return Err(config.bad("lora_dropout", "a number from 0 up to but not including 1"));
    }
    let target_modules = match config.value("target_modules") {
        None => TargetModules::Names(Vec::new()),
        Some(value) => TargetModules::from_json(file, value)?,
    };
    let modules_to_save = match config.value("modules_to_save") {
        None => Vec::new(),
        Some(value) => {
            let names =
                value.as_array().and_then(|list| list.iter().map(|name| Some(name.as_str()?.to_owned())).collect());
            names.ok_or_else(|| config.bad("modules_to_save", "a list of module names"))?
        }
    };
    Ok(AdapterSettings {
        rank: config.size_or("r", 8)?,
        alpha: config.positive_or("lora_alpha", 8.0)?,
        dropout,
        rslora: config.flag_or("use_rslora", false)?,
        target_modules,
        modules_to_save,
        rank_pattern: patterns(config, "rank_pattern")?,
        alpha_pattern: patterns(config, "alpha_pattern")?,
        base_model: config.text("base_model_name_or_path")?.unwrap_or_default().to_owned(),
    })
}

/// An object from patterns to numbers above zero.
fn patterns(config: &Raw<'_>, key: &str) -> Result<Vec<(String, f64)>, Error> {
    let empty = Map::new();
    let object = match config.value(key) {
        None => &empty,
        Some(value) => value.as_object().ok_or_else(|| config.bad(key, "an object from module names to numbers"))?,
    };
    let entry = |(name, value): (&String, &Value)| match value.as_f64().filter(|number| *number > 0.0) {
        Some(number) => Ok((name.clone(), number)),
        None => Err(config.bad(key, "an object from module names to numbers above 0")),
    };
    object.iter().map(entry).collect()
}
