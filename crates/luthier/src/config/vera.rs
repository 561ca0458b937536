//! What the settings of VeRA say.

use super::Targets;
use super::check::Check;

/// VeRA as PEFT defines it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VeraSettings {
    /// 1 or more.
    pub(crate) rank: usize,
    /// From 0 to below 1.
    pub(crate) dropout: f64,
    /// What d begins with; not 0.
    pub(crate) start: f64,
    pub(crate) key: u64,
    pub(crate) saves_matrices: bool,
    pub(crate) targets: Targets,
    pub(crate) modules_to_save: Vec<String>,
}

impl Check<'_> {
    pub(super) fn vera(&mut self) -> VeraSettings {
        let start = self.number("d_initial");
        if start == 0.0 {
            self.problem("d_initial", "d_initial is 0, so no gradient would reach b; expected more than 0");
        }
        VeraSettings {
            rank: self.count("vera_rank"),
            dropout: self.share_to_drop("vera_dropout"),
            start,
            key: self.settings.whole("projection_prng_key").and_then(|key| u64::try_from(key).ok()).unwrap_or_default(),
            saves_matrices: self.is_on("save_projection"),
            targets: self.targets("target_modules", &["q_proj", "v_proj"]),
            modules_to_save: self.settings.names("additional_target").to_vec(),
        }
    }
}
