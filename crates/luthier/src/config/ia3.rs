//! What the settings of IA3 say.

use super::Targets;
use super::check::Check;

/// Which modules IA3 scales.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ia3Settings {
    pub(crate) targets: Targets,
    /// Those of them whose input is scaled; may be empty.
    pub(crate) feedforward: Vec<String>,
    pub(crate) modules_to_save: Vec<String>,
}

impl Check<'_> {
    /// The defaults are PEFT's for Llama.
    pub(super) fn ia3(&mut self) -> Ia3Settings {
        Ia3Settings {
            targets: self.targets("target_modules", &["k_proj", "v_proj", "down_proj"]),
            feedforward: self.settings.names("feedforward_modules").to_vec(),
            modules_to_save: self.settings.names("additional_target").to_vec(),
        }
    }
}
