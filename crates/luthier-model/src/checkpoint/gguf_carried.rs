//! What a GGUF file says besides its weights, kept for the file that is made of it: metadata as it stands, and the tables
//! of its rotary embedding. What describes the old weights themselves (their type, their quantisation) is left behind.

use super::files::ModelFiles;
use super::gguf::Gguf;
use super::gguf_model::{architecture, stored_tensors};
use super::gguf_names::{Architecture, is_rotary_table};
use super::gguf_storage::GgufFileType;
use super::gguf_writer::GgufValue;
use crate::error::Error;

/// The metadata and tables of a GGUF base.
#[derive(Clone, Debug)]
pub struct GgufCarried {
    pub(super) architecture: Architecture,
    pub(super) metadata: Vec<(String, GgufValue)>,
    /// What most of the file's numbers are stored in, as it stands there.
    pub(super) file_type: Option<GgufValue>,
    /// Name, dimensions and values.
    pub(super) tables: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl GgufCarried {
    /// What the file says that most of its numbers are stored in, where it is known here.
    pub fn file_type(&self) -> Option<GgufFileType> {
        let Some(GgufValue::Raw { kind: 4, bytes }) = &self.file_type else { return None };
        GgufFileType::ALL.into_iter().find(|named| named.number.to_le_bytes() == bytes[..])
    }

    /// Reads them; `None` when the model is no GGUF file.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(files: &ModelFiles) -> Result<Option<Self>, Error> {
        let Some(name) = files.gguf_name() else { return Ok(None) };
        let path = files.path(name);
        let bytes = &files.files[name];
        let gguf = Gguf::parse(&path, (**bytes).as_ref())?;
        let describes_weights = |key: &str| {
            matches!(key, "general.file_type" | "general.quantization_version" | "general.alignment")
                || key.starts_with("split.")
                || key.starts_with("quantize.")
        };
        let value = |kind: u32, range: &std::ops::Range<usize>| GgufValue::Raw {
            kind,
            bytes: gguf.bytes[range.clone()].to_vec(),
        };
        let file_type = gguf.raw.iter().find(|(key, ..)| key == "general.file_type");
        let file_type = file_type.map(|(_, kind, range)| value(*kind, range));
        let metadata = gguf
            .raw
            .iter()
            .filter(|(key, ..)| !describes_weights(key))
            .map(|(key, kind, range)| (key.clone(), value(*kind, range)))
            .collect();
        let mut tables = Vec::new();
        for (name, tensor) in stored_tensors(&gguf, bytes)? {
            // Rotation tables of layers are of old files; programs compute them.
            if is_rotary_table(&name) && !name.ends_with(".attn_rot_embd.weight") {
                tables.push((name, tensor.dims().to_vec(), tensor.to_f32().unwrap_or_default()));
            }
        }
        Ok(Some(Self { architecture: architecture(&gguf)?, metadata, file_type, tables }))
    }
}
