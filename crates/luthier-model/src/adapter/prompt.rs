//! Learned prefixes and prompts in PEFT's folder format: `PREFIX_TUNING`, `PROMPT_TUNING` and `P_TUNING`. The file holds
//! what is used, `prompt_embeddings`. Where a small network makes it, PEFT forgets the network; Luthier keeps its tensors
//! beside, as `prompt_encoder.*`, which PEFT passes over, so that training can go on. From: PEFT 0.18.1,
//! `utils/save_and_load.py`, `tuners/prefix_tuning`, `tuners/prompt_tuning`, `tuners/p_tuning`.

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};
use serde_json::{Value, json};

use super::file::refused;
use crate::checkpoint::{pretty, read_safetensors};
use crate::error::{Error, shape};
use crate::families::raw::Raw;

/// The tensor that is used.
pub(crate) const EMBEDDINGS: &str = "prompt_embeddings";
/// Before the names of the network's tensors.
pub(crate) const NETWORK: &str = "prompt_encoder.";

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// `PREFIX_TUNING`: keys and values of every layer. From: Li & Liang 2021.
    Prefix,
    /// `PROMPT_TUNING`: rows before those of the tokens. From: Lester et al. 2021.
    Prompt,
    /// `P_TUNING`: the same rows, made by a network. From: Liu et al. 2021.
    PTuning,
}

impl PromptKind {
    /// The `finetuning_type` that makes one.
    pub fn method(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Prompt => "prompt",
            Self::PTuning => "p_tuning",
        }
    }

    /// What it is, for people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Prefix => "learned prefix",
            Self::Prompt | Self::PTuning => "learned prompt",
        }
    }
}

/// What a prompt starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptStart {
    /// `RANDOM`
    Random,
    /// `SAMPLE_VOCAB`: the embeddings of tokens that are drawn.
    Vocabulary,
    /// `TEXT`: the embeddings of a text's tokens, again and again or cut to the prompt's length.
    Text {
        /// The text.
        text: String,
        /// Its tokens; never empty where a training begins.
        ids: Vec<u32>,
    },
}

/// What `adapter_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptConfig {
    /// `peft_type`
    pub kind: PromptKind,
    /// `num_virtual_tokens`
    pub virtual_tokens: usize,
    /// `num_layers`
    pub layers: usize,
    /// `num_attention_heads`: of a prefix the key-value heads.
    pub heads: usize,
    /// `token_dim`: of a prefix the width of a layer's keys.
    pub token_dim: usize,
    /// `encoder_hidden_size`, where a network makes what is used: with `prefix_projection`, and of P-tuning.
    pub network_width: Option<usize>,
    /// `encoder_reparameterization_type` is `LSTM`: its result is used, but it cannot be trained on.
    pub recurrent_network: bool,
    /// `prompt_tuning_init`
    pub start: PromptStart,
    /// `base_model_name_or_path`
    pub base_model: String,
    /// `revision` of the base model, where it comes from a hub.
    pub revision: Option<String>,
}

impl PromptConfig {
    /// Columns of `prompt_embeddings`.
    pub fn width(&self) -> usize {
        match self.kind {
            PromptKind::Prefix => self.layers * 2 * self.token_dim,
            PromptKind::Prompt | PromptKind::PTuning => self.token_dim,
        }
    }

    /// The content of `adapter_config.json`, as PEFT 0.18.1 writes it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut config = json!({
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model,
            "inference_mode": true,
            "modules_to_save": null,
            "num_attention_heads": self.heads,
            "num_layers": self.layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.virtual_tokens,
            "peft_version": "0.18.1",
            "revision": self.revision,
            "task_type": "CAUSAL_LM",
            "token_dim": self.token_dim,
        });
        let network_width = self.network_width.unwrap_or(self.token_dim);
        let more = match (self.kind, &self.start) {
            (PromptKind::Prefix, _) => json!({
                "encoder_hidden_size": network_width,
                "peft_type": "PREFIX_TUNING",
                "prefix_projection": self.network_width.is_some(),
            }),
            (PromptKind::PTuning, _) => json!({
                "encoder_dropout": 0.0,
                "encoder_hidden_size": network_width,
                "encoder_num_layers": 2,
                "encoder_reparameterization_type": if self.recurrent_network { "LSTM" } else { "MLP" },
                "peft_type": "P_TUNING",
            }),
            (PromptKind::Prompt, start) => {
                let (start, text) = match start {
                    PromptStart::Random => ("RANDOM", None),
                    PromptStart::Vocabulary => ("SAMPLE_VOCAB", None),
                    PromptStart::Text { text, .. } => ("TEXT", Some(text)),
                };
                json!({
                    "peft_type": "PROMPT_TUNING",
                    "prompt_tuning_init": start,
                    "prompt_tuning_init_text": text,
                    "tokenizer_kwargs": null,
                    // PEFT wants one where there is a text.
                    "tokenizer_name_or_path": text.map(|_| &self.base_model),
                })
            }
        };
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
            config.sort_keys();
        }
        pretty(&config)
    }

    fn read(config: &Raw<'_>, kind: PromptKind) -> Result<Self, Error> {
        for key in ["modules_to_save", "exclude_modules"] {
            if config.value(key).is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty())) {
                return Err(config.unsupported(key, "not beside a learned prefix or prompt"));
            }
        }
        if config.size_or("num_transformer_submodules", 1)? != 1 {
            return Err(config.unsupported("num_transformer_submodules", "a decoder has one"));
        }
        let token_dim = config.size("token_dim")?;
        let network_width = match kind {
            PromptKind::Prefix if config.flag_or("prefix_projection", false)? => true,
            PromptKind::Prefix | PromptKind::Prompt => false,
            PromptKind::PTuning => true,
        };
        let network_width = match network_width {
            true => Some(config.size_or("encoder_hidden_size", token_dim)?),
            false => None,
        };
        let start = match config.text("prompt_tuning_init")? {
            Some("TEXT") => PromptStart::Text {
                text: config.text("prompt_tuning_init_text")?.unwrap_or_default().to_owned(),
                ids: Vec::new(),
            },
            Some("SAMPLE_VOCAB") => PromptStart::Vocabulary,
            _ => PromptStart::Random,
        };
        Ok(Self {
            kind,
            virtual_tokens: config.size("num_virtual_tokens")?,
            layers: config.size("num_layers")?,
            heads: config.size("num_attention_heads")?,
            token_dim,
            network_width,
            recurrent_network: config.text("encoder_reparameterization_type")? == Some("LSTM"),
            start,
            base_model: config.text("base_model_name_or_path")?.unwrap_or_default().to_owned(),
            revision: config.text("revision")?.map(str::to_owned),
        })
    }
}

/// A learned prefix or prompt.
#[derive(Clone, Debug)]
pub struct PromptAdapter {
    /// Its settings.
    pub config: PromptConfig,
    /// What is used: `[virtual_tokens, config.width()]`.
    pub embeddings: Tensor,
    /// The network that makes it, by names such as `embedding.weight` or `transform.0.bias`, where the file has it.
    pub network: BTreeMap<String, Tensor>,
}

impl PromptAdapter {
    pub(super) fn read(
        kind: PromptKind,
        config: &Raw<'_>,
        weights_file: &str,
        weights: &SharedBytes,
    ) -> Result<Self, Error> {
        let config = PromptConfig::read(config, kind)?;
        let (mut embeddings, mut network) = (None, BTreeMap::new());
        for (name, tensor) in read_safetensors(weights_file, weights, |_| false)? {
            let tensor = tensor.tensor().clone();
            if name == EMBEDDINGS {
                embeddings = Some(tensor);
            } else if let Some(name) = name.strip_prefix(NETWORK) {
                network.insert(name.to_owned(), tensor);
            } else {
                return Err(refused(weights_file, format!("tensor `{name}` is no part of a learned prefix or prompt")));
            }
        }
        let Some(embeddings) = embeddings else {
            return Err(refused(weights_file, format!("it has no tensor `{EMBEDDINGS}`")));
        };
        let (found, expected) = ([embeddings.rows(), embeddings.columns()], [config.virtual_tokens, config.width()]);
        if found != expected {
            return Err(Error::TensorShape {
                file: weights_file.to_owned(),
                tensor: EMBEDDINGS.to_owned(),
                found: shape(&found),
                expected: format!("{}, as adapter_config.json says", shape(&expected)),
            });
        }
        Ok(Self { config, embeddings, network })
    }
}
