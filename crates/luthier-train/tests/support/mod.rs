//! The committed checkpoints, and a device to run them on.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use luthier_model::checkpoint::ModelFiles;
use luthier_model::{Checkpoint, LoraSettings, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa};

pub(crate) fn checkpoint(name: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name);
    let file = |file: &str| {
        let bytes: Arc<Vec<u8>> = Arc::new(std::fs::read(folder.join(file)).unwrap());
        (file.to_owned(), bytes as luthier_tensor::SharedBytes)
    };
    let files = BTreeMap::from([file("config.json"), file("model.safetensors")]);
    Checkpoint::from_files(&ModelFiles { label: name.into(), files }).unwrap()
}

pub(crate) fn device() -> Device {
    let options = CpuOptions { threads: 2, isa: Isa::detect(), memory_bytes: 1 << 28, poison: true };
    Device::cpu(options, None).unwrap()
}

pub(crate) fn lora(dropout: f32) -> Tuning {
    Tuning::Lora(LoraSettings { alpha: 6.0, dropout, seed: 7, ..LoraSettings::of_rank(3) })
}
