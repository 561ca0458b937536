//! The method of a configuration as the engine takes it, and whether the model has what it names.

use luthier_model::adapter::TargetModules;
use luthier_model::{Decoder, LoraAdapter, LoraSettings, Tuning};

use crate::config::{FreezeLayers, Method, Targets};
use crate::eprint_line;
use crate::model::Model;

/// What is trained. An adapter that is trained on decides its own form.
pub(crate) fn tuning(
    method: &Method,
    seed: u64,
    model: &Model,
    adapter: Option<&LoraAdapter>,
) -> anyhow::Result<Tuning> {
    let count = model.checkpoint.model.decoder.layers.len();
    Ok(match method {
        Method::Full => Tuning::Full,
        Method::Freeze(layers) => {
            let wanted = match layers {
                FreezeLayers::First(wanted) | FreezeLayers::Last(wanted) => *wanted,
            };
            if wanted > count {
                anyhow::bail!("freeze_trainable_layers is {wanted}, but the model has {count} layers");
            }
            let layers = match layers {
                FreezeLayers::First(wanted) => 0..*wanted,
                FreezeLayers::Last(wanted) => count - wanted..count,
            };
            Tuning::Freeze { layers }
        }
        Method::Lora(lora) => {
            let mut settings = LoraSettings {
                rank: lora.rank,
                alpha: lora.alpha,
                dropout: lora.dropout as f32,
                rslora: lora.rank_stabilised,
                targets: match &lora.targets {
                    Targets::All => TargetModules::AllLinear,
                    Targets::Named(names) => TargetModules::Names(names.clone()),
                },
                saved_modules: lora.modules_to_save.clone(),
                seed,
            };
            if let Some(adapter) = adapter {
                let found = &adapter.settings;
                let given = |targets: &TargetModules| format!("{targets:?}");
                let differs = [
                    ("lora_rank", found.rank != settings.rank),
                    ("lora_alpha", found.alpha != settings.alpha),
                    ("lora_target", given(&found.target_modules) != given(&settings.targets)),
                    ("use_rslora", found.rslora != settings.rslora),
                    ("additional_target", found.modules_to_save != settings.saved_modules),
                ];
                let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
                if !names.is_empty() {
                    eprint_line(&format!("note: the adapter of adapter_name_or_path decides {}", names.join(", ")));
                }
                settings.rank = found.rank;
                settings.alpha = found.alpha;
                settings.rslora = found.rslora;
                settings.targets = found.target_modules.clone();
                settings.saved_modules.clone_from(&found.modules_to_save);
            }
            Tuning::Lora(settings)
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

/// Every name of `additional_target` must be a module that is now trained as a whole.
pub(crate) fn check_saved_modules(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let Tuning::Lora(lora) = tuning else { return Ok(()) };
    let whole: Vec<&str> = decoder
        .parameters()
        .iter()
        .map(|parameter| parameter.name.as_str())
        .filter(|name| !name.contains(".lora_"))
        .collect();
    let matches = |saved: &str| whole.iter().any(|name| is_part_of(name, saved));
    match lora.saved_modules.iter().find(|saved| !matches(saved)) {
        Some(stray) => anyhow::bail!(
            "additional_target: the model has no module {stray:?}; expected names such as embed_tokens, lm_head, norm"
        ),
        None => Ok(()),
    }
}
