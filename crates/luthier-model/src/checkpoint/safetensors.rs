//! Reading safetensors: the header is checked by the `safetensors` crate, the numbers stay where they are.

use std::sync::Arc;

use luthier_tensor::{DType, SharedBytes};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata};

use super::stored::StoredTensor;
use crate::error::Error;

const FORMAT: &str = "safetensors";

/// All tensors of a file, by name, except those whose name `ignore` takes. `file` is its name in messages.
///
/// # Errors
/// When the file is cut off or damaged, or a tensor's numbers are neither f32 nor bf16 nor f16.
pub fn read_safetensors(
    file: &str,
    bytes: &SharedBytes,
    ignore: impl FnMut(&str) -> bool,
) -> Result<Vec<(String, StoredTensor)>, Error> {
    read(file, bytes, ignore, false)
}

/// As [`read_safetensors`], of a training's state, which may hold codes of eight bits too.
///
/// # Errors
/// As there.
pub fn read_state(file: &str, bytes: &SharedBytes) -> Result<Vec<(String, StoredTensor)>, Error> {
    read(file, bytes, |_| false, true)
}

fn read(
    file: &str,
    bytes: &SharedBytes,
    mut ignore: impl FnMut(&str) -> bool,
    has_codes: bool,
) -> Result<Vec<(String, StoredTensor)>, Error> {
    let content = (**bytes).as_ref();
    let (header, metadata) = SafeTensors::read_metadata(content).map_err(|error| refusal(file, content, &error))?;
    let file: Arc<str> = Arc::from(file);
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        if ignore(&name) {
            continue;
        }
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::Bf16,
            Dtype::F16 => DType::F16,
            Dtype::U8 if has_codes => DType::U8,
            other => {
                return Err(Error::TensorType {
                    file: file.to_string(),
                    tensor: name,
                    found: other.to_string(),
                    supported: "F32, BF16 and F16",
                });
            }
        };
        let offset = 8 + header + info.data_offsets.0;
        let tensor = StoredTensor::new(&file, &name, bytes, offset, dtype, info.shape.clone())?;
        tensors.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tensors)
}

/// One clear sentence for what the crate refused.
fn refusal(file: &str, content: &[u8], error: &SafeTensorError) -> Error {
    let damaged = |reason: String| Error::Damaged { file: file.to_owned(), format: FORMAT, reason };
    let found = content.len() as u64;
    let truncated = |expected: u64| Error::Truncated { file: file.to_owned(), expected, found };
    if content.starts_with(b"version https://git-lfs") {
        return damaged(
            "it is a Git LFS pointer in place of the file; fetch the file itself with `git lfs pull`".into(),
        );
    }
    let header = content.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    match (error, header) {
        (SafeTensorError::HeaderTooSmall, _) => truncated(8),
        (SafeTensorError::InvalidHeaderLength, Some(header)) => truncated(header.saturating_add(8)),
        (SafeTensorError::MetadataIncompleteBuffer, Some(header)) => {
            let end = usize::try_from(header).unwrap_or(usize::MAX).saturating_add(8);
            let metadata = content.get(8..end).and_then(|text| serde_json::from_slice::<Metadata>(text).ok());
            match metadata.map(|metadata| header + 8 + metadata.data_len() as u64) {
                Some(expected) if expected > found => truncated(expected),
                Some(expected) => damaged(format!("{} bytes follow its last tensor", found - expected)),
                None => damaged(error.to_string()),
            }
        }
        _ => damaged(error.to_string()),
    }
}
