//! A model's or an adapter's files, found and mapped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use luthier_model::adapter::{Adapter, CONFIG_FILE, WEIGHTS_FILE as ADAPTER_WEIGHTS};
use luthier_model::checkpoint::{INDEX_FILE, ModelFiles, WEIGHTS_FILE, shard_names};

use crate::{Error, map};

/// Small files of a model's folder that are taken along where they exist.
pub const COMPANIONS: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "qwen.tiktoken",
    "tiktoken.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
];

/// Finds and maps a model: a Hugging Face folder, a GGUF file, or a folder with one GGUF file and no `config.json`.
///
/// # Errors
/// When nothing is there, a file is missing, or the weights are only there as pickles.
pub fn read_model(path: &Path) -> Result<ModelFiles, Error> {
    if path.is_file() {
        return read_file(path);
    }
    let names = file_names(path)?;
    let with = |extensions: &[&str]| -> Vec<&String> {
        names.iter().filter(|name| extensions.contains(&extension(name).as_str())).collect()
    };
    let gguf = with(&["gguf"]);
    let has = |file: &str| names.iter().any(|name| name == file);
    if !has("config.json") {
        match gguf.as_slice() {
            [] => {}
            [only] => return read_file(&path.join(only)),
            several => {
                let list = several.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(no_model(path, format!("it has several .gguf files ({list}); give one of them")));
            }
        }
    }
    let pickles = with(&["bin", "pt", "pth"]);
    if with(&["safetensors"]).is_empty()
        && let Some(pickle) = pickles.iter().find(|name| name.contains("model") || extension(name) != "bin")
    {
        return Err(Error::Pickle { path: path.join(pickle) });
    }
    let missing = |file: &str, hint: &str| Error::Missing { folder: path.into(), file: file.into(), hint: hint.into() };
    if has(CONFIG_FILE) && !has("config.json") {
        return Err(no_model(
            path,
            "it is an adapter, not a model; give the base model, and this folder as its adapter",
        ));
    }
    if !has("config.json") {
        return Err(missing("config.json", "it describes the model; give the folder that has it, or a .gguf file"));
    }

    let mut files = BTreeMap::new();
    for name in COMPANIONS.into_iter().filter(|name| has(name)) {
        files.insert(name.to_owned(), map(&path.join(name))?);
    }
    let mut weights = vec![WEIGHTS_FILE.to_owned()];
    if has(INDEX_FILE) {
        let index = map(&path.join(INDEX_FILE))?;
        weights = shard_names(&path.join(INDEX_FILE).display().to_string(), (*index).as_ref())?;
        if let Some(shard) = weights.iter().find(|shard| !has(shard)) {
            return Err(missing(shard, &format!("{INDEX_FILE} lists it; copy or download it too")));
        }
        files.insert(INDEX_FILE.to_owned(), index);
    } else if !has(WEIGHTS_FILE) {
        let hint = match gguf.first() {
            Some(name) => format!("the folder has {name}: give that file to use it"),
            None => format!("a model's weights are in it, or in the shards that {INDEX_FILE} lists"),
        };
        return Err(missing(WEIGHTS_FILE, &hint));
    }
    for name in weights {
        let bytes = map(&path.join(&name))?;
        files.insert(name, bytes);
    }
    Ok(ModelFiles { label: path.display().to_string(), files })
}

/// Maps what a model's folder has beside weights: `config.json`, the tokenizer and their like.
///
/// # Errors
/// When there is no such folder, or no `config.json` in it.
pub fn read_model_without_weights(folder: &Path) -> Result<ModelFiles, Error> {
    if folder.is_file() {
        return Err(no_model(folder, "a model that begins with random weights is a folder with config.json"));
    }
    let names = file_names(folder)?;
    let mut files = BTreeMap::new();
    for name in COMPANIONS.into_iter().filter(|name| names.iter().any(|found| found == name)) {
        files.insert(name.to_owned(), map(&folder.join(name))?);
    }
    if !files.contains_key("config.json") {
        let hint = "it describes the model that is to begin with random weights".to_owned();
        return Err(Error::Missing { folder: folder.into(), file: "config.json".into(), hint });
    }
    Ok(ModelFiles { label: folder.display().to_string(), files })
}

/// Maps what a tokenizer is made of: a GGUF file, with tensors or without; a tokenizer file; or what a folder has of them.
///
/// # Errors
/// When nothing is there, or nothing that a tokenizer can be read from.
pub fn read_tokenizer(path: &Path) -> Result<ModelFiles, Error> {
    let label = path.display().to_string();
    if path.is_file() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = match extension(&name).as_str() {
            "gguf" => name,
            "json" => "tokenizer.json".to_owned(),
            "model" => "tokenizer.model".to_owned(),
            "tiktoken" => {
                let reason = "a tiktoken file needs the config.json beside it; give the folder that has both";
                return Err(no_model(path, reason));
            }
            _ => return Err(no_model(path, format!("it is no tokenizer; give {TOKENIZERS}"))),
        };
        return Ok(ModelFiles { label, files: BTreeMap::from([(name, map(path)?)]) });
    }
    let names = file_names(path)?;
    let mut files = BTreeMap::new();
    for name in COMPANIONS.into_iter().filter(|name| names.iter().any(|found| found == name)) {
        files.insert(name.to_owned(), map(&path.join(name))?);
    }
    if files.contains_key("tokenizer.json") {
        return Ok(ModelFiles { label, files });
    }
    let gguf: Vec<&String> = names.iter().filter(|name| extension(name) == "gguf").collect();
    match gguf.as_slice() {
        [only] if !TOKENIZER_FILES.iter().any(|name| files.contains_key(*name)) => read_file(&path.join(only)),
        _ if files.is_empty() => Err(no_model(path, format!("it has no tokenizer; give {TOKENIZERS}"))),
        _ => Ok(ModelFiles { label, files }),
    }
}

/// What a folder without tokenizer.json may have in its place.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.model", "qwen.tiktoken", "tiktoken.model"];

/// Where tokenizers are read from, in messages.
const TOKENIZERS: &str = "a .gguf file, a tokenizer.json, a tokenizer.model, or a folder with one of them";

/// Reads a PEFT adapter folder.
///
/// # Errors
/// When a file is missing or the adapter is one that is not supported.
pub fn read_adapter(folder: &Path) -> Result<Adapter, Error> {
    let names = file_names(folder)?;
    let pickle = "adapter_model.bin".to_owned();
    if !names.contains(&ADAPTER_WEIGHTS.to_owned()) && names.contains(&pickle) {
        return Err(Error::Pickle { path: folder.join(pickle) });
    }
    for file in [CONFIG_FILE, ADAPTER_WEIGHTS] {
        if !names.iter().any(|name| name == file) {
            let hint = "an adapter is a folder with adapter_config.json and adapter_model.safetensors".to_owned();
            return Err(Error::Missing { folder: folder.into(), file: file.into(), hint });
        }
    }
    let config = map(&folder.join(CONFIG_FILE))?;
    let weights = map(&folder.join(ADAPTER_WEIGHTS))?;
    Ok(Adapter::read(&folder.display().to_string(), (*config).as_ref(), &weights)?)
}

fn read_file(path: &Path) -> Result<ModelFiles, Error> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match extension(&name).as_str() {
        "gguf" => {
            let files = BTreeMap::from([(name, map(path)?)]);
            Ok(ModelFiles { label: path.display().to_string(), files })
        }
        "bin" | "pt" | "pth" => Err(Error::Pickle { path: path.into() }),
        "safetensors" => Err(no_model(path, "weights alone are no model; give the folder that also has config.json")),
        _ => Err(no_model(path, "it is no model; give a folder with config.json, or a .gguf file")),
    }
}

fn no_model(path: &Path, reason: impl Into<String>) -> Error {
    Error::NoModel { path: path.into(), reason: reason.into() }
}

/// In lower case, as some systems write it in capitals.
fn extension(name: &str) -> String {
    name.rsplit_once('.').map_or_else(String::new, |(_, extension)| extension.to_ascii_lowercase())
}

/// The files of a folder, in order, without what is in folders below it.
fn file_names(folder: &Path) -> Result<Vec<String>, Error> {
    if !folder.exists() {
        return Err(Error::NotFound { path: folder.into() });
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list it"))?;
    let mut names = Vec::new();
    for entry in entries {
        let path: PathBuf = entry.map_err(Error::io(folder, "list it"))?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
