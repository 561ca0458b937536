//! Llama and what calls itself so. From: transformers 5.6, `models/llama`.

use super::common::{Defaults, LLAMA_NAMES, decoder, llama_biases};
use super::raw::Raw;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let biases = llama_biases(config)?;
    Ok((DecoderConfig { biases, ..decoder(config, "llama", &Defaults::LLAMA)? }, LLAMA_NAMES))
}
