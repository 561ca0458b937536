//! Writing the GGUF container, version 3, as a stream: metadata and tensor table first, then the numbers of each tensor
//! from a multiple of 32 bytes on. It knows nothing of models. From: ggml, `docs/gguf.md`.

use std::io::{self, Write};

use luthier_tensor::DType;

use super::writer::TensorSpec;

/// Where a tensor's numbers may begin.
const ALIGNMENT: usize = 32;

/// A metadata value, in the type that llama.cpp looks for.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// An unsigned number.
    U32(u32),
    /// A number with a point.
    F32(f32),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of numbers with a point.
    Floats(Vec<f32>),
    /// A list of whole numbers.
    Integers(Vec<i32>),
    /// A value of another file, as it stands there.
    Raw {
        /// The number of its type.
        kind: u32,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl GgufValue {
    fn kind(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Flag(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::Floats(_) | Self::Integers(_) => 9,
            Self::Raw { kind, .. } => *kind,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(number) => out.extend(number.to_le_bytes()),
            Self::F32(number) => out.extend(number.to_le_bytes()),
            Self::Flag(flag) => out.push(u8::from(*flag)),
            Self::Text(text) => write_text(text, out),
            Self::Texts(texts) => {
                write_list(8, texts.len(), out);
                texts.iter().for_each(|text| write_text(text, out));
            }
            Self::Floats(numbers) => {
                write_list(6, numbers.len(), out);
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Self::Integers(numbers) => {
                write_list(5, numbers.len(), out);
                out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Self::Raw { bytes, .. } => out.extend(bytes),
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_list(kind: u32, count: usize, out: &mut Vec<u8>) {
    out.extend(kind.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

/// ggml's number of a storage type.
fn type_number(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 12,
        DType::Q5K => 13,
        DType::Q6K => 14,
        DType::Bf16 => 30,
        DType::Mxfp4 => 39,
        _ => return None,
    })
}

/// Everything before the numbers.
fn header(metadata: &[(String, GgufValue)], tensors: &[TensorSpec]) -> io::Result<Vec<u8>> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        write_text(key, &mut out);
        out.extend(value.kind().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        let Some(kind) = type_number(tensor.dtype) else {
            let reason = format!("tensor `{}` is {}, which is never written", tensor.name, tensor.dtype);
            return Err(io::Error::other(reason));
        };
        write_text(&tensor.name, &mut out);
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().rev().for_each(|length| out.extend((*length as u64).to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT as u64);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

/// Bytes of the file that [`write_gguf`] would write.
pub fn gguf_bytes(metadata: &[(String, GgufValue)], tensors: &[TensorSpec]) -> u64 {
    let numbers: u64 = tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT as u64)).sum();
    header(metadata, tensors).map_or(0, |header| header.len() as u64) + numbers
}

/// Writes a file; `fill` writes the bytes of each tensor, little-endian and row-major.
///
/// # Errors
/// When writing fails, a storage type does not exist here, or `fill` writes another number of bytes than the tensor has.
pub fn write_gguf(
    metadata: &[(String, GgufValue)],
    tensors: &[TensorSpec],
    writer: &mut dyn Write,
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    writer.write_all(&header(metadata, tensors)?)?;
    for tensor in tensors {
        super::writer::write_exactly(tensor, writer, fill)?;
        let padding = tensor.bytes().next_multiple_of(ALIGNMENT as u64) - tensor.bytes();
        writer.write_all(&[0; ALIGNMENT][..padding as usize])?;
    }
    Ok(())
}
