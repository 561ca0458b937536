//! The switches of the one decoder that every family is expressed in. A family (a file in `families/`) is a function from
//! its `config.json` to this value; the decoder reads nothing else, so a new family adds no forward pass.

pub use luthier_tensor::{Activation, HeadOrder};

/// A decoder-only transformer, described completely.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The `model_type` of the checkpoint, for messages.
    pub model_type: String,
    /// Rows of the embedding and of the head.
    pub vocabulary_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Query heads of each layer.
    pub heads: usize,
    /// Key and value heads of each layer; divides `heads`.
    pub key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Factor of the attention scores before the softmax, usually `head_dim^-0.5`.
    pub attention_scale: f32,
    /// Bound of the attention scores, `cap * tanh(score / cap)`.
    pub attention_soft_cap: Option<f32>,
    /// Added to the mean square under the root of every RMS norm.
    pub norm_epsilon: f32,
    /// Added to the weight of every RMS norm: 1 where a family stores the distance from 1, else 0.
    pub norm_offset: f32,
    /// Whether queries and keys are normalised per head, and when.
    pub query_key_norm: QueryKeyNorm,
    /// The rotary embedding.
    pub rotary: Rotary,
    /// The feed-forward block.
    pub feed_forward: FeedForward,
    /// Factor of the embedding's rows.
    pub embedding_scale: f32,
    /// Factor of a learned prompt's rows: that of the embedding where the model multiplies whatever enters its first layer,
    /// 1 where the embedding itself does.
    pub prompt_scale: f32,
    /// Factor of what each block adds to the residual stream.
    pub residual_scale: f32,
    /// Factor of the logits.
    pub logit_scale: f32,
    /// Bound of the logits, `cap * tanh(logit / cap)`.
    pub logit_soft_cap: Option<f32>,
    /// The head is the embedding matrix.
    pub tied_head: bool,
    /// Which projections add a vector.
    pub biases: Biases,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
    /// Positions that the checkpoint was made for; longer rows are possible but warned about.
    pub max_positions: Option<usize>,
    /// Ids that end a reply, as the configuration names them.
    pub end_token_ids: Vec<u32>,
    /// The id that starts a row, where the configuration names one.
    pub begin_token_id: Option<u32>,
}

/// Which projections add a vector, as the configuration says; the checkpoint then has exactly these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub query_key_value: bool,
    /// Back from the attention.
    pub attention_output: bool,
    /// All of the feed-forward block.
    pub feed_forward: bool,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerConfig {
    /// A query sees itself and the `window - 1` positions before it; `None` sees all.
    pub window: Option<usize>,
    /// The layer leaves queries and keys unrotated.
    pub unrotated: bool,
    /// What mixes tokens.
    pub mixer: Mixer,
}

/// What mixes the tokens of a row in a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mixer {
    /// Attention: its keys and values can be learned ones.
    #[default]
    Attention,
    /// A recurrence that carries a state in place of keys. No family has it yet.
    Recurrence,
}

/// RMS norm of each head of the queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// There is none.
    None,
    /// Before the rotation (Qwen3).
    BeforeRotary,
    /// After the rotation (Hunyuan).
    AfterRotary,
}

/// Rotary position embedding (Su et al. 2021).
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Leading numbers of a head that are rotated; the rest pass through. Even.
    pub dimensions: usize,
    /// Pairs are neighbours (0,1), (2,3), ... instead of halves (0, d/2), (1, d/2 + 1), ...
    pub interleaved: bool,
    /// How the frequencies are stretched beyond the trained length.
    pub scaling: RotaryScaling,
}

/// The stretching of rotary frequencies, with the names and meaning of Hugging Face's `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum RotaryScaling {
    /// `default`
    None,
    /// `linear`: all frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// `dynamic`: theta grows with the row once it is longer than `trained_positions`.
    Dynamic {
        /// The stretching.
        factor: f64,
        /// Length up to which nothing changes.
        trained_positions: usize,
    },
    /// Hunyuan's `dynamic` with `alpha`: `Dynamic` for rows longer than `trained_positions`; others turn by `short_theta`.
    DynamicAlpha {
        /// theta of rows up to `trained_positions`: `theta * alpha^(d / (d - 2))`.
        short_theta: f64,
        /// The stretching.
        factor: f64,
        /// Length up to which `short_theta` holds.
        trained_positions: usize,
    },
    /// `yarn` (Peng et al. 2023).
    Yarn {
        /// The stretching.
        factor: f64,
        /// Length of pre-training.
        trained_positions: usize,
        /// Rotations above which a dimension is not stretched.
        beta_fast: f64,
        /// Rotations below which a dimension is stretched fully.
        beta_slow: f64,
        /// Factor of cosine and sine.
        attention_factor: f64,
        /// Round the ends of the ramp to whole dimensions.
        truncate: bool,
    },
    /// `llama3`
    Llama3 {
        /// The stretching.
        factor: f64,
        /// Wavelengths longer than `trained_positions / low_frequency_factor` are stretched fully.
        low_frequency_factor: f64,
        /// Wavelengths shorter than `trained_positions / high_frequency_factor` are left alone.
        high_frequency_factor: f64,
        /// Length of pre-training.
        trained_positions: usize,
    },
    /// `longrope` (Ding et al. 2024): each dimension has a divisor, one list for short rows and one for long rows.
    LongRope {
        /// Divisors for rows up to `trained_positions`; `dimensions / 2` of them.
        short_factors: Vec<f64>,
        /// Divisors for longer rows.
        long_factors: Vec<f64>,
        /// Length of pre-training.
        trained_positions: usize,
        /// Factor of cosine and sine.
        attention_factor: f64,
    },
}

/// The feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// `down(activation(gate(x)) * up(x))`
    Gated(Activation),
    /// `down(activation(up(x)))`
    Plain(Activation),
}

/// Where a family's tensors are: module paths without `.weight` and `.bias`. In layer paths `{}` is the layer's number.
/// Projections that a file keeps fused stay fused: their outputs lie side by side in the listed order either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleNames {
    /// Token embedding.
    pub embedding: &'static str,
    /// Norm before the attention.
    pub attention_norm: &'static str,
    /// The projections to queries, keys and values: one fused or three.
    pub query_key_value: &'static [&'static str],
    /// Order of the heads in their output.
    pub head_order: HeadOrder,
    /// Norm of query heads, where `query_key_norm` says that there is one.
    pub query_norm: &'static str,
    /// Norm of key heads.
    pub key_norm: &'static str,
    /// The projection back from the attention.
    pub attention_output: &'static str,
    /// Norm after it, where the family has one.
    pub attention_output_norm: Option<&'static str>,
    /// Norm before the feed-forward block.
    pub feed_forward_norm: &'static str,
    /// Gate then up: one fused or two; or up alone.
    pub gate_up: &'static [&'static str],
    /// The projection back from the feed-forward block.
    pub down: &'static str,
    /// Norm after it, where the family has one.
    pub down_norm: Option<&'static str>,
    /// Norm before the head.
    pub final_norm: &'static str,
    /// The head, where it is not tied.
    pub head: &'static str,
}
