//! Arcee: Llama whose feed-forward block has no gate, with the square of relu. From: transformers 5.6, `models/arcee`.

use super::common::{Defaults, LLAMA_NAMES, activation, decoder, llama_biases};
use super::raw::Raw;
use crate::config::{DecoderConfig, FeedForward, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    max_positions: 4096,
    norm_epsilon: 1e-5,
    activation: "relu2",
    begin_token_id: Some(128_000),
    end_token_id: Some(128_001),
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "arcee", &DEFAULTS)?;
    model.biases = llama_biases(config)?;
    model.feed_forward = FeedForward::Plain(activation(config, DEFAULTS.activation)?);
    Ok((model, ModuleNames { gate_up: &["model.layers.{}.mlp.up_proj"], ..LLAMA_NAMES }))
}
