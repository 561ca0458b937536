//! Bottleneck adapters as files. PEFT has none, so the format is ours: a folder like PEFT's, with `peft_type` BOTTLENECK, which
//! docs/adapters.md describes.

use std::collections::BTreeMap;

use luthier_tensor::{Activation, SharedBytes, Tensor};
use serde_json::json;

use super::file::refused;
use crate::checkpoint::{pretty, read_safetensors};
use crate::error::Error;
use crate::families::raw::Raw;

/// After which blocks of a layer an adapter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Attention and feed-forward. From: Houlsby et al. 2019.
    Houlsby,
    /// Feed-forward alone. From: Pfeiffer et al. 2020.
    Pfeiffer,
}

/// What `adapter_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct BottleneckConfig {
    /// `bottleneck_size`: the width inside.
    pub size: usize,
    /// `placement`
    pub placement: Placement,
    /// `activation`
    pub activation: Activation,
    /// `base_model_name_or_path`
    pub base_model: String,
    /// `revision` of the base model, where it comes from a hub.
    pub revision: Option<String>,
}

/// Names of the activations that are offered.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("relu", Activation::Relu),
    ("gelu", Activation::Gelu),
    ("gelu_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
    ("tanh", Activation::Tanh),
];

impl BottleneckConfig {
    /// The activation of a name: `relu`, `gelu`, `gelu_tanh`, `silu` or `tanh`.
    pub fn activation_named(name: &str) -> Option<Activation> {
        ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// The content of `adapter_config.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let name = ACTIVATIONS.iter().find(|(_, activation)| *activation == self.activation).map(|(name, _)| *name);
        pretty(&json!({
            "activation": name,
            "base_model_name_or_path": self.base_model,
            "bottleneck_size": self.size,
            "peft_type": "BOTTLENECK",
            "placement": match self.placement {
                Placement::Houlsby => "houlsby",
                Placement::Pfeiffer => "pfeiffer",
            },
            "revision": self.revision,
            "task_type": "CAUSAL_LM",
        }))
    }

    fn read(config: &Raw<'_>) -> Result<Self, Error> {
        let placement = match config.text("placement")? {
            Some("houlsby") => Placement::Houlsby,
            Some("pfeiffer") => Placement::Pfeiffer,
            _ => return Err(config.bad("placement", "`houlsby` or `pfeiffer`")),
        };
        let activation = config.text("activation")?.and_then(Self::activation_named);
        Ok(Self {
            size: config.size("bottleneck_size")?,
            placement,
            activation: activation
                .ok_or_else(|| config.bad("activation", "`relu`, `gelu`, `gelu_tanh`, `silu` or `tanh`"))?,
            base_model: config.text("base_model_name_or_path")?.unwrap_or_default().to_owned(),
            revision: config.text("revision")?.map(str::to_owned),
        })
    }
}

/// Bottleneck adapters of all layers.
#[derive(Clone, Debug)]
pub struct BottleneckAdapter {
    /// Their settings.
    pub config: BottleneckConfig,
    /// By names such as `layers.0.attention_adapter.down.weight`.
    pub tensors: BTreeMap<String, Tensor>,
}

impl BottleneckAdapter {
    pub(super) fn read(config: &Raw<'_>, weights_file: &str, weights: &SharedBytes) -> Result<Self, Error> {
        let config = BottleneckConfig::read(config)?;
        let tensors = read_safetensors(weights_file, weights, |_| false)?;
        let tensors: BTreeMap<String, Tensor> =
            tensors.into_iter().map(|(name, tensor)| (name, tensor.tensor().clone())).collect();
        if tensors.is_empty() {
            return Err(refused(weights_file, "it has no tensor".to_owned()));
        }
        Ok(Self { config, tensors })
    }

    /// Paths of the networks, such as `layers.0.attention_adapter`.
    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().filter_map(|name| name.strip_suffix(".down.weight"))
    }
}
