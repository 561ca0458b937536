//! Granite: Llama with four multipliers, of which `logits_scaling` divides. From: transformers 5.6, `models/granite`.

use super::common::{Defaults, LLAMA_NAMES, decoder, llama_biases};
use super::raw::Raw;
use crate::config::{DecoderConfig, ModuleNames};
use crate::error::Error;

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    let mut model = decoder(config, "granite", &Defaults::LLAMA)?;
    let multiplier = |key: &str| Ok::<_, Error>(config.number_if_given(key)?.unwrap_or(1.0) as f32);
    model.biases = llama_biases(config)?;
    model.embedding_scale = multiplier("embedding_multiplier")?;
    model.prompt_scale = model.embedding_scale;
    model.residual_scale = multiplier("residual_multiplier")?;
    model.attention_scale = multiplier("attention_multiplier")?;
    model.logit_scale = (1.0 / config.positive_or("logits_scaling", 1.0)?) as f32;
    Ok((model, LLAMA_NAMES))
}
