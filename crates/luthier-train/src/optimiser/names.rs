//! What a parameter's name tells: its layer, and whether it is a table of tokens.

use luthier_model::{Parameter, Parameters};

/// Parts of the names of embeddings and heads, as they are called in files.
const TABLES: [&str; 6] = ["embed", "lm_head", "wte", "wpe", "embd", "output_layer"];

/// Whether a parameter is a matrix within the model: neither vector nor embedding nor head.
pub(super) fn is_hidden_matrix(parameter: &Parameter) -> bool {
    parameter.dims.len() == 2 && !TABLES.iter().any(|table| parameter.name.contains(table))
}

/// The layer that a parameter belongs to.
pub(super) fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// The factor of each parameter's rate: its own, and `decay` for each layer that lies above. The embedding counts as a
/// layer below the first; head and final norm are above the last. From: Howard & Ruder 2018, section 3.2.
pub(super) fn rate_factors(parameters: &Parameters, decay: Option<f64>) -> Vec<f64> {
    let layers = parameters.iter().filter_map(|parameter| layer(&parameter.name)).max().map_or(0, |last| last + 1);
    let of_layer = |parameter: &Parameter| {
        let Some(decay) = decay else { return 1.0 };
        let is_embedding = ["embed", "wte", "wpe", "embd"].iter().any(|table| parameter.name.contains(table));
        let above = match layer(&parameter.name) {
            Some(layer) => layers - 1 - layer,
            None if is_embedding => layers,
            None => 0,
        };
        decay.powi(above as i32)
    };
    parameters.iter().map(|parameter| parameter.rate * of_layer(parameter)).collect()
}

/// The beginning of the random numbers that belong to a name, for the `round`-th time.
pub(super) fn stream(seed: u64, name: &str, round: u64) -> u64 {
    let named = name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
    mix(named ^ mix(round))
}

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_the_first_numbers_of_names() {
        assert_eq!(layer("model.layers.12.mlp.experts.3.down_proj.weight"), Some(12));
        assert_eq!(layer("base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"), Some(0));
        assert_eq!(layer("model.embed_tokens.weight"), None);
    }
}
