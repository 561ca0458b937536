//! Mistral: Llama without biases, with a window on every layer. From: transformers 5.6, `models/mistral`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder, window_everywhere};
use super::raw::Raw;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults { key_value_heads: Heads::Fixed(8), max_positions: 4096 * 32, ..Defaults::LLAMA };

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "mistral", &DEFAULTS)?;
    window_everywhere(config, &mut model.layers, Some(4096))?;
    Ok((model, LLAMA_NAMES))
}
