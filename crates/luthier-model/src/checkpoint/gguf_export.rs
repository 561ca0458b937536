//! A model as a GGUF file that llama.cpp computes the same with: which architecture it is there, its metadata, its
//! tensors under llama.cpp's names, and what has no counterpart, refused by name. From: llama.cpp, `convert_hf_to_gguf.py`
//! and `llama-model.cpp`.

use luthier_tensor::{DType, HeadLayout, HeadOrder};

use super::Checkpoint;
use super::gguf_carried::GgufCarried;
use super::gguf_names::permuted_row;
use super::gguf_rope::{Rope, rope};
use super::gguf_tokenizer::GgufTokenizer;
use super::gguf_writer::GgufValue;
use super::writer::TensorSpec;
use crate::config::{Activation, DecoderConfig, FeedForward};
use crate::error::Error;

/// What llama.cpp does for one of its architectures.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// llama.cpp's name.
    pub(super) name: &'static str,
    /// Rows of queries and keys go from halves to neighbouring pairs, which it rotates.
    permuted: bool,
    /// Projections with a bias that it reads: queries, keys and values; the attention's output; the feed-forward block.
    biases: [bool; 3],
    /// It reads divisors of the rotary frequencies.
    pub(super) rotary_tables: bool,
    /// It scales embedding, residuals and logits.
    multipliers: bool,
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

/// The families that can be written, each with the name of its architecture in llama.cpp.
pub fn gguf_families() -> impl Iterator<Item = (&'static str, &'static str)> {
    TARGETS.iter().map(|(family, target)| (*family, target.name))
}

/// Where a tensor's numbers come from.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufSource {
    /// A tensor of the model: all of its rows, or these in this order.
    Model {
        /// Its name there.
        name: String,
        /// Its rows; a vector's places count as rows.
        rows: Option<Vec<u32>>,
    },
    /// Numbers that follow from the configuration.
    Values(Vec<f32>),
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Name, type and dimensions in the file.
    pub spec: TensorSpec,
    /// Its numbers.
    pub source: GgufSource,
}

/// All that a GGUF file is made of.
#[derive(Clone, Debug)]
pub struct GgufPlan {
    /// In the order of the file.
    pub metadata: Vec<(String, GgufValue)>,
    /// In the order of the file.
    pub tensors: Vec<GgufTensor>,
    /// What the reader of the file should know, as sentences.
    pub notes: Vec<String>,
}

/// Plans a file. Vectors are stored in f32 and matrices as `outtype`, as llama.cpp's converter does; a matrix whose rows
/// are no whole number of q8_0 blocks becomes f16. Of a model that was a GGUF file, `carried` gives metadata and tables.
///
/// # Errors
/// When llama.cpp would compute something else; the message says why.
pub fn plan_gguf(
    checkpoint: &Checkpoint,
    name: &str,
    outtype: DType,
    tokenizer: &GgufTokenizer,
    carried: Option<&GgufCarried>,
) -> Result<GgufPlan, Error> {
    let model = &checkpoint.model.decoder;
    let mut plan = GgufPlan { metadata: Vec::new(), tensors: Vec::new(), notes: Vec::new() };
    let file_type: u32 = match outtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q8_0 => 7,
        _ => 32,
    };
    let target = match carried {
        Some(carried) => {
            plan.metadata.clone_from(&carried.metadata);
            let (name, permuted) = (carried.architecture.name, carried.architecture.permuted);
            Target { name, permuted, ..LLAMA }
        }
        None => {
            let target = family_target(checkpoint)?;
            refuse_differences(checkpoint, target)?;
            let rope = rope(&checkpoint.label, &model.rotary, target)?;
            plan.metadata = metadata(model, target, name, &rope);
            plan.metadata.extend(tokenizer_metadata(tokenizer));
            plan.notes.extend(rope.notes);
            plan.notes.extend(window_note(model));
            for (name, divisors) in rope.tables {
                plan.tensors.push(values(name, vec![divisors.len()], divisors));
            }
            target
        }
    };
    if let Some(carried) = carried {
        let table =
            |(name, dims, numbers): &(String, Vec<usize>, Vec<f32>)| values(name, dims.clone(), numbers.clone());
        plan.tensors.extend(carried.tables.iter().map(table));
    }
    plan.metadata.push(("general.quantization_version".into(), GgufValue::U32(2)));
    plan.metadata.push(("general.file_type".into(), GgufValue::U32(file_type)));
    let mut list = List { checkpoint, target, outtype, tensors: &mut plan.tensors, narrow: 0 };
    list.all();
    if list.narrow > 0 {
        let narrow = list.narrow;
        plan.notes.push(format!("{narrow} matrices are stored in f16: their rows are no whole number of q8_0 blocks"));
    }
    Ok(plan)
}

fn values(name: &str, dims: Vec<usize>, values: Vec<f32>) -> GgufTensor {
    GgufTensor { spec: TensorSpec { name: name.into(), dtype: DType::F32, dims }, source: GgufSource::Values(values) }
}

fn family_target(checkpoint: &Checkpoint) -> Result<Target, Error> {
    let family = checkpoint.model.decoder.model_type.as_str();
    let known = TARGETS.iter().find(|(name, _)| *name == family).map(|(_, target)| *target);
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
fn window_note(model: &DecoderConfig) -> Option<String> {
    let shortest = model.layers.iter().filter_map(|layer| layer.window).min()?;
    Some(format!(
        "llama.cpp has no sliding window for this model: texts longer than {shortest} tokens are computed differently there"
    ))
}

fn metadata(model: &DecoderConfig, target: Target, name: &str, rope: &Rope) -> Vec<(String, GgufValue)> {
    let mut list = vec![
        ("general.architecture".to_owned(), GgufValue::Text(target.name.into())),
        ("general.type".to_owned(), GgufValue::Text("model".into())),
        ("general.name".to_owned(), GgufValue::Text(name.into())),
    ];
    let mut set = |key: &str, value: GgufValue| list.push((format!("{}.{key}", target.name), value));
    let size = |size: usize| GgufValue::U32(size as u32);
    set("vocab_size", size(model.vocabulary_size));
    set("context_length", size(model.max_positions.unwrap_or(2048)));
    set("embedding_length", size(model.hidden_size));
    set("block_count", size(model.layers.len()));
    set("feed_forward_length", size(model.intermediate_size));
    set("attention.head_count", size(model.heads));
    set("attention.head_count_kv", size(model.key_value_heads));
    set("attention.key_length", size(model.head_dim));
    set("attention.value_length", size(model.head_dim));
    set("attention.layer_norm_rms_epsilon", GgufValue::F32(model.norm_epsilon));
    if target.name == "phi3" {
        set("attention.sliding_window", size(model.layers.iter().find_map(|layer| layer.window).unwrap_or(0)));
    }
    if target.multipliers {
        set("embedding_scale", GgufValue::F32(model.embedding_scale));
        set("residual_scale", GgufValue::F32(model.residual_scale));
        // It divides.
        set("logit_scale", GgufValue::F32(1.0 / model.logit_scale));
        set("attention.scale", GgufValue::F32(model.attention_scale));
    }
    rope.metadata.iter().for_each(|(key, value)| set(key, value.clone()));
    list
}

fn tokenizer_metadata(tokenizer: &GgufTokenizer) -> Vec<(String, GgufValue)> {
    let mut list = Vec::new();
    let mut set =
        |key: &str, value: Option<GgufValue>| list.extend(value.map(|value| (format!("tokenizer.{key}"), value)));
    let id = |id: Option<u32>| id.map(GgufValue::U32);
    set("ggml.model", Some(GgufValue::Text(tokenizer.model.clone())));
    set("ggml.pre", tokenizer.pre.clone().map(GgufValue::Text));
    set("ggml.tokens", Some(GgufValue::Texts(tokenizer.tokens.clone())));
    set("ggml.scores", (!tokenizer.scores.is_empty()).then(|| GgufValue::Floats(tokenizer.scores.clone())));
    set("ggml.token_type", Some(GgufValue::Integers(tokenizer.token_types.clone())));
    set("ggml.merges", (!tokenizer.merges.is_empty()).then(|| GgufValue::Texts(tokenizer.merges.clone())));
    set("ggml.bos_token_id", id(tokenizer.bos));
    set("ggml.eos_token_id", id(tokenizer.eos));
    set("ggml.eot_token_id", id(tokenizer.eot));
    set("ggml.unknown_token_id", id(tokenizer.unknown));
    set("ggml.padding_token_id", id(tokenizer.padding));
    set("ggml.add_bos_token", tokenizer.add_bos.map(GgufValue::Flag));
    set("ggml.add_eos_token", tokenizer.add_eos.map(GgufValue::Flag));
    set("ggml.add_space_prefix", tokenizer.add_space_prefix.map(GgufValue::Flag));
    set("chat_template", tokenizer.chat_template.clone().map(GgufValue::Text));
    list
}

/// The tensors, in the order of the forward pass.
struct List<'a> {
    checkpoint: &'a Checkpoint,
    target: Target,
    outtype: DType,
    tensors: &'a mut Vec<GgufTensor>,
    /// Matrices that q8_0 has no blocks for.
    narrow: usize,
}

impl List<'_> {
    fn all(&mut self) {
        let (model, names) = (&self.checkpoint.model.decoder, self.checkpoint.model.names.clone());
        self.module(names.embedding, "token_embd", None);
        for layer in 0..model.layers.len() {
            let at = |name: &str| name.replacen("{}", &layer.to_string(), 1);
            let blk = |part: &str| format!("blk.{layer}.{part}");
            self.module(&at(names.attention_norm), &blk("attn_norm"), None);
            match names.query_key_value {
                [fused] if self.target.name == "phi3" => self.module(&at(fused), &blk("attn_qkv"), None),
                [fused] => {
                    for (part, rows) in fused_parts(model, names.head_order) {
                        self.module(&at(fused), &blk(part), Some(self.turned(part, rows)));
                    }
                }
                separate => {
                    for (module, part) in separate.iter().zip(["attn_q", "attn_k", "attn_v"]) {
                        let heads = if part == "attn_q" { model.heads } else { model.key_value_heads };
                        let rows = (0..(heads * model.head_dim) as u32).collect();
                        let turns = self.target.permuted && part != "attn_v";
                        self.module(&at(module), &blk(part), turns.then(|| self.turned(part, rows)));
                    }
                }
            }
            self.module(&at(names.query_norm), &blk("attn_q_norm"), None);
            self.module(&at(names.key_norm), &blk("attn_k_norm"), None);
            self.module(&at(names.attention_output), &blk("attn_output"), None);
            let norm = if self.target.name == "seed_oss" { "post_attention_norm" } else { "ffn_norm" };
            self.module(&at(names.feed_forward_norm), &blk(norm), None);
            match names.gate_up {
                [gate, up] => {
                    self.module(&at(gate), &blk("ffn_gate"), None);
                    self.module(&at(up), &blk("ffn_up"), None);
                }
                // Phi 3 keeps both in one; without a gate there is one.
                all => all.iter().for_each(|module| self.module(&at(module), &blk("ffn_up"), None)),
            }
            self.module(&at(names.down), &blk("ffn_down"), None);
        }
        self.module(names.final_norm, "output_norm", None);
        self.module(names.head, "output", None);
    }

    /// Rows of a projection in the order in which llama.cpp has them.
    fn turned(&self, part: &str, rows: Vec<u32>) -> Vec<u32> {
        if !self.target.permuted || part == "attn_v" {
            return rows;
        }
        let head_dim = self.checkpoint.model.decoder.head_dim;
        let mut turned = vec![0; rows.len()];
        for (place, row) in rows.into_iter().enumerate() {
            turned[permuted_row(place, head_dim)] = row;
        }
        turned
    }

    /// Weight and bias of a module, where the model has them.
    fn module(&mut self, module: &str, name: &str, rows: Option<Vec<u32>>) {
        for suffix in ["weight", "bias"] {
            let source = format!("{module}.{suffix}");
            let Some(stored) = self.checkpoint.tensors.get(&source) else { continue };
            let mut dims = stored.dims().to_vec();
            if let (Some(rows), Some(first)) = (&rows, dims.first_mut()) {
                *first = rows.len();
            }
            let columns = dims.last().copied().unwrap_or(1);
            let dtype = match self.outtype {
                _ if dims.len() < 2 => DType::F32,
                DType::Q8_0 if !columns.is_multiple_of(DType::Q8_0.block_len()) => {
                    self.narrow += 1;
                    DType::F16
                }
                outtype => outtype,
            };
            let spec = TensorSpec { name: format!("{name}.{suffix}"), dtype, dims };
            let source = GgufSource::Model { name: source, rows: rows.clone() };
            self.tensors.push(GgufTensor { spec, source });
        }
    }
}

/// The rows of queries, keys and values in one fused projection.
fn fused_parts(model: &DecoderConfig, order: HeadOrder) -> [(&'static str, Vec<u32>); 3] {
    let (heads, key_value_heads, head_dim) = (model.heads, model.key_value_heads, model.head_dim);
    let layout = HeadLayout { heads, key_value_heads, head_dim, order };
    let rows = |count: usize, first: fn(&HeadLayout, usize) -> usize| -> Vec<u32> {
        (0..count).flat_map(|head| (0..head_dim).map(move |row| (first(&layout, head) + row) as u32)).collect()
    };
    [
        ("attn_q", rows(heads, HeadLayout::query_column)),
        ("attn_k", rows(key_value_heads, HeadLayout::key_column)),
        ("attn_v", rows(key_value_heads, HeadLayout::value_column)),
    ]
}
