//! What the settings say of the optimiser: LLaMA-Factory's switches, transformers' `optim`, and what they need.

use luthier_train::{
    AdafactorSettings, ApolloSettings, BadamSettings, BlockOrder, Clipping, GaloreSettings, LowRankSettings,
    MuonSettings, OptimiserKind, ProjectedSide, ScheduleFreeSettings, SgdSettings, Targets,
};

use super::check::Check;
use crate::settings::either;

/// How parameters are stepped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OptimiserSettings {
    /// `None`: by rule, which asks the model.
    pub(crate) learning_rate: Option<f64>,
    pub(crate) weight_decay: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    /// Norm that gradients are cut to; `None` leaves them.
    pub(crate) max_grad_norm: Option<f64>,
    /// Of Adam-mini without the model's heads, which are not known here.
    pub(crate) kind: OptimiserKind,
    pub(crate) clipping: Clipping,
    /// Factor of the rate from each layer to the one below.
    pub(crate) layer_decay: Option<f64>,
    /// Whether parameters are stepped on the way back. Only with one part a step, without clipping of all together.
    pub(crate) in_backward: bool,
}

/// Switches that choose an optimiser, and the names that `optim` may have beside each.
const SWITCHES: [&str; 5] = ["use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon"];
const ARGUMENTS: &str = "optim_args";

impl Check<'_> {
    pub(super) fn optimiser(&mut self) -> OptimiserSettings {
        for name in ["adam_beta1", "adam_beta2"] {
            if self.number(name) >= 1.0 {
                self.problem(name, format!("{name} is 1, so nothing would be learned; expected less than 1"));
            }
        }
        let kind = self.optimiser_kind();
        let max_grad_norm = Some(self.number("max_grad_norm")).filter(|norm| *norm > 0.0);
        let per_tensor = self.is_on("clip_per_tensor");
        OptimiserSettings {
            learning_rate: self.settings.number("learning_rate"),
            weight_decay: self.number("weight_decay"),
            beta1: self.number("adam_beta1"),
            beta2: self.number("adam_beta2"),
            epsilon: self.number("adam_epsilon"),
            max_grad_norm,
            in_backward: self.in_backward(max_grad_norm.is_some() && !per_tensor),
            kind,
            clipping: if per_tensor { Clipping::PerTensor } else { Clipping::Together },
            layer_decay: self.settings.number("layerwise_lr_decay"),
        }
    }

    fn optimiser_kind(&mut self) -> OptimiserKind {
        let name = self.settings.text("optim").unwrap_or_default().to_owned();
        let is_adamw = !name.contains("8bit") && (name.starts_with("adamw_") || name.starts_with("paged_adamw"));
        let chosen: Vec<&str> = SWITCHES.into_iter().filter(|switch| self.is_on(switch)).collect();
        if let [first, second, ..] = chosen.as_slice() {
            self.problem(second, format!("{first} and {second} exclude one another; expected one of them"));
        }
        if let Some(switch) = chosen.first().filter(|_| !is_adamw) {
            self.problem(
                "optim",
                format!("{switch} is an optimiser of its own; expected optim: adamw_torch beside it"),
            );
        }
        let kind = match chosen.first().copied() {
            Some("use_galore") => OptimiserKind::Galore(self.galore()),
            Some("use_apollo") => OptimiserKind::Apollo(self.apollo()),
            Some("use_badam") => OptimiserKind::Badam(self.badam()),
            Some("use_adam_mini") => OptimiserKind::AdamMini { head_dim: 1 },
            Some("use_muon") => self.muon(),
            _ => self.named_optimiser(&name),
        };
        let wants_weights = match kind {
            OptimiserKind::Galore(_) => "GaLore",
            OptimiserKind::Apollo(_) => "APOLLO",
            OptimiserKind::Badam(_) => "BAdam",
            _ => return kind,
        };
        if !matches!(self.settings.text("finetuning_type"), Some("full" | "freeze")) {
            let key = chosen.first().copied().unwrap_or("optim");
            let reason = match self.settings.text("finetuning_type") {
                Some("bitfit") => "biases are few already",
                _ => "an adapter's matrices are small already",
            };
            self.problem(key, format!("{wants_weights} needs finetuning_type: full or freeze, since {reason}"));
        }
        kind
    }

    fn named_optimiser(&mut self, name: &str) -> OptimiserKind {
        match name {
            "adamw_8bit" | "adamw_bnb_8bit" | "paged_adamw_8bit" => {
                self.no_arguments(name);
                OptimiserKind::AdamW8Bit
            }
            "lion_32bit" | "paged_lion_32bit" => {
                self.no_arguments(name);
                OptimiserKind::Lion
            }
            "adafactor" => OptimiserKind::Adafactor(self.adafactor()),
            "sgd" => OptimiserKind::Sgd(self.sgd()),
            "galore_adamw" | "galore_adamw_layerwise" => {
                let low_rank = self.low_rank_arguments(0.25, &["proj_type"]);
                let side = match self.argument("proj_type").as_deref() {
                    None | Some("std") => ProjectedSide::Shorter,
                    Some("reverse_std") => ProjectedSide::Longer,
                    Some("right") => ProjectedSide::Right,
                    Some("left") => ProjectedSide::Left,
                    Some(other) => {
                        let expected = either(&["std", "reverse_std", "right", "left"]);
                        self.problem(ARGUMENTS, format!("{ARGUMENTS}: proj_type is {other}; expected {expected}"));
                        ProjectedSide::Shorter
                    }
                };
                OptimiserKind::Galore(GaloreSettings { low_rank, side })
            }
            "apollo_adamw" | "apollo_adamw_layerwise" => {
                let low_rank = self.low_rank_arguments(1.0, &["proj", "scale_type", "proj_type"]);
                if self.argument("proj_type").is_some_and(|side| side != "std") {
                    self.problem(ARGUMENTS, format!("{ARGUMENTS}: proj_type of APOLLO can only be std"));
                }
                OptimiserKind::Apollo(ApolloSettings {
                    low_rank,
                    random: self.argument("proj").as_deref() != Some("svd"),
                    by_channel: self.argument("scale_type").as_deref() != Some("tensor"),
                    scale_front: false,
                })
            }
            "schedule_free_adamw" => {
                self.arguments(name, &["r", "weight_lr_power"]);
                let default = ScheduleFreeSettings::default();
                OptimiserKind::ScheduleFree(ScheduleFreeSettings {
                    power: self.number_argument("r").unwrap_or(default.power),
                    rate_power: self.number_argument("weight_lr_power").unwrap_or(default.rate_power),
                })
            }
            _ => {
                self.no_arguments(name);
                OptimiserKind::AdamW
            }
        }
    }

    fn galore(&mut self) -> GaloreSettings {
        self.no_arguments("use_galore");
        GaloreSettings {
            low_rank: LowRankSettings {
                targets: targets(self.settings.names("galore_target")),
                rank: self.count("galore_rank"),
                interval: self.count("galore_update_interval"),
                scale: self.number("galore_scale"),
            },
            side: match self.settings.text("galore_proj_type") {
                Some("reverse_std") => ProjectedSide::Longer,
                Some("right") => ProjectedSide::Right,
                Some("left") => ProjectedSide::Left,
                _ => ProjectedSide::Shorter,
            },
        }
    }

    fn apollo(&mut self) -> ApolloSettings {
        self.no_arguments("use_apollo");
        ApolloSettings {
            low_rank: LowRankSettings {
                targets: targets(self.settings.names("apollo_target")),
                rank: self.count("apollo_rank"),
                interval: self.count("apollo_update_interval"),
                scale: self.number("apollo_scale"),
            },
            random: self.settings.text("apollo_proj") != Some("svd"),
            by_channel: self.settings.text("apollo_scale_type") != Some("tensor"),
            scale_front: self.is_on("apollo_scale_front"),
        }
    }

    fn badam(&mut self) -> BadamSettings {
        self.no_arguments("use_badam");
        let interval = self.settings.whole("badam_switch_interval").unwrap_or(-1);
        if interval == 0 {
            self.problem("badam_switch_interval", "badam_switch_interval is 0; expected a number of steps, or -1");
        }
        BadamSettings {
            start: self.optional_count("badam_start_block"),
            order: match self.settings.text("badam_switch_mode") {
                Some("descending") => BlockOrder::Descending,
                Some("random") => BlockOrder::Random,
                Some("fixed") => BlockOrder::Fixed,
                _ => BlockOrder::Ascending,
            },
            interval: u32::try_from(interval).ok().filter(|interval| *interval > 0),
        }
    }

    fn muon(&mut self) -> OptimiserKind {
        self.arguments("use_muon", &["momentum", "nesterov", "ns_steps", "adjust_lr_fn"]);
        let default = MuonSettings::default();
        let matches_adamw = match self.argument("adjust_lr_fn").as_deref() {
            None | Some("match_rms_adamw") => true,
            Some("original") => false,
            Some(other) => {
                let expected = either(&["match_rms_adamw", "original"]);
                self.problem(ARGUMENTS, format!("{ARGUMENTS}: adjust_lr_fn is {other}; expected {expected}"));
                true
            }
        };
        OptimiserKind::Muon(MuonSettings {
            momentum: self.share_argument("momentum").unwrap_or(default.momentum),
            nesterov: self.switch_argument("nesterov").unwrap_or(default.nesterov),
            iterations: self.number_argument("ns_steps").map_or(default.iterations, |steps| steps as usize),
            matches_adamw,
        })
    }

    fn adafactor(&mut self) -> AdafactorSettings {
        let known = [
            "scale_parameter",
            "relative_step",
            "warmup_init",
            "clip_threshold",
            "decay_rate",
            "beta1",
            "eps1",
            "eps2",
        ];
        self.arguments("adafactor", &known);
        let default = AdafactorSettings::default();
        let relative_step = self.switch_argument("relative_step").unwrap_or(false);
        let warmup_init = self.switch_argument("warmup_init").unwrap_or(false);
        if warmup_init && !relative_step {
            self.problem(ARGUMENTS, format!("{ARGUMENTS}: warmup_init=true needs relative_step=true"));
        }
        AdafactorSettings {
            epsilon: self.number_argument("eps1").unwrap_or(default.epsilon),
            least_scale: self.number_argument("eps2").unwrap_or(default.least_scale),
            clip_threshold: self.number_argument("clip_threshold").unwrap_or(default.clip_threshold),
            decay_rate: self.signed_argument("decay_rate").unwrap_or(default.decay_rate),
            beta_1: self.share_argument("beta1"),
            scale_parameter: self.switch_argument("scale_parameter").unwrap_or(default.scale_parameter),
            relative_step,
            warmup_init,
        }
    }

    fn sgd(&mut self) -> SgdSettings {
        self.arguments("sgd", &["momentum", "dampening", "nesterov"]);
        let found = SgdSettings {
            momentum: self.share_argument("momentum").unwrap_or(0.0),
            dampening: self.number_argument("dampening").unwrap_or(0.0),
            nesterov: self.switch_argument("nesterov").unwrap_or(false),
        };
        if found.nesterov && (found.momentum == 0.0 || found.dampening != 0.0) {
            self.problem(ARGUMENTS, format!("{ARGUMENTS}: nesterov=true needs a momentum and no dampening"));
        }
        found
    }

    /// `rank`, `update_proj_gap` and `scale`, with what `optim_target_modules` says.
    fn low_rank_arguments(&mut self, scale: f64, more: &[&str]) -> LowRankSettings {
        let known: Vec<&str> = ["rank", "update_proj_gap", "scale"].into_iter().chain(more.iter().copied()).collect();
        self.arguments("optim", &known);
        let named = self.settings.names("optim_target_modules").to_vec();
        if named.is_empty() {
            self.problem(
                "optim_target_modules",
                "optim_target_modules is missing; expected parts of names such as q_proj,mlp, or all-linear",
            );
        }
        if let Some(pattern) = named.iter().find(|name| name.contains(['*', '|', '(', '[', '^', '$', '+', '?'])) {
            let sentence = format!("optim_target_modules: {pattern:?} is a pattern; expected parts of names");
            self.problem("optim_target_modules", sentence);
        }
        LowRankSettings {
            targets: targets(&named),
            rank: self.number_argument("rank").map_or(128, |rank| (rank as usize).max(1)),
            interval: self.number_argument("update_proj_gap").map_or(200, |steps| (steps as usize).max(1)),
            scale: self.number_argument("scale").unwrap_or(scale),
        }
    }

    /// Whether parameters are stepped on the way back; `clips` when the norm of all gradients together is limited.
    fn in_backward(&mut self, clips: bool) -> bool {
        let keys = ["optimizer_in_bwd", "galore_layerwise", "apollo_layerwise"];
        let by_switch = [true, self.is_on("use_galore"), self.is_on("use_apollo")];
        let by_key =
            keys.into_iter().zip(by_switch).find(|(key, counts)| *counts && self.is_on(key)).map(|(key, _)| key);
        let by_name = self.settings.text("optim").filter(|name| name.ends_with("_layerwise")).map(|_| "optim");
        let Some(key) = by_key.or(by_name) else { return false };
        let what = match key {
            "optim" => "a layerwise optim".to_owned(),
            key => format!("{key}: true"),
        };
        if !matches!(self.settings.text("finetuning_type"), Some("full" | "freeze")) {
            let sentence =
                format!("{what} needs finetuning_type: full or freeze, since the gradients of adapters are small");
            self.problem(key, sentence);
        }
        let accumulation = self.count("gradient_accumulation_steps");
        if accumulation > 1 {
            let sentence = format!(
                "{what} steps each parameter as soon as its gradient is there, so a step can have one batch only; \
                 gradient_accumulation_steps is {accumulation}, expected 1"
            );
            self.problem(key, sentence);
        }
        if clips {
            let sentence = format!(
                "{what} never has all gradients together, so their norm cannot be limited; expected max_grad_norm: 0, or \
                 clip_per_tensor: true"
            );
            self.problem(key, sentence);
        }
        true
    }

    fn no_arguments(&mut self, of: &str) {
        self.arguments(of, &[]);
    }

    /// Notes what is given and not known.
    fn arguments(&mut self, of: &str, known: &[&str]) {
        let given = self.settings.options(ARGUMENTS).to_vec();
        for (name, _) in given.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let expected = if known.is_empty() { "none".to_owned() } else { either(known) };
            self.problem(ARGUMENTS, format!("{ARGUMENTS} has {name}; {of} takes {expected}"));
        }
    }

    fn argument(&self, name: &str) -> Option<String> {
        self.settings.options(ARGUMENTS).iter().find(|(key, _)| key == name).map(|(_, text)| text.trim().to_owned())
    }

    fn number_where(&mut self, name: &str, expected: &str, fits: impl Fn(f64) -> bool) -> Option<f64> {
        let text = self.argument(name).filter(|text| text != "None" && text != "null")?;
        let found = text.parse().ok().filter(|number: &f64| number.is_finite() && fits(*number));
        if found.is_none() {
            self.problem(ARGUMENTS, format!("{ARGUMENTS}: {name} is {text}; expected {expected}"));
        }
        found
    }

    fn number_argument(&mut self, name: &str) -> Option<f64> {
        self.number_where(name, "a number of 0 or more", |number| number >= 0.0)
    }

    fn signed_argument(&mut self, name: &str) -> Option<f64> {
        self.number_where(name, "a number", |_| true)
    }

    fn share_argument(&mut self, name: &str) -> Option<f64> {
        self.number_where(name, "a number from 0 to below 1", |number| (0.0..1.0).contains(&number))
    }

    fn switch_argument(&mut self, name: &str) -> Option<bool> {
        let text = self.argument(name)?;
        match text.to_lowercase().as_str() {
            "true" | "1" | "yes" => Some(true),
            "false" | "0" | "no" => Some(false),
            _ => {
                self.problem(ARGUMENTS, format!("{ARGUMENTS}: {name} is {text}; expected true or false"));
                None
            }
        }
    }
}

fn targets(names: &[String]) -> Targets {
    let is_all = |name: &String| ["all", "all-linear", "all_linear"].contains(&name.as_str());
    if names.iter().any(is_all) { Targets::All } else { Targets::Named(names.to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use crate::settings::Settings;

    fn read(text: &str) -> Result<TrainConfig, Vec<String>> {
        let text = format!("model_name_or_path: m\ndataset: d\noutput_dir: o\nfinetuning_type: full\n{text}");
        Settings::read("a.yaml", &text, &[])
            .and_then(|settings| TrainConfig::from_settings(&settings))
            .map_err(|problems| problems.into_iter().map(|problem| problem.0).collect())
    }

    fn kind(text: &str) -> OptimiserKind {
        read(text).expect(text).optimiser.kind
    }

    #[track_caller]
    fn fails(text: &str, sentence: &str) {
        let problems = read(text).expect_err(text);
        assert!(problems.iter().any(|problem| problem.contains(sentence)), "{problems:?}");
    }

    #[test]
    fn names_and_switches_mean_optimisers() {
        assert_eq!(kind("optim: paged_adamw_32bit"), OptimiserKind::AdamW);
        assert_eq!(kind("optim: paged_adamw_8bit"), OptimiserKind::AdamW8Bit);
        assert_eq!(kind("use_adam_mini: true\noptim: adamw_torch"), OptimiserKind::AdamMini { head_dim: 1 });
        let sgd = SgdSettings { momentum: 0.9, dampening: 0.0, nesterov: true };
        assert_eq!(kind("optim: sgd\noptim_args: momentum=0.9, nesterov=True"), OptimiserKind::Sgd(sgd));
        assert_eq!(kind("optim: sgd\noptim_args: {momentum: 0.9, nesterov: true}"), OptimiserKind::Sgd(sgd));
        let low_rank = LowRankSettings { targets: Targets::All, rank: 16, interval: 200, scale: 2.0 };
        let galore = GaloreSettings { low_rank, side: ProjectedSide::Shorter };
        assert_eq!(kind("use_galore: true"), OptimiserKind::Galore(galore));
        let OptimiserKind::Apollo(apollo) = kind(
            "optim: apollo_adamw\noptim_target_modules: [attn, mlp]\noptim_args: rank=1,scale=128,scale_type=tensor",
        ) else {
            panic!("it is APOLLO")
        };
        assert_eq!((apollo.low_rank.rank, apollo.by_channel, apollo.random), (1, false, true));
        let OptimiserKind::Badam(badam) = kind("use_badam: true\nbadam_switch_interval: -1") else {
            panic!("it is BAdam")
        };
        assert_eq!(badam, BadamSettings { start: None, order: BlockOrder::Ascending, interval: None });
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        fails("use_galore: true\nuse_muon: true", "use_galore and use_muon exclude one another");
        fails("use_galore: true\noptim: adafactor", "use_galore is an optimiser of its own");
        fails("use_badam: true\nfinetuning_type: lora", "set on line");
        fails("optim: sgd\noptim_args: momentum=2", "momentum is 2; expected a number from 0 to below 1");
        fails("optim: adamw_torch\noptim_args: momentum=0.9", "optim_args has momentum; adamw_torch takes none");
        fails("optim: galore_adamw", "optim_target_modules is missing");
        fails("optimizer_in_bwd: true", "max_grad_norm: 0, or clip_per_tensor: true");
        fails("optimizer_in_bwd: true\nmax_grad_norm: 0\ngradient_accumulation_steps: 2", "expected 1");
        let read = read("optimizer_in_bwd: true\nclip_per_tensor: true").expect("valid");
        assert!(read.optimiser.in_backward);
    }

    #[test]
    fn a_schedule_takes_its_own_numbers() {
        use luthier_train::ScheduleKind;
        let schedule = |text: &str| read(text).expect(text).schedule.kind(1e-3);
        let least = schedule("lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-5}");
        assert_eq!(least, ScheduleKind::Cosine { cycles: 0.5, least: 0.01 });
        let power = schedule("lr_scheduler_type: polynomial\nlr_scheduler_kwargs: power=2,lr_end=1e-5");
        assert_eq!(power, ScheduleKind::Polynomial { end: 0.01, power: 2.0 });
        fails("lr_scheduler_type: cosine_with_min_lr", "one of min_lr and min_lr_rate");
        fails("lr_scheduler_kwargs: power=2", "lr_scheduler_kwargs has power; linear takes none");
        fails("lr_scheduler_type: polynomial\nlr_scheduler_kwargs: lr_end=1\nlearning_rate: 1e-3", "expected less");
    }
}
