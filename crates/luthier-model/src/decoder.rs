//! The one decoder. A forward pass over about six operations a layer, the same for training, evaluation and generation and
//! on every device; what differs between families is in [`DecoderConfig`].

use std::collections::HashSet;
use std::sync::Arc;

use luthier_tensor::{
    AdapterRows, AttentionOptions, DType, Device, HeadLayout, HeadNormWeights, HeadOptions, KeyRange, KeyValues,
    LinearInput, Norm, Precision, Projection, Residual, RotaryTables, Segment, Tape, Tensor, Var, Weight,
};

use crate::adapter::{Adapter, Chosen, EMBEDDINGS, FileTensor, Loaded, is_chosen};
use crate::bottleneck::Bottleneck;
use crate::checkpoint::Checkpoint;
use crate::config::{DecoderConfig, FeedForward, LayerConfig, QueryKeyNorm};
use crate::error::Error;
use crate::parameters::{Parameter, Parameters};
use crate::prompt::{LaidOut, Prompt, end_position};
use crate::tuning::{Block, Builder, Shared, Start, Tuning, converted, is_saved, shared_tensors};

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
    prompts: Vec<Prompt>,
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
    attention_adapters: Vec<Bottleneck>,
    attention_output_norm: Option<Norm>,
    feed_forward_norm: Norm,
    gate_up: Vec<Projection>,
    down: Vec<Projection>,
    feed_forward_adapters: Vec<Bottleneck>,
    down_norm: Option<Norm>,
}

/// The tokens of one forward pass.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// u32 `[1, tokens]`
    pub ids: Tensor,
    /// What attends to what.
    pub segments: Arc<[Segment]>,
    /// Copies of a learned prompt's rows below the tokens.
    copies: usize,
    /// Adapters in use.
    chosen: Chosen,
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
        adapter: Option<&Adapter>,
    ) -> Result<Self, Error> {
        let loaded: Vec<Loaded<'_>> = adapter.into_iter().map(Loaded::new).collect();
        Self::with_adapters(device, checkpoint, tuning, &loaded)
    }

    /// As [`new`](Self::new), with several adapters. The last is trained, where one is; the others stay as they are, and
    /// add to the base.
    ///
    /// # Errors
    /// When one of them is for another model, or cannot be loaded beside the others.
    pub fn with_adapters(
        device: &Device,
        checkpoint: &Checkpoint,
        tuning: &Tuning,
        loaded: &[Loaded<'_>],
    ) -> Result<Self, Error> {
        Self::with_storage(device, checkpoint, tuning, loaded, DType::F32)
    }

    /// As [`with_adapters`](Self::with_adapters), with trained matrices in `storage`, f32 or bf16; the latter only of the
    /// model itself and of LoRA. Vectors are f32 always.
    ///
    /// # Errors
    /// As there.
    pub fn with_storage(
        device: &Device,
        checkpoint: &Checkpoint,
        tuning: &Tuning,
        loaded: &[Loaded<'_>],
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
        let mut build = Builder::new(device, checkpoint, tuning, loaded)?;
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
                attention_adapters: build.bottlenecks(Block::Attention, number)?,
                attention_output_norm: after(names.attention_output_norm, &mut build)?,
                feed_forward_norm: norm(&config, build.vector(&at(names.feed_forward_norm))?),
                gate_up: build.projections(&all(names.gate_up))?,
                down: build.projections(&[at(names.down)])?,
                feed_forward_adapters: build.bottlenecks(Block::FeedForward, number)?,
                down_norm: after(names.down_norm, &mut build)?,
            });
        }
        let final_norm = norm(&config, build.vector(names.final_norm)?);
        let head = match config.tied_head {
            true if adapter_splits(tuning, loaded, names.embedding, names.head) => {
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
        let prompts = build.prompts()?;
        let Builder { parameters, mut adapted, starts, vera, .. } = build;
        let vera = vera.filter(|_| matches!(tuning, Tuning::Vera(settings) if settings.saves_matrices));
        let mut seen = HashSet::new();
        adapted.retain(|module| seen.insert(module.clone()));
        let stray_error = |reason| Err(Error::Adapter { file: checkpoint.label.clone(), reason });
        for adapter in loaded.iter().map(|loaded| loaded.adapter) {
            if let Some(stray) = adapter.modules().find(|name| !seen.contains(*name)) {
                let is_table = |name: &str| name.strip_suffix(".weight") == Some(stray);
                return stray_error(if is_table(names.head) || is_table(names.embedding) {
                    format!(
                        "low-rank terms on `{stray}` are not supported yet; only on the linear layers within the model"
                    )
                } else {
                    format!("the adapter is for another model: this one has no module `{stray}`")
                });
            }
            if let Some(stray) = adapter.saved_modules().keys().find(|name| !checkpoint.tensors.contains_key(*name)) {
                return stray_error(format!("the adapter is for another model: this one has no tensor `{stray}`"));
            }
        }
        let device = device.clone();
        Ok(Self {
            device,
            config,
            layout,
            embedding,
            layers,
            final_norm,
            head,
            parameters,
            adapted,
            prompts,
            starts,
            vera,
        })
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
        // What a network makes of them is what other programs read.
        if let Some(prompt) = self.prompts.iter().find(|prompt| prompt.network.is_some()) {
            let value = prompt.saved(&self.device);
            tensors.push(FileTensor { name: EMBEDDINGS.into(), dims: vec![value.rows(), value.columns()], value });
        }
        tensors.extend(self.vera.iter().flat_map(shared_tensors));
        converted(&self.device, &self.starts, tensors)
    }

    /// Paths of the modules that have an adapter, in the order of the forward pass.
    pub fn adapted_modules(&self) -> &[String] {
        &self.adapted
    }

    /// Positions before a row's first token: those of a learned prefix or prompt.
    pub fn prompt_rows(&self) -> usize {
        self.prompts.iter().map(Prompt::rows).max().unwrap_or(0)
    }

    /// The learned prefix or prompt in use.
    pub(crate) fn prompt(&self, chosen: &Chosen) -> Option<&Prompt> {
        self.prompts.iter().find(|prompt| is_chosen(chosen, prompt.number))
    }

    /// Uploads tokens. `segments` say what attends to what; rotary angles follow from their positions. A learned prefix or
    /// prompt comes before all of them, so that their position 0 becomes its end.
    pub fn inputs(&self, device: &Device, ids: &[u32], segments: Vec<Segment>) -> Inputs {
        match self.prompt(&None) {
            None => self.inputs_as_given(device, ids, segments, &None),
            Some(prompt) => {
                let LaidOut { segments, lengths, copies } = prompt.lay_out(&self.config.rotary, ids.len(), segments);
                let tokens = ids.len() + copies * prompt.rows();
                let tables = self.config.rotary.tables(device, tokens, &segments, &lengths);
                Inputs { ids: device.upload_ids(ids), segments: segments.into(), copies, chosen: None, tables }
            }
        }
    }

    /// As [`inputs`](Self::inputs), of segments that know already what stands before them.
    pub(crate) fn inputs_as_given(
        &self,
        device: &Device,
        ids: &[u32],
        segments: Vec<Segment>,
        chosen: &Chosen,
    ) -> Inputs {
        let lengths: Vec<usize> = segments.iter().map(end_position).collect();
        let tables = self.config.rotary.tables(device, ids.len(), &segments, &lengths);
        let chosen = chosen.clone();
        Inputs { ids: device.upload_ids(ids), segments: segments.into(), copies: 0, chosen, tables }
    }

    /// The residual stream after the last layer, before the final norm: `[tokens, hidden]`, and below it the rows of a
    /// learned prompt. What is recomputed keeps only its input and runs again in backward.
    pub fn hidden<'a>(&'a self, tape: &mut Tape<'a>, inputs: &Inputs, recomputed: impl Into<Recomputed>) -> Var {
        let recomputed = recomputed.into();
        let mut hidden = tape.embedding(&self.embedding, &inputs.ids, self.config.embedding_scale);
        let mut prefix = Vec::new();
        if let Some(prompt) = self.prompt(&inputs.chosen) {
            let made = prompt.make(tape);
            if prompt.is_prefix {
                prefix = prompt.key_values(tape, &made, self.layers.len());
            } else {
                hidden = tape.append_rows(&hidden, &made, inputs.copies, self.config.prompt_scale);
            }
        }
        for (number, layer) in self.layers.iter().enumerate() {
            let others = prefix.get(number..=number).unwrap_or(&[]);
            let again = number < recomputed.layers;
            if again && !recomputed.feed_forward_only {
                let inputs = inputs.clone();
                let vars: Vec<&Var> = std::iter::once(&hidden)
                    .chain(others.iter().flat_map(|other| [&other.keys, &other.values]))
                    .collect();
                hidden = tape.checkpoint_all(&vars, move |tape, vars| {
                    let pairs = vars[1..].as_chunks::<2>().0.iter();
                    let others: Vec<KeyValues> =
                        pairs.map(|[keys, values]| KeyValues { keys: keys.clone(), values: values.clone() }).collect();
                    self.layer(tape, layer, &vars[0], &inputs, &others, |_| ())
                });
            } else if again {
                let attended = self.attend(tape, layer, &hidden, inputs, others, |_| ());
                let chosen = inputs.chosen.clone();
                hidden =
                    tape.checkpoint(&attended, move |tape, attended| self.feed_forward(tape, layer, attended, &chosen));
            } else {
                hidden = self.layer(tape, layer, &hidden, inputs, others, |_| ());
            }
        }
        hidden
    }

    /// As [`hidden`](Self::hidden), for generation: each layer's keys and values are stored in its cache, from row
    /// `first_row` on, and the segments refer to the caches as source 1.
    pub(crate) fn hidden_with_cache<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        inputs: &Inputs,
        caches: &[KeyValues],
        first_row: usize,
    ) -> Var {
        let hidden = tape.embedding(&self.embedding, &inputs.ids, self.config.embedding_scale);
        self.through_caches(tape, hidden, inputs, caches, first_row)
    }

    /// Puts the learned prefix or prompt into the first rows of the caches, for a sequence of `length` positions with it.
    pub(crate) fn prime_caches<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        caches: &[KeyValues],
        length: usize,
        chosen: &Chosen,
    ) {
        let Some(prompt) = self.prompt(chosen) else { return };
        let (rows, device, storage) = (prompt.rows(), tape.device().clone(), tape.precision().storage());
        let made = prompt.make(tape);
        if prompt.is_prefix {
            for (made, cache) in prompt.key_values(tape, &made, self.layers.len()).iter().zip(caches) {
                device.copy(made.keys.value(), &cache.keys.value().slice_rows(0, rows));
                device.copy(made.values.value(), &cache.values.value().slice_rows(0, rows));
            }
            return;
        }
        let nothing = Var::constant(device.empty(storage, 0, self.config.hidden_size));
        let hidden = tape.append_rows(&nothing, &made, 1, self.config.prompt_scale);
        let keys = vec![KeyRange { source: 1, rows: 0..rows, first_position: 0 }];
        let segments = vec![Segment { rows: 0..rows, first_position: 0, keys }];
        let tables = self.config.rotary.tables(&device, rows, &segments, &[length]);
        let (ids, chosen) = (device.upload_ids(&[]), chosen.clone());
        let inputs = Inputs { ids, segments: segments.into(), copies: 1, chosen, tables };
        self.through_caches(tape, hidden, &inputs, caches, 0);
    }

    fn through_caches<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        mut hidden: Var,
        inputs: &Inputs,
        caches: &[KeyValues],
        first_row: usize,
    ) -> Var {
        let device = tape.device().clone();
        if let Some(chosen) = &inputs.chosen {
            let rows = AdapterRows { rows: 0..hidden.value().rows(), adapters: chosen.to_vec() };
            tape.set_adapters(Some(std::iter::once(rows).collect()));
        }
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
        let attended = self.attend(tape, layer, hidden, inputs, others, store);
        self.feed_forward(tape, layer, &attended, &inputs.chosen)
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
        self.join(tape, (layer, Block::Attention), hidden, LinearInput::Plain(&attended), &inputs.chosen)
    }

    /// The residual stream with what the feed-forward network adds to it.
    fn feed_forward<'a>(&'a self, tape: &mut Tape<'a>, layer: &'a Layer, hidden: &Var, chosen: &Chosen) -> Var {
        let config = &self.config;
        let normed = LinearInput::Normed { input: hidden, norm: &layer.feed_forward_norm };
        let wide = tape.linear(normed, &layer.gate_up, None);
        let (activation, gated) = match config.feed_forward {
            FeedForward::Gated(activation) => (activation, true),
            FeedForward::Plain(activation) => (activation, false),
        };
        let activated = LinearInput::Activated { input: &wide, activation, gated };
        self.join(tape, (layer, Block::FeedForward), hidden, activated, chosen)
    }

    /// Adds a block's last projection, and the bottleneck adapters that follow it, to the residual stream.
    fn join(
        &self,
        tape: &mut Tape<'_>,
        (layer, block): (&Layer, Block),
        stream: &Var,
        input: LinearInput,
        chosen: &Chosen,
    ) -> Var {
        let (projection, adapters, norm) = match block {
            Block::Attention => {
                (&layer.attention_output, &layer.attention_adapters, layer.attention_output_norm.as_ref())
            }
            Block::FeedForward => (&layer.down, &layer.feed_forward_adapters, layer.down_norm.as_ref()),
        };
        let scale = self.config.residual_scale;
        let adapter = adapters.iter().find(|adapter| is_chosen(chosen, adapter.number));
        if adapter.is_none() && norm.is_none() {
            let residual = Some(Residual { base: stream, scale });
            return match block {
                Block::Attention => tape.linear(input, projection, residual),
                Block::FeedForward => tape.last_linear(input, projection, residual),
            };
        }
        let mut result = tape.linear(input, projection, None);
        if let Some(adapter) = adapter {
            result = adapter.apply(tape, &result);
        }
        match norm {
            Some(norm) => tape.add_normed(stream, &result, norm),
            None => tape.add_scaled(stream, &result, scale),
        }
    }
}

fn norm(config: &DecoderConfig, weight: Weight) -> Norm {
    Norm { weight, epsilon: config.norm_epsilon, offset: config.norm_offset }
}

/// Whether an adapter trains, or holds, the embedding or the head of a model where they are one matrix.
fn adapter_splits(tuning: &Tuning, loaded: &[Loaded<'_>], embedding: &str, head: &str) -> bool {
    let trained = [embedding, head].iter().any(|name| is_saved(name, tuning.saved_modules()));
    trained
        || loaded
            .iter()
            .any(|loaded| [embedding, head].iter().any(|name| loaded.adapter.saved_modules().contains_key(*name)))
}
