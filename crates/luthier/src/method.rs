//! The method of a configuration as the engine takes it, and whether the model has what it names.

mod bottleneck;
mod freeze;
mod lora;
mod others;
mod prompt;

use luthier_model::adapter::{TargetModules, is_adapters_own};
use luthier_model::{Adapter, Decoder, Tuning};
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
        Method::Prompt(settings) => {
            Tuning::Prompt(prompt::tuning(settings, seed, model, adapter.and_then(Adapter::prompt))?)
        }
        Method::Bottleneck(settings) => {
            Tuning::Bottleneck(bottleneck::tuning(settings, seed, model, adapter.and_then(Adapter::bottleneck)))
        }
        Method::Ia3(_) | Method::Vera(_) | Method::Oft(_) => others::tuning(method, adapter),
    })
}

/// Whether the tensor `name` belongs to a module whose path ends with `module`, as PEFT matches `modules_to_save`.
fn is_part_of(name: &str, module: &str) -> bool {
    name.match_indices('.').any(|(end, _)| name[..end].ends_with(module))
}

/// Every name that the method's setting of targets has must be a module that now has an adapter.
pub(crate) fn check_targets(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let (setting, targets) = match tuning {
        Tuning::Lora(lora) => ("lora_target", &lora.targets),
        Tuning::Ia3(ia3) => ("target_modules", &ia3.targets),
        Tuning::Vera(vera) => ("target_modules", &vera.targets),
        Tuning::Oft(oft) => ("oft_target", &oft.targets),
        _ => return Ok(()),
    };
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
        Some(stray) if ["lm_head", "embed_tokens", "output", "tok_embeddings"].contains(&stray.as_str()) => {
            anyhow::bail!(
                "{setting}: {stray} gets no adapter yet, only the linear layers within the model; train it whole with \
             additional_target: {stray}"
            )
        }
        Some(stray) => anyhow::bail!(
            "{setting}: the model has no linear layer {stray:?}; expected names such as q_proj, down_proj, or all"
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
