//! Where Luthier differs from LLaMA-Factory on purpose: a column of the table, told in two places. The page
//! `docs/differences.md` has all of it; a run begins by saying what of it is in effect and was not chosen.

use std::fmt::Write;

use super::table::SETTINGS;
use super::{Setting, Settings};

/// Why a row's default or meaning is not LLaMA-Factory's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    /// What holds here, where the default alone does not say it.
    pub(crate) here: &'static str,
    /// What holds there.
    pub(crate) there: &'static str,
    /// Why, as a whole sentence.
    pub(crate) why: &'static str,
    /// When a run says it.
    pub(crate) told: Told,
}

/// When a run says that it differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    /// Where the setting was not given.
    Always,
    /// Where the setting was not given and there is something to evaluate on.
    Evaluating,
    /// Never: it is said elsewhere, or no result changes by it.
    OnThePage,
}

/// The note that a run begins with, if anything differs that was not chosen.
pub(crate) fn note(settings: &Settings, evaluates: bool) -> Option<String> {
    let told = |setting: &&Setting| match setting.differs.map(|difference| difference.told) {
        Some(Told::Always) => true,
        Some(Told::Evaluating) => evaluates,
        Some(Told::OnThePage) | None => false,
    };
    // Settings by which another one is chosen too.
    let chosen = |name: &str| match name {
        "bf16" => settings.is_given("precision"),
        "eval_strategy" => settings.is_given("eval_steps"),
        _ => false,
    };
    let parts: Vec<String> = SETTINGS
        .iter()
        .filter(told)
        .filter(|setting| !settings.is_given(setting.name) && !chosen(setting.name))
        .filter_map(|setting| {
            let difference = setting.differs?;
            Some(format!("{} {} (there {})", setting.name, here(setting, &difference), difference.there))
        })
        .collect();
    (!parts.is_empty())
        .then(|| format!("defaults that are not LLaMA-Factory's: {}; see docs/differences.md", parts.join(", ")))
}

fn here(setting: &Setting, difference: &Difference) -> &'static str {
    if difference.here.is_empty() { setting.default } else { difference.here }
}

/// The page `docs/differences.md`.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# What differs from LLaMA-Factory\n\n\
         Settings have LLaMA-Factory's names, meanings and defaults (0.9.5), except for these, which differ on purpose. A\n\
         run begins by saying which of them are in effect and were not chosen. This page is written by `cargo xtask\n\
         settings` from the table in `crates/luthier/src/settings/table.rs`; tests compare it, and hold that every default\n\
         that differs has a row here. What is accepted without effect, and what is refused, is in\n\
         [settings.md](settings.md).\n\n\
         | key | Luthier | LLaMA-Factory | why |\n| --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        if let Some(difference) = &setting.differs {
            let here = here(setting, difference);
            let _ = writeln!(page, "| `{}` | {here} | {} | {} |", setting.name, difference.there, difference.why);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_one_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/differences.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page(), "docs/differences.md is not what the table says: run `cargo xtask settings`");
    }

    fn check(text: &str, evaluates: bool, expected: Option<&str>) {
        let settings = Settings::read("a.yaml", text, &[]).expect("valid");
        let note = note(&settings, evaluates);
        assert_eq!(note.as_deref(), expected, "{text}");
    }

    #[test]
    fn only_what_was_not_chosen_is_said() {
        const CHOSEN: &str = "save_steps: 500\nplot_loss: true\nprecision: auto\n";
        check(CHOSEN, false, None);
        check(
            "save_steps: 500\n",
            false,
            Some(
                "defaults that are not LLaMA-Factory's: bf16 as the processor allows (there false), plot_loss true \
                 (there false); see docs/differences.md",
            ),
        );
        check(
            &format!("{CHOSEN}eval_steps: 10\nmetric_for_best_model: loss\nload_best_model_at_end: false\n"),
            true,
            Some(
                "defaults that are not LLaMA-Factory's: early_stopping_steps 3 (there never); see docs/differences.md",
            ),
        );
    }
}
