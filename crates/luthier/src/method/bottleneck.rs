//! Bottleneck adapters as the engine takes them.

use luthier_model::BottleneckSettings;
use luthier_model::adapter::{BottleneckAdapter, BottleneckConfig};

use crate::config::{self, BottleneckSize};
use crate::eprint_line;
use crate::model::Model;

/// An adapter that is trained on decides its own form.
pub(super) fn tuning(
    bottleneck: &config::BottleneckSettings,
    seed: u64,
    model: &Model,
    adapter: Option<&BottleneckAdapter>,
) -> BottleneckSettings {
    let config = BottleneckConfig {
        size: match bottleneck.size {
            BottleneckSize::Numbers(size) => size,
            BottleneckSize::Divided(factor) => (model.checkpoint.model.decoder.hidden_size / factor).max(1),
        },
        placement: bottleneck.placement,
        activation: bottleneck.activation,
        base_model: String::new(),
        revision: None,
    };
    let Some(adapter) = adapter else { return BottleneckSettings { config, seed } };
    let found = &adapter.config;
    let differs = [
        ("bottleneck_size", found.size != config.size),
        ("placement", found.placement != config.placement),
        ("bottleneck_activation", found.activation != config.activation),
    ];
    let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if !names.is_empty() {
        eprint_line(&format!("note: the adapter of adapter_name_or_path decides {}", names.join(", ")));
    }
    BottleneckSettings { config: found.clone(), seed }
}
