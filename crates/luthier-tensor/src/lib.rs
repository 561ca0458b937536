//! Tensors, the fused operations with their derivatives, the tape, and the devices that run them. A model is written once
//! as a forward pass over these operations; `cpu` computes it and `meta` counts what it will need. This crate reads no
//! file, no clock and no environment variable, and prints nothing.

mod activation;
mod adamw;
mod cpu;
mod device;
mod dtype;
mod finality;
mod layout;
mod memory;
mod ops;
mod segment;
mod tape;
mod tensor;

pub use activation::Activation;
pub use adamw::{AdamW, Bf16State, Rounding};
pub use cpu::{Isa, bf16_bits, f16_bits};
pub use device::{CpuOptions, Device, DeviceError, Observer};
pub use dtype::DType;
pub use layout::{HeadLayout, HeadOrder};
pub use memory::{OutOfMemory, Usage};
pub use ops::{
    AdapterRows, AdapterTerm, AttentionOptions, HeadNormWeights, HeadOptions, HeadOutputs, HeadRequest, KeyValues,
    LinearInput, OUTPUTS, Projection, Residual, RotaryTables, RowScale, TopK,
};
pub use segment::{KeyRange, Segment};
pub use tape::{Dropout, EmbeddingNoise, Precision, Tape, Var, Weight};
pub use tensor::{SharedBytes, SizeError, Tensor};
