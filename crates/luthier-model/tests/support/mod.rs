//! What the tests of files share: fixtures as `ModelFiles`, and changed configurations.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod gguf;
pub mod logits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use luthier_model::checkpoint::ModelFiles;
use luthier_model::families::{ModelDescription, describe};
use luthier_tensor::SharedBytes;
use serde_json::Value;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn shared(bytes: Vec<u8>) -> SharedBytes {
    Arc::new(bytes)
}

/// The files of `fixtures/models/{name}`, called `model`.
pub fn model_files(name: &str) -> ModelFiles {
    let folder = fixture("models").join(name);
    let file = |file: &str| (file.to_owned(), shared(read(&folder.join(file))));
    ModelFiles { label: "model".into(), files: BTreeMap::from([file("config.json"), file("model.safetensors")]) }
}

pub fn config(name: &str) -> Value {
    serde_json::from_slice(&read(&fixture("models").join(name).join("config.json"))).unwrap()
}

/// The configuration of a fixture with some keys replaced; a change to the text `absent` takes the key away.
pub fn changed(name: &str, changes: Value) -> Value {
    let mut config = config(name);
    let object = config.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value.as_str() {
            Some("absent") => drop(object.remove(key)),
            _ => drop(object.insert(key.clone(), value.clone())),
        }
    }
    config
}

pub fn described(config: &Value) -> ModelDescription {
    describe("config.json", config).unwrap_or_else(|error| panic!("{error}"))
}

pub fn refusal(config: &Value) -> String {
    describe("config.json", config).expect_err("refused").to_string()
}

/// A safetensors file of tensors (name, type, dimensions, bytes), in the given order.
pub fn safetensors(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, dims, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let entry = serde_json::json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, data.len()] });
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat()
}
