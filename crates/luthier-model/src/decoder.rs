//! The one decoder. A forward pass over about six operations a layer, the same for training, evaluation and generation and
//! on every device; what differs between families is in [`DecoderConfig`].

use std::sync::Arc;

use luthier_tensor::{
    AttentionOptions, DType, Device, HeadLayout, HeadNormWeights, HeadOptions, KeyValues, LinearInput, Precision,
    Projection, Residual, RotaryTables, Segment, Tape, Tensor, Var, Weight,
};

use crate::adapter::LoraAdapter;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, FeedForward, LayerConfig, QueryKeyNorm};
use crate::error::Error;
use crate::parameters::Parameters;
use crate::tuning::{Builder, Tuning, is_saved};

/// The widest head that the kernel of the query and key norms takes.
const MOST_NORMALISED: usize = 512;

/// A model with its weights.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    layout: HeadLayout,
    embedding: Weight,
    layers: Vec<Layer>,
    final_norm: Weight,
    head: Weight,
    parameters: Parameters,
    adapted: Vec<String>,
}

#[derive(Debug)]
struct Layer {
    config: LayerConfig,
    attention_norm: Weight,
    query_key_value: Vec<Projection>,
    head_norm: Option<HeadNormWeights>,
    attention_output: Vec<Projection>,
    feed_forward_norm: Weight,
    gate_up: Vec<Projection>,
    down: Vec<Projection>,
}

/// The tokens of one forward pass.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// u32 `[1, tokens]`
    pub ids: Tensor,
    /// What attends to what.
    pub segments: Arc<[Segment]>,
    tables: RotaryTables,
}

/// What keeps only its input and runs again in backward: the first layers, or their feed-forward networks, which keep
/// more than half of what a layer keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recomputed {
    /// So many layers, from the first.
    pub layers: usize,
    /// Of them the feed-forward network alone.
    pub feed_forward_only: bool,
}

impl From<usize> for Recomputed {
    fn from(layers: usize) -> Self {
        Self { layers, feed_forward_only: false }
    }
}

impl Decoder {
    /// Makes the weights of a checkpoint ready on `device`: frozen matrices stay where they are, in the storage that they
    /// have. An adapter's values replace those that tuning would start from.
    ///
    /// # Errors
    /// When a tensor is missing, or the adapter names a module that the model does not have.
    pub fn new(
        device: &Device,
        checkpoint: &Checkpoint,
        tuning: &Tuning,
        adapter: Option<&LoraAdapter>,
    ) -> Result<Self, Error> {
        Self::with_storage(device, checkpoint, tuning, adapter, DType::F32)
    }

    /// As [`new`](Self::new), with trained matrices in `storage`, f32 or bf16. Vectors are f32 always.
    ///
    /// # Errors
    /// As there.
    pub fn with_storage(
        device: &Device,
        checkpoint: &Checkpoint,
        tuning: &Tuning,
        adapter: Option<&LoraAdapter>,
        storage: DType,
    ) -> Result<Self, Error> {
        let (config, names) = (checkpoint.model.decoder.clone(), &checkpoint.model.names);
        if config.query_key_norm != QueryKeyNorm::None && config.head_dim > MOST_NORMALISED {
            return Err(Error::Unsupported {
                file: checkpoint.label.clone(),
                key: "head_dim".into(),
                found: config.head_dim.to_string(),
                reason: format!("heads with a norm of their own may have {MOST_NORMALISED} numbers"),
            });
        }
        let mut build = Builder::new(device, checkpoint, tuning, adapter);
        build.storage = storage;
        let embedding = build.table(names.embedding)?;
        let layout = HeadLayout {
            heads: config.heads,
            key_value_heads: config.key_value_heads,
            head_dim: config.head_dim,
            order: names.head_order,
        };
        let mut layers = Vec::with_capacity(config.layers.len());
        for (number, layer) in config.layers.iter().enumerate() {
            let at = |name: &str| name.replacen("{}", &number.to_string(), 1);
            let all = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<_>>();
            let attention_norm = build.vector(&at(names.attention_norm), Some(number))?;
            let query_key_value = build.projections(&all(names.query_key_value), number)?;
            let head_norm = match config.query_key_norm {
                QueryKeyNorm::None => None,
                when => Some(HeadNormWeights {
                    query: build.vector(&at(names.query_norm), Some(number))?,
                    key: build.vector(&at(names.key_norm), Some(number))?,
                    epsilon: config.norm_epsilon,
                    after_rotation: when == QueryKeyNorm::AfterRotary,
                }),
            };
            layers.push(Layer {
                config: *layer,
                attention_norm,
                query_key_value,
                head_norm,
                attention_output: build.projections(&[at(names.attention_output)], number)?,
                feed_forward_norm: build.vector(&at(names.feed_forward_norm), Some(number))?,
                gate_up: build.projections(&all(names.gate_up), number)?,
                down: build.projections(&[at(names.down)], number)?,
            });
        }
        let final_norm = build.vector(names.final_norm, None)?;
        let head = match config.tied_head {
            true if adapter_splits(tuning, adapter, names.embedding, names.head) => {
                return Err(Error::Adapter {
                    file: checkpoint.label.clone(),
                    reason: format!(
                        "the head is the embedding matrix, so an adapter that trains or holds `{}` or `{}` would make two of \
                         it, which is not supported yet",
                        names.embedding, names.head
                    ),
                });
            }
            true => embedding.clone(),
            false => build.table(names.head)?,
        };
        let Builder { parameters, adapted, .. } = build;
        if let Some(stray) = adapter.and_then(|adapter| adapter.modules.keys().find(|name| !adapted.contains(name))) {
            let is_table = |name: &str| name.strip_suffix(".weight") == Some(stray);
            let reason = if is_table(names.head) || is_table(names.embedding) {
                format!("low-rank terms on `{stray}` are not supported yet; only on the linear layers within the model")
            } else {
                format!("the adapter is for another model: this one has no module `{stray}`")
            };
            return Err(Error::Adapter { file: checkpoint.label.clone(), reason });
        }
        if let Some(stray) = adapter
            .and_then(|adapter| adapter.saved_modules.keys().find(|name| !checkpoint.tensors.contains_key(*name)))
        {
            return Err(Error::Adapter {
                file: checkpoint.label.clone(),
                reason: format!("the adapter is for another model: this one has no tensor `{stray}`"),
            });
        }
        Ok(Self { config, layout, embedding, layers, final_norm, head, parameters, adapted })
    }

    /// What it is.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Its heads.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// What is trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Paths of the modules that have an adapter, in the order of the forward pass.
    pub fn adapted_modules(&self) -> &[String] {
        &self.adapted
    }

    /// Uploads tokens. `segments` say what attends to what; rotary angles follow from their positions.
    pub fn inputs(&self, device: &Device, ids: &[u32], segments: Vec<Segment>) -> Inputs {
        let tables = self.config.rotary.tables(device, ids.len(), &segments);
        Inputs { ids: device.upload_ids(ids), segments: segments.into(), tables }
    }

    /// The residual stream after the last layer, before the final norm: `[tokens, hidden]`. What is recomputed keeps only
    /// its input and runs again in backward.
    pub fn hidden<'a>(&'a self, tape: &mut Tape<'a>, inputs: &Inputs, recomputed: impl Into<Recomputed>) -> Var {
        let recomputed = recomputed.into();
        let mut hidden = tape.embedding(&self.embedding, &inputs.ids, self.config.embedding_scale);
        for (number, layer) in self.layers.iter().enumerate() {
            let again = number < recomputed.layers;
            if again && !recomputed.feed_forward_only {
                let inputs = inputs.clone();
                hidden =
                    tape.checkpoint(&hidden, move |tape, hidden| self.layer(tape, layer, hidden, &inputs, &[], |_| ()));
            } else if again {
                let attended = self.attend(tape, layer, &hidden, inputs, &[], |_| ());
                hidden = tape.checkpoint(&attended, move |tape, attended| self.feed_forward(tape, layer, attended));
            } else {
                hidden = self.layer(tape, layer, &hidden, inputs, &[], |_| ());
            }
        }
        hidden
    }

    /// As [`hidden`](Self::hidden), for generation: each layer's keys and values are stored in its cache, from row
    /// `first_row` on, and the segments refer to the caches as source 1.
    pub fn hidden_with_cache<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        inputs: &Inputs,
        caches: &[KeyValues],
        first_row: usize,
    ) -> Var {
        let device = tape.device().clone();
        let mut hidden = tape.embedding(&self.embedding, &inputs.ids, self.config.embedding_scale);
        for (layer, cache) in self.layers.iter().zip(caches) {
            hidden = self.layer(tape, layer, &hidden, inputs, std::slice::from_ref(cache), |heads| {
                device.store_keys(heads.value(), &self.layout, cache.keys.value(), cache.values.value(), first_row);
            });
        }
        hidden
    }

    /// An empty cache of `capacity` positions for each layer.
    pub fn caches(&self, device: &Device, precision: Precision, capacity: usize) -> Vec<KeyValues> {
        let width = self.layout.key_value_heads * self.layout.head_dim;
        let empty = || Var::constant(device.empty(precision.storage(), capacity, width));
        self.layers.iter().map(|_| KeyValues { keys: empty(), values: empty() }).collect()
    }

    /// What the head is made of. `differentiate_all` when a loss uses more than log-probabilities.
    pub fn head_options(&self, differentiate_all: bool) -> HeadOptions {
        HeadOptions {
            norm: self.final_norm.clone(),
            epsilon: self.config.norm_epsilon,
            weight: self.head.clone(),
            scale: self.config.logit_scale,
            differentiate_all,
        }
    }

    fn layer<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        layer: &'a Layer,
        hidden: &Var,
        inputs: &Inputs,
        others: &[KeyValues],
        store: impl Fn(&Var),
    ) -> Var {
        let attended = self.attend(tape, layer, hidden, inputs, others, store);
        self.feed_forward(tape, layer, &attended)
    }

    /// The residual stream with what attention adds to it.
    fn attend<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        layer: &'a Layer,
        hidden: &Var,
        inputs: &Inputs,
        others: &[KeyValues],
        store: impl Fn(&Var),
    ) -> Var {
        let config = &self.config;
        let (epsilon, scale) = (config.norm_epsilon, config.residual_scale);
        let normed = LinearInput::Normed { input: hidden, weight: &layer.attention_norm, epsilon };
        let mut heads = tape.linear(normed, &layer.query_key_value, None);
        if !layer.config.unrotated {
            heads = tape.rotary(heads, self.layout, &inputs.tables, layer.head_norm.as_ref());
        }
        store(&heads);
        let options = AttentionOptions {
            layout: self.layout,
            scale: config.attention_scale,
            window: layer.config.window,
            segments: Arc::clone(&inputs.segments),
        };
        let attended = tape.attention(&heads, others, &options);
        let residual = Residual { base: hidden, scale };
        tape.linear(LinearInput::Plain(&attended), &layer.attention_output, Some(residual))
    }

    /// The residual stream with what the feed-forward network adds to it.
    fn feed_forward<'a>(&'a self, tape: &mut Tape<'a>, layer: &'a Layer, hidden: &Var) -> Var {
        let config = &self.config;
        let (epsilon, scale) = (config.norm_epsilon, config.residual_scale);
        let normed = LinearInput::Normed { input: hidden, weight: &layer.feed_forward_norm, epsilon };
        let wide = tape.linear(normed, &layer.gate_up, None);
        let (activation, gated) = match config.feed_forward {
            FeedForward::Gated(activation) => (activation, true),
            FeedForward::Plain(activation) => (activation, false),
        };
        let activated = LinearInput::Activated { input: &wide, activation, gated };
        tape.last_linear(activated, &layer.down, Some(Residual { base: hidden, scale }))
    }
}

/// Whether an adapter trains, or holds, the embedding or the head of a model where they are one matrix.
fn adapter_splits(tuning: &Tuning, adapter: Option<&LoraAdapter>, embedding: &str, head: &str) -> bool {
    let trained = match tuning {
        Tuning::Lora(lora) => [embedding, head].iter().any(|name| is_saved(name, &lora.saved_modules)),
        _ => false,
    };
    trained || adapter.is_some_and(|found| [embedding, head].iter().any(|name| found.saved_modules.contains_key(*name)))
}
