//! The architectures of llama.cpp that models are written for: a table, and what the decoder can do and an architecture
//! cannot, refused by name. From: llama.cpp, `llama-model.cpp`.

use super::Checkpoint;
use super::gguf_carried::GgufCarried;
use crate::config::{Activation, DecoderConfig, FeedForward};
use crate::error::Error;

/// What llama.cpp does for one of its architectures.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// llama.cpp's name.
    pub(super) name: &'static str,
    /// Rows of queries and keys go from halves to neighbouring pairs, which it rotates.
    pub(super) permuted: bool,
    /// Projections with a bias that it reads: queries, keys and values; the attention's output; the feed-forward block.
    biases: [bool; 3],
    /// It reads divisors of the rotary frequencies.
    pub(super) rotary_tables: bool,
    /// It scales embedding, residuals and logits.
    pub(super) multipliers: bool,
}

const fn target(name: &'static str, permuted: bool, biases: [bool; 3], rotary_tables: bool) -> Target {
    Target { name, permuted, biases, rotary_tables, multipliers: false }
}

const LLAMA: Target = target("llama", true, [true; 3], true);
const GRANITE: Target = Target { name: "granite", multipliers: true, ..LLAMA };

/// The families and the architectures that compute the same. Fused projections of Baichuan and InternLM 2 are split, which
/// leaves Llama; Helium is Llama whose rows already are in neighbouring pairs.
const TARGETS: &[(&str, Target)] = &[
    ("arcee", target("arcee", true, [false; 3], true)),
    ("baichuan", LLAMA),
    ("granite", GRANITE),
    ("helium", Target { permuted: false, ..LLAMA }),
    ("hunyuan_v1_dense", target("hunyuan-dense", false, [false; 3], false)),
    ("internlm2", LLAMA),
    ("llama", LLAMA),
    ("minicpm", Target { name: "minicpm", ..GRANITE }),
    ("mistral", LLAMA),
    ("phi3", target("phi3", false, [false; 3], true)),
    ("qwen2", target("qwen2", false, [true, false, false], false)),
    ("qwen3", target("qwen3", false, [false; 3], false)),
    ("seed_oss", target("seed_oss", false, [true, false, false], false)),
    ("smollm3", target("smollm3", true, [false; 3], false)),
];

/// Families that stay folders, each with the reason.
const FOLDERS: &[(&str, &str)] =
    &[("gemma2", "the GGUF form of Gemma 2 (norms plus one, bounds, windows) is not written yet; export a folder")];

/// The families that cannot be written, each with the reason.
pub fn folder_families() -> impl Iterator<Item = (&'static str, &'static str)> {
    FOLDERS.iter().copied()
}

/// The families that can be written, each with the name of its architecture in llama.cpp.
pub fn gguf_families() -> impl Iterator<Item = (&'static str, &'static str)> {
    TARGETS.iter().map(|(family, target)| (*family, target.name))
}

impl Target {
    /// The architecture of a GGUF file that a new one is made of.
    pub(super) fn of_file(carried: &GgufCarried) -> Self {
        Self { name: carried.architecture.name, permuted: carried.architecture.permuted, ..LLAMA }
    }

    /// The architecture for a model of a Hugging Face folder.
    ///
    /// # Errors
    /// When llama.cpp would compute something else; the message says why.
    pub(super) fn of_model(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let target = family_target(checkpoint)?;
        refuse_differences(checkpoint, target)?;
        Ok(target)
    }
}

fn family_target(checkpoint: &Checkpoint) -> Result<Target, Error> {
    let family = checkpoint.model.decoder.model_type.as_str();
    let known = TARGETS.iter().find(|(name, _)| *name == family).map(|(_, target)| *target);
    if let Some((_, reason)) = FOLDERS.iter().find(|(name, _)| *name == family) {
        return Err(refusal(&checkpoint.label, "model_type", family, *reason));
    }
    known.ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        let reason = format!("llama.cpp has no architecture for it; known are {}; export a folder", names.join(", "));
        refusal(&checkpoint.label, "model_type", family, reason)
    })
}

pub(super) fn refusal(label: &str, key: &str, found: impl ToString, reason: impl Into<String>) -> Error {
    Error::Unsupported { file: label.to_owned(), key: key.into(), found: found.to_string(), reason: reason.into() }
}

/// What the decoder can do and the architecture cannot.
fn refuse_differences(checkpoint: &Checkpoint, target: Target) -> Result<(), Error> {
    let (model, label, name) = (&checkpoint.model.decoder, &checkpoint.label, target.name);
    let has = [model.biases.query_key_value, model.biases.attention_output, model.biases.feed_forward];
    let keys = ["attention_bias", "attention_bias", "mlp_bias"];
    for ((has, reads), key) in has.into_iter().zip(target.biases).zip(keys) {
        if has && !reads {
            let reason = format!("llama.cpp's `{name}` has no such bias; export a Hugging Face folder instead");
            return Err(refusal(label, key, true, reason));
        }
    }
    let (expected, known) = match target.name {
        "arcee" => (FeedForward::Plain(Activation::ReluSquared), "relu2"),
        _ => (FeedForward::Gated(Activation::Silu), "silu"),
    };
    if model.feed_forward != expected {
        let reason = format!("llama.cpp's `{name}` always uses {known}; export a Hugging Face folder instead");
        return Err(refusal(label, "hidden_act", format!("{:?}", model.feed_forward), reason));
    }
    let pattern = |(number, layer): (usize, &crate::config::LayerConfig)| {
        layer.unrotated == (target.name == "smollm3" && (number + 1).is_multiple_of(4))
    };
    if !model.layers.iter().enumerate().all(pattern) {
        let reason = "llama.cpp leaves exactly every fourth layer unrotated; export a Hugging Face folder instead";
        return Err(refusal(label, "no_rope_layers", "another pattern", reason));
    }
    let plain = (model.head_dim as f64).powf(-0.5) as f32;
    let scaled = model.embedding_scale != 1.0 || model.residual_scale != 1.0 || model.logit_scale != 1.0;
    if !target.multipliers && (scaled || model.attention_scale != plain) {
        let reason = format!("llama.cpp's `{name}` has no multipliers; export a Hugging Face folder instead");
        return Err(refusal(label, "model_type", &model.model_type, reason));
    }
    Ok(())
}

/// Windows are not part of these architectures.
pub(super) fn window_note(model: &DecoderConfig) -> Option<String> {
    let shortest = model.layers.iter().filter_map(|layer| layer.window).min()?;
    Some(format!(
        "llama.cpp has no sliding window for this model: texts longer than {shortest} tokens are computed differently there"
    ))
}
