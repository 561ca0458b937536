//! MiniCPM 1, 2 and 4: Llama whose embedding, residual branches and logits are scaled. From: its own
//! `modeling_minicpm.py` (OpenBMB, 2024): `embed * scale_emb`, `residual + branch * scale_depth / sqrt(layers)`,
//! `head(hidden / (hidden_size / dim_model_base))`.

use super::common::{Defaults, LLAMA_NAMES, decoder};
use super::raw::Raw;
use crate::config::{Biases, DecoderConfig, ModuleNames};
use crate::error::Error;

pub(super) fn family(config: &Raw<'_>) -> Result<(DecoderConfig, ModuleNames), Error> {
    for key in ["num_experts", "sparse_config"] {
        if config.value(key).is_some_and(|value| value.as_u64() != Some(0)) {
            return Err(config.unsupported(key, "only the dense MiniCPM models are"));
        }
    }
    let mut model = decoder(config, "minicpm", &Defaults { tied_head: true, ..Defaults::LLAMA })?;
    let attention = config.flag_or("attention_bias", false)?;
    model.biases = Biases { query_key_value: attention, attention_output: attention, feed_forward: false };
    model.embedding_scale = config.positive_or("scale_emb", 1.0)? as f32;
    model.prompt_scale = model.embedding_scale;
    let layers = model.layers.len() as f64;
    model.residual_scale = (config.positive_or("scale_depth", 1.0)? / layers.sqrt()) as f32;
    model.logit_scale = (config.positive_or("dim_model_base", 1.0)? / model.hidden_size as f64) as f32;
    Ok((model, LLAMA_NAMES))
}
