//! Which method `finetuning_type` names. What each method's own settings say is in the file of its name.

use super::check::Check;
use super::{FreezeLayers, Ia3Settings, LoraSettings, OftSettings, VeraSettings};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    Lora(LoraSettings),
    Full,
    Freeze(FreezeLayers),
    Ia3(Ia3Settings),
    Vera(VeraSettings),
    Oft(OftSettings),
}

impl Method {
    /// The value of `finetuning_type`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Full => "full",
            Self::Freeze(_) => "freeze",
            Self::Ia3(_) => "ia3",
            Self::Vera(_) => "vera",
            Self::Oft(_) => "oft",
        }
    }
}

/// The values of `finetuning_type` that make an adapter.
pub(super) const ADAPTERS: [&str; 4] = ["lora", "ia3", "vera", "oft"];

impl Check<'_> {
    pub(super) fn method(&mut self) -> Method {
        match self.settings.text("finetuning_type") {
            Some("full") => Method::Full,
            Some("freeze") => Method::Freeze(self.freeze()),
            Some("ia3") => Method::Ia3(self.ia3()),
            Some("vera") => Method::Vera(self.vera()),
            Some("oft") => Method::Oft(self.oft()),
            _ => Method::Lora(self.lora()),
        }
    }
}
