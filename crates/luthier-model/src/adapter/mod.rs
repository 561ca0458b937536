//! What tuning adds to a model, as files.

pub mod peft;
mod target;

pub use peft::{AdapterSettings, AdapterTensor, LoraAdapter, LoraPair, write_adapter};
pub use target::{TargetModules, matches_target};
