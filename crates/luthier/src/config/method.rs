//! Which method `finetuning_type` names. What each method's own settings say is in the file of its name.

use super::check::Check;
use super::{FreezeLayers, LoraSettings};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    Lora(LoraSettings),
    Full,
    Freeze(FreezeLayers),
}

impl Method {
    /// The value of `finetuning_type`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Full => "full",
            Self::Freeze(_) => "freeze",
        }
    }
}

/// The values of `finetuning_type` that make an adapter.
pub(super) const ADAPTERS: [&str; 1] = ["lora"];

impl Check<'_> {
    pub(super) fn method(&mut self) -> Method {
        match self.settings.text("finetuning_type") {
            Some("full") => Method::Full,
            Some("freeze") => Method::Freeze(self.freeze()),
            _ => Method::Lora(self.lora()),
        }
    }
}
