//! OFT adapters: angles of rotations for each module. From: PEFT 0.18.1, `tuners/oft`.

use std::collections::BTreeMap;

use luthier_tensor::{RotationSeries, SharedBytes, Tensor};
use serde_json::json;

use super::common::{Origin, config_file, read_saved, read_targets, read_tensors, refuse_biases, refuse_when_set};
use super::target::TargetModules;
use crate::error::Error;
use crate::families::raw::Raw;

/// What OFT trains.
#[derive(Clone, Debug)]
pub struct OftSettings {
    /// Blocks of each module; 0 where the size of a block is given.
    pub blocks: usize,
    /// Columns of each block; 0 where their number is given.
    pub block: usize,
    /// How angles become rotations.
    pub series: RotationSeries,
    /// Modules that are rotated.
    pub targets: TargetModules,
    /// Modules that are trained as a whole and saved with the adapter.
    pub saved_modules: Vec<String>,
}

impl OftSettings {
    /// Columns of a block of a module of so many inputs: what was wanted, or the nearest that divides them, as in PEFT.
    pub fn block_of(&self, width: usize) -> usize {
        if self.block > 0 { nearest_divisor(width, self.block) } else { width / nearest_divisor(width, self.blocks) }
    }
}

fn nearest_divisor(width: usize, wanted: usize) -> usize {
    if wanted >= width {
        return width.max(1);
    }
    let divides = |number: &usize| width.is_multiple_of(*number);
    let above = (wanted..=width).find(divides).unwrap_or(width);
    let below = (1..=wanted).rev().find(divides).unwrap_or(1);
    if wanted - below <= above - wanted { below } else { above }
}

/// An OFT adapter.
#[derive(Clone, Debug)]
pub struct OftAdapter {
    /// Its settings.
    pub settings: OftSettings,
    /// Its base.
    pub origin: Origin,
    /// The angles `[blocks, block (block - 1) / 2]`, by the path of their module.
    pub modules: BTreeMap<String, Tensor>,
    /// Tensors of `modules_to_save`, by their name in the base model.
    pub saved_modules: BTreeMap<String, Tensor>,
}

/// Keys that change what the adapter computes.
const REFUSED: [(&str, &str); 4] = [
    ("coft", "rotations with a bound are not supported yet"),
    ("block_share", "one rotation for all blocks is not supported yet"),
    ("fan_in_fan_out", "transposed weights are not supported"),
    ("layers_to_transform", "layers by number are not supported; name their modules in target_modules"),
];

impl OftAdapter {
    pub(super) fn read(file: &str, config: &Raw<'_>, weights_file: &str, weights: &SharedBytes) -> Result<Self, Error> {
        refuse_when_set(config, &REFUSED)?;
        refuse_biases(config)?;
        let number = |key: &str, default: u64| {
            let value = config.value(key).map_or(Some(default), |value| value.as_u64());
            let value = value.and_then(|value| usize::try_from(value).ok()).filter(|value| *value <= 1 << 16);
            value.ok_or_else(|| config.bad(key, "a whole number from 0 to 65536"))
        };
        let (blocks, block) = (number("r", 0)?, number("oft_block_size", 32)?);
        if (blocks == 0) == (block == 0) {
            return Err(config.bad("oft_block_size", "one of r and oft_block_size above 0, and the other 0"));
        }
        let series = match config.flag_or("use_cayley_neumann", true)? {
            true => RotationSeries::Terms(number("num_cayley_neumann_terms", 5)?.min(64)),
            false => RotationSeries::Exact,
        };
        let settings = OftSettings {
            blocks,
            block,
            series,
            targets: read_targets(file, config, "target_modules")?,
            saved_modules: read_saved(config)?,
        };
        let mut modules = BTreeMap::new();
        let saved_modules = read_tensors(weights_file, weights, |path, tensor| {
            let Some(module) = path.strip_suffix(".oft_R.weight") else { return Ok(false) };
            modules.insert(module.to_owned(), tensor.clone());
            Ok(true)
        })?;
        Ok(Self { settings, origin: Origin::read(config)?, modules, saved_modules })
    }
}

/// The content of `adapter_config.json`.
pub(crate) fn oft_config(settings: &OftSettings, origin: &Origin) -> Vec<u8> {
    let (series, terms) = match settings.series {
        RotationSeries::Exact => (false, 5),
        RotationSeries::Terms(terms) => (true, terms),
    };
    let own = json!({
        "bias": "none",
        "block_share": false,
        "coft": false,
        "eps": 6e-5,
        "fan_in_fan_out": false,
        "init_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "module_dropout": 0.0,
        "num_cayley_neumann_terms": terms,
        "oft_block_size": settings.block,
        "r": settings.blocks,
        "use_cayley_neumann": series,
    });
    config_file("OFT", origin, &settings.targets, &settings.saved_modules, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_those_of_peft() {
        let settings = |blocks, block| OftSettings {
            blocks,
            block,
            series: RotationSeries::Exact,
            targets: TargetModules::AllLinear,
            saved_modules: Vec::new(),
        };
        assert_eq!(settings(0, 32).block_of(96), 32);
        assert_eq!(settings(0, 32).block_of(80), 40);
        assert_eq!(settings(0, 32).block_of(16), 16);
        assert_eq!(settings(4, 0).block_of(96), 24);
        assert_eq!(settings(5, 0).block_of(96), 24);
    }
}
