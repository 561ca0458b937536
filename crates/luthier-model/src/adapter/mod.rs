//! What tuning adds to a model, as files.

pub mod peft;
mod settings;
mod target;

pub use peft::{AdapterTensor, LoraAdapter, LoraPair, write_adapter};
pub use settings::AdapterSettings;
pub use target::{TargetModules, matches_target};
