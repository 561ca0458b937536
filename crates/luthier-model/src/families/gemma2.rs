//! Gemma 2: norms after each block too, all of which store the distance from 1; bounded attention scores and logits; every
//! other layer slides; the embedding is scaled by the root of its width. From: transformers 5.6, `models/gemma2`.

use super::common::{Defaults, Heads, LLAMA_NAMES, activation_of, decoder, set_windows, sliding_layers};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, FeedForward, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(4),
    head_dim: Some(256),
    max_positions: 8192,
    tied_head: true,
    begin_token_id: Some(2),
    end_token_id: Some(1),
    ..Defaults::LLAMA
};

const NAMES: ModuleNames = ModuleNames {
    attention_output_norm: Some("model.layers.{}.post_attention_layernorm"),
    feed_forward_norm: "model.layers.{}.pre_feedforward_layernorm",
    down_norm: Some("model.layers.{}.post_feedforward_layernorm"),
    ..LLAMA_NAMES
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "gemma2", &DEFAULTS)?;
    if config.flag_or("use_bidirectional_attention", false)? {
        return Err(config.unsupported("use_bidirectional_attention", "only decoders that look back are supported"));
    }
    let attention = config.flag_or("attention_bias", false)?;
    model.biases = Biases { query_key_value: attention, attention_output: attention, feed_forward: false };
    model.feed_forward = FeedForward::Gated(activation_of(config, "hidden_activation", "gelu_pytorch_tanh")?);
    model.norm_offset = 1.0;
    model.embedding_scale = (model.hidden_size as f64).sqrt() as f32;
    model.attention_scale = config.positive_or("query_pre_attn_scalar", 256.0)?.powf(-0.5) as f32;
    model.attention_soft_cap = soft_cap(config, "attn_logit_softcapping", 50.0)?;
    model.logit_soft_cap = soft_cap(config, "final_logit_softcapping", 30.0)?;
    let slides = match sliding_layers(config, model.layers.len())? {
        Some(slides) => slides,
        None => (0..model.layers.len()).map(|layer| layer % 2 == 0).collect(),
    };
    let window = match config.size_if_given("sliding_window")? {
        None if !config.names("sliding_window") => Some(4096),
        given => given,
    };
    set_windows(config, &mut model.layers, &slides, window)?;
    Ok((model, NAMES))
}

/// A bound; `null` is none.
fn soft_cap(config: &Raw<'_>, key: &str, default: f64) -> Result<Option<f32>, Error> {
    match config.number_if_given(key)? {
        None if config.names(key) => Ok(None),
        None => Ok(Some(default as f32)),
        Some(_) => Ok(Some(config.positive_or(key, default)? as f32)),
    }
}
