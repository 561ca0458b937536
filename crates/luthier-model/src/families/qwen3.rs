//! Qwen 3: queries and keys are normalised per head before they turn. From: transformers 5.6, `models/qwen3`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder, qwen_windows};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, ModuleNames, QueryKeyNorm};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(32),
    head_dim: Some(128),
    max_positions: 32768,
    begin_token_id: None,
    end_token_id: None,
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "qwen3", &DEFAULTS)?;
    model.query_key_norm = QueryKeyNorm::BeforeRotary;
    let attention = config.flag_or("attention_bias", false)?;
    model.biases = Biases { query_key_value: attention, attention_output: attention, feed_forward: false };
    qwen_windows(config, &mut model.layers)?;
    Ok((model, LLAMA_NAMES))
}
