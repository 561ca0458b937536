//! Partial training: which of a model's own tensors are trained, by name. All others stay frozen, in the file's storage, and
//! backward stops below the lowest that is trained.
//!
//! `freeze` matches names as LLaMA-Factory 0.9.5 does (`model/adapter.py`): a module of the layers is the beginning of a
//! tensor's path within its layer, a module outside of them is any part of a tensor's name, so that `norm` is every norm.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::adapter::{TargetModules, matches_target};
use crate::checkpoint::needed_tensors;
use crate::config::ModuleNames;
use crate::families::ModelDescription;

/// `finetuning_type: freeze`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeSettings {
    /// The layers that are trained.
    pub layers: TrainedLayers,
    /// The modules of these layers that are trained, such as `mlp` or `self_attn.o_proj`; empty: all.
    pub modules: Vec<String>,
    /// Modules that are trained besides, such as `embed_tokens`.
    pub extra_modules: Vec<String>,
}

/// Some layers of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainedLayers {
    /// None of them.
    None,
    /// The first n.
    First(usize),
    /// The last n.
    Last(usize),
    /// The k-th, the 2k-th and so on.
    Every(usize),
    /// The n that were added to the model, one after each group of layers.
    Added(usize),
}

/// Why a part of a model cannot be trained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartialError {
    /// More layers than there are.
    #[error("{key} is {wanted}, but the model has {layers} layers")]
    TooManyLayers {
        /// The setting.
        key: &'static str,
        /// How many were wanted.
        wanted: usize,
        /// How many there are.
        layers: usize,
    },
    /// No such number of blocks can have been added.
    #[error(
        "freeze_trainable_layers is {wanted}; with use_llama_pro expected the number of blocks that were added, a divisor of \
         the {layers} layers of the model (`luthier expand` adds blocks)"
    )]
    NoGroups {
        /// How many were wanted.
        wanted: usize,
        /// How many there are.
        layers: usize,
    },
    /// No module of that name.
    #[error("{key}: {place} no module {name:?}; expected some of {known}")]
    NoModule {
        /// The setting.
        key: &'static str,
        /// Where it was looked for, as the beginning of a sentence.
        place: &'static str,
        /// The name.
        name: String,
        /// The modules that there are.
        known: String,
    },
    /// The model has no biases.
    #[error(
        "finetuning_type: bitfit trains the biases, and this model has none; expected a model with biases, such as Qwen 2, \
         or finetuning_type: freeze"
    )]
    NoBiases,
}

impl TrainedLayers {
    /// The numbers of the layers, in order.
    ///
    /// # Errors
    /// When a model of `layers` layers does not have them.
    pub fn numbers(self, layers: usize) -> Result<Vec<usize>, PartialError> {
        let too_many = |key, wanted| PartialError::TooManyLayers { key, wanted, layers };
        let range = |range: Range<usize>| Ok(range.collect());
        match self {
            Self::None => Ok(Vec::new()),
            Self::First(wanted) | Self::Last(wanted) if wanted > layers => {
                Err(too_many("freeze_trainable_layers", wanted))
            }
            Self::First(wanted) => range(0..wanted),
            Self::Last(wanted) => range(layers - wanted..layers),
            Self::Every(step) if step == 0 || step > layers => Err(too_many("freeze_layer_interval", step)),
            Self::Every(step) => Ok((step - 1..layers).step_by(step).collect()),
            Self::Added(wanted) if wanted == 0 || !layers.is_multiple_of(wanted) => {
                Err(PartialError::NoGroups { wanted, layers })
            }
            Self::Added(wanted) => Ok((layers / wanted - 1..layers).step_by(layers / wanted).collect()),
        }
    }
}

impl FreezeSettings {
    /// The names of the tensors that are trained.
    ///
    /// # Errors
    /// When the model does not have the layers or the modules.
    pub fn tensors(&self, model: &ModelDescription) -> Result<BTreeSet<String>, PartialError> {
        let layers = self.layers.numbers(model.decoder.layers.len())?;
        let names: Vec<String> = needed_tensors(model).into_iter().map(|(name, _)| name).collect();
        let within = |name: &str| within_layer(&model.names, name).map(|(_, path)| path.to_owned());
        let paths: BTreeSet<String> = names.iter().filter_map(|name| within(name)).collect();
        let modules: BTreeSet<&str> = paths.iter().filter_map(|path| path.split('.').next()).collect();
        for name in &self.modules {
            let is_path = |path: &String| name.contains('.') && path.starts_with(&format!("{name}."));
            if !modules.contains(name.as_str()) && !paths.iter().any(is_path) {
                return Err(PartialError::NoModule {
                    key: "freeze_trainable_modules",
                    place: "the layers have",
                    name: name.clone(),
                    known: list(modules.iter().copied().chain(["all"])),
                });
            }
        }
        let outside = outside_modules(model, &names);
        for name in &self.extra_modules {
            if !outside.contains(name.as_str()) {
                return Err(PartialError::NoModule {
                    key: "freeze_extra_modules",
                    place: "outside its layers the model has",
                    name: name.clone(),
                    known: list(outside.iter().copied()),
                });
            }
        }
        let extra: Vec<&str> = self.extra_modules.iter().map(|name| part_of(model, name)).collect();
        let is_trained = |name: &String| {
            let in_layers = within_layer(&model.names, name).is_some_and(|(layer, path)| {
                layers.contains(&layer)
                    && (self.modules.is_empty() || self.modules.iter().any(|module| path.starts_with(module.as_str())))
            });
            in_layers || extra.iter().any(|module| name.contains(module))
        };
        Ok(names.into_iter().filter(is_trained).collect())
    }
}

/// The names of all biases: BitFit. From: Ben Zaken et al. 2022.
///
/// # Errors
/// When there are none.
pub fn biases(model: &ModelDescription) -> Result<BTreeSet<String>, PartialError> {
    let names = needed_tensors(model).into_iter().map(|(name, _)| name);
    let found: BTreeSet<String> = names.filter(|name| name.ends_with(".bias")).collect();
    if found.is_empty() { Err(PartialError::NoBiases) } else { Ok(found) }
}

/// The linear modules of added layers that `targets` match, by their whole paths: LLaMA-Pro with adapters.
///
/// # Errors
/// When the model does not have the layers, or no module of a name.
pub fn added_targets(
    model: &ModelDescription,
    added: usize,
    targets: &TargetModules,
) -> Result<TargetModules, PartialError> {
    let layers = TrainedLayers::Added(added).numbers(model.decoder.layers.len())?;
    let names = &model.names;
    let linear = [names.query_key_value, &[names.attention_output], names.gate_up, &[names.down]].concat();
    let modules: Vec<String> = layers
        .iter()
        .flat_map(|layer| linear.iter().map(move |name| name.replacen("{}", &layer.to_string(), 1)))
        .collect();
    if let TargetModules::Names(wanted) = targets {
        let matches = |name: &String| {
            let alone = TargetModules::Names(vec![name.clone()]);
            modules.iter().any(|module| matches_target(module, &alone))
        };
        if let Some(stray) = wanted.iter().find(|name| !matches(name)) {
            return Err(PartialError::NoModule {
                key: "lora_target",
                place: "the added layers have",
                name: stray.clone(),
                known: list(linear.iter().filter_map(|name| name.rsplit('.').next())),
            });
        }
    }
    Ok(TargetModules::Names(modules.into_iter().filter(|module| matches_target(module, targets)).collect()))
}

/// The layer that a tensor belongs to, and its path within the layer.
fn within_layer<'n>(names: &ModuleNames, name: &'n str) -> Option<(usize, &'n str)> {
    let (before, _) = names.attention_norm.split_once("{}")?;
    let (number, path) = name.strip_prefix(before)?.split_once('.')?;
    Some((number.parse().ok()?, path))
}

/// The last names of the modules outside the layers. A head that is the embedding matrix is one of them.
fn outside_modules<'n>(model: &ModelDescription, names: &'n [String]) -> BTreeSet<&'n str> {
    let outside = names.iter().filter(|name| within_layer(&model.names, name).is_none());
    let head = model.decoder.tied_head.then(|| last_name(model.names.head));
    outside.filter_map(|name| name.rsplit('.').nth(1)).chain(head).collect()
}

/// What a module outside the layers is called in the file: a head that is the embedding matrix is there as that.
fn part_of<'m>(model: &ModelDescription, module: &'m str) -> &'m str {
    match model.decoder.tied_head && module == last_name(model.names.head) {
        true => last_name(model.names.embedding),
        false => module,
    }
}

fn last_name(path: &'static str) -> &'static str {
    path.rsplit('.').next().unwrap_or(path)
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
