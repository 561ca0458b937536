//! Baichuan 7B: Llama with queries, keys and values fused. The 13B models call themselves the same but have ALiBi in place
//! of rotary positions, and Baichuan 2 normalises the rows of its head; both are refused. From: its own
//! `modeling_baichuan.py` (Baichuan, 2023).

use super::common::{Defaults, LLAMA_NAMES, decoder};
use super::raw::Raw;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

/// Rows of Baichuan 2's embedding.
const VOCABULARY_OF_2: usize = 125_696;

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    if config.value("max_position_embeddings").is_none() {
        let reason = "a Baichuan model without it is the 13B variant, whose ALiBi positions are not supported yet";
        return Err(config.unsupported("max_position_embeddings", reason));
    }
    let model = decoder(config, "baichuan", &Defaults { max_positions: 4096, ..Defaults::LLAMA })?;
    let class = config.value("architectures").and_then(|list| list.get(0)).and_then(|name| name.as_str());
    if model.vocabulary_size == VOCABULARY_OF_2 || class == Some("BaichuanForCausalLM") {
        let key = if model.vocabulary_size == VOCABULARY_OF_2 { "vocab_size" } else { "architectures" };
        return Err(config.unsupported(key, "this is Baichuan 2, whose normalised head is not supported yet"));
    }
    Ok((model, ModuleNames { query_key_value: &["model.layers.{}.self_attn.W_pack"], ..LLAMA_NAMES }))
}
