//! A part of a model as the engine takes it, and in words.

use luthier_model::families::ModelDescription;
use luthier_model::{FreezeSettings, Tuning};

use crate::config::Method;
use crate::eprint_line;

pub(super) fn tuning(settings: &FreezeSettings, model: &ModelDescription) -> anyhow::Result<Tuning> {
    let tensors = settings.tensors(model)?;
    let head = model.names.head.rsplit('.').next().unwrap_or_default();
    if model.decoder.tied_head && settings.extra_modules.iter().any(|name| name == head) {
        eprint_line(&format!(
            "note: freeze_extra_modules: {head} is the embedding matrix of this model, so {} is trained",
            model.names.embedding
        ));
    }
    Ok(Tuning::Freeze { tensors })
}

/// Which part of the model is trained: `layers 6 to 7 only`.
pub(crate) fn trained_part(method: &Method, layers: usize) -> String {
    let Method::Freeze(settings) = method else { return "biases only".to_owned() };
    let numbers = settings.layers.numbers(layers).unwrap_or_default();
    let layers = match numbers.as_slice() {
        [] => None,
        [only] => Some(format!("layer {only}")),
        [first, .., last] if last - first + 1 == numbers.len() => Some(format!("layers {first} to {last}")),
        _ => {
            let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
            Some(format!("layers {}", numbers.join(", ")))
        }
    };
    let layers = layers.map(|layers| match settings.modules.as_slice() {
        [] => layers,
        modules => format!("{} of {layers}", modules.join(", ")),
    });
    let extra = (!settings.extra_modules.is_empty()).then(|| settings.extra_modules.join(", "));
    let parts: Vec<String> = layers.into_iter().chain(extra).collect();
    format!("{} only", parts.join(" and "))
}
