//! From settings to the configuration: what the settings say together, and everything that is wrong with it, each as a whole
//! sentence. It looks at no file.

use std::path::{Path, PathBuf};

use super::method::ADAPTERS;
use super::*;
use crate::hub::{HubSettings, Token};
use crate::settings::{Problem, Settings, differences, either};

impl TrainConfig {
    /// Reads what a user typed after a command: a file of settings, or none, and settings that win over it.
    ///
    /// # Errors
    /// Everything that is wrong, each as a whole sentence.
    pub(crate) fn from_words(words: &[String]) -> Result<Self, Vec<Problem>> {
        Self::from_settings(&Settings::from_words(words)?)
    }

    /// Checks what the settings say together.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, Vec<Problem>> {
        let mut check = Check { settings, problems: Vec::new() };
        let stage = match settings.text("stage") {
            Some("pt") => Stage::PreTraining,
            _ => Stage::SupervisedFineTuning,
        };
        let mut notices = settings.notices.clone();
        let mut config = Self {
            given: settings.clone(),
            stage,
            model: check.model(),
            method: check.method(),
            data: check.data(stage, &mut notices),
            batch: check.batch(),
            optimiser: check.optimiser(),
            schedule: check.schedule(&mut notices),
            machine: check.machine(),
            levers: check.levers(),
            output: check.output(&mut notices),
            saving: check.saving(),
            evaluation: check.evaluation(&mut notices),
            dry_run: check.is_on("dry_run"),
            notices,
            differences: None,
        };
        check.levers_beside(&config);
        config.differences = differences::note(settings, config.evaluation.is_some());
        if check.problems.is_empty() { Ok(config) } else { Err(check.problems) }
    }
}

/// Settings that say something about evaluations only.
const NEEDS_EVALUATION: [&str; 6] = [
    "eval_steps",
    "eval_on_start",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "early_stopping_steps",
];

pub(super) struct Check<'a> {
    pub(super) settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Notes what is wrong with the setting of this name.
    pub(super) fn problem(&mut self, name: &str, sentence: impl AsRef<str>) {
        self.problems.push(Problem(format!("{}{}", self.settings.place(name), sentence.as_ref())));
    }

    /// Whether anything is wrong so far.
    pub(super) fn found_any(&self) -> bool {
        !self.problems.is_empty()
    }

    pub(super) fn required(&mut self, name: &str, expected: &str) -> PathBuf {
        let text = self.settings.text(name).unwrap_or_default();
        if text.is_empty() {
            self.problem(name, format!("{name} is missing; expected {expected}"));
        }
        PathBuf::from(text)
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.settings.whole(name).and_then(|value| usize::try_from(value).ok()).unwrap_or_default()
    }

    pub(super) fn optional_count(&self, name: &str) -> Option<usize> {
        self.settings.whole(name).and_then(|value| usize::try_from(value).ok())
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.settings.number(name).unwrap_or_default()
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.settings.switch(name) == Some(true)
    }

    fn model(&mut self) -> ModelSettings {
        let model = self.required("model_name_or_path", "a Hugging Face folder, a GGUF file, or org/name of the hub");
        // The last is trained on; LLaMA-Factory merges those before it.
        let mut beside: Vec<PathBuf> = self.settings.names("adapter_name_or_path").iter().map(PathBuf::from).collect();
        let adapter = beside.pop();
        let method = self.settings.text("finetuning_type").unwrap_or_default();
        if adapter.is_some() && !ADAPTERS.contains(&method) {
            let sentence = format!("adapter_name_or_path needs finetuning_type: {}", either(&ADAPTERS));
            self.problem("adapter_name_or_path", sentence);
        }
        let from_scratch = self.is_on("train_from_scratch");
        if from_scratch && self.settings.text("finetuning_type") != Some("full") {
            self.problem(
                "train_from_scratch",
                "train_from_scratch needs finetuning_type: full, since weights that stay random are of no use",
            );
        }
        let text = |name: &str| self.settings.text(name).filter(|text| !text.is_empty());
        let hub = HubSettings {
            revision: text("model_revision").filter(|text| *text != "main").map(str::to_owned),
            cache: text("cache_dir").map(PathBuf::from),
            token: text("hf_hub_token").and_then(Token::new),
        };
        let quantisation = quantisation::read(self.settings).unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        });
        ModelSettings { name: model.display().to_string(), model, from_scratch, adapter, beside, quantisation, hub }
    }

    fn data(&mut self, stage: Stage, notices: &mut Vec<String>) -> DataSettings {
        let datasets = self.settings.names("dataset").to_vec();
        if datasets.is_empty() {
            self.problem("dataset", "dataset is missing; expected files, or names of datasets in dataset_dir");
        }
        let pre_training = stage == Stage::PreTraining;
        let scored = match (self.is_on("train_on_prompt"), self.is_on("mask_history")) {
            (true, true) => {
                self.problem(
                    "mask_history",
                    "mask_history and train_on_prompt exclude one another; expected one of them",
                );
                Scored::Everything
            }
            (true, false) => Scored::Everything,
            (false, true) => Scored::LastReply,
            (false, false) if pre_training => Scored::Everything,
            (false, false) => Scored::Replies,
        };
        for name in ["train_on_prompt", "mask_history", "neat_packing"] {
            if pre_training && self.is_on(name) {
                self.problem(name, format!("{name} needs stage: sft"));
            }
        }
        let role_weights = self.role_weights();
        for name in ["train_on_prompt", "mask_history"] {
            if role_weights.is_some() && self.is_on(name) {
                self.problem(
                    "role_weights",
                    format!("role_weights and {name} exclude one another; expected one of them"),
                );
            }
        }
        let neat = self.is_on("neat_packing");
        let packing = neat || self.settings.switch("packing").unwrap_or(pre_training);
        if packing && !neat && !pre_training {
            notices.push("packing: records in one row never see one another, as with neat_packing".to_owned());
        }
        let truncation = match self.settings.text("truncation") {
            Some("right") => Truncation::Right,
            Some("drop") => Truncation::Drop,
            Some("error") => Truncation::Error,
            _ => Truncation::LlamaFactory,
        };
        if pre_training && packing && self.settings.is_given("truncation") {
            notices.push("truncation has no effect: packed documents are never too long".to_owned());
        }
        let mix = self.mix(datasets.len());
        DataSettings {
            datasets,
            folder: PathBuf::from(self.settings.text("dataset_dir").unwrap_or_default()),
            template: self.template(),
            max_samples: self.optional_count("max_samples"),
            seed: self.settings.whole("seed").and_then(|seed| u64::try_from(seed).ok()).unwrap_or_default(),
            mix,
            strict: self.is_on("strict"),
            quarantine: self.settings.text("quarantine").filter(|text| !text.is_empty()).map(PathBuf::from),
            cutoff_len: self.count("cutoff_len"),
            truncation,
            scored,
            role_weights,
            packing,
            order: self.row_order(),
        }
    }

    /// `mix_strategy` and `interleave_probs`, for so many datasets.
    fn mix(&mut self, datasets: usize) -> Mix {
        let until = match self.settings.text("mix_strategy") {
            Some("interleave_under") => Interleave::Under,
            Some("interleave_over") => Interleave::Over,
            Some("interleave_once") => Interleave::Once,
            _ => {
                if self.settings.is_given("interleave_probs") {
                    self.problem(
                        "interleave_probs",
                        "interleave_probs needs mix_strategy: interleave_under or interleave_over",
                    );
                }
                return Mix::Concat;
            }
        };
        let named = self.settings.names("interleave_probs").to_vec();
        if named.is_empty() {
            return Mix::Interleave { until, shares: None };
        }
        let shares: Vec<f64> = named.iter().filter_map(|share| share.trim().parse().ok()).collect();
        let all_used = until != Interleave::Under;
        let fits = shares.len() == named.len()
            && shares.iter().all(|share| *share >= 0.0 && !(all_used && *share == 0.0))
            && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-6;
        let given = named.join(",");
        if !fits {
            let above = if all_used { "above 0" } else { "from 0 on" };
            let sentence =
                format!("interleave_probs is {given}; expected a share {above} for each dataset, together 1");
            self.problem("interleave_probs", sentence);
        } else if shares.len() != datasets {
            let sentence = format!("interleave_probs is {given}; expected one for each of the {datasets} datasets");
            self.problem("interleave_probs", sentence);
        }
        Mix::Interleave { until, shares: Some(shares) }
    }

    /// Roles that are not named keep their usual weight.
    fn role_weights(&mut self) -> Option<RoleWeights> {
        let named = self.settings.weights("role_weights");
        let mut weights = RoleWeights::default();
        for (role, weight) in named {
            let place = match *role {
                "system" => &mut weights.system,
                "user" => &mut weights.user,
                "tool" => &mut weights.tool,
                _ => &mut weights.assistant,
            };
            *place = *weight as f32;
        }
        let RoleWeights { system, user, assistant, tool } = weights;
        if system + user + assistant + tool == 0.0 {
            self.problem("role_weights", "role_weights are all 0, so nothing would be trained; expected one above 0");
        }
        (!named.is_empty()).then_some(weights)
    }

    fn row_order(&mut self) -> RowOrder {
        let strategy = self.settings.text("train_sampling_strategy");
        let as_given = self.is_on("disable_shuffling") || strategy == Some("sequential");
        let by_length = self.is_on("group_by_length") || strategy == Some("group_by_length");
        match (as_given, by_length) {
            (true, true) => {
                self.problem(
                    "group_by_length",
                    "rows cannot be grouped by length and keep their order; expected one of group_by_length, \
                     disable_shuffling and train_sampling_strategy",
                );
                RowOrder::AsGiven
            }
            (true, false) => RowOrder::AsGiven,
            (false, true) => RowOrder::ByLength,
            (false, false) => RowOrder::Shuffled,
        }
    }

    fn template(&self) -> TemplateSettings {
        let text = |name: &str| self.settings.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
        let given = self.settings.is_given("enable_thinking");
        TemplateSettings {
            name: text("template"),
            default_system: text("default_system"),
            tool_format: text("tool_format"),
            enable_thinking: self.settings.switch("enable_thinking").filter(|_| given),
            preserve_thinking: self.is_on("preserve_thinking"),
        }
    }

    fn batch(&mut self) -> BatchSettings {
        let steps = self.optional_count("max_steps").unwrap_or_default();
        let epochs = self.number("num_train_epochs");
        if steps == 0 && epochs == 0.0 {
            self.problem("num_train_epochs", "num_train_epochs is 0, so nothing would be trained; expected more");
        }
        BatchSettings {
            rows: self.batch_rows(),
            accumulation: self.count("gradient_accumulation_steps"),
            length: if steps > 0 { RunLength::Steps(steps) } else { RunLength::Epochs(epochs) },
            token_budget: self.optional_count("token_budget"),
        }
    }

    fn machine(&mut self) -> MachineSettings {
        let (precision, loss_scaling) = self.precision();
        MachineSettings {
            precision,
            loss_scaling,
            threads: self.optional_count("threads"),
            seed: self.settings.whole("seed").and_then(|seed| u64::try_from(seed).ok()).unwrap_or_default(),
            recomputation: self.recomputation(),
        }
    }

    fn output(&mut self, notices: &mut Vec<String>) -> OutputSettings {
        let logging = self.number("logging_steps");
        if logging == 0.0 {
            self.problem("logging_steps", "logging_steps is 0; expected steps, or a share of all steps below 1");
        }
        let given = self.settings.text("output_dir").map(PathBuf::from);
        let guessed = given.is_none();
        let folder = given.unwrap_or_else(|| self.usual_folder());
        let tensorboard = self
            .reports_to_tensorboard(notices)
            .then(|| self.settings.text("logging_dir").map_or_else(|| folder.join("runs"), PathBuf::from));
        OutputSettings {
            folder,
            guessed,
            overwrite: self.is_on("overwrite_output_dir"),
            logging: self.span("logging_steps"),
            log_first_step: self.is_on("logging_first_step"),
            chart: self.is_on("plot_loss"),
            tensorboard,
        }
    }

    /// Where LLaMA-Factory's examples would put the result: by model, method and stage.
    fn usual_folder(&self) -> PathBuf {
        let model = Path::new(self.settings.text("model_name_or_path").unwrap_or_default());
        let is_file = model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        let name = if is_file { model.file_stem() } else { model.file_name() };
        let part = |name: &str| PathBuf::from(self.settings.text(name).unwrap_or_default());
        Path::new("saves").join(name.unwrap_or("model".as_ref())).join(part("finetuning_type")).join(part("stage"))
    }

    fn reports_to_tensorboard(&mut self, notices: &mut Vec<String>) -> bool {
        let names = self.settings.names("report_to");
        if let Some(unknown) = names.iter().find(|name| !TRACKERS.contains(&name.as_str())).cloned() {
            let sentence = format!("report_to names {unknown:?}; expected {}", either(&TRACKERS));
            self.problem("report_to", sentence);
        }
        let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| !OURS.contains(name)).collect();
        if !others.is_empty() {
            let what = "nothing is sent there; trainer_log.jsonl has the numbers";
            notices.push(format!("report_to: {}: {what}", others.join(", ")));
        }
        names.iter().any(|name| matches!(name.as_str(), "tensorboard" | "all"))
    }

    /// transformers' reading of a number: below 1 it is a share of all.
    pub(super) fn span(&mut self, name: &str) -> Span {
        let number = self.number(name);
        self.span_of(name, number)
    }

    fn span_of(&mut self, name: &str, number: f64) -> Span {
        if number >= 1.0 && number.fract() != 0.0 {
            self.problem(name, format!("{name} is {number}; expected a whole number, or a share of all below 1"));
        }
        if number >= 1.0 { Span::Steps(number as usize) } else { Span::Share(number) }
    }

    fn evaluation(&mut self, notices: &mut Vec<String>) -> Option<EvaluationSettings> {
        let datasets = self.settings.names("eval_dataset").to_vec();
        let size = self.number("val_size");
        if size > 0.0 && !datasets.is_empty() {
            self.problem("val_size", "val_size and eval_dataset exclude one another; expected one of them");
        }
        let source = match datasets.is_empty() {
            false => Some(EvaluationSource::Datasets(datasets)),
            true => (size > 0.0).then(|| EvaluationSource::Part(self.span("val_size"))),
        };
        let strategy = self.settings.text("eval_strategy").map(str::to_owned);
        let Some(source) = source else {
            if strategy.as_deref().is_some_and(|strategy| strategy != "no") {
                self.problem("eval_strategy", "eval_strategy needs data: expected val_size or eval_dataset too");
            }
            if self.settings.text("save_strategy") == Some("best") {
                self.problem("save_strategy", "save_strategy: best needs data: expected val_size or eval_dataset too");
            }
            let given: Vec<&str> =
                NEEDS_EVALUATION.into_iter().filter(|name| self.settings.of(name).1.is_some()).collect();
            if !given.is_empty() {
                let have = if given.len() == 1 { "has" } else { "have" };
                notices.push(format!("{} {have} no effect without val_size or eval_dataset", given.join(", ")));
            }
            return None;
        };
        let eval_key = if self.settings.number("eval_steps").is_some() { "eval_steps" } else { "logging_steps" };
        let every = self.number(eval_key);
        if every == 0.0 {
            self.problem("eval_steps", "eval_steps is 0; expected steps, or a share of all steps below 1");
        }
        let when = match strategy.as_deref() {
            Some("no") => When::Never,
            Some("steps") => When::Every(self.span_of(eval_key, every)),
            // As transformers reads it, steps that are given are wanted.
            None if self.settings.number("eval_steps").is_some() => When::Every(self.span_of(eval_key, every)),
            _ => When::EachEpoch,
        };
        let metric = match self.settings.text("metric_for_best_model") {
            Some("loss" | "eval_loss") => Metric::Loss,
            _ => Metric::Accuracy,
        };
        if self.settings.switch("greater_is_better").is_some_and(|greater| greater != (metric == Metric::Accuracy)) {
            self.problem(
                "greater_is_better",
                "greater_is_better contradicts metric_for_best_model: a loss is better when lower, an accuracy when \
                 higher; remove the line",
            );
        }
        Some(EvaluationSettings {
            source,
            when,
            at_start: self.is_on("eval_on_start"),
            metric,
            keeps_best: self.settings.switch("load_best_model_at_end").unwrap_or(true),
            patience: self.optional_count("early_stopping_steps").filter(|patience| *patience > 0),
        })
    }

    fn saving(&mut self) -> SavingSettings {
        let every = self.number("save_steps");
        let strategy = self.settings.text("save_strategy");
        let when = match strategy {
            Some("no" | "best") => When::Never,
            Some("epoch") => When::EachEpoch,
            _ => When::Every(self.span("save_steps")),
        };
        if every == 0.0 && when == When::Every(Span::Share(0.0)) {
            self.problem("save_steps", "save_steps is 0; expected steps, or a share of all steps below 1");
        }
        let resume = match self.settings.text("resume_from_checkpoint") {
            None | Some("" | "false" | "False") => Resume::No,
            Some("true" | "True") => Resume::Newest,
            Some(path) => Resume::From(PathBuf::from(path)),
        };
        let best = strategy == Some("best") || self.settings.switch("load_best_model_at_end").unwrap_or(true);
        SavingSettings {
            when,
            best,
            limit: self.optional_count("save_total_limit"),
            resume,
            nonfinite: match self.settings.text("nonfinite") {
                Some("stop") => Nonfinite::Stop,
                _ => Nonfinite::Skip,
            },
        }
    }
}

/// What transformers can report to, and what of it is written here.
const TRACKERS: [&str; 16] = [
    "none",
    "tensorboard",
    "all",
    "wandb",
    "swanlab",
    "mlflow",
    "trackio",
    "comet_ml",
    "clearml",
    "azure_ml",
    "codecarbon",
    "dagshub",
    "dvclive",
    "flyte",
    "neptune",
    "kubeflow",
];
const OURS: [&str; 3] = ["none", "tensorboard", "all"];

#[cfg(test)]
pub(super) mod tests {
    use luthier_model::TrainedLayers;
    use luthier_train::{Clipping, OptimiserKind, ScheduleKind};

    use super::*;

    const LEAST: &str = "model_name_or_path: m\ndataset: d\noutput_dir: o\n";

    pub(in crate::config) fn read(text: &str) -> Result<TrainConfig, Vec<String>> {
        Settings::read("a.yaml", &format!("{LEAST}{text}"), &[])
            .and_then(|settings| TrainConfig::from_settings(&settings))
            .map_err(|problems| problems.into_iter().map(|problem| problem.0).collect())
    }

    fn fails(text: &str, sentence: &str) {
        assert_eq!(read(text), Err(vec![sentence.to_owned()]), "{text}");
    }

    #[test]
    fn defaults_are_those_of_llama_factory() {
        let config = read("").expect("valid");
        let expected = TrainConfig {
            given: config.given.clone(),
            stage: Stage::SupervisedFineTuning,
            model: ModelSettings {
                name: "m".to_owned(),
                model: "m".into(),
                from_scratch: false,
                adapter: None,
                quantisation: None,
                beside: Vec::new(),
                hub: HubSettings::default(),
            },
            method: Method::Lora(LoraSettings {
                rank: 8,
                alpha: 16.0,
                dropout: 0.0,
                targets: Targets::All,
                rank_stabilised: false,
                modules_to_save: Vec::new(),
                added_blocks: None,
                magnitudes: false,
                pissa: None,
                up_rate: 1.0,
                ranks: Vec::new(),
                alphas: Vec::new(),
            }),
            data: DataSettings {
                datasets: vec!["d".to_owned()],
                folder: "data".into(),
                template: TemplateSettings::default(),
                max_samples: None,
                seed: 42,
                mix: Mix::Concat,
                strict: false,
                quarantine: None,
                cutoff_len: 2048,
                truncation: Truncation::LlamaFactory,
                scored: Scored::Replies,
                role_weights: None,
                packing: false,
                order: RowOrder::Shuffled,
            },
            batch: BatchSettings { rows: Some(8), accumulation: 1, length: RunLength::Epochs(3.0), token_budget: None },
            optimiser: OptimiserSettings {
                learning_rate: None,
                weight_decay: 0.0,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                max_grad_norm: Some(1.0),
                kind: OptimiserKind::AdamW,
                clipping: Clipping::Together,
                layer_decay: None,
                in_backward: false,
            },
            schedule: ScheduleSettings { kind: ScheduleKind::Linear, warmup: Span::Share(0.0), floor: None },
            machine: MachineSettings {
                precision: Precision::Auto,
                loss_scaling: luthier_train::LossScaling::default(),
                threads: None,
                seed: 42,
                recomputation: Recomputation::Auto,
            },
            levers: Levers::default(),
            output: OutputSettings {
                folder: "o".into(),
                guessed: false,
                overwrite: false,
                logging: Span::Steps(500),
                log_first_step: false,
                chart: true,
                tensorboard: None,
            },
            evaluation: None,
            saving: SavingSettings {
                when: When::Every(Span::Steps(100)),
                best: true,
                limit: None,
                resume: Resume::No,
                nonfinite: Nonfinite::Skip,
            },
            dry_run: false,
            notices: Vec::new(),
            differences: Some(
                "defaults that are not LLaMA-Factory's: bf16 as the processor allows (there false), plot_loss true \
                 (there false), save_steps 100 (there 500); see docs/differences.md"
                    .to_owned(),
            ),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn meanings() {
        let config =
            read("stage: pt\nfinetuning_type: freeze\nfreeze_trainable_layers: -3\nmax_steps: 7").expect("valid");
        let Method::Freeze(freeze) = config.method else { panic!("freeze was asked for") };
        assert_eq!(freeze.layers, TrainedLayers::First(3));
        assert_eq!(config.batch.length, RunLength::Steps(7));
        assert!(config.data.packing);
        assert_eq!(config.data.scored, Scored::Everything);

        let config = read("lora_alpha: 12\nlora_target: q_proj, v_proj\nbatch_size: 2\nbf16: true").expect("valid");
        let Method::Lora(lora) = config.method else { panic!("lora is the default") };
        assert_eq!((lora.alpha, lora.targets), (12.0, Targets::Named(vec!["q_proj".into(), "v_proj".into()])));
        assert_eq!((config.batch.rows, config.machine.precision), (Some(2), Precision::Bf16));

        let warmup = |text| read(text).expect("valid").schedule.warmup.steps(45);
        assert_eq!(warmup("warmup_ratio: 0.1"), 5);
        assert_eq!(warmup("warmup_steps: 0.1"), 5);
        assert_eq!(warmup("warmup_steps: 10"), 10);
        assert_eq!(warmup("warmup_steps: 10\nwarmup_ratio: 0.2"), 9);
    }

    #[test]
    fn weights_of_roles() {
        let weights = |text: &str| read(&format!("role_weights: {text}")).map(|config| config.data.role_weights);
        let expected = RoleWeights { user: 0.1, system: 2.0, ..RoleWeights::default() };
        assert_eq!(weights("user=0.1, system = 2"), Ok(Some(expected)));
        assert_eq!(weights("[user=0.1, system=2]"), Ok(Some(expected)));
        assert_eq!(weights("{user: 0.1, system: 2}"), Ok(Some(expected)));
        assert_eq!(weights("null"), Ok(None));
        let what = "expected weights of 0 or more for some of user, assistant, system, tool, as user=0.1, each once";
        for wrong in ["human=1", "user", "user=-1", "user=much", "user=inf", "user=1,user=0"] {
            fails(&format!("role_weights: {wrong}"), &format!("a.yaml, line 4: role_weights is {wrong:?}; {what}"));
        }
        fails("role_weights: {user: {a: 1}}", &format!("a.yaml, line 4: role_weights is a nested value; {what}"));
        fails(
            "role_weights: assistant=0",
            "a.yaml, line 4: role_weights are all 0, so nothing would be trained; expected one above 0",
        );
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let config =
            read("plot_loss: true\nreport_to: none\nddp_timeout: 180000000\ntrust_remote_code: false").expect("valid");
        assert_eq!(config.notices, ["ddp_timeout has no effect: training runs in one process"]);
    }

    #[test]
    fn a_folder_for_the_result_that_is_not_given() {
        let folder = |text: &str| {
            let settings = Settings::read("a.yaml", &format!("dataset: d\n{text}"), &[]).expect("valid");
            TrainConfig::from_settings(&settings).expect("valid").output.folder
        };
        assert_eq!(folder("model_name_or_path: models/Qwen3-4B/\n"), Path::new("saves/Qwen3-4B/lora/sft"));
        assert_eq!(folder("model_name_or_path: a/b.Q4_1.gguf\nstage: pt\n"), Path::new("saves/b.Q4_1/lora/pt"));
        assert_eq!(folder("model_name_or_path: .\nfinetuning_type: full\n"), Path::new("saves/model/full/sft"));
    }

    #[test]
    fn trackers() {
        let config = read("report_to: [wandb, tensorboard]").expect("valid");
        assert_eq!(config.output.tensorboard, Some("o/runs".into()));
        assert_eq!(config.notices, ["report_to: wandb: nothing is sent there; trainer_log.jsonl has the numbers"]);
        assert_eq!(read("report_to: none").expect("valid").output.tensorboard, None);
        let error = read("report_to: tensorbord").expect_err("no tracker")[0].clone();
        assert!(
            error.starts_with("a.yaml, line 4: report_to names \"tensorbord\"; expected none, tensorboard"),
            "{error}"
        );
    }

    #[test]
    fn evaluation_follows_from_its_data() {
        assert_eq!(read("eval_on_start: true").expect("valid").evaluation, None);
        let evaluation = |text| read(text).expect("valid").evaluation.expect("there is data");
        let expected = EvaluationSettings {
            source: EvaluationSource::Part(Span::Share(0.1)),
            when: When::EachEpoch,
            at_start: false,
            metric: Metric::Accuracy,
            keeps_best: true,
            patience: Some(3),
        };
        assert_eq!(evaluation("val_size: 0.1"), expected);
        let found =
            evaluation("eval_dataset: e\neval_steps: 50\nmetric_for_best_model: eval_loss\nearly_stopping_steps: 0");
        assert_eq!(
            (found.source, found.when),
            (EvaluationSource::Datasets(vec!["e".to_owned()]), When::Every(Span::Steps(50)))
        );
        assert_eq!((found.metric, found.patience), (Metric::Loss, None));
        fails(
            "eval_strategy: steps",
            "a.yaml, line 4: eval_strategy needs data: expected val_size or eval_dataset too",
        );
        fails(
            "val_size: 5\neval_dataset: e",
            "a.yaml, line 4: val_size and eval_dataset exclude one another; expected one of them",
        );
        let saving = |text| read(text).expect("valid").saving;
        assert_eq!(saving("save_strategy: epoch").when, When::EachEpoch);
        assert_eq!(saving("resume_from_checkpoint: true").resume, Resume::Newest);
        assert_eq!(saving("resume_from_checkpoint: o/checkpoint-3").resume, Resume::From("o/checkpoint-3".into()));
    }

    #[test]
    fn what_excludes_one_another() {
        fails(
            "bf16: true\nprecision: fp32",
            "a.yaml, line 4: bf16: true and precision: fp32 exclude one another; expected one of them",
        );
        fails(
            "train_on_prompt: true\nmask_history: true",
            "a.yaml, line 5: mask_history and train_on_prompt exclude one another; expected one of them",
        );
        fails(
            "train_on_prompt: true\nrole_weights: user=0.5",
            "a.yaml, line 5: role_weights and train_on_prompt exclude one another; expected one of them",
        );
        fails(
            "disable_shuffling: true\ngroup_by_length: true",
            "a.yaml, line 5: rows cannot be grouped by length and keep their order; expected one of group_by_length, \
             disable_shuffling and train_sampling_strategy",
        );
        fails("stage: pt\nmask_history: true", "a.yaml, line 5: mask_history needs stage: sft");
        fails(
            "finetuning_type: full\nadapter_name_or_path: a",
            "a.yaml, line 5: adapter_name_or_path needs finetuning_type: lora, ia3, vera, oft, prefix, prompt, p_tuning or bottleneck",
        );
        fails(
            "gradient_checkpointing: true\ndisable_gradient_checkpointing: true",
            "a.yaml, line 4: gradient_checkpointing and disable_gradient_checkpointing exclude one another; expected one of them",
        );
    }

    #[test]
    fn what_would_train_nothing() {
        fails(
            "finetuning_type: freeze\nfreeze_trainable_layers: 0",
            "a.yaml, line 5: freeze_trainable_layers is 0, so nothing would be trained; expected a number of layers, or \
             freeze_extra_modules besides",
        );
        fails(
            "num_train_epochs: 0",
            "a.yaml, line 4: num_train_epochs is 0, so nothing would be trained; expected more",
        );
        fails("lora_dropout: 1", "a.yaml, line 4: lora_dropout is 1, so nothing would be left; expected less than 1");
    }

    #[test]
    fn refused_settings_may_say_what_is_so_anyway() {
        assert!(read("fp16: false\nfsdp: null\nquantization_bit:\nresume_from_checkpoint: null\nval_size: 0").is_ok());
    }
}
