//! Which method `finetuning_type` names. What each method's own settings say is in the file of its name.

use luthier_model::adapter::PromptKind;

use super::check::Check;
use super::{BottleneckSettings, FreezeLayers, LoraSettings, PromptSettings};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    Lora(LoraSettings),
    Full,
    Freeze(FreezeLayers),
    Prompt(PromptSettings),
    Bottleneck(BottleneckSettings),
}

impl Method {
    /// The value of `finetuning_type`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Full => "full",
            Self::Freeze(_) => "freeze",
            Self::Prompt(prompt) => prompt.kind.method(),
            Self::Bottleneck(_) => "bottleneck",
        }
    }
}

/// The values of `finetuning_type` that make an adapter.
pub(super) const ADAPTERS: [&str; 5] = ["lora", "prefix", "prompt", "p_tuning", "bottleneck"];

impl Check<'_> {
    pub(super) fn method(&mut self) -> Method {
        match self.settings.text("finetuning_type") {
            Some("full") => Method::Full,
            Some("freeze") => Method::Freeze(self.freeze()),
            Some("prefix") => Method::Prompt(self.prompt(PromptKind::Prefix)),
            Some("prompt") => Method::Prompt(self.prompt(PromptKind::Prompt)),
            Some("p_tuning") => Method::Prompt(self.prompt(PromptKind::PTuning)),
            Some("bottleneck") => Method::Bottleneck(self.bottleneck()),
            _ => Method::Lora(self.lora()),
        }
    }
}
