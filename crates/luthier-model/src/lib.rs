//! Model families as data, the files they come in, and the one decoder that they are expressed in. Loading is a function
//! of bytes: this crate opens no file.

pub mod adapter;
pub mod checkpoint;
pub mod config;
mod error;
pub mod families;

pub use adapter::Adapter;
pub use checkpoint::Checkpoint;
pub use error::Error;

mod bottleneck;
mod decoder;
mod generate;
mod merge;
mod parameters;
mod prompt;
mod rotary;
mod sampler;
mod tuning;

pub use decoder::{Decoder, Inputs, Recomputed};
pub use generate::{Generator, most_likely};
pub use merge::Merged;
pub use parameters::{Parameter, Parameters};
pub use sampler::Sampler;
pub use tuning::{
    BottleneckSettings, FreezeSettings, LoraSettings, PartialError, Pissa, PromptSettings, TrainedLayers, Tuning,
    added_targets, biases,
};
