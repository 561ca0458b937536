//! The method of a configuration as the engine takes it, and whether the model has what it names.

mod freeze;
mod lora;

use luthier_model::adapter::{TargetModules, is_adapters_own};
use luthier_model::{Adapter, Decoder, LoraSettings, Tuning};
use luthier_train::{OptimiserKind, OptimiserSettings};

use crate::config::Method;
use crate::model::Model;
pub(crate) use freeze::trained_part;

/// What is trained. An adapter that is trained on decides its own form.
pub(crate) fn tuning(method: &Method, seed: u64, model: &Model, adapter: Option<&Adapter>) -> anyhow::Result<Tuning> {
    let name = method.name();
    if let Some(found) = adapter.map(Adapter::method).filter(|found| *found != name) {
        anyhow::bail!("adapter_name_or_path is an adapter of finetuning_type: {found}; expected one of {name}");
    }
    let description = &model.checkpoint.model;
    Ok(match method {
        Method::Full => Tuning::Full,
        Method::Freeze(settings) => freeze::tuning(settings, description)?,
        Method::BitFit => Tuning::Freeze { tensors: luthier_model::biases(description)? },
        Method::Lora(settings) => {
            let mut tuning = lora::tuning(settings, seed, adapter.and_then(Adapter::lora));
            if let Some(added) = settings.added_blocks.filter(|_| adapter.is_none()) {
                tuning.targets = luthier_model::added_targets(description, added, &tuning.targets)?;
            }
            Tuning::Lora(tuning)
        }
    })
}

/// Whether the tensor `name` belongs to a module whose path ends with `module`, as PEFT matches `modules_to_save`.
fn is_part_of(name: &str, module: &str) -> bool {
    name.match_indices('.').any(|(end, _)| name[..end].ends_with(module))
}

/// Every name of `lora_target` must be a module that now has an adapter.
pub(crate) fn check_targets(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let Tuning::Lora(LoraSettings { targets, .. }) = tuning else { return Ok(()) };
    let adapted = decoder.adapted_modules();
    let has = |target: &str| {
        adapted
            .iter()
            .any(|module| module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    let stray = match targets {
        TargetModules::Names(names) => names.iter().find(|name| !has(name)).cloned(),
        _ => adapted.is_empty().then(|| "(the pattern)".to_owned()),
    };
    match stray {
        Some(stray) => anyhow::bail!(
            "lora_target: the model has no linear layer {stray:?}; expected names such as q_proj, down_proj, or all"
        ),
        None => Ok(()),
    }
}

/// BAdam needs something of a layer to step.
pub(crate) fn check_blocks(optimiser: &OptimiserSettings, decoder: &Decoder) -> anyhow::Result<()> {
    let in_a_layer = |name: &str| name.split('.').any(|part| part.parse::<usize>().is_ok());
    let is_badam = matches!(optimiser.kind, OptimiserKind::Badam(_));
    if is_badam && !decoder.parameters().iter().any(|parameter| in_a_layer(&parameter.name)) {
        anyhow::bail!(
            "use_badam steps one layer after another, and nothing within a layer is trained; expected layers besides, or \
             another optimiser"
        );
    }
    Ok(())
}

/// Every name of `additional_target` must be a module that is now trained as a whole.
pub(crate) fn check_saved_modules(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let whole: Vec<&str> = decoder
        .parameters()
        .iter()
        .map(|parameter| parameter.name.as_str())
        .filter(|name| !is_adapters_own(name))
        .collect();
    let matches = |saved: &str| whole.iter().any(|name| is_part_of(name, saved));
    match tuning.saved_modules().iter().find(|saved| !matches(saved)) {
        Some(stray) => anyhow::bail!(
            "additional_target: the model has no module {stray:?}; expected names such as embed_tokens, lm_head, norm"
        ),
        None => Ok(()),
    }
}
