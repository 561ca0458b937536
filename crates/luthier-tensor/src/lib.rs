//! Tensors, storage types and kernels.

mod dtype;

pub use dtype::DType;
