//! InternLM 2: Llama under other names, with queries, keys and values fused group by group. From: its own
//! `modeling_internlm2.py` (InternLM, 2024).

use super::common::{Defaults, LLAMA_NAMES, decoder};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, HeadOrder, ModuleNames};
use crate::error::Error;

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "internlm2", &Defaults::LLAMA)?;
    let bias = config.flag_or("bias", true)?;
    model.biases = Biases { query_key_value: bias, attention_output: bias, feed_forward: false };
    let names = ModuleNames {
        embedding: "model.tok_embeddings",
        attention_norm: "model.layers.{}.attention_norm",
        query_key_value: &["model.layers.{}.attention.wqkv"],
        head_order: HeadOrder::Groups,
        attention_output: "model.layers.{}.attention.wo",
        feed_forward_norm: "model.layers.{}.ffn_norm",
        gate_up: &["model.layers.{}.feed_forward.w1", "model.layers.{}.feed_forward.w3"],
        down: "model.layers.{}.feed_forward.w2",
        head: "output",
        ..LLAMA_NAMES
    };
    Ok((model, names))
}
