//! IA3 adapters: a vector for each module. From: PEFT 0.18.1, `tuners/ia3`.

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};
use serde_json::json;

use super::common::{Origin, config_file, read_saved, read_targets, read_tensors, refuse_when_set};
use super::target::TargetModules;
use crate::error::Error;
use crate::families::raw::Raw;

/// Which modules IA3 scales.
#[derive(Clone, Debug)]
pub struct Ia3Settings {
    /// Modules that get a vector.
    pub targets: TargetModules,
    /// Those of them whose input is scaled in place of what they give.
    pub feedforward: TargetModules,
    /// Modules that are trained as a whole and saved with the adapter.
    pub saved_modules: Vec<String>,
}

/// An IA3 adapter.
#[derive(Clone, Debug)]
pub struct Ia3Adapter {
    /// Its settings.
    pub settings: Ia3Settings,
    /// Its base.
    pub origin: Origin,
    /// The vectors, by the path of their module.
    pub modules: BTreeMap<String, Tensor>,
    /// Tensors of `modules_to_save`, by their name in the base model.
    pub saved_modules: BTreeMap<String, Tensor>,
}

impl Ia3Adapter {
    pub(super) fn read(file: &str, config: &Raw<'_>, weights_file: &str, weights: &SharedBytes) -> Result<Self, Error> {
        refuse_when_set(config, &[("fan_in_fan_out", "transposed weights are not supported")])?;
        let settings = Ia3Settings {
            targets: read_targets(file, config, "target_modules")?,
            feedforward: read_targets(file, config, "feedforward_modules")?,
            saved_modules: read_saved(config)?,
        };
        let mut modules = BTreeMap::new();
        let saved_modules = read_tensors(weights_file, weights, |path, tensor| {
            let Some(module) = path.strip_suffix(".ia3_l") else { return Ok(false) };
            modules.insert(module.to_owned(), tensor.clone());
            Ok(true)
        })?;
        Ok(Self { settings, origin: Origin::read(config)?, modules, saved_modules })
    }
}

/// The content of `adapter_config.json`.
pub(crate) fn ia3_config(settings: &Ia3Settings, origin: &Origin) -> Vec<u8> {
    let own = json!({
        "fan_in_fan_out": false,
        "feedforward_modules": settings.feedforward.to_json(),
        "init_ia3_weights": true,
    });
    config_file("IA3", origin, &settings.targets, &settings.saved_modules, own)
}
