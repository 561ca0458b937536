//! The one decoder. A forward pass over about six operations a layer, the same for training, evaluation and generation and
//! on every device; what differs between families is in [`DecoderConfig`].

use std::sync::Arc;

use luthier_tensor::{
    AttentionOptions, Device, HeadLayout, HeadNormWeights, HeadOptions, KeyValues, LinearInput, Norm, Precision,
    Projection, Residual, RotaryTables, Segment, Tape, Tensor, Var, Weight,
};

use crate::adapter::{Adapter, FileTensor};
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, FeedForward, LayerConfig, QueryKeyNorm};
use crate::error::Error;
use crate::parameters::{Parameter, Parameters};
use crate::tuning::{Builder, Shared, Start, Tuning, converted, is_saved, shared_tensors};

/// The widest head that the kernel of the query and key norms takes.
const MOST_NORMALISED: usize = 512;

/// A model with its weights.
#[derive(Debug)]
pub struct Decoder {
    device: Device,
    config: DecoderConfig,
    layout: HeadLayout,
    embedding: Weight,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Weight,
    parameters: Parameters,
    adapted: Vec<String>,
    /// Where PiSSA's matrices began.
    starts: Vec<Start>,
    /// Random matrices that the adapter's file holds.
    vera: Option<Shared>,
}

#[derive(Debug)]
struct Layer {
    config: LayerConfig,
    attention_norm: Norm,
    query_key_value: Vec<Projection>,
    head_norm: Option<HeadNormWeights>,
    attention_output: Vec<Projection>,
    attention_output_norm: Option<Norm>,
    feed_forward_norm: Norm,
    gate_up: Vec<Projection>,
    down: Vec<Projection>,
    down_norm: Option<Norm>,
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
        adapter: Option<&Adapter>,
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
            let attention_norm = norm(&config, build.vector(&at(names.attention_norm))?);
            let query_key_value = build.projections(&all(names.query_key_value))?;
            let head_norm = match config.query_key_norm {
                QueryKeyNorm::None => None,
                when => Some(HeadNormWeights {
                    query: build.vector(&at(names.query_norm))?,
                    key: build.vector(&at(names.key_norm))?,
                    epsilon: config.norm_epsilon,
                    after_rotation: when == QueryKeyNorm::AfterRotary,
                }),
            };
            let attention_output = build.projections(&[at(names.attention_output)])?;
            let after = |name: Option<&str>, build: &mut Builder<'_>| -> Result<Option<Norm>, Error> {
                let vector = name.map(|name| build.vector(&at(name))).transpose()?;
                Ok(vector.map(|vector| norm(&config, vector)))
            };
            layers.push(Layer {
                config: *layer,
                attention_norm,
                query_key_value,
                head_norm,
                attention_output,
                attention_output_norm: after(names.attention_output_norm, &mut build)?,
                feed_forward_norm: norm(&config, build.vector(&at(names.feed_forward_norm))?),
                gate_up: build.projections(&all(names.gate_up))?,
                down: build.projections(&[at(names.down)])?,
                down_norm: after(names.down_norm, &mut build)?,
            });
        }
        let final_norm = norm(&config, build.vector(names.final_norm)?);
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
        let Builder { parameters, adapted, starts, vera, .. } = build;
        let vera = vera.filter(|_| matches!(tuning, Tuning::Vera(settings) if settings.saves_matrices));
        if let Some(stray) =
            adapter.and_then(|adapter| adapter.modules().find(|name| !adapted.iter().any(|adapted| adapted == name)))
        {
            let is_table = |name: &str| name.strip_suffix(".weight") == Some(stray);
            let reason = if is_table(names.head) || is_table(names.embedding) {
                format!("low-rank terms on `{stray}` are not supported yet; only on the linear layers within the model")
            } else {
                format!("the adapter is for another model: this one has no module `{stray}`")
            };
            return Err(Error::Adapter { file: checkpoint.label.clone(), reason });
        }
        if let Some(stray) = adapter
            .and_then(|adapter| adapter.saved_modules().keys().find(|name| !checkpoint.tensors.contains_key(*name)))
        {
            return Err(Error::Adapter {
                file: checkpoint.label.clone(),
                reason: format!("the adapter is for another model: this one has no tensor `{stray}`"),
            });
        }
        let device = device.clone();
        Ok(Self { device, config, layout, embedding, layers, final_norm, head, parameters, adapted, starts, vera })
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

    /// What the file of the adapter that is trained holds.
    pub fn adapter_tensors(&self) -> Vec<FileTensor> {
        let tensor = |parameter: &Parameter| FileTensor {
            name: parameter.name.clone(),
            dims: parameter.dims.clone(),
            value: parameter.value.clone(),
        };
        let mut tensors: Vec<FileTensor> = self.parameters.iter().map(tensor).collect();
        tensors.extend(self.vera.iter().flat_map(shared_tensors));
        converted(&self.device, &self.starts, tensors)
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

    /// The residual stream after the last layer, before the final norm: `[tokens, hidden]`. The first `recomputed` layers
    /// keep only their input and run again in backward.
    pub fn hidden<'a>(&'a self, tape: &mut Tape<'a>, inputs: &Inputs, recomputed: usize) -> Var {
        let mut hidden = tape.embedding(&self.embedding, &inputs.ids, self.config.embedding_scale);
        for (number, layer) in self.layers.iter().enumerate() {
            if number < recomputed {
                let inputs = inputs.clone();
                hidden =
                    tape.checkpoint(&hidden, move |tape, hidden| self.layer(tape, layer, hidden, &inputs, &[], |_| ()));
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
            weight: self.head.clone(),
            scale: self.config.logit_scale,
            soft_cap: self.config.logit_soft_cap,
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
        let config = &self.config;
        let normed = LinearInput::Normed { input: hidden, norm: &layer.attention_norm };
        let mut heads = tape.linear(normed, &layer.query_key_value, None);
        if !layer.config.unrotated {
            heads = tape.rotary(heads, self.layout, &inputs.tables, layer.head_norm.as_ref());
        }
        store(&heads);
        let options = AttentionOptions {
            layout: self.layout,
            scale: config.attention_scale,
            window: layer.config.window,
            soft_cap: config.attention_soft_cap,
            segments: Arc::clone(&inputs.segments),
        };
        let attended = tape.attention(&heads, others, &options);
        let attended = LinearInput::Plain(&attended);
        let hidden = self.join(tape, hidden, attended, &layer.attention_output, layer.attention_output_norm.as_ref());
        let normed = LinearInput::Normed { input: &hidden, norm: &layer.feed_forward_norm };
        let wide = tape.linear(normed, &layer.gate_up, None);
        let (activation, gated) = match config.feed_forward {
            FeedForward::Gated(activation) => (activation, true),
            FeedForward::Plain(activation) => (activation, false),
        };
        let activated = LinearInput::Activated { input: &wide, activation, gated };
        self.join(tape, &hidden, activated, &layer.down, layer.down_norm.as_ref())
    }

    /// Adds a block's last projection to the residual stream.
    fn join(
        &self,
        tape: &mut Tape<'_>,
        stream: &Var,
        input: LinearInput,
        projection: &[Projection],
        norm: Option<&Norm>,
    ) -> Var {
        match norm {
            None => tape.linear(input, projection, Some(Residual { base: stream, scale: self.config.residual_scale })),
            Some(norm) => {
                let block = tape.linear(input, projection, None);
                tape.add_normed(stream, &block, norm)
            }
        }
    }
}

fn norm(config: &DecoderConfig, weight: Weight) -> Norm {
    Norm { weight, epsilon: config.norm_epsilon, offset: config.norm_offset }
}

/// Whether an adapter trains, or holds, the embedding or the head of a model where they are one matrix.
fn adapter_splits(tuning: &Tuning, adapter: Option<&Adapter>, embedding: &str, head: &str) -> bool {
    let trained = [embedding, head].iter().any(|name| is_saved(name, tuning.saved_modules()));
    trained
        || adapter.is_some_and(|found| [embedding, head].iter().any(|name| found.saved_modules().contains_key(*name)))
}
