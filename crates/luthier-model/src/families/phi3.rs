//! Phi 3 and 4: fused projections, a part of each head rotated, longrope. From: transformers 5.6, `models/phi3`.

use super::common::{Defaults, LLAMA_NAMES, decoder, window_everywhere};
use super::raw::Raw;
use super::rope::RopeRules;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    max_positions: 4096,
    norm_epsilon: 1e-5,
    rope: RopeRules { partial: true, original_positions: Some(4096), phi3_names: true, ..RopeRules::PLAIN },
    end_token_id: Some(32000),
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "phi3", &DEFAULTS)?;
    window_everywhere(config, &mut model.layers, None)?;
    let names = ModuleNames {
        query_key_value: &["model.layers.{}.self_attn.qkv_proj"],
        gate_up: &["model.layers.{}.mlp.gate_up_proj"],
        ..LLAMA_NAMES
    };
    Ok((model, names))
}
