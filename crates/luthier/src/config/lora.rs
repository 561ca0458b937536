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
    /// DoRA.
    pub(crate) magnitudes: bool,
    /// PiSSA: never with [`magnitudes`](Self::magnitudes).
    pub(crate) pissa: Option<Rounds>,
    /// How much faster B learns: LoRA+. More than 0.
    pub(crate) up_rate: f64,
    /// Whole numbers of 1 or more, by ends of paths.
    pub(crate) ranks: Vec<(String, f64)>,
    /// More than 0, by ends of paths.
    pub(crate) alphas: Vec<(String, f64)>,
}

/// In how many rounds singular values are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    UntilExact,
    Number(usize),
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
        let dropout = self.share_to_drop("lora_dropout");
        let magnitudes = self.is_on("use_dora");
        if magnitudes && dropout > 0.0 {
            self.problem("use_dora", "use_dora needs lora_dropout: 0; DoRA with dropout is not there yet");
        }
        let pissa = self.is_on("pissa_init").then(|| match self.settings.whole("pissa_iter").unwrap_or(16) {
            ..0 => Rounds::UntilExact,
            rounds => Rounds::Number(rounds as usize),
        });
        if pissa.is_some() && magnitudes {
            self.problem("pissa_init", "pissa_init and use_dora exclude one another; expected one of them");
        }
        if pissa.is_some() && self.settings.is_given("adapter_name_or_path") {
            self.problem(
                "pissa_init",
                "pissa_init begins from the weights and adapter_name_or_path from an adapter; expected one of them",
            );
        }
        let up_rate = self.settings.number("loraplus_lr_ratio").unwrap_or(1.0);
        if up_rate == 0.0 {
            self.problem("loraplus_lr_ratio", "loraplus_lr_ratio is 0, so B would stay zero; expected more than 0");
        }
        LoraSettings {
            rank,
            alpha,
            dropout,
            targets: self.targets("lora_target", &[]),
            rank_stabilised: self.is_on("use_rslora"),
            modules_to_save: self.settings.names("additional_target").to_vec(),
            added_blocks: self.added_blocks(),
            magnitudes,
            pissa,
            up_rate,
            ranks: self
                .pattern("rank_pattern", "a whole number of 1 or more", |rank| rank >= 1.0 && rank.fract() == 0.0),
            alphas: self.pattern("alpha_pattern", "a number above 0", |alpha| alpha > 0.0),
        }
    }

    /// Numbers by the ends of paths.
    fn pattern(&mut self, name: &str, expected: &str, fits: impl Fn(f64) -> bool) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        for (path, text) in self.settings.options(name).to_vec() {
            match text.parse::<f64>().ok().filter(|number| number.is_finite() && fits(*number)) {
                Some(number) => found.push((path, number)),
                None => self.problem(name, format!("{name} gives {path} {text:?}; expected {expected}")),
            }
        }
        found
    }

    /// Modules by name; `otherwise` where none was given.
    pub(super) fn targets(&mut self, name: &str, otherwise: &[&str]) -> Targets {
        let mut names = self.settings.names(name).to_vec();
        if names.is_empty() && !self.settings.is_given(name) {
            names = otherwise.iter().map(|&name| name.to_owned()).collect();
        }
        if names.is_empty() {
            self.problem(name, format!("{name} names no layer; expected names such as q_proj,v_proj, or all"));
        }
        if names.iter().any(|name| name == "all") { Targets::All } else { Targets::Named(names) }
    }

    pub(super) fn share_to_drop(&mut self, name: &str) -> f64 {
        let dropout = self.number(name);
        if dropout >= 1.0 {
            self.problem(name, format!("{name} is 1, so nothing would be left; expected less than 1"));
        }
        dropout
    }
}
