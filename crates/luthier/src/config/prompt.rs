//! What the settings of learned prefixes and prompts say.

use luthier_model::adapter::PromptKind;

use super::check::Check;

/// A learned prefix or prompt as PEFT defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PromptSettings {
    pub(crate) kind: PromptKind,
    /// 1 or more.
    pub(crate) virtual_tokens: usize,
    pub(crate) network: NetworkSettings,
    pub(crate) start: PromptStart,
}

/// What makes the virtual tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkSettings {
    /// They are trained themselves.
    None,
    /// A small network of this width inside; `None`: as wide as what it takes.
    Width(Option<usize>),
}

/// What a prompt begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptStart {
    Random,
    Vocabulary,
    /// Never empty.
    Text(String),
}

impl Check<'_> {
    pub(super) fn prompt(&mut self, kind: PromptKind) -> PromptSettings {
        let has_network = match kind {
            PromptKind::Prefix => self.is_on("prefix_projection"),
            PromptKind::Prompt => false,
            PromptKind::PTuning => true,
        };
        let network = match has_network {
            true => NetworkSettings::Width(self.optional_count("encoder_hidden_size")),
            false => NetworkSettings::None,
        };
        let text = self.settings.text("prompt_tuning_init_text").unwrap_or_default().to_owned();
        let start = match self.settings.text("prompt_tuning_init") {
            Some("SAMPLE_VOCAB") => PromptStart::Vocabulary,
            Some("RANDOM") => PromptStart::Random,
            Some("TEXT") if text.is_empty() => {
                self.problem(
                    "prompt_tuning_init",
                    "prompt_tuning_init: TEXT needs prompt_tuning_init_text, which is empty",
                );
                PromptStart::Random
            }
            _ if text.is_empty() => PromptStart::Random,
            _ => PromptStart::Text(text.clone()),
        };
        if !text.is_empty() && !matches!(start, PromptStart::Text(_)) {
            self.problem("prompt_tuning_init_text", "prompt_tuning_init_text needs prompt_tuning_init: TEXT");
        }
        PromptSettings { kind, virtual_tokens: self.count("num_virtual_tokens"), network, start }
    }
}
