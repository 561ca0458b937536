//! What tuning adds to a model, as files.

pub mod peft;
mod settings;
mod target;

pub use peft::{LoraAdapter, LoraPair, adapter_config, adapter_shard};
pub use settings::AdapterSettings;
pub use target::{TargetModules, matches_target};
