//! A checkpoint whose frozen matrices are quantised on the way into memory: one tensor at a time, so that a model never lies
//! there as it was. As bitsandbytes does it under transformers, the linear layers within the model are, and the head, the
//! embedding, norms and biases stay what they are.

use std::sync::Arc;

use luthier_tensor::{DType, QuantiseError, SharedBytes, Tensor, quantise};

use super::{Checkpoint, StoredTensor};
use crate::error::Error;
use crate::families::ModelDescription;

/// How frozen matrices are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// `NF4` of bitsandbytes: the quantiles of a normal distribution.
    Nf4 {
        /// Whether the scales are quantised too.
        double: bool,
    },
    /// `FP4` of bitsandbytes: floating-point numbers of four bits.
    Fp4 {
        /// Whether the scales are quantised too.
        double: bool,
    },
    /// `Q8_0` of ggml: 8-bit integers, 32 of which share a scale. Not LLM.int8(), which has a scale a row and takes outliers
    /// of the activations apart.
    Int8,
}

impl Quantisation {
    /// The storage type.
    pub fn dtype(self) -> DType {
        match self {
            Self::Nf4 { double: false } => DType::Nf4,
            Self::Nf4 { double: true } => DType::Nf4Double,
            Self::Fp4 { double: false } => DType::Fp4,
            Self::Fp4 { double: true } => DType::Fp4Double,
            Self::Int8 => DType::Q8_0,
        }
    }
}

/// How a checkpoint is quantised.
#[derive(Clone, Copy)]
pub struct Quantiser<'q> {
    /// To what.
    pub quantisation: Quantisation,
    /// Threads that work.
    pub threads: usize,
    /// Told of bytes of the files that are not read again.
    pub release: &'q (dyn Fn(&[u8]) + Sync),
}

impl Quantiser<'_> {
    /// The tensor in blocks, if it is one of those that are quantised.
    ///
    /// # Errors
    /// When it is stored in blocks already, its rows are no whole number of blocks, or it has a number that is not finite.
    pub(crate) fn apply(
        &self,
        model: &ModelDescription,
        label: &str,
        name: &str,
        stored: &StoredTensor,
    ) -> Result<Option<StoredTensor>, Error> {
        if !is_quantised(model, name, stored.dims()) {
            return Ok(None);
        }
        let refused = |reason: String| Error::Quantise { label: label.to_owned(), tensor: name.to_owned(), reason };
        if stored.dtype().block_len() > 1 {
            return Err(refused(format!(
                "it is stored as {} already; leave quantization_bit out, and the model is trained as it is",
                stored.dtype()
            )));
        }
        let dtype = self.quantisation.dtype();
        let row_bytes = stored.dtype().bytes(stored.tensor().columns());
        let done = |rows: std::ops::Range<usize>| {
            (self.release)(&stored.bytes()[rows.start * row_bytes..rows.end * row_bytes]);
        };
        let quantised = quantise(stored.tensor(), dtype, self.threads, &done).map_err(|error| {
            let other = match error {
                QuantiseError::Columns { .. } if dtype != DType::Q8_0 => "; quantization_bit: 8 takes rows of 32",
                _ => "",
            };
            refused(format!("{error}{other}"))
        })?;
        stored.with_blocks(name, quantised, dtype).map(Some)
    }
}

impl Checkpoint {
    /// Quantises the linear layers within the model in place.
    ///
    /// # Errors
    /// When one of them is stored in blocks already, or cannot be stored as it is wished.
    pub fn quantise(&mut self, quantiser: &Quantiser) -> Result<(), Error> {
        for (name, stored) in &mut self.tensors {
            if let Some(quantised) = quantiser.apply(&self.model, &self.label, name, stored)? {
                *stored = quantised;
            }
        }
        Ok(())
    }
}

/// Whether a tensor is the matrix of a linear layer within the model.
fn is_quantised(model: &ModelDescription, name: &str, dims: &[usize]) -> bool {
    let is_table =
        [model.names.embedding, model.names.head].into_iter().any(|table| name.strip_suffix(".weight") == Some(table));
    dims.len() == 2 && !is_table
}

impl StoredTensor {
    fn with_blocks(&self, name: &str, quantised: luthier_tensor::Quantised, dtype: DType) -> Result<Self, Error> {
        let blocks: SharedBytes = Arc::new(quantised.blocks);
        let mut made = Self::new(&self.file, name, &blocks, 0, dtype, self.dims.clone())?;
        if let Some((offset, scales)) = quantised.nested {
            made.tensor = Tensor::with_nested_scales(made.tensor, offset, scales.into());
        }
        made.quantised = true;
        Ok(made)
    }

    /// Whether the numbers were quantised on the way into memory, where they now lie.
    pub fn was_quantised(&self) -> bool {
        self.quantised
    }

    /// Bytes that the numbers take, with the scales of doubly quantised ones.
    pub fn memory_bytes(&self) -> usize {
        self.bytes().len() + self.tensor.nested_scales().map_or(0, |nested| 4 * nested.scales().len())
    }
}
