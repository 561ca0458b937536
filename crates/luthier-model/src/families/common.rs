//! What the families share: the keys that Llama named and most others kept. A family gives its class's defaults, reads
//! the common part here, and changes what it does differently.

use super::raw::Raw;
use super::rope::{RopeRules, rotary};
use crate::config::{
    Activation, Biases, DecoderConfig, FeedForward, HeadOrder, LayerConfig, ModuleNames, QueryKeyNorm,
};
use crate::error::Error;

/// Values of keys that a configuration may leave out: those of the family's class in transformers.
pub(super) struct Defaults {
    pub(super) key_value_heads: Heads,
    pub(super) head_dim: Option<usize>,
    pub(super) max_positions: usize,
    pub(super) norm_epsilon: f64,
    pub(super) activation: &'static str,
    pub(super) rope: RopeRules,
    pub(super) tied_head: bool,
    pub(super) begin_token_id: Option<u32>,
    pub(super) end_token_id: Option<u32>,
}

/// Key and value heads of a configuration without `num_key_value_heads`. A `null` always means one for each query head.
#[derive(Clone, Copy)]
pub(super) enum Heads {
    /// One for each query head.
    AsQueries,
    /// This many.
    Fixed(usize),
}

impl Defaults {
    /// Those of Llama.
    pub(super) const LLAMA: Self = Self {
        key_value_heads: Heads::AsQueries,
        head_dim: None,
        max_positions: 2048,
        norm_epsilon: 1e-6,
        activation: "silu",
        rope: RopeRules::PLAIN,
        tied_head: false,
        begin_token_id: Some(1),
        end_token_id: Some(2),
    };
}

/// The tensor names of Llama, which most families kept.
pub(super) const LLAMA_NAMES: ModuleNames = ModuleNames {
    embedding: "model.embed_tokens",
    attention_norm: "model.layers.{}.input_layernorm",
    query_key_value: &[
        "model.layers.{}.self_attn.q_proj",
        "model.layers.{}.self_attn.k_proj",
        "model.layers.{}.self_attn.v_proj",
    ],
    head_order: HeadOrder::Blocks,
    query_norm: "model.layers.{}.self_attn.q_norm",
    key_norm: "model.layers.{}.self_attn.k_norm",
    attention_output: "model.layers.{}.self_attn.o_proj",
    attention_output_norm: None,
    feed_forward_norm: "model.layers.{}.post_attention_layernorm",
    gate_up: &["model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"],
    down: "model.layers.{}.mlp.down_proj",
    down_norm: None,
    final_norm: "model.norm",
    head: "lm_head",
};

/// A serial, gated, grouped-query decoder without biases, windows or multipliers.
pub(super) fn decoder(config: &Raw<'_>, model_type: &str, defaults: &Defaults) -> Result<DecoderConfig, Error> {
    let vocabulary_size = config.size("vocab_size")?;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let layers = config.size("num_hidden_layers")?;
    if layers > 4096 {
        return Err(config.bad("num_hidden_layers", "at most 4096 layers"));
    }
    let (heads, key_value_heads, head_dim) = heads(config, hidden_size, defaults)?;
    let max_positions = config.size_or("max_position_embeddings", defaults.max_positions)?;
    let rotary = rotary(config, defaults.rope, head_dim, max_positions)?;
    let begin = if config.names("bos_token_id") { config.token_ids("bos_token_id")? } else { None };
    let begin_token_id = match begin {
        Some(ids) => ids.first().copied(),
        None if config.names("bos_token_id") => None,
        None => defaults.begin_token_id,
    };
    let end_token_ids = match config.token_ids("eos_token_id")? {
        Some(ids) => ids,
        None if config.names("eos_token_id") => Vec::new(),
        None => defaults.end_token_id.into_iter().collect(),
    };
    Ok(DecoderConfig {
        model_type: model_type.to_owned(),
        vocabulary_size,
        hidden_size,
        intermediate_size,
        heads,
        key_value_heads,
        head_dim,
        attention_scale: (head_dim as f64).powf(-0.5) as f32,
        attention_soft_cap: None,
        norm_epsilon: config.positive_or("rms_norm_eps", defaults.norm_epsilon)? as f32,
        norm_offset: 0.0,
        query_key_norm: QueryKeyNorm::None,
        rotary,
        feed_forward: FeedForward::Gated(activation(config, defaults.activation)?),
        embedding_scale: 1.0,
        prompt_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_soft_cap: None,
        tied_head: config.flag_or("tie_word_embeddings", defaults.tied_head)?,
        biases: Biases::default(),
        layers: vec![LayerConfig::default(); layers],
        max_positions: Some(max_positions),
        end_token_ids,
        begin_token_id: begin_token_id.filter(|id| (*id as usize) < vocabulary_size),
    })
}

fn heads(config: &Raw<'_>, hidden_size: usize, defaults: &Defaults) -> Result<(usize, usize, usize), Error> {
    let heads = config.size("num_attention_heads")?;
    if heads > 1 << 16 {
        return Err(config.bad("num_attention_heads", "at most 65536 heads"));
    }
    let key_value_heads = match (config.size_if_given("num_key_value_heads")?, defaults.key_value_heads) {
        (Some(given), _) => given,
        (None, Heads::Fixed(fixed)) if !config.names("num_key_value_heads") => fixed,
        (None, _) => heads,
    };
    if key_value_heads > heads || !heads.is_multiple_of(key_value_heads) {
        return Err(config.bad("num_key_value_heads", format!("a divisor of the {heads} attention heads")));
    }
    let head_dim = match (config.size_if_given("head_dim")?, defaults.head_dim) {
        (Some(given), _) => given,
        (None, Some(fixed)) if !config.names("head_dim") => fixed,
        (None, _) if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        (None, _) => {
            return Err(config.bad("num_attention_heads", format!("a divisor of `hidden_size` {hidden_size}")));
        }
    };
    if head_dim > 1 << 12 {
        return Err(config.bad("head_dim", "at most 4096"));
    }
    Ok((heads, key_value_heads, head_dim))
}

/// `hidden_act`, by the names of transformers' table.
pub(super) fn activation(config: &Raw<'_>, default: &str) -> Result<Activation, Error> {
    activation_of(config, "hidden_act", default)
}

/// As [`activation`], where the family's key is another.
pub(super) fn activation_of(config: &Raw<'_>, key: &str, default: &str) -> Result<Activation, Error> {
    Ok(match config.text(key)?.unwrap_or(default) {
        "silu" | "swish" => Activation::Silu,
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "relu2" => Activation::ReluSquared,
        _ => {
            let known = "known are silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu and relu2";
            return Err(config.unsupported(key, known));
        }
    })
}

/// `attention_bias` for all four projections of the attention, `mlp_bias` for the feed-forward block.
pub(super) fn llama_biases(config: &Raw<'_>) -> Result<Biases, Error> {
    let attention = config.flag_or("attention_bias", false)?;
    Ok(Biases {
        query_key_value: attention,
        attention_output: attention,
        feed_forward: config.flag_or("mlp_bias", false)?,
    })
}

/// `sliding_window` on every layer unless it is `null`; absent is `default`.
pub(super) fn window_everywhere(
    config: &Raw<'_>,
    layers: &mut [LayerConfig],
    default: Option<usize>,
) -> Result<(), Error> {
    let window = match config.size_if_given("sliding_window")? {
        None if !config.names("sliding_window") => default,
        given => given,
    };
    layers.iter_mut().for_each(|layer| layer.window = window);
    Ok(())
}

/// `layer_types`: which layers slide; `None` when the file does not say.
pub(super) fn sliding_layers(config: &Raw<'_>, layers: usize) -> Result<Option<Vec<bool>>, Error> {
    let Some(value) = config.value("layer_types") else { return Ok(None) };
    let expected = format!("a list of {layers} names, each `full_attention` or `sliding_attention`");
    let Some(types) = value.as_array().filter(|types| types.len() == layers) else {
        return Err(config.bad("layer_types", expected));
    };
    let slides = types.iter().map(|name| match name.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(config.bad("layer_types", expected.clone())),
    });
    slides.collect::<Result<_, _>>().map(Some)
}

/// The windows of Qwen: `use_sliding_window` switches them on, from layer `max_window_layers` or where `layer_types` says.
pub(super) fn qwen_windows(config: &Raw<'_>, layers: &mut [LayerConfig]) -> Result<(), Error> {
    let on = config.flag_or("use_sliding_window", false)?;
    let window = match config.size_if_given("sliding_window") {
        _ if !on => None,
        Ok(None) if !config.names("sliding_window") => Some(4096),
        given => given?,
    };
    let slides = match sliding_layers(config, layers.len())? {
        Some(slides) => slides,
        None => {
            let first = match config.value("max_window_layers").map(|value| value.as_u64()) {
                None => 28,
                Some(Some(first)) => first as usize,
                Some(None) => return Err(config.bad("max_window_layers", "a whole number of layers")),
            };
            (0..layers.len()).map(|layer| window.is_some() && layer >= first).collect()
        }
    };
    set_windows(config, layers, &slides, window)
}

/// Gives the sliding layers their window, which must exist.
pub(super) fn set_windows(
    config: &Raw<'_>,
    layers: &mut [LayerConfig],
    slides: &[bool],
    window: Option<usize>,
) -> Result<(), Error> {
    if window.is_none() && slides.contains(&true) {
        let reason =
            "`layer_types` has sliding layers, but no window is switched on (`use_sliding_window`, `sliding_window`)";
        return Err(config.unsupported("layer_types", reason));
    }
    for (layer, slides) in layers.iter_mut().zip(slides) {
        layer.window = window.filter(|_| *slides);
    }
    Ok(())
}
