//! VeRA adapters: two vectors for each module, and the random matrices that all share, in the file or drawn as PyTorch draws
//! them. From: PEFT 0.18.1, `tuners/vera`.

use std::collections::BTreeMap;

use luthier_tensor::{SharedBytes, Tensor};
use serde_json::json;

use super::common::{
    Origin, config_file, read_dropout, read_saved, read_targets, read_tensors, refuse_biases, refuse_when_set,
};
use super::file::refused;
use super::mersenne::Mersenne;
use super::target::TargetModules;
use crate::error::Error;
use crate::families::raw::Raw;

/// The name of A in the file.
pub(crate) const VERA_DOWN: &str = "base_model.vera_A";
/// The name of B in the file.
pub(crate) const VERA_UP: &str = "base_model.vera_B";

/// What VeRA trains.
#[derive(Clone, Debug)]
pub struct VeraSettings {
    /// Rank of the random matrices.
    pub rank: usize,
    /// What d starts from; b starts from zero.
    pub start: f64,
    /// Seed of the random matrices, as PyTorch takes it.
    pub key: u64,
    /// Whether the file holds the random matrices.
    pub saves_matrices: bool,
    /// Share of an adapter's input that is dropped in training.
    pub dropout: f32,
    /// Modules that get the vectors.
    pub targets: TargetModules,
    /// Modules that are trained as a whole and saved with the adapter.
    pub saved_modules: Vec<String>,
}

/// A VeRA adapter.
#[derive(Clone, Debug)]
pub struct VeraAdapter {
    /// Its settings.
    pub settings: VeraSettings,
    /// Its base.
    pub origin: Origin,
    /// A `[rank, most inputs]` and B `[most outputs, rank]`, where the file holds them.
    pub matrices: Option<(Tensor, Tensor)>,
    /// The vectors, by the path of their module.
    pub modules: BTreeMap<String, VeraVectors>,
    /// Tensors of `modules_to_save`, by their name in the base model.
    pub saved_modules: BTreeMap<String, Tensor>,
}

/// The vectors of a module.
#[derive(Clone, Debug)]
pub struct VeraVectors {
    /// As many numbers as the module gives.
    pub b: Tensor,
    /// As many as the rank.
    pub d: Tensor,
}

impl VeraAdapter {
    pub(super) fn read(file: &str, config: &Raw<'_>, weights_file: &str, weights: &SharedBytes) -> Result<Self, Error> {
        refuse_when_set(
            config,
            &[
                ("fan_in_fan_out", "transposed weights are not supported"),
                ("layers_to_transform", "layers by number are not supported; name their modules in target_modules"),
            ],
        )?;
        refuse_biases(config)?;
        let key = config.value("projection_prng_key").map(|value| value.as_u64());
        let settings = VeraSettings {
            rank: config.size_or("r", 256)?,
            start: config.number_if_given("d_initial")?.unwrap_or(0.1),
            key: key.unwrap_or(Some(0)).ok_or_else(|| config.bad("projection_prng_key", "a whole number from 0 on"))?,
            saves_matrices: config.flag_or("save_projection", true)?,
            dropout: read_dropout(config, "vera_dropout")? as f32,
            targets: read_targets(file, config, "target_modules")?,
            saved_modules: read_saved(config)?,
        };
        let mut vectors: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
        let mut matrices = [None, None];
        let saved_modules = read_tensors(weights_file, weights, |path, tensor| {
            let (matrix, vector) = (|end: &str| path == end, |end: &str| path.strip_suffix(end).map(str::to_owned));
            if matrix("vera_A") || matrix("vera_B") {
                matrices[usize::from(matrix("vera_B"))] = Some(tensor.clone());
            } else if let Some(module) = vector(".vera_lambda_b") {
                vectors.entry(module).or_default()[0] = Some(tensor.clone());
            } else if let Some(module) = vector(".vera_lambda_d") {
                vectors.entry(module).or_default()[1] = Some(tensor.clone());
            } else {
                return Ok(false);
            }
            Ok(true)
        })?;
        let matrices = match matrices {
            [Some(down), Some(up)] if down.rows() == settings.rank && up.columns() == settings.rank => Some((down, up)),
            [None, None] => None,
            _ => {
                let reason = format!("vera_A and vera_B are not two matrices of rank {}", settings.rank);
                return Err(refused(weights_file, reason));
            }
        };
        let mut modules = BTreeMap::new();
        for (module, pair) in vectors {
            let [Some(b), Some(d)] = pair else {
                let reason = format!("module `{module}` has only one of vera_lambda_b and vera_lambda_d");
                return Err(refused(weights_file, reason));
            };
            modules.insert(module, VeraVectors { b, d });
        }
        Ok(Self { settings, origin: Origin::read(config)?, matrices, modules, saved_modules })
    }
}

/// The content of `adapter_config.json`.
pub(crate) fn vera_config(settings: &VeraSettings, origin: &Origin) -> Vec<u8> {
    let own = json!({
        "bias": "none",
        "d_initial": settings.start,
        "fan_in_fan_out": false,
        "init_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "projection_prng_key": settings.key,
        "r": settings.rank,
        "save_projection": settings.saves_matrices,
        "vera_dropout": (f64::from(settings.dropout) * 1e7).round() / 1e7,
    });
    config_file("VERA", origin, &settings.targets, &settings.saved_modules, own)
}

/// A `[rank, width]` and B `[out, rank]` as PEFT draws them from the key: uniform, after He et al. 2015.
pub(crate) fn vera_matrices(settings: &VeraSettings, out: usize, width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut random = Mersenne::new(settings.key as u32);
    let mut draw = |count: usize, inputs: usize| -> Vec<f32> {
        let bound = 3f64.sqrt() * (2f64.sqrt() / (inputs as f64).sqrt());
        (0..count).map(|_| random.uniform(-bound as f32, bound as f32)).collect()
    };
    let down = draw(settings.rank * width, width);
    (down, draw(out * settings.rank, settings.rank))
}
