//! From llama.cpp's names and layouts to Hugging Face's. Its converter renames every tensor and, for the architectures
//! that it rotates in neighbouring pairs, reorders the rows of the query and key projections; both are undone here, so
//! that adapters trained on a GGUF file fit the original model. From: llama.cpp, `convert_hf_to_gguf.py`, `tensor_mapping.py`.

/// How an architecture of llama.cpp is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    /// llama.cpp's name.
    pub(super) name: &'static str,
    /// The family that computes the same from the same tensors.
    pub(super) family: &'static str,
    /// The converter reordered the rows of queries and keys.
    pub(super) permuted: bool,
}

const fn row(name: &'static str, family: &'static str, permuted: bool) -> Architecture {
    Architecture { name, family, permuted }
}

/// The converter splits the fused projections of `internlm2` and `baichuan`, which leaves plain Llama; it stores the
/// multipliers of `minicpm` ready to use, which is Granite.
pub(super) const ARCHITECTURES: &[Architecture] = &[
    row("arcee", "arcee", true),
    row("baichuan", "llama", true),
    row("granite", "granite", true),
    row("hunyuan-dense", "hunyuan_v1_dense", false),
    row("internlm2", "llama", true),
    row("llama", "llama", true),
    row("minicpm", "granite", true),
    row("phi3", "phi3", false),
    row("qwen2", "qwen2", false),
    row("qwen3", "qwen3", false),
    row("seed_oss", "seed_oss", false),
    row("smollm3", "smollm3", true),
];

/// The Hugging Face name of a tensor; `None` when there is none.
pub(super) fn hugging_face_name(architecture: Architecture, name: &str) -> Option<String> {
    let (module, suffix) = name.rsplit_once('.')?;
    if suffix != "weight" && suffix != "bias" {
        return None;
    }
    let top = match module {
        "token_embd" => Some("model.embed_tokens"),
        "output_norm" => Some("model.norm"),
        "output" => Some("lm_head"),
        _ => None,
    };
    if let Some(module) = top {
        return Some(format!("{module}.{suffix}"));
    }
    let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
    if layer.is_empty() || !layer.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hunyuan = architecture.family == "hunyuan_v1_dense";
    let part = match part {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_qkv" => "self_attn.qkv_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" if hunyuan => "self_attn.query_layernorm",
        "attn_k_norm" if hunyuan => "self_attn.key_layernorm",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_norm" => "post_attention_layernorm",
        "post_attention_norm" if architecture.family == "seed_oss" => "post_attention_layernorm",
        "ffn_up" if architecture.family == "phi3" => "mlp.gate_up_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.{suffix}"))
}

/// Where row `row` of a query or key projection is in a file whose rows the converter reordered. A head's halves
/// (0 .. d/2, d/2 .. d) lie there as pairs: row `h * d + half * d/2 + j` became `h * d + 2 * j + half`.
pub(super) fn permuted_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, j) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * j + half
}

/// Tensors that hold nothing that is not in the metadata or read elsewhere: rotary tables.
pub(super) fn is_rotary_table(name: &str) -> bool {
    matches!(name, "rope_freqs.weight" | "rope_factors_long.weight" | "rope_factors_short.weight")
        || name.ends_with(".attn_rot_embd.weight")
}
