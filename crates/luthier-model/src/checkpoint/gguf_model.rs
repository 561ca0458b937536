//! A GGUF file as a checkpoint: its metadata becomes a Hugging Face configuration, its tensors get Hugging Face names and
//! layouts, so that the same family functions read both.

use std::collections::BTreeMap;
use std::sync::Arc;

use luthier_tensor::{DType, SharedBytes};
use serde_json::Value;

use super::gguf::{Gguf, TensorInfo};
use super::gguf_config::Keys;
use super::gguf_names::{ARCHITECTURES, Architecture, hugging_face_name, is_rotary_table, permuted_row};
use super::gguf_tokenizer::GgufTokenizer;
use super::stored::StoredTensor;
use crate::error::Error;

/// What a GGUF file says.
pub(super) struct GgufModel {
    pub(super) config: Value,
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    pub(super) tokenizer: GgufTokenizer,
}

pub(super) fn read(file: &str, bytes: &SharedBytes, ignored: &mut Vec<String>) -> Result<GgufModel, Error> {
    let gguf = Gguf::parse(file, (**bytes).as_ref())?;
    if let Some(count) = gguf.integer("split.count")?.filter(|count| *count > 1) {
        let reason = "merge the parts first: llama-gguf-split --merge FIRST-PART OUTPUT";
        return Err(unsupported(file, "split.count", &count.to_string(), reason));
    }
    let architecture = architecture(&gguf)?;
    let tokenizer = GgufTokenizer::read(&gguf)?;
    let mut stored = stored_tensors(&gguf, bytes)?;
    let keys = Keys { gguf: &gguf, architecture };
    let config = keys.config(&stored, &tokenizer)?;

    let names: Vec<String> = stored.keys().filter(|name| is_rotary_table(name)).cloned().collect();
    names.iter().for_each(|name| drop(stored.remove(name)));
    ignored.extend(names);
    let head_dim = keys.head_dim()?;
    let mut tensors = BTreeMap::new();
    for (name, mut tensor) in stored {
        // A name that no family knows stays as it is and is reported as such.
        let name = hugging_face_name(architecture, &name).unwrap_or(name);
        let turned = [".q_proj.weight", ".k_proj.weight", ".q_proj.bias", ".k_proj.bias"];
        if architecture.permuted && turned.iter().any(|end| name.ends_with(end)) {
            let rows = tensor.dims()[0];
            if head_dim < 2 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(head_dim) {
                return Err(gguf.damaged(format!("`{name}` has {rows} rows, no whole number of heads of {head_dim}")));
            }
            tensor = tensor.with_rows(&name, |row| permuted_row(row, head_dim))?;
        }
        tensors.insert(name, tensor);
    }
    Ok(GgufModel { config, tensors, tokenizer })
}

pub(super) fn unsupported(file: &str, key: &str, found: &str, reason: &str) -> Error {
    Error::Unsupported { file: file.into(), key: key.into(), found: found.into(), reason: reason.into() }
}

pub(super) fn architecture(gguf: &Gguf<'_>) -> Result<Architecture, Error> {
    const KEY: &str = "general.architecture";
    let Some(name) = gguf.text(KEY)? else {
        let expected = "the name of a model architecture".to_owned();
        return Err(Error::MissingKey { file: gguf.file.into(), key: KEY.into(), expected });
    };
    let known = ARCHITECTURES.iter().find(|architecture| architecture.name == name);
    known.copied().ok_or_else(|| {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        let reason = format!("supported architectures of GGUF files are {}", names.join(", "));
        unsupported(gguf.file, KEY, &format!("`{name}`"), &reason)
    })
}

pub(super) fn stored_tensors(gguf: &Gguf<'_>, bytes: &SharedBytes) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let file: Arc<str> = Arc::from(gguf.file);
    let mut tensors = BTreeMap::new();
    for info in &gguf.tensors {
        let dtype = storage_type(gguf, info)?;
        let columns = info.dims.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(dtype.block_len()) {
            let reason = format!("rows of `{}` have {columns} numbers, no whole number of {dtype} blocks", info.name);
            return Err(gguf.damaged(reason));
        }
        let length = dtype.bytes(info.dims.iter().product());
        let end = info.offset.saturating_add(length);
        if end > gguf.bytes.len() {
            let found = gguf.bytes.len() as u64;
            return Err(Error::Truncated { file: gguf.file.into(), expected: end as u64, found });
        }
        let tensor = StoredTensor::new(&file, &info.name, bytes, info.offset, dtype, info.dims.clone())?;
        if tensors.insert(info.name.clone(), tensor).is_some() {
            return Err(gguf.damaged(format!("tensor `{}` occurs twice", info.name)));
        }
    }
    Ok(tensors)
}

/// Names of ggml's storage types, by their numbers.
const TYPE_NAMES: [&str; 42] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
    "Q1_0",
];

fn storage_type(gguf: &Gguf<'_>, info: &TensorInfo) -> Result<DType, Error> {
    Ok(match info.kind {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        10 => DType::Q2K,
        11 => DType::Q3K,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        30 => DType::Bf16,
        39 => DType::Mxfp4,
        other => {
            let name = TYPE_NAMES.get(other as usize).map_or_else(|| format!("type {other}"), ToString::to_string);
            return Err(Error::TensorType {
                file: gguf.file.into(),
                tensor: info.name.clone(),
                found: name,
                supported: "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K and MXFP4; convert the file with \
                            llama-quantize --allow-requantize",
            });
        }
    })
}
