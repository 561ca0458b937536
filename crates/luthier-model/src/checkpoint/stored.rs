//! A tensor as a file stores it: bytes that somebody else owns, its storage type, its original dimensions.

use std::sync::Arc;

use luthier_tensor::{DType, SharedBytes, Tensor};

use crate::error::Error;

/// A tensor of a file.
#[derive(Clone)]
pub struct StoredTensor {
    bytes: SharedBytes,
    offset: usize,
    dtype: DType,
    pub(super) dims: Vec<usize>,
    pub(super) tensor: Tensor,
    pub(super) file: Arc<str>,
    /// Whether it was quantised while it was read.
    pub(super) quantised: bool,
}

impl StoredTensor {
    /// `bytes[offset..]` as a tensor of `dims`, outermost first. Bytes that are not aligned for their type are copied.
    pub(crate) fn new(
        file: &Arc<str>,
        name: &str,
        bytes: &SharedBytes,
        offset: usize,
        dtype: DType,
        dims: Vec<usize>,
    ) -> Result<Self, Error> {
        // An empty tensor can still have dimensions whose product overflows.
        let numbers = dims.iter().try_fold(1usize, |product, length| product.checked_mul((*length).max(1)));
        if numbers.is_none_or(|numbers| numbers >= 1 << 48) {
            let reason = format!("tensor `{name}` has the absurd dimensions {}", crate::error::shape(&dims));
            return Err(Error::Damaged { file: file.to_string(), format: "weight", reason });
        }
        let (rows, columns) = matrix(&dims);
        let length = dtype.bytes(columns).saturating_mul(rows);
        let view = (**bytes).as_ref().get(offset..offset.saturating_add(length)).unwrap_or_default();
        let alignment = if dtype.block_bytes() == 4 { 4 } else { 2 };
        let (bytes, offset) = match view.as_ptr().addr() % alignment {
            0 => (Arc::clone(bytes), offset),
            _ => (aligned(view), 0),
        };
        let tensor =
            Tensor::from_shared(Arc::clone(&bytes), offset, length, dtype, rows, columns).map_err(|error| {
                Error::Damaged { file: file.to_string(), format: "weight", reason: format!("tensor `{name}`: {error}") }
            })?;
        Ok(Self { bytes, offset, dtype, dims, tensor, file: Arc::clone(file), quantised: false })
    }

    /// A tensor of `dims` that a program computed.
    ///
    /// # Errors
    /// When the number of values is not the product of the dimensions.
    pub fn from_f32(name: &str, values: &[f32], dims: &[usize]) -> Result<Self, Error> {
        Self::from_values(name, values, dims, DType::F32)
    }

    /// As [`from_f32`](Self::from_f32), rounded once to bf16 or f16 where that is wanted.
    pub(crate) fn from_values(name: &str, values: &[f32], dims: &[usize], dtype: DType) -> Result<Self, Error> {
        let bytes: Vec<u8> = match dtype {
            DType::Bf16 => {
                let mut bytes = vec![0; 2 * values.len()];
                for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *bytes = luthier_tensor::bf16_bits(*value).to_le_bytes();
                }
                bytes
            }
            DType::F16 => values.iter().flat_map(|&value| luthier_tensor::f16_bits(value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let dtype = if matches!(dtype, DType::Bf16 | DType::F16) { dtype } else { DType::F32 };
        let (rows, columns) = matrix(dims);
        if rows * columns != values.len() {
            return Err(Error::TensorShape {
                file: "memory".into(),
                tensor: name.into(),
                found: format!("{} values", values.len()),
                expected: crate::error::shape(dims),
            });
        }
        Self::new(&Arc::from("memory"), name, &aligned(&bytes), 0, dtype, dims.to_vec())
    }

    /// Row-major `[rows, columns]`; a vector is `[1, length]`.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The dimensions in the file, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The file that it came from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        let length = self.dtype.bytes(self.tensor.columns()) * self.tensor.rows();
        &(*self.bytes).as_ref()[self.offset..self.offset + length]
    }

    /// The values, of a tensor that is stored as floating-point numbers.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let bytes = self.bytes();
        let halves = || bytes.chunks_exact(2).map(|half| u16::from_le_bytes([half[0], half[1]]));
        match self.dtype {
            DType::F32 => Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            DType::Bf16 => Some(halves().map(|half| f32::from_bits(u32::from(half) << 16)).collect()),
            DType::F16 => Some(halves().map(half_to_f32).collect()),
            _ => None,
        }
    }

    /// The rows in another order: row `i` of the result is row `source(i)` of this.
    pub(crate) fn with_rows(&self, name: &str, source: impl Fn(usize) -> usize) -> Result<Self, Error> {
        // A vector has one number in each place where a matrix has a row.
        let places = if self.dims.len() == 1 { self.dims[0] } else { self.tensor.rows() };
        let bytes = self.bytes();
        let width = bytes.len().checked_div(places).unwrap_or(0);
        let mut moved = Vec::with_capacity(bytes.len());
        for place in 0..places {
            let start = source(place) * width;
            moved.extend_from_slice(&bytes[start..start + width]);
        }
        Self::new(&self.file, name, &aligned(&moved), 0, self.dtype, self.dims.clone())
    }
}

impl std::fmt::Debug for StoredTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims)
    }
}

/// Rows and columns: the last dimensions lie side by side.
fn matrix(dims: &[usize]) -> (usize, usize) {
    match dims {
        [] => (1, 1),
        [length] => (1, *length),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}

fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10 & 0x1f);
    let fraction = u32::from(half & 0x3ff);
    match exponent {
        // Zero and subnormals: the fraction counts steps of 2^-24.
        0 => f32::from_bits(sign) + f32::from_bits(sign | 0x3f80_0000) * fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// Bytes that start on a cache line.
struct Aligned {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

/// A copy that starts on a cache line.
fn aligned(bytes: &[u8]) -> SharedBytes {
    const LINE: usize = 64;
    let mut storage = vec![0; bytes.len() + LINE];
    let start = storage.as_ptr().addr().next_multiple_of(LINE) - storage.as_ptr().addr();
    storage[start..start + bytes.len()].copy_from_slice(bytes);
    Arc::new(Aligned { storage, start, length: bytes.len() })
}
