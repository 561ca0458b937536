//! What the settings of low-rank adapters say.

use super::check::Check;

/// A LoRA adapter as PEFT defines it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoraSettings {
    /// 1 or more.
    pub(crate) rank: usize,
    /// More than 0.
    pub(crate) alpha: f64,
    /// From 0 to below 1.
    pub(crate) dropout: f64,
    pub(crate) targets: Targets,
    pub(crate) rank_stabilised: bool,
    /// Modules that are trained whole and saved with the adapter.
    pub(crate) modules_to_save: Vec<String>,
    /// The blocks that the model was expanded by, where they alone get adapters.
    pub(crate) added_blocks: Option<usize>,
}

/// The linear layers that get an update.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Targets {
    /// Each but the head.
    All,
    /// Those whose path is or ends with one of these names; never empty.
    Named(Vec<String>),
}

impl Check<'_> {
    pub(super) fn lora(&mut self) -> LoraSettings {
        let rank = self.count("lora_rank");
        // As LLaMA-Factory reads it, an alpha of 0 is none.
        let alpha = self.settings.number("lora_alpha").filter(|alpha| *alpha > 0.0).unwrap_or(2.0 * rank as f64);
        let dropout = self.number("lora_dropout");
        if dropout >= 1.0 {
            self.problem("lora_dropout", "lora_dropout is 1, so nothing would be left; expected less than 1");
        }
        let names = self.settings.names("lora_target");
        let targets =
            if names.iter().any(|name| name == "all") { Targets::All } else { Targets::Named(names.to_vec()) };
        if names.is_empty() {
            self.problem("lora_target", "lora_target names no layer; expected names such as q_proj,v_proj, or all");
        }
        LoraSettings {
            rank,
            alpha,
            dropout,
            targets,
            rank_stabilised: self.is_on("use_rslora"),
            modules_to_save: self.settings.names("additional_target").to_vec(),
            added_blocks: self.added_blocks(),
        }
    }
}
