//! Tensors, the fused operations with their derivatives, the tape, and the devices that run them. A model is written once
//! as a forward pass over these operations; `cpu` computes it and `meta` counts what it will need. This crate reads no
//! file, no clock and no environment variable, and prints nothing.

mod activation;
mod adamw;
mod cpu;
mod deferred;
mod device;
mod dtype;
mod finality;
mod layout;
mod memory;
mod nested;
mod ops;
mod optimisers;
mod segment;
mod tape;
mod tensor;

pub use activation::Activation;
pub use adamw::{AdamW, Bf16State, Rounding};
pub use cpu::{Isa, QuantiseError, Quantised, bf16_bits, encode_blocks, f16_bits, quantise};
pub use device::{CpuOptions, Device, DeviceError, Observer};
pub use dtype::DType;
pub use layout::{HeadLayout, HeadOrder};
pub use memory::{OutOfMemory, Usage};
pub use nested::NestedScales;
pub use ops::{
    AdapterRows, AdapterTerm, AttentionOptions, HeadNormWeights, HeadOptions, HeadOutputs, HeadRequest, InputMap,
    InputMapKind, KeyValues, LinearInput, Norm, OUTPUTS, Projection, Residual, RotaryTables, RotationSeries, RowScale,
    RowScaleKind, TopK,
};
pub use optimisers::{
    Adafactor, AdamMini, Apollo, BLOCK as EIGHT_BIT_BLOCK, EightBitMoments, Galore, Gate, Lion, LowMoments, Muon,
    ProjectionSource, ScheduleFree, Sgd, Side, SquareMeans, dynamic_map,
};
pub use segment::{KeyRange, Segment};
pub use tape::{Dropout, EmbeddingNoise, Precision, Tape, Var, Weight};
pub use tensor::{SharedBytes, SizeError, Tensor};
