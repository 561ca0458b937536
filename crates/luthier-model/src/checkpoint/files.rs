//! A model as named bytes. This crate opens no file: whoever does (`luthier-files`, a test, a browser) hands the bytes over.

use std::collections::BTreeMap;

use luthier_tensor::SharedBytes;
use serde_json::Value;

use crate::error::Error;

/// Lists the shards of a checkpoint that is split over several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// The weights of a checkpoint in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The files of one model: a Hugging Face folder, or a single GGUF file.
#[derive(Clone)]
pub struct ModelFiles {
    /// What the user called it; for messages.
    pub label: String,
    /// File name to content.
    pub files: BTreeMap<String, SharedBytes>,
}

impl ModelFiles {
    /// The content of a file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|bytes| (**bytes).as_ref())
    }

    /// The name of the GGUF file, where the model is one.
    pub fn gguf_name(&self) -> Option<&str> {
        self.files.keys().map(String::as_str).find(|name| is_gguf(name))
    }

    /// A file's name in messages: with the model's label before it.
    pub fn path(&self, name: &str) -> String {
        if self.label.ends_with(name) { self.label.clone() } else { format!("{}/{name}", self.label) }
    }

    /// A JSON file, where it is there.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self, name: &str) -> Result<Option<Value>, Error> {
        self.get(name).map(|bytes| parse_json(&self.path(name), bytes)).transpose()
    }

    /// The files that go along when the model's weights are written anew: all but weights, their index and `config.json`.
    pub fn companions(&self) -> impl Iterator<Item = (&str, &SharedBytes)> {
        let weights = |name: &str| name.ends_with(".safetensors") || is_gguf(name) || name == INDEX_FILE;
        self.files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes))
            .filter(move |(name, _)| !weights(name) && *name != "config.json")
    }

    /// The safetensors files that hold the weights, in order.
    ///
    /// # Errors
    /// When there are none, or the index names one that is not there.
    pub fn weight_files(&self) -> Result<Vec<String>, Error> {
        let missing =
            |file: &str, hint: String| Error::MissingFile { label: self.label.clone(), file: file.into(), hint };
        let Some(index) = self.get(INDEX_FILE) else {
            return match self.files.contains_key(WEIGHTS_FILE) {
                true => Ok(vec![WEIGHTS_FILE.to_owned()]),
                false => {
                    Err(missing(WEIGHTS_FILE, format!("a model's weights are in it, or in what {INDEX_FILE} lists")))
                }
            };
        };
        let shards = shard_names(&self.path(INDEX_FILE), index)?;
        match shards.iter().find(|shard| !self.files.contains_key(*shard)) {
            Some(shard) => Err(missing(shard, format!("{INDEX_FILE} lists it; copy or download it too"))),
            None => Ok(shards),
        }
    }
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFiles").field("label", &self.label).field("files", &self.files.keys()).finish()
    }
}

/// Some systems write endings in capitals.
fn is_gguf(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("gguf"))
}

/// The shards that an index lists, each once, in alphabetical order.
///
/// # Errors
/// When the index is not JSON, has no `weight_map`, or names files outside the model's folder.
pub fn shard_names(file: &str, index: &[u8]) -> Result<Vec<String>, Error> {
    let index = parse_json(file, index)?;
    let expected = "an object from tensor names to file names";
    let bad = |found: Option<&Value>| match found {
        None => Error::MissingKey { file: file.into(), key: "weight_map".into(), expected: expected.into() },
        Some(found) => Error::BadValue {
            file: file.into(),
            key: "weight_map".into(),
            found: crate::error::short(found),
            expected: expected.into(),
        },
    };
    let map = index.get("weight_map");
    let Some(entries) = map.and_then(Value::as_object).filter(|entries| !entries.is_empty()) else {
        return Err(bad(map));
    };
    let mut shards = Vec::new();
    for shard in entries.values() {
        match shard.as_str() {
            Some(name) if name.ends_with(".safetensors") && !name.contains(['/', '\\']) => shards.push(name.to_owned()),
            _ => {
                return Err(Error::BadValue {
                    file: file.into(),
                    key: "weight_map".into(),
                    found: crate::error::short(shard),
                    expected: "the names of .safetensors files in the same folder".into(),
                });
            }
        }
    }
    shards.sort_unstable();
    shards.dedup();
    Ok(shards)
}

/// Bytes as JSON. Python writes `Infinity` and `NaN`, which JSON does not have; serde_json says where.
pub(crate) fn parse_json(file: &str, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::NotJson { file: file.into(), reason: error.to_string() })
}
