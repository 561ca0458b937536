//! Hunyuan v1 (dense): queries and keys are normalised per head after they turned; `dynamic` rotary scaling with an
//! `alpha`. From: transformers 5.6, `models/hunyuan_v1_dense`.

use super::common::{Defaults, LLAMA_NAMES, decoder};
use super::raw::Raw;
use super::rope::section;
use crate::config::{Biases, DecoderConfig, ModuleNames, QueryKeyNorm, RotaryScaling};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults { norm_epsilon: 1e-5, ..Defaults::LLAMA };

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "hunyuan_v1_dense", &DEFAULTS)?;
    model.query_key_norm = QueryKeyNorm::AfterRotary;
    let attention = config.flag_or("attention_bias", false)?;
    model.biases = Biases { query_key_value: attention, attention_output: attention, feed_forward: false };
    if let (RotaryScaling::Dynamic { factor, trained_positions }, (_, Some(rope))) =
        (&model.rotary.scaling, section(config)?)
        && let Some(alpha) = rope.number_if_given("alpha")?.filter(|alpha| *alpha != 0.0)
    {
        if alpha < 0.0 {
            return Err(rope.bad("alpha", "a number above 0"));
        }
        let head_dim = model.head_dim as f64;
        model.rotary.scaling = RotaryScaling::DynamicAlpha {
            short_theta: model.rotary.theta * alpha.powf(head_dim / (head_dim - 2.0)),
            factor: *factor,
            trained_positions: *trained_positions,
        };
    }
    let names = ModuleNames {
        query_norm: "model.layers.{}.self_attn.query_layernorm",
        key_norm: "model.layers.{}.self_attn.key_layernorm",
        ..LLAMA_NAMES
    };
    Ok((model, names))
}
