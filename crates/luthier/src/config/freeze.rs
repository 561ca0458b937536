//! Which part of a model is trained: `finetuning_type: freeze` and LLaMA-Pro's added blocks.

use luthier_model::{FreezeSettings, TrainedLayers};

use super::check::Check;

impl Check<'_> {
    pub(super) fn freeze(&mut self) -> FreezeSettings {
        let mut modules = self.settings.names("freeze_trainable_modules").to_vec();
        if modules.is_empty() {
            self.problem(
                "freeze_trainable_modules",
                "freeze_trainable_modules names no module; expected names such as mlp,self_attn, or all",
            );
        }
        if modules.iter().any(|name| name == "all") {
            modules.clear();
        }
        let extra_modules = self.settings.names("freeze_extra_modules").to_vec();
        let layers = self.trained_layers();
        if layers == TrainedLayers::None && extra_modules.is_empty() {
            self.problem(
                "freeze_trainable_layers",
                "freeze_trainable_layers is 0, so nothing would be trained; expected a number of layers, or \
                 freeze_extra_modules besides",
            );
        }
        FreezeSettings { layers, modules, extra_modules }
    }

    fn trained_layers(&mut self) -> TrainedLayers {
        if let Some(interval) = self.optional_count("freeze_layer_interval") {
            for (name, is_set) in [
                ("freeze_trainable_layers", self.settings.is_given("freeze_trainable_layers")),
                ("use_llama_pro", self.is_on("use_llama_pro")),
            ] {
                if is_set {
                    self.problem(
                        "freeze_layer_interval",
                        format!("freeze_layer_interval and {name} exclude one another; expected one of them"),
                    );
                }
            }
            return TrainedLayers::Every(interval);
        }
        if let Some(added) = self.added_blocks() {
            return TrainedLayers::Added(added);
        }
        let layers = self.settings.whole("freeze_trainable_layers").unwrap_or_default();
        let count = usize::try_from(layers.unsigned_abs()).unwrap_or(usize::MAX);
        match layers {
            0 => TrainedLayers::None,
            ..0 => TrainedLayers::First(count),
            1.. => TrainedLayers::Last(count),
        }
    }

    /// With `use_llama_pro`: how many blocks the model was expanded by.
    pub(super) fn added_blocks(&mut self) -> Option<usize> {
        if !self.is_on("use_llama_pro") {
            return None;
        }
        let layers = self.settings.whole("freeze_trainable_layers").unwrap_or_default();
        if layers < 1 {
            self.problem(
                "freeze_trainable_layers",
                format!(
                    "freeze_trainable_layers is {layers}; with use_llama_pro expected the number of blocks that were added, \
                     1 or more"
                ),
            );
        }
        Some(usize::try_from(layers).unwrap_or(1).max(1))
    }
}
