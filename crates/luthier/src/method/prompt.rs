//! Learned prefixes and prompts as the engine takes them.

use luthier_data::Specials;
use luthier_model::PromptSettings;
use luthier_model::adapter::{self, PromptAdapter, PromptKind};

use crate::config::{self, NetworkSettings, PromptStart};
use crate::eprint_line;
use crate::model::Model;

/// An adapter that is trained on decides its own form.
pub(super) fn tuning(
    prompt: &config::PromptSettings,
    seed: u64,
    model: &Model,
    adapter: Option<&PromptAdapter>,
) -> anyhow::Result<PromptSettings> {
    let decoder = &model.checkpoint.model.decoder;
    if let Some(adapter) = adapter {
        let settings = PromptSettings::of(adapter, seed);
        if adapter.config.virtual_tokens != prompt.virtual_tokens {
            let tokens = adapter.config.virtual_tokens;
            eprint_line(&format!(
                "note: the adapter of adapter_name_or_path decides num_virtual_tokens, which is {tokens}"
            ));
        }
        if settings.config.network_width.is_none() && adapter.config.network_width.is_some() {
            eprint_line(
                "note: the adapter of adapter_name_or_path was made by a network that its file does not hold; what it made is \
                 trained on itself, without one",
            );
        }
        return Ok(settings);
    }
    let start = match &prompt.start {
        PromptStart::Random => adapter::PromptStart::Random,
        PromptStart::Vocabulary => adapter::PromptStart::Vocabulary,
        PromptStart::Text(text) => {
            let ids = model.tokenizer()?.encode(text, Specials::Add)?;
            adapter::PromptStart::Text { text: text.clone(), ids }
        }
    };
    let width = match prompt.kind {
        PromptKind::Prefix => decoder.key_value_heads * decoder.head_dim,
        PromptKind::Prompt | PromptKind::PTuning => decoder.hidden_size,
    };
    let network = match prompt.network {
        NetworkSettings::None => None,
        NetworkSettings::Width(inner) => Some(inner.unwrap_or(width)),
    };
    Ok(PromptSettings::new(prompt.kind, prompt.virtual_tokens, network, start, seed, decoder))
}
