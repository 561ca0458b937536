//! Seed-OSS: Llama with biases on queries, keys and values, and a switch of its own for the output's. From: transformers
//! 5.6, `models/seed_oss`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(8),
    head_dim: Some(128),
    max_positions: 524_288,
    begin_token_id: Some(0),
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let biases = Biases {
        query_key_value: config.flag_or("attention_bias", true)?,
        attention_output: config.flag_or("attention_out_bias", false)?,
        feed_forward: config.flag_or("mlp_bias", false)?,
    };
    Ok((DecoderConfig { biases, ..decoder(config, "seed_oss", &DEFAULTS)? }, LLAMA_NAMES))
}
