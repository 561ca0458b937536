//! Learned prefixes and prompts: their tensors, and the small networks that make them. They start as PEFT's do.

use luthier_tensor::{Activation, DType, Projection, Tensor, Weight};

use super::random::{normal, stream, uniform};
use super::{Builder, Tuning, mix};
use crate::adapter::{Adapter, EMBEDDINGS, NETWORK, PromptAdapter, PromptConfig, PromptKind, PromptStart};
use crate::config::{DecoderConfig, Mixer};
use crate::error::Error;
use crate::prompt::{Network, Prompt};

/// Which prefix or prompt, and how it starts.
#[derive(Clone, Debug)]
pub struct PromptSettings {
    /// As `adapter_config.json` says it.
    pub config: PromptConfig,
    /// Seed of the starting values.
    pub seed: u64,
}

impl PromptSettings {
    /// Of a model. `network_width` is the width inside the network that makes what is used, where there is one.
    pub fn new(
        kind: PromptKind,
        virtual_tokens: usize,
        network_width: Option<usize>,
        start: PromptStart,
        seed: u64,
        model: &DecoderConfig,
    ) -> Self {
        let (heads, token_dim) = match kind {
            PromptKind::Prefix => (model.key_value_heads, model.key_value_heads * model.head_dim),
            PromptKind::Prompt | PromptKind::PTuning => (model.heads, model.hidden_size),
        };
        let config = PromptConfig {
            kind,
            virtual_tokens,
            layers: model.layers.len(),
            heads,
            token_dim,
            network_width,
            recurrent_network: false,
            start,
            base_model: String::new(),
            revision: None,
        };
        Self { config, seed }
    }

    /// Of an adapter that is trained on. Without its network's tensors what it made is trained itself.
    pub fn of(adapter: &PromptAdapter, seed: u64) -> Self {
        let mut config = adapter.config.clone();
        if adapter.network.is_empty() {
            config.network_width = None;
        }
        Self { config, seed }
    }
}

/// The network's tensors in order: names after `prompt_encoder.`, in and out of each linear layer.
fn network_layers(config: &PromptConfig, inner: usize) -> (Activation, Vec<(String, usize, usize)>) {
    let width = config.token_dim;
    let (name, activation, widths) = match config.kind {
        PromptKind::Prefix => ("transform", Activation::Tanh, vec![width, inner, config.width()]),
        PromptKind::Prompt | PromptKind::PTuning => ("mlp_head", Activation::Relu, vec![width, inner, inner, width]),
    };
    // Activations stand between them in PEFT's lists.
    let layers = widths.windows(2).enumerate();
    (activation, layers.map(|(number, pair)| (format!("{name}.{}", 2 * number), pair[0], pair[1])).collect())
}

impl<'c> Builder<'c> {
    /// The prefix or prompt that is trained, and those that adapters hold.
    pub(crate) fn prompts(&mut self) -> Result<Vec<Prompt>, Error> {
        let mut prompts: Vec<Prompt> = self.prompt()?.into_iter().collect();
        for (number, loaded) in &self.beside {
            let Some(adapter) = loaded.adapter.prompt() else { continue };
            self.check_prompt(&adapter.config)?;
            prompts.push(self.frozen_prompt(*number, adapter));
        }
        Ok(prompts)
    }

    fn frozen_prompt(&self, number: u32, adapter: &PromptAdapter) -> Prompt {
        let embedding = Weight::frozen(self.device.convert(&adapter.embeddings, DType::F32));
        Prompt { number, is_prefix: adapter.config.kind == PromptKind::Prefix, embedding, network: None }
    }

    fn prompt(&mut self) -> Result<Option<Prompt>, Error> {
        let adapter = self.adapter.and_then(Adapter::prompt);
        let config = match (self.tuning, adapter) {
            (Tuning::Prompt(settings), _) => &settings.config,
            (_, Some(adapter)) => &adapter.config,
            (_, None) => return Ok(None),
        };
        self.check_prompt(config)?;
        let is_prefix = config.kind == PromptKind::Prefix;
        let Tuning::Prompt(settings) = self.tuning else {
            return Ok(adapter.map(|adapter| self.frozen_prompt(self.number, adapter)));
        };
        let rows = config.virtual_tokens;
        let Some(inner) = config.network_width else {
            let value = match adapter {
                Some(adapter) => self.device.convert(&adapter.embeddings, DType::F32),
                None => self.start(settings)?,
            };
            let dims = vec![rows, config.width()];
            let embedding = self.parameters.add(&self.device, EMBEDDINGS.to_owned(), dims, value);
            return Ok(Some(Prompt { number: self.number, is_prefix, embedding, network: None }));
        };
        if config.recurrent_network {
            let reason =
                "P-tuning with an LSTM is not trained here: only the MLP, which PEFT recommends; train a new prompt";
            return Err(self.refused(reason.to_owned()));
        }
        let saved = adapter.map(|adapter| &adapter.network);
        let mut add = |name: String, rows: usize, columns: usize, start: &dyn Fn(&str) -> Vec<f32>| {
            let file_name = format!("{NETWORK}{name}");
            let value = match saved {
                Some(saved) => {
                    let found = saved.get(&name).ok_or_else(|| {
                        self.refused(format!("the adapter has a network, but of it no tensor `{file_name}`"))
                    })?;
                    let is_vector = rows == 1 && found.len() == columns;
                    if !is_vector && (found.rows(), found.columns()) != (rows, columns) {
                        return Err(self.misfit(&file_name, &[found.rows(), found.columns()], &[rows, columns]));
                    }
                    self.device.convert(&found.reshape(rows, columns), DType::F32)
                }
                None => self.device.upload(&start(&file_name), rows, columns),
            };
            let dims = if name.ends_with(".bias") { vec![columns] } else { vec![rows, columns] };
            Ok(self.parameters.add(&self.device, file_name, dims, value))
        };
        let seed = settings.seed;
        let width = config.token_dim;
        let embedding = add("embedding.weight".to_owned(), rows, width, &|name| normal(seed, name, rows * width))?;
        let (activation, layers) = network_layers(config, inner);
        let mut projections = Vec::with_capacity(layers.len());
        for (name, input, output) in layers {
            let bound = (input as f64).sqrt().recip();
            let start = |count: usize| move |name: &str| uniform(seed, name, bound, count);
            let weight = add(format!("{name}.weight"), output, input, &start(output * input))?;
            let bias = add(format!("{name}.bias"), 1, output, &start(output))?;
            projections.push(Projection { bias: Some(bias), ..Projection::new(weight) });
        }
        Ok(Some(Prompt {
            number: self.number,
            is_prefix,
            embedding,
            network: Some(Network { layers: projections, activation }),
        }))
    }

    fn check_prompt(&self, config: &PromptConfig) -> Result<(), Error> {
        let model = &self.checkpoint.model.decoder;
        if config.kind == PromptKind::Prefix
            && let Some(layer) = model.layers.iter().position(|layer| layer.mixer == Mixer::Recurrence)
        {
            return Err(self.refused(format!(
                "a learned prefix is keys and values, and layer {layer} of this model is recurrent: it carries a state and \
                 has none; use finetuning_type: prompt, whose rows go through every layer"
            )));
        }
        let expected = match config.kind {
            PromptKind::Prefix => model.layers.len() * 2 * model.key_value_heads * model.head_dim,
            PromptKind::Prompt | PromptKind::PTuning => model.hidden_size,
        };
        if config.width() != expected || config.layers != model.layers.len() {
            let rows = config.virtual_tokens;
            return Err(self.misfit(EMBEDDINGS, &[rows, config.width()], &[rows, expected]));
        }
        Ok(())
    }

    /// What a prefix or prompt without a network starts from.
    fn start(&self, settings: &PromptSettings) -> Result<Tensor, Error> {
        let (rows, width, seed) = (settings.config.virtual_tokens, settings.config.width(), settings.seed);
        let model = &self.checkpoint.model.decoder;
        let ids: Vec<u32> = match &settings.config.start {
            PromptStart::Text { ids, .. } => ids.iter().copied().cycle().take(rows).collect(),
            PromptStart::Vocabulary => {
                let first = stream(seed, EMBEDDINGS);
                (0..rows as u64).map(|row| (mix(first ^ mix(row)) % model.vocabulary_size as u64) as u32).collect()
            }
            PromptStart::Random => Vec::new(),
        };
        if settings.config.start == PromptStart::Random {
            return Ok(self.device.upload(&normal(seed, EMBEDDINGS, rows * width), rows, width));
        }
        if ids.len() < rows || ids.iter().any(|&id| id as usize >= model.vocabulary_size) {
            return Err(self.refused("prompt_tuning_init_text has no token that the model knows".to_owned()));
        }
        let table = self.stored(&format!("{}.weight", self.checkpoint.model.names.embedding))?.tensor();
        // As the model sees the token's row, whatever scales it and the prompt.
        let scale = model.embedding_scale / model.prompt_scale;
        let values: Vec<f32> = ids
            .iter()
            .flat_map(|&id| self.device.download(&table.slice_rows(id as usize, 1)))
            .map(|x| x * scale)
            .collect();
        Ok(self.device.upload(&values, rows, width))
    }
}
