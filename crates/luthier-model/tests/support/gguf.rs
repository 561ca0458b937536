//! A small GGUF writer, and fixtures as llama.cpp's converter would write them.

use std::collections::BTreeMap;

use luthier_model::checkpoint::{Checkpoint, ModelFiles};
use luthier_tensor::DType;

use super::{model_files, shared};

#[derive(Clone)]
pub enum Meta {
    U32(u32),
    I32(i32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Integers(Vec<i32>),
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<usize>,
    pub kind: u32,
    pub bytes: Vec<u8>,
}

#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub fn list(kind: u32, items: Vec<Vec<u8>>) -> Vec<u8> {
    [kind.to_le_bytes().to_vec(), (items.len() as u64).to_le_bytes().to_vec(), items.concat()].concat()
}

impl Gguf {
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            out.extend(text(key));
            let (kind, value) = match value {
                Meta::U32(value) => (4u32, value.to_le_bytes().to_vec()),
                Meta::I32(value) => (5, value.to_le_bytes().to_vec()),
                Meta::F32(value) => (6, value.to_le_bytes().to_vec()),
                Meta::Flag(value) => (7, vec![u8::from(*value)]),
                Meta::Text(value) => (8, text(value)),
                Meta::Texts(items) => (9, list(8, items.iter().map(|item| text(item)).collect())),
                Meta::Floats(items) => (9, list(6, items.iter().map(|item| item.to_le_bytes().to_vec()).collect())),
                Meta::Integers(items) => (9, list(5, items.iter().map(|item| item.to_le_bytes().to_vec()).collect())),
                Meta::Raw(kind, bytes) => (*kind, bytes.clone()),
            };
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().rev().for_each(|length| out.extend((*length as u64).to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(32);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&tensor.bytes);
        }
        out
    }

    pub fn set(&mut self, key: &str, value: Meta) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.into(), value));
        self
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }
}

pub fn files(bytes: Vec<u8>) -> ModelFiles {
    ModelFiles { label: "m.gguf".into(), files: BTreeMap::from([("m.gguf".into(), shared(bytes))]) }
}

pub fn load(gguf: &Gguf) -> Result<Checkpoint, String> {
    Checkpoint::from_files(&files(gguf.bytes())).map_err(|error| error.to_string())
}

/// llama.cpp's converter: row `(head, half, j)` goes to `(head, j, half)`.
pub fn permute(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let width = bytes.len() / rows;
    let mut out = vec![0; bytes.len()];
    for row in 0..rows {
        let (head, half, j) = (row / head_dim, row % head_dim / (head_dim / 2), row % (head_dim / 2));
        let target = head * head_dim + 2 * j + half;
        out[target * width..][..width].copy_from_slice(&bytes[row * width..][..width]);
    }
    out
}

const NAMES: [(&str, &str); 17] = [
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
];

/// A fixture as llama.cpp's converter would write it.
pub fn converted(fixture: &str, architecture: &str, permuted: bool) -> Gguf {
    let checkpoint = Checkpoint::from_files(&model_files(fixture)).unwrap();
    let model = &checkpoint.model.decoder;
    let mut gguf = Gguf { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    let at = |key: &str| format!("{architecture}.{key}");
    gguf.set("general.architecture", Meta::Text(architecture.into()));
    gguf.set(&at("context_length"), Meta::U32(model.max_positions.unwrap() as u32));
    gguf.set(&at("embedding_length"), Meta::U32(model.hidden_size as u32));
    gguf.set(&at("block_count"), Meta::U32(model.layers.len() as u32));
    gguf.set(&at("feed_forward_length"), Meta::U32(model.intermediate_size as u32));
    gguf.set(&at("attention.head_count"), Meta::U32(model.heads as u32));
    gguf.set(&at("attention.head_count_kv"), Meta::U32(model.key_value_heads as u32));
    gguf.set(&at("attention.key_length"), Meta::U32(model.head_dim as u32));
    gguf.set(&at("attention.value_length"), Meta::U32(model.head_dim as u32));
    gguf.set(&at("attention.layer_norm_rms_epsilon"), Meta::F32(model.norm_epsilon));
    gguf.set(&at("rope.freq_base"), Meta::F32(model.rotary.theta as f32));
    gguf.set(&at("rope.dimension_count"), Meta::U32(model.rotary.dimensions as u32));
    gguf.set("tokenizer.ggml.model", Meta::Text("gpt2".into()));
    gguf.set("tokenizer.ggml.tokens", Meta::Texts((0..128).map(|id| format!("t{id}")).collect()));
    gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
    for (name, tensor) in &checkpoint.tensors {
        let mut gguf_name = name.replace("model.layers.", "blk.");
        let post = if architecture == "seed_oss" { "post_attention_norm" } else { "ffn_norm" };
        gguf_name = gguf_name.replace("post_attention_layernorm", post);
        for (theirs, ours) in NAMES {
            gguf_name = gguf_name.replace(theirs, ours);
        }
        let turned = permuted && (name.contains(".q_proj.") || name.contains(".k_proj."));
        let bytes = match turned {
            true => permute(tensor.bytes(), tensor.dims()[0], model.head_dim),
            false => tensor.bytes().to_vec(),
        };
        let kind = if tensor.dtype() == DType::F32 { 0 } else { 30 };
        gguf.tensors.push(Tensor { name: gguf_name, dims: tensor.dims().to_vec(), kind, bytes });
    }
    gguf
}
