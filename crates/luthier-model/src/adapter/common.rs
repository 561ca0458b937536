//! What the configurations of all adapters but LoRA's have in common, read and written as PEFT 0.18.1 does.

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};
use serde_json::{Map, Value, json};

use super::file::refused;
use super::target::TargetModules;
use crate::checkpoint::{pretty, read_safetensors};
use crate::error::Error;
use crate::families::raw::Raw;

/// Where the base of an adapter comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// `base_model_name_or_path`
    pub base_model: String,
    /// `revision` of the base model, where it comes from a hub.
    pub revision: Option<String>,
}

impl Origin {
    pub(super) fn read(config: &Raw<'_>) -> Result<Self, Error> {
        Ok(Self {
            base_model: config.text("base_model_name_or_path")?.unwrap_or_default().to_owned(),
            revision: config.text("revision")?.map(str::to_owned),
        })
    }
}

/// `target_modules`; a list that is absent is empty.
pub(super) fn read_targets(file: &str, config: &Raw<'_>, key: &str) -> Result<TargetModules, Error> {
    match config.value(key) {
        None => Ok(TargetModules::Names(Vec::new())),
        Some(value) => TargetModules::from_json(file, value),
    }
}

/// `modules_to_save`
pub(super) fn read_saved(config: &Raw<'_>) -> Result<Vec<String>, Error> {
    let Some(value) = config.value("modules_to_save") else { return Ok(Vec::new()) };
    let names = value.as_array().and_then(|list| list.iter().map(|name| Some(name.as_str()?.to_owned())).collect());
    names.ok_or_else(|| config.bad("modules_to_save", "a list of module names"))
}

/// Refuses keys that change what the adapter computes, and that nothing here computes, where they are set.
pub(super) fn refuse_when_set(config: &Raw<'_>, keys: &[(&str, &str)]) -> Result<(), Error> {
    for (key, reason) in keys {
        let empty = config.value(key).is_none_or(|value| match value {
            Value::Bool(flag) => !flag,
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        });
        if !empty {
            return Err(config.unsupported(key, *reason));
        }
    }
    Ok(())
}

/// Refuses trained biases, which PEFT names in `bias`.
pub(super) fn refuse_biases(config: &Raw<'_>) -> Result<(), Error> {
    match config.text("bias")? {
        None | Some("none") => Ok(()),
        Some(_) => Err(config.unsupported("bias", "trained biases are not supported yet; train with `bias: none`")),
    }
}

/// A share to drop.
pub(super) fn read_dropout(config: &Raw<'_>, key: &str) -> Result<f64, Error> {
    let dropout = config.number_if_given(key)?.unwrap_or(0.0);
    match (0.0..1.0).contains(&dropout) {
        true => Ok(dropout),
        false => Err(config.bad(key, "a number from 0 up to but not including 1")),
    }
}

/// The file of a kind of adapter: what all have, and its `own` keys.
pub(super) fn config_file(
    peft_type: &str,
    origin: &Origin,
    targets: &TargetModules,
    saved_modules: &[String],
    own: Value,
) -> Vec<u8> {
    let common = json!({
        "auto_mapping": null,
        "base_model_name_or_path": origin.base_model,
        "exclude_modules": null,
        "inference_mode": true,
        "modules_to_save": if saved_modules.is_empty() { Value::Null } else { json!(saved_modules) },
        "peft_type": peft_type,
        "peft_version": "0.18.1",
        "revision": origin.revision,
        "target_modules": targets.to_json(),
        "task_type": "CAUSAL_LM",
    });
    let objects = [common, own].into_iter().filter_map(|value| match value {
        Value::Object(object) => Some(object),
        _ => None,
    });
    let mut sorted: BTreeMap<String, Value> = BTreeMap::new();
    objects.for_each(|object| sorted.extend(object));
    pretty(&Value::Object(sorted.into_iter().collect::<Map<_, _>>()))
}

/// Goes through the tensors of an adapter's file: `own` takes those of its kind by their path in the model; the rest are
/// modules that were trained as a whole.
pub(super) fn read_tensors(
    file: &str,
    weights: &SharedBytes,
    mut own: impl FnMut(&str, &Tensor) -> Result<bool, Error>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut saved_modules = BTreeMap::new();
    for (name, tensor) in read_safetensors(file, weights, |_| false)? {
        let tensor = tensor.tensor();
        let Some(path) = name.strip_prefix("base_model.") else {
            return Err(refused(file, format!("tensor `{name}` does not begin with `base_model.`")));
        };
        if own(path.strip_prefix("model.").unwrap_or(path), tensor)? {
            continue;
        }
        let Some(path) = path.strip_prefix("model.") else {
            return Err(refused(file, format!("tensor `{name}` does not belong to this kind of adapter")));
        };
        saved_modules.insert(path.replace(".modules_to_save.", "."), tensor.clone());
    }
    Ok(saved_modules)
}
