//! Low-rank adapters as the engine takes them.

use luthier_model::adapter::{LoraAdapter, TargetModules};
use luthier_model::{LoraSettings, Pissa};

use crate::config::{self, Rounds, Targets};
use crate::eprint_line;

/// An adapter that is trained on decides its own form.
pub(super) fn tuning(lora: &config::LoraSettings, seed: u64, adapter: Option<&LoraAdapter>) -> LoraSettings {
    let mut settings = LoraSettings {
        alpha: lora.alpha,
        dropout: lora.dropout as f32,
        rslora: lora.rank_stabilised,
        targets: targets(&lora.targets),
        saved_modules: lora.modules_to_save.clone(),
        dora: lora.magnitudes,
        pissa: lora.pissa.map(|rounds| match rounds {
            Rounds::UntilExact => Pissa::Exact,
            Rounds::Number(rounds) => Pissa::Rounds(rounds),
        }),
        up_rate: lora.up_rate,
        rank_pattern: lora.ranks.clone(),
        alpha_pattern: lora.alphas.clone(),
        seed,
        ..LoraSettings::of_rank(lora.rank)
    };
    let Some(adapter) = adapter else { return settings };
    let found = &adapter.config;
    let given = |targets: &TargetModules| format!("{targets:?}");
    let differs = [
        ("lora_rank", found.rank != settings.rank),
        ("lora_alpha", found.alpha != settings.alpha),
        ("lora_target", given(&found.target_modules) != given(&settings.targets)),
        ("use_dora", found.dora != settings.dora),
        ("rank_pattern", found.rank_pattern != settings.rank_pattern),
        ("alpha_pattern", found.alpha_pattern != settings.alpha_pattern),
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
    settings.dora = found.dora;
    settings.targets = found.target_modules.clone();
    settings.saved_modules.clone_from(&found.modules_to_save);
    settings.rank_pattern.clone_from(&found.rank_pattern);
    settings.alpha_pattern.clone_from(&found.alpha_pattern);
    settings
}

/// Modules by name, as PEFT knows them.
pub(super) fn targets(targets: &Targets) -> TargetModules {
    match targets {
        Targets::All => TargetModules::AllLinear,
        Targets::Named(names) => TargetModules::Names(names.clone()),
    }
}
