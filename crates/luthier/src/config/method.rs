//! Which method `finetuning_type` names. What each method's own settings say is in the file of its name.

use luthier_model::FreezeSettings;
use luthier_model::adapter::PromptKind;

use super::check::Check;
use super::{BottleneckSettings, Ia3Settings, LoraSettings, OftSettings, PromptSettings, VeraSettings};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Method {
    Lora(LoraSettings),
    Full,
    Freeze(FreezeSettings),
    /// The biases alone.
    BitFit,
    Ia3(Ia3Settings),
    Vera(VeraSettings),
    Oft(OftSettings),
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
            Self::BitFit => "bitfit",
            Self::Ia3(_) => "ia3",
            Self::Vera(_) => "vera",
            Self::Oft(_) => "oft",
            Self::Prompt(prompt) => prompt.kind.method(),
            Self::Bottleneck(_) => "bottleneck",
        }
    }
}

/// The values of `finetuning_type` that make an adapter.
pub(super) const ADAPTERS: [&str; 8] = ["lora", "ia3", "vera", "oft", "prefix", "prompt", "p_tuning", "bottleneck"];

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
            "ia3" => Method::Ia3(self.ia3()),
            "vera" => Method::Vera(self.vera()),
            "oft" => Method::Oft(self.oft()),
            "prefix" => Method::Prompt(self.prompt(PromptKind::Prefix)),
            "prompt" => Method::Prompt(self.prompt(PromptKind::Prompt)),
            "p_tuning" => Method::Prompt(self.prompt(PromptKind::PTuning)),
            "bottleneck" => Method::Bottleneck(self.bottleneck()),
            _ => Method::Lora(self.lora()),
        }
    }
}
