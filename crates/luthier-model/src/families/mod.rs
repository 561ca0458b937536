//! Model families as data: each file here is a function from a family's `config.json` to the switches of the one decoder,
//! and the table of its tensor names. A key that the family's own code does not read is not read here either.

mod arcee;
mod baichuan;
mod common;
mod gemma2;
mod granite;
mod helium;
mod hunyuan_v1_dense;
mod internlm2;
mod llama;
mod minicpm;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
pub(crate) mod raw;
mod rope;
mod seed_oss;
mod smollm3;

use serde_json::Value;

use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;
use raw::Raw;

type Family = fn(&Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error>;

/// Every family, by the `model_type` of its files.
const FAMILIES: &[(&str, Family)] = &[
    ("arcee", arcee::family),
    ("baichuan", baichuan::family),
    ("gemma2", gemma2::family),
    ("granite", granite::family),
    ("helium", helium::family),
    ("hunyuan_v1_dense", hunyuan_v1_dense::family),
    ("internlm2", internlm2::family),
    ("llama", llama::family),
    ("minicpm", minicpm::family),
    ("mistral", mistral::family),
    ("phi3", phi3::family),
    ("qwen2", qwen2::family),
    ("qwen3", qwen3::family),
    ("seed_oss", seed_oss::family),
    ("smollm3", smollm3::family),
];

/// The highest rate of AdamW that a family's model was pre-trained with, and where that is published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainingRate {
    /// The rate.
    pub rate: f64,
    /// Who says so, of which model.
    pub source: &'static str,
}

/// Published rates, by `model_type`. The others of [`FAMILIES`] are not published, or belong to parameters that are scaled
/// by width, as MiniCPM's.
const PRETRAINING_RATES: &[(&str, PretrainingRate)] = &[
    ("baichuan", PretrainingRate { rate: 2e-4, source: "Yang et al. 2023, Baichuan 2 of 7B" }),
    ("llama", PretrainingRate { rate: 3e-4, source: "Touvron et al. 2023, LLaMA of 7B" }),
    ("smollm3", PretrainingRate { rate: 2e-4, source: "Hugging Face 2025, SmolLM3" }),
];

/// The rate that the family of this `model_type` was pre-trained with, where it is published.
pub fn pretraining_rate(model_type: &str) -> Option<PretrainingRate> {
    PRETRAINING_RATES.iter().find(|(name, _)| *name == model_type).map(|(_, rate)| *rate)
}

/// The `model_type`s that can be read, in alphabetical order.
pub fn supported_families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|(name, _)| *name)
}

/// A model's description, from the parsed configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelDescription {
    /// The switches of the decoder.
    pub decoder: DecoderConfig,
    /// Where its tensors are.
    pub names: ModuleNames,
    /// What the configuration says that has no effect here, as sentences to show before training.
    pub notes: Vec<String>,
}

/// Reads a configuration. `file` is its name in messages.
///
/// # Errors
/// When the family is unknown, a key is missing or out of range, or asks for what the decoder cannot do.
pub fn describe(file: &str, config: &Value) -> Result<ModelDescription, Error> {
    let raw = Raw::new(file, config)?;
    let Some(model_type) = raw.text("model_type")? else {
        return Err(raw.missing("model_type", "the name of a model family, such as `llama`"));
    };
    if raw.value("quantization_config").is_some() {
        let reason = "weights quantised by other programs cannot be read; use the unquantised model, or a GGUF file";
        return Err(raw.unsupported("quantization_config", reason));
    }
    let Some((_, family)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
        return Err(Error::UnknownFamily {
            file: file.to_owned(),
            model_type: model_type.to_owned(),
            supported: supported_families().collect::<Vec<_>>().join(", "),
        });
    };
    let (decoder, names) = family(&raw)?;
    Ok(ModelDescription { decoder, names, notes: notes(file, &raw)? })
}

/// Dropout of the base model: pre-training used it, tuning here does not.
fn notes(file: &str, config: &Raw<'_>) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for key in ["attention_dropout", "residual_dropout", "resid_pdrop", "embd_pdrop"] {
        if let Some(rate) = config.number_if_given(key)?.filter(|rate| *rate != 0.0) {
            notes.push(format!("{file}: `{key}` {rate} is not applied: the base model runs without dropout"));
        }
    }
    Ok(notes)
}
