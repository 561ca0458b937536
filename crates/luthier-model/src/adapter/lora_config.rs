//! `adapter_config.json` of PEFT 0.18.1, read and written. It is refused when it asks for something that would change the
//! numbers and that Luthier does not do. From: PEFT, `tuners/lora/config.py`.

use serde_json::{Map, Value, json};

use super::common::{read_dropout, read_saved, read_targets, refuse_biases, refuse_when_set};
use super::target::TargetModules;
use crate::checkpoint::pretty;
use crate::error::Error;
use crate::families::raw::Raw;

/// What `adapter_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// `r`
    pub rank: usize,
    /// `lora_alpha`
    pub alpha: f64,
    /// `lora_dropout`
    pub dropout: f64,
    /// `use_rslora`: the scale is `alpha / sqrt(rank)` in place of `alpha / rank`.
    pub rslora: bool,
    /// `use_dora`: the rows of the sum have a trained magnitude.
    pub dora: bool,
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
    /// `revision` of the base model, where it comes from a hub.
    pub revision: Option<String>,
}

/// The content of `adapter_config.json`: the keys of PEFT 0.18.1 in its order.
pub fn adapter_config(settings: &LoraConfig) -> Vec<u8> {
    pretty(&config(settings))
}

fn config(settings: &LoraConfig) -> Value {
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
        "revision": settings.revision,
        "target_modules": settings.target_modules.to_json(),
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_dora": settings.dora,
        "use_qalora": false,
        "use_rslora": settings.rslora,
    })
}

/// A whole number without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// Keys that change what the adapter computes, and that nothing here computes.
const REFUSED_WHEN_SET: [(&str, &str); 11] = [
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

pub(super) fn read_config(file: &str, config: &Raw<'_>) -> Result<LoraConfig, Error> {
    refuse_when_set(config, &REFUSED_WHEN_SET)?;
    refuse_biases(config)?;
    if let Some(Value::String(init)) = config.value("init_lora_weights")
        && !["gaussian", "orthogonal", "eva"].contains(&init.as_str())
    {
        let reason = "this initialisation changes the base weights; save the adapter converted to plain LoRA \
                      (`path_initial_model_for_weight_conversion`)";
        return Err(config.unsupported("init_lora_weights", reason));
    }
    let dropout = read_dropout(config, "lora_dropout")?;
    Ok(LoraConfig {
        rank: config.size_or("r", 8)?,
        alpha: config.positive_or("lora_alpha", 8.0)?,
        dropout,
        rslora: config.flag_or("use_rslora", false)?,
        target_modules: read_targets(file, config, "target_modules")?,
        modules_to_save: read_saved(config)?,
        dora: config.flag_or("use_dora", false)?,
        rank_pattern: patterns(config, "rank_pattern")?,
        alpha_pattern: patterns(config, "alpha_pattern")?,
        base_model: config.text("base_model_name_or_path")?.unwrap_or_default().to_owned(),
        revision: config.text("revision")?.map(str::to_owned),
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
