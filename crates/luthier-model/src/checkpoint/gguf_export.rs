//! A model as a GGUF file that llama.cpp computes the same with: its metadata, and its tensors under llama.cpp's names, in
//! llama.cpp's order of rows. From: llama.cpp, `convert_hf_to_gguf.py`.

use luthier_tensor::{DType, HeadLayout, HeadOrder};

use super::Checkpoint;
use super::gguf_carried::GgufCarried;
use super::gguf_names::permuted_row;
use super::gguf_rope::{Rope, rope};
use super::gguf_storage::{Choice, GgufStorage, Place};
use super::gguf_target::{Target, window_note};
use super::gguf_tokenizer::GgufTokenizer;
use super::gguf_writer::GgufValue;
use super::writer::TensorSpec;
use crate::config::DecoderConfig;
use crate::error::Error;

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

/// Plans a file. Vectors are stored in f32 and matrices as `storage` says; where the rows of one are no whole number of
/// blocks, it is stored as llama.cpp would and a note says so. Of a model that was a GGUF file, `carried` gives metadata and
/// tables, and of `tokenizer` a chat template is taken where the file had none.
///
/// # Errors
/// When llama.cpp would compute something else; the message says why.
pub fn plan_gguf(
    checkpoint: &Checkpoint,
    name: &str,
    storage: impl Into<GgufStorage>,
    tokenizer: &GgufTokenizer,
    carried: Option<&GgufCarried>,
) -> Result<GgufPlan, Error> {
    let model = &checkpoint.model.decoder;
    let mut plan = GgufPlan { metadata: Vec::new(), tensors: Vec::new(), notes: Vec::new() };
    let storage = storage.into();
    let target = match carried {
        Some(carried) => {
            plan.metadata.clone_from(&carried.metadata);
            const TEMPLATE: &str = "tokenizer.chat_template";
            if let Some(template) = &tokenizer.chat_template
                && plan.metadata.iter().all(|(key, _)| key != TEMPLATE)
            {
                plan.metadata.push((TEMPLATE.into(), GgufValue::Text(template.clone())));
            }
            Target::of_file(carried)
        }
        None => {
            let target = Target::of_model(checkpoint)?;
            let rope = rope(&checkpoint.label, &model.rotary, target)?;
            plan.metadata = metadata(model, target, &safe_name(name, tokenizer), &rope);
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
    let file_type = match storage {
        GgufStorage::Named(named) => Some(GgufValue::U32(named.number)),
        GgufStorage::AsBase => carried.and_then(|carried| carried.file_type.clone()),
    };
    plan.metadata.extend(file_type.map(|value| ("general.file_type".into(), value)));
    let choice = Choice::new(storage, checkpoint, target);
    let mut list = List { checkpoint, target, choice, tensors: &mut plan.tensors };
    list.all();
    plan.notes.extend(list.choice.notes());
    Ok(plan)
}

/// llama.cpp takes a model with `phi3` or `phi-3` in its name for Phi 3, and does not load it without that one's tokens.
fn safe_name(name: &str, tokenizer: &GgufTokenizer) -> String {
    const TOKENS: [&str; 4] = ["<s>", "</s>", "<unk>", "<|endoftext|>"];
    if TOKENS.iter().all(|token| tokenizer.tokens.iter().any(|known| known == token)) {
        return name.to_owned();
    }
    let mut safe = name.to_owned();
    for marked in ["phi-3", "phi3"] {
        while let Some(at) = safe.to_ascii_lowercase().find(marked) {
            safe.replace_range(at + 3..at + marked.len(), " 3");
        }
    }
    safe
}

fn values(name: &str, dims: Vec<usize>, values: Vec<f32>) -> GgufTensor {
    GgufTensor { spec: TensorSpec { name: name.into(), dtype: DType::F32, dims }, source: GgufSource::Values(values) }
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
    // llama.cpp wants the list of `gpt2` even where it is empty.
    let merges = tokenizer.model == "gpt2" || !tokenizer.merges.is_empty();
    set("ggml.merges", merges.then(|| GgufValue::Texts(tokenizer.merges.clone())));
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
    choice: Choice<'a>,
    tensors: &'a mut Vec<GgufTensor>,
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
            let (layer, part) = placed(name);
            let dtype = self.choice.dtype(&Place { part, layer, source: &source, dims: &dims });
            let spec = TensorSpec { name: format!("{name}.{suffix}"), dtype, dims };
            let source = GgufSource::Model { name: source, rows: rows.clone() };
            self.tensors.push(GgufTensor { spec, source });
        }
    }
}

/// The layer of a module of a file, 0 where it is in none, and what it is there.
fn placed(name: &str) -> (usize, &str) {
    let within = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    within.map_or((0, name), |(layer, part)| (layer.parse().unwrap_or(0), part))
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
