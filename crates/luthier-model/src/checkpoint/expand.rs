//! Block expansion: a model with more layers that computes the same. After every so many layers comes a copy of the last of
//! them, whose two projections back into the residual stream are zero, so that it adds nothing until it is trained. From:
//! Wu et al. 2024, "LLaMA Pro", section 3, and LLaMA-Factory's `scripts/llama_pro.py`.
//!
//! What a configuration says of single layers (windows, layers without rotation) goes along with the copies. A
//! configuration whose other meaning would change with the number of layers is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use luthier_tensor::SharedBytes;
use serde_json::Value;

use super::{Checkpoint, StoredTensor};
use crate::config::{DecoderConfig, LayerConfig, ModuleNames};
use crate::error::Error;
use crate::families::{ModelDescription, describe};

/// A layer of an expanded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpandedLayer {
    /// The layer of the model before that it is copied from.
    pub source: usize,
    /// Whether it was added.
    pub added: bool,
}

/// Keys of a configuration with an entry for each layer.
const BY_LAYER: [&str; 2] = ["layer_types", "no_rope_layers"];

/// The layers of a model of `layers` that gets `blocks` more.
///
/// # Errors
/// When the model cannot be cut into so many equal groups; `file` is its name in the message.
pub fn expanded_layers(file: &str, layers: usize, blocks: usize) -> Result<Vec<ExpandedLayer>, Error> {
    if blocks == 0 || !layers.is_multiple_of(blocks) {
        return Err(Error::BadValue {
            file: file.to_owned(),
            key: "num_expand".into(),
            found: blocks.to_string(),
            expected: format!("a divisor of the {layers} layers of the model"),
        });
    }
    let group = layers / blocks;
    let copies = |source: usize| {
        let last = (source + 1).is_multiple_of(group);
        let added = last.then_some(ExpandedLayer { source, added: true });
        std::iter::once(ExpandedLayer { source, added: false }).chain(added)
    };
    Ok((0..layers).flat_map(copies).collect())
}

impl Checkpoint {
    /// The model with `blocks` added layers. Tensors are shared with this one.
    ///
    /// # Errors
    /// When the layers are no multiple of `blocks`, or the family's configuration cannot say what the layers are.
    pub fn expanded(&self, blocks: usize) -> Result<Self, Error> {
        let layers = expanded_layers(&self.label, self.model.decoder.layers.len(), blocks)?;
        let (config, model) = self.expanded_description(&layers)?;
        let names = &self.model.names;
        let before = layer_prefix(names);
        let mut tensors = BTreeMap::new();
        let silent = silent_modules(names);
        let largest = self.tensors.values().map(|tensor| tensor.bytes().len()).max().unwrap_or(0);
        let zeros: SharedBytes = Arc::new(vec![0u8; largest]);
        for (name, tensor) in &self.tensors {
            let numbered = name.strip_prefix(before).and_then(|rest| rest.split_once('.'));
            let Some((source, rest)) = numbered.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)))
            else {
                tensors.insert(name.clone(), tensor.clone());
                continue;
            };
            for (to, layer) in layers.iter().enumerate().filter(|(_, layer)| layer.source == source) {
                let name = format!("{before}{to}.{rest}");
                let is_silent = layer.added && silent.iter().any(|module| rest.starts_with(module));
                let copy = if is_silent { tensor.zeros_like(&name, &zeros)? } else { tensor.clone() };
                tensors.insert(name, copy);
            }
        }
        Ok(Self {
            label: self.label.clone(),
            config,
            generation_config: self.generation_config.clone(),
            model,
            tensors,
            ignored: self.ignored.clone(),
            gguf_tokenizer: self.gguf_tokenizer.clone(),
        })
    }

    /// The configuration of the expanded model, and what it describes.
    fn expanded_description(&self, layers: &[ExpandedLayer]) -> Result<(Value, ModelDescription), Error> {
        let file = format!("{}: config.json with {} layers", self.label, layers.len());
        let before = describe(&file, &self.config)?.decoder;
        let wanted: Vec<LayerConfig> = layers.iter().map(|layer| before.layers[layer.source]).collect();
        let mut config = self.config.clone();
        config["num_hidden_layers"] = layers.len().into();
        for key in BY_LAYER {
            if let Some(list) = config[key].as_array() {
                let entries = layers.iter().map(|layer| list.get(layer.source).cloned().unwrap_or_default());
                config[key] = entries.collect::<Vec<_>>().into();
            }
        }
        // MiniCPM divides by the square root of the number of layers.
        if let Some(depth) = config["scale_depth"].as_f64() {
            config["scale_depth"] = (depth * (layers.len() as f64 / before.layers.len() as f64).sqrt()).into();
        }
        let matches = |found: &DecoderConfig| found.layers == wanted;
        let mut after = describe(&file, &config).map(|found| found.decoder);
        if !after.as_ref().is_ok_and(matches) {
            // The pattern came from an interval or a first layer; as a list it says which layers it means.
            if wanted.iter().any(|layer| layer.unrotated) {
                let flags = wanted.iter().map(|layer| u8::from(!layer.unrotated).into());
                config["no_rope_layers"] = flags.collect::<Vec<Value>>().into();
            }
            if wanted.iter().any(|layer| layer.window.is_some()) {
                let kind = |layer: &LayerConfig| match layer.window {
                    Some(_) => "sliding_attention".into(),
                    None => "full_attention".into(),
                };
                config["layer_types"] = wanted.iter().map(kind).collect::<Vec<Value>>().into();
            }
            after = describe(&file, &config).map(|found| found.decoder);
        }
        let after = after?;
        let same_scale = (after.residual_scale - before.residual_scale).abs() <= 1e-6 * before.residual_scale;
        let expected = DecoderConfig { layers: wanted, residual_scale: after.residual_scale, ..before };
        if after != expected || !same_scale {
            return Err(Error::Unsupported {
                file: self.label.clone(),
                key: "model_type".into(),
                found: expected.model_type,
                reason:
                    "its configuration means something else with another number of layers, so no blocks can be added"
                        .into(),
            });
        }
        let decoder =
            DecoderConfig { layers: after.layers, residual_scale: after.residual_scale, ..self.model.decoder.clone() };
        let model = ModelDescription { decoder, names: self.model.names.clone(), notes: self.model.notes.clone() };
        Ok((config, model))
    }
}

/// What stands before the number in the path of a layer's module.
fn layer_prefix(names: &ModuleNames) -> &'static str {
    names.attention_norm.split_once("{}").map_or("", |(before, _)| before)
}

/// The modules that write into the residual stream, within their layer, with the point after them.
fn silent_modules(names: &ModuleNames) -> [String; 2] {
    let within = |name: &str| name.split_once("{}.").map_or(name, |(_, within)| within).to_owned() + ".";
    [within(names.attention_output), within(names.down)]
}

impl StoredTensor {
    /// A tensor of the same kind whose numbers are all zero. Zero bytes are zeros in every storage type: blocks have a scale
    /// of zero.
    fn zeros_like(&self, name: &str, zeros: &SharedBytes) -> Result<Self, Error> {
        Self::new(&Arc::from(self.file()), name, zeros, 0, self.dtype(), self.dims().to_vec())
    }
}
