//! Writing safetensors as a stream: one file, or shards of limited size with an index, as Hugging Face's tools do. Nothing
//! but the tensor being written is in memory.

use std::io::{self, Write};

use luthier_tensor::DType;
use serde_json::{Map, Value, json};

use super::files::WEIGHTS_FILE;
use crate::error::Error;

/// What a tensor to be written looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// How its numbers are stored: f32, bf16 or f16; in GGUF also blocks.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub dims: Vec<usize>,
}

impl TensorSpec {
    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        self.dtype.bytes(self.dims.iter().product()) as u64
    }

    fn type_name(&self) -> Option<&'static str> {
        match self.dtype {
            DType::F32 => Some("F32"),
            DType::Bf16 => Some("BF16"),
            DType::F16 => Some("F16"),
            DType::U8 => Some("U8"),
            _ => None,
        }
    }
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub file: String,
    /// Its tensors, in the order of their bytes.
    pub tensors: Vec<TensorSpec>,
}

/// Distributes tensors over files of at most `limit_bytes`, in the given order; a larger tensor has a file of its own.
///
/// # Errors
/// When a tensor's storage type does not exist in safetensors.
pub fn plan_shards(tensors: Vec<TensorSpec>, limit_bytes: u64) -> Result<Vec<Shard>, Error> {
    let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        if tensor.type_name().is_none() {
            return Err(Error::TensorType {
                file: WEIGHTS_FILE.into(),
                tensor: tensor.name,
                found: tensor.dtype.to_string(),
                supported: "F32, BF16 and F16",
            });
        }
        let bytes = tensor.bytes();
        if filled > 0 && filled + bytes > limit_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let count = shards.len();
    let name = |number: usize| match count {
        1 => WEIGHTS_FILE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let shard = |(number, mut tensors): (usize, Vec<TensorSpec>)| {
        // Wider numbers first keeps every tensor aligned.
        tensors.sort_by(|a, b| b.dtype.block_bytes().cmp(&a.dtype.block_bytes()).then_with(|| a.name.cmp(&b.name)));
        Shard { file: name(number), tensors }
    };
    Ok(shards.into_iter().enumerate().map(shard).collect())
}

/// Writes one file; `fill` writes the bytes of each tensor, little-endian and row-major.
///
/// # Errors
/// When writing fails, or `fill` writes another number of bytes than the tensor has.
pub fn write_shard(
    shard: &Shard,
    writer: &mut dyn Write,
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in &shard.tensors {
        let end = offset + tensor.bytes();
        let entry = json!({ "dtype": tensor.type_name(), "shape": tensor.dims, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(&header)?;
    shard.tensors.iter().try_for_each(|tensor| write_exactly(tensor, writer, fill))
}

/// Lets `fill` write a tensor and counts what it writes.
pub(super) fn write_exactly(
    tensor: &TensorSpec,
    writer: &mut dyn Write,
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut counted = Counted { writer, bytes: 0 };
    fill(tensor, &mut counted)?;
    if counted.bytes == tensor.bytes() {
        return Ok(());
    }
    let reason = format!("tensor `{}` has {} bytes, {} were written", tensor.name, tensor.bytes(), counted.bytes);
    Err(io::Error::other(reason))
}

/// The index of a checkpoint in several files; `None` when there is one.
pub fn index_json(shards: &[Shard]) -> Option<Vec<u8>> {
    if shards.len() < 2 {
        return None;
    }
    let mut map: Vec<(&str, &str)> = Vec::new();
    let mut total = 0;
    for shard in shards {
        total += shard.tensors.iter().map(TensorSpec::bytes).sum::<u64>();
        map.extend(shard.tensors.iter().map(|tensor| (tensor.name.as_str(), shard.file.as_str())));
    }
    map.sort_unstable();
    let map: Map<String, Value> = map.into_iter().map(|(name, file)| (name.to_owned(), file.into())).collect();
    Some(super::pretty(&json!({ "metadata": { "total_size": total }, "weight_map": map })))
}

struct Counted<'a> {
    writer: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
