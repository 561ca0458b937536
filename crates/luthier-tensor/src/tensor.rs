//! A tensor: a row-major matrix of one storage type in shared memory. Every value of the engine is one: activations are
//! `[tokens, width]`, weights `[out_features, in_features]`, vectors `[1, length]`. It has no operators of its own; devices
//! act on it. A clone is a second handle on the same memory.

use std::sync::Arc;

use crate::DType;
use crate::cpu::Coding;
use crate::memory::Memory;
use crate::nested::NestedScales;

/// Read-only bytes that outlive every tensor made of them, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A row-major matrix `[rows, columns]`.
#[derive(Clone)]
pub struct Tensor {
    memory: Memory,
    byte_offset: usize,
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Of a doubly quantised matrix.
    nested: Option<Arc<NestedScales>>,
}

/// Why bytes cannot be a tensor.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {dtype} tensor of {rows} x {columns} needs {expected} bytes, found {found}")]
pub struct SizeError {
    /// The storage type asked for.
    pub dtype: DType,
    /// Rows asked for.
    pub rows: usize,
    /// Columns asked for; a multiple of the storage type's block length.
    pub columns: usize,
    /// Bytes that such a tensor occupies.
    pub expected: usize,
    /// Bytes given.
    pub found: usize,
}

impl Tensor {
    /// A tensor over `bytes[byte_offset..][..byte_length]`, which are never written.
    ///
    /// # Errors
    /// When the length does not fit the shape, a row is no whole number of blocks, or the range is outside the bytes.
    pub fn from_shared(
        bytes: SharedBytes,
        byte_offset: usize,
        byte_length: usize,
        dtype: DType,
        rows: usize,
        columns: usize,
    ) -> Result<Self, SizeError> {
        let expected = dtype.bytes(columns).saturating_mul(rows);
        let available = (*bytes).as_ref().len().saturating_sub(byte_offset).min(byte_length);
        if expected != available || available != byte_length || !columns.is_multiple_of(dtype.block_len()) {
            return Err(SizeError { dtype, rows, columns, expected, found: available });
        }
        Ok(Self { memory: Memory::Shared(bytes), byte_offset, dtype, rows, columns, nested: None })
    }

    /// A doubly quantised matrix with what decodes its scales: an offset, and one number for each 256 blocks.
    ///
    /// # Panics
    /// When the storage type has no such scales, or their count is another: both are chosen by code.
    #[must_use]
    pub fn with_nested_scales(self, offset: f32, scales: Arc<[f32]>) -> Self {
        let blocks = self.len() / self.dtype.block_len();
        assert!(self.dtype.has_nested_scales(), "nested scales of {self:?}");
        assert_eq!(scales.len(), blocks.div_ceil(crate::nested::GROUP), "nested scales of {self:?}");
        let nested = NestedScales::new(self.address(), self.dtype.block_bytes(), offset, scales);
        Self { nested: Some(Arc::new(nested)), ..self }
    }

    /// What decodes the scales of a doubly quantised matrix.
    pub fn nested_scales(&self) -> Option<&NestedScales> {
        self.nested.as_deref()
    }

    /// How kernels read its numbers.
    ///
    /// # Panics
    /// When it is doubly quantised and was made without its scales.
    pub(crate) fn coding(&self) -> Coding {
        Coding::new(self.dtype, self.nested.as_deref())
    }

    pub(crate) fn from_memory(memory: Memory, dtype: DType, rows: usize, columns: usize) -> Self {
        Self { memory, byte_offset: 0, dtype, rows, columns, nested: None }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What tells it from all other tensors that live, whether it has memory or not.
    pub(crate) fn identity(&self) -> (usize, usize) {
        match &self.memory {
            Memory::Deferred(deferred) => (Arc::as_ptr(deferred).addr(), self.byte_offset + 1),
            Memory::Owned(_) | Memory::Shared(_) => (self.address().addr(), 0),
        }
    }

    /// This matrix and `next` below it as one, when `next` begins where this one ends in the same memory.
    pub(crate) fn join_below(&self, next: &Self) -> Option<Self> {
        let (Memory::Owned(left), Memory::Owned(right)) = (&self.memory, &next.memory) else { return None };
        let adjacent = Arc::ptr_eq(left, right)
            && self.dtype == next.dtype
            && self.columns == next.columns
            && self.byte_offset + self.bytes() == next.byte_offset;
        adjacent.then(|| Self { rows: self.rows + next.rows, ..self.clone() })
    }

    /// The beginning of the same memory as `[rows, columns]`.
    pub(crate) fn prefix(&self, rows: usize, columns: usize) -> Self {
        assert!(rows.checked_mul(columns).is_some_and(|len| len <= self.len()), "{rows} x {columns} of {self:?}");
        Self { rows, columns, ..self.clone() }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, in numbers.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Numbers in all.
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// True when there is no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the numbers, without what else the memory holds.
    pub fn bytes(&self) -> usize {
        self.dtype.bytes(self.columns) * self.rows
    }

    /// Rows `first .. first + count` of the same memory.
    ///
    /// # Panics
    /// When the rows are not there: a slice is chosen by code, never by input.
    pub fn slice_rows(&self, first: usize, count: usize) -> Self {
        let there = first.checked_add(count).is_some_and(|end| end <= self.rows);
        assert!(there, "{count} rows from {first} on of a tensor with {} rows", self.rows);
        let byte_offset = self.byte_offset + first * self.dtype.bytes(self.columns);
        Self { byte_offset, rows: count, ..self.clone() }
    }

    /// The same memory as `[rows, columns]`.
    ///
    /// # Panics
    /// When the number of numbers differs.
    pub fn reshape(&self, rows: usize, columns: usize) -> Self {
        assert_eq!(
            rows.checked_mul(columns),
            Some(self.len()),
            "reshape {}x{} to {rows}x{columns}",
            self.rows,
            self.columns
        );
        Self { rows, columns, ..self.clone() }
    }

    pub(crate) fn address(&self) -> *const u8 {
        self.memory.address().wrapping_add(self.byte_offset)
    }

    pub(crate) fn address_mut(&self) -> *mut u8 {
        assert!(self.memory.is_writable(), "a tensor over shared read-only bytes is never an output");
        self.address().cast_mut()
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}, {}]", self.dtype, self.rows, self.columns)
    }
}
