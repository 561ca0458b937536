//! Which method `finetuning_type` names. What each method's own settings say is in the file of its name.

use luthier_model::FreezeSettings;

use super::LoraSettings;
use super::check::Check;

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    Lora(LoraSettings),
    Full,
    Freeze(FreezeSettings),
    /// The biases alone.
    BitFit,
}

impl Method {
    /// The value of `finetuning_type`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Full => "full",
            Self::Freeze(_) => "freeze",
            Self::BitFit => "bitfit",
        }
    }
}

/// The values of `finetuning_type` that make an adapter.
pub(super) const ADAPTERS: [&str; 1] = ["lora"];

impl Check<'_> {
    pub(super) fn method(&mut self) -> Method {
        let name = self.settings.text("finetuning_type").unwrap_or_default();
        if self.is_on("use_llama_pro") && !["freeze", "lora"].contains(&name) {
            self.problem("use_llama_pro", "use_llama_pro needs finetuning_type: freeze or lora");
        }
        match name {
            "full" => Method::Full,
            "freeze" => Method::Freeze(self.freeze()),
            "bitfit" => Method::BitFit,
            _ => Method::Lora(self.lora()),
        }
    }
}
