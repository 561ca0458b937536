//! Qwen 2 and 2.5: biases on queries, keys and values; windows on the upper layers where switched on. From: transformers
//! 5.6, `models/qwen2`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder, qwen_windows};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(32),
    max_positions: 32768,
    begin_token_id: None,
    end_token_id: None,
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "qwen2", &DEFAULTS)?;
    model.biases = Biases { query_key_value: true, ..Biases::default() };
    qwen_windows(config, &mut model.layers)?;
    Ok((model, LLAMA_NAMES))
}
