//! Helium: neighbouring numbers of a head turn together; the attention's output is square and has no bias. From:
//! transformers 5.6, `models/helium`.

use super::common::{Defaults, Heads, LLAMA_NAMES, decoder};
use super::raw::Raw;
use super::rope::RopeRules;
use crate::config::{Biases, DecoderConfig, ModuleNames};
use crate::error::Error;

const DEFAULTS: Defaults = Defaults {
    key_value_heads: Heads::Fixed(20),
    head_dim: Some(128),
    max_positions: 4096,
    norm_epsilon: 1e-8,
    rope: RopeRules { theta: 100_000.0, interleaved: true, ..RopeRules::PLAIN },
    ..Defaults::LLAMA
};

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "helium", &DEFAULTS)?;
    if model.heads * model.head_dim != model.hidden_size {
        let expected = format!("`hidden_size` {} divided by {} heads", model.hidden_size, model.heads);
        return Err(config.bad("head_dim", expected));
    }
    model.biases = Biases {
        query_key_value: config.flag_or("attention_bias", false)?,
        attention_output: false,
        feed_forward: config.flag_or("mlp_bias", false)?,
    };
    Ok((model, LLAMA_NAMES))
}
