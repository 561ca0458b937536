//! SmolLM 3: every fourth layer leaves queries and keys unrotated. From: transformers 5.6, `models/smollm3`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder, llama_biases, set_windows, sliding_layers};
use super::raw::Raw;
use super::rope::RopeRules;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(4),
    max_positions: 32768,
    rope: RopeRules { theta: 2_000_000.0, ..RopeRules::PLAIN },
    tied_head: true,
    begin_token_id: Some(128_000),
    end_token_id: Some(128_001),
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "smollm3", &DEFAULTS)?;
    model.biases = llama_biases(config)?;
    let layers = model.layers.len();
    let rotated = rotated_layers(config, layers)?;
    for (layer, rotated) in model.layers.iter_mut().zip(&rotated) {
        layer.unrotated = !rotated;
    }
    let window = config.size_if_given("sliding_window")?;
    let slides = match sliding_layers(config, layers)? {
        Some(slides) => slides,
        None => {
            let on = config.flag_or("use_sliding_window", false)? && window.is_some();
            rotated.iter().map(|rotated| on && !rotated).collect()
        }
    };
    set_windows(config, &mut model.layers, &slides, window)?;
    Ok((model, LLAMA_NAMES))
}

/// `no_rope_layers` has a 1 for each layer that does turn its queries and keys: the name says the opposite. A list that
/// goes on after the last layer is that of a deeper model, as in transformers.
fn rotated_layers(config: &Raw<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    let Some(value) = config.value("no_rope_layers") else {
        let interval = config.size_or("no_rope_layer_interval", 4)?;
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    let flags = value.as_array().and_then(|flags| flags.get(..layers)).and_then(|flags| {
        let flag = |flag: &serde_json::Value| flag.as_bool().or_else(|| flag.as_u64().map(|flag| flag != 0));
        flags.iter().map(flag).collect()
    });
    flags.ok_or_else(|| config.bad("no_rope_layers", format!("a list of at least {layers} numbers, 0 or 1")))
}
