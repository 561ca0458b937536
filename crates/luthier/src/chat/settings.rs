//! What a chat is told, checked: options of the command line, `key=value`, and a file as LLaMA-Factory's
//! `examples/inference/*.yaml`. Options win over `key=value`, which wins over the file.

use std::path::Path;

use super::Arguments;
use luthier_model::checkpoint::Quantisation;

use crate::config::{Precision, TemplateSettings, quantisation as of_settings};
use crate::eprint_line;
use crate::hub::{HubSettings, Token};
use crate::sampling::{KEYS, Sampling};
use crate::settings::file::{self, Entry, FileError, Raw};
use crate::settings::{Origin, Problem, Settings, find, unknown, words};

/// A chat that cannot be wrong in itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChatSettings {
    pub(super) model: String,
    /// Who named the model, for messages.
    pub(super) model_setting: &'static str,
    pub(super) adapter: Option<String>,
    pub(super) template: TemplateSettings,
    pub(super) system: Option<String>,
    pub(super) precision: Precision,
    pub(super) threads: Option<usize>,
    /// How the base is stored; `None`: as in the files.
    pub(super) quantisation: Option<Quantisation>,
    pub(super) hub: HubSettings,
    /// What the file and `key=value` say about sampling, in their order: key, text, place.
    sampling: Vec<(&'static str, String, String)>,
    /// What they say about `do_sample`.
    do_sample: Option<bool>,
    /// Sentences to print once.
    pub(super) notices: Vec<String>,
}

/// Keys that a chat cannot obey, and why.
const REFUSED: [(&str, &str, &str); 2] = [
    ("num_beams", "1", "answers are drawn token by token, and not searched for"),
    ("skip_special_tokens", "true", "special tokens are never shown"),
];
/// Keys that say what is so anyway, or how another program works.
const SILENT: [&str; 5] = ["infer_backend", "trust_remote_code", "finetuning_type", "stage", "use_fast_tokenizer"];

impl ChatSettings {
    /// Reads the file, if one is named, and everything else.
    ///
    /// # Errors
    /// Everything that is wrong, each as a whole sentence.
    pub(super) fn read(arguments: &Arguments) -> Result<Self, Vec<Problem>> {
        let (path, words) = match arguments.settings.split_first() {
            Some((path, words)) if words::is_file(path) => (Some(path), words),
            _ => (None, arguments.settings.as_slice()),
        };
        let mut entries = Vec::new();
        if let Some(path) = path {
            let found = file::read(Path::new(path)).map_err(|FileError { line, sentence }| {
                let line = if line > 0 { format!(", line {line}") } else { String::new() };
                vec![Problem(format!("{path}{line}: {sentence}"))]
            })?;
            entries.extend(
                found
                    .into_iter()
                    .map(|Entry { key, value, line }| (key, value, Origin::File { path: path.clone(), line })),
            );
        }
        let said = words::read(words);
        entries.extend(said.given.into_iter().map(|(key, value)| (key, value, Origin::CommandLine)));
        let mut reader = Reader { problems: said.problems, ..Reader::default() };
        for (key, value, origin) in entries {
            reader.take(&key, &value, &origin);
        }
        reader.finish(arguments)
    }

    /// How answers are made: what the model says, then what is set. Also gives the keys that the model decided.
    ///
    /// # Errors
    /// A sentence about a value that cannot be.
    pub(super) fn sampling(
        &self,
        arguments: &Arguments,
        generation_config: Option<&serde_json::Value>,
        label: &str,
    ) -> Result<(Sampling, Vec<&'static str>), Problem> {
        let mut sampling = Sampling::of_chat();
        let (mut taken, refused) = match generation_config {
            Some(config) => sampling.take_model(config, self.do_sample),
            None => (Vec::new(), Vec::new()),
        };
        for clause in refused {
            eprint_line(&format!("warning: {label}/generation_config.json: {clause}; the value is left out"));
        }
        let mut set = Vec::new();
        for (key, text, place) in &self.sampling {
            sampling.set(key, text).map_err(|error| Problem(format!("{place}: {key} is {text:?}; {error}")))?;
            set.push(*key);
        }
        if self.do_sample == Some(false) {
            sampling.sampler.temperature = 0.0;
            set.push("temperature");
        }
        set.extend(sampling.take_arguments(&arguments.sampling).map_err(Problem)?);
        // A temperature is what the model's `do_sample` stands for.
        taken.retain(|key| !set.contains(if *key == "do_sample" { &"temperature" } else { key }));
        Ok((sampling, taken))
    }
}

/// What the file and `key=value` have said so far.
#[derive(Default)]
struct Reader {
    model: Option<String>,
    adapter: Option<String>,
    template: TemplateSettings,
    system: Option<String>,
    precision: Option<Precision>,
    threads: Option<usize>,
    /// Settings of the quantisation, as they would be typed.
    quantisation: Vec<String>,
    hub: HubSettings,
    sampling: Vec<(&'static str, String, String)>,
    do_sample: Option<bool>,
    notices: Vec<String>,
    problems: Vec<Problem>,
}

impl Reader {
    fn take(&mut self, key: &str, raw: &Raw, origin: &Origin) {
        // Reasons of the settings table are about training; a key that is known there and not here is judged below.
        let text = match raw {
            Raw::Null => return,
            Raw::Text(text) => text.trim().to_owned(),
            Raw::List(items) if items.len() == 1 => items[0].trim().to_owned(),
            Raw::List(_) if ["stop", "adapter_name_or_path"].contains(&key) => String::new(),
            Raw::List(_) | Raw::Map(_) | Raw::Nested => return self.expected(key, raw, origin, "one text"),
        };
        let names = KEYS.iter().find(|known| **known == key);
        match key {
            "model_name_or_path" => self.model = Some(text),
            "adapter_name_or_path" => {
                self.adapter = Some(if let Raw::List(items) = raw { items.join(",") } else { text });
            }
            "template" => self.template.name = Some(text),
            "tool_format" => self.template.tool_format = Some(text),
            "enable_thinking" | "preserve_thinking" => match text.to_ascii_lowercase().as_str() {
                switch @ ("true" | "false") if key == "enable_thinking" => {
                    self.template.enable_thinking = Some(switch == "true");
                }
                switch @ ("true" | "false") => self.template.preserve_thinking = switch == "true",
                _ => self.expected(key, raw, origin, "true or false"),
            },
            "default_system" => self.system = Some(text),
            "do_sample" => match text.to_ascii_lowercase().as_str() {
                "true" => self.do_sample = Some(true),
                "false" => self.do_sample = Some(false),
                _ => self.expected(key, raw, origin, "true or false"),
            },
            "infer_dtype" | "precision" => match text.as_str() {
                "auto" => self.precision = None,
                "float32" | "fp32" => self.precision = Some(Precision::F32),
                "bfloat16" | "bf16" => self.precision = Some(Precision::Bf16),
                _ => self.expected(key, raw, origin, "auto, float32 or bfloat16"),
            },
            "threads" => match text.parse() {
                Ok(threads @ 1..=4096) => self.threads = Some(threads),
                _ => self.expected(key, raw, origin, "a whole number from 1 to 4096"),
            },
            "quantization_bit" | "quantization_type" | "quantization_method" | "double_quantization" => {
                self.quantisation.push(format!("{key}={text}"));
            }
            "model_revision" => self.hub.revision = Some(text).filter(|text| text != "main"),
            "cache_dir" => self.hub.cache = Some(text.into()),
            "hf_hub_token" => self.hub.token = Token::new(&text),
            _ if names.is_some() => {
                let values = if let Raw::List(items) = raw { items.clone() } else { vec![text] };
                for (key, value) in names.into_iter().flat_map(|key| values.iter().map(move |value| (*key, value))) {
                    match Sampling::greedy(1).set(key, value) {
                        Ok(()) => self.sampling.push((key, value.clone(), origin.to_string())),
                        Err(error) => self.problems.push(Problem(format!("{origin}: {key} is {raw}; {error}"))),
                    }
                }
            }
            _ => self.other(key, raw, origin),
        }
    }

    fn other(&mut self, key: &str, raw: &Raw, origin: &Origin) {
        let Some(setting) = find(key) else { return self.problems.push(unknown(key, origin)) };
        if let Some((_, allowed, reason)) = REFUSED.iter().find(|(refused, ..)| *refused == key) {
            if *raw != Raw::Text((*allowed).to_owned()) {
                self.problems.push(Problem(format!("{origin}: {key} is refused: {reason}")));
            }
            return;
        }
        if SILENT.contains(&key) {
            return;
        }
        match setting.accept(key, raw) {
            Ok((value, _)) if value == setting.default_value() => {}
            Ok(_) => self.notices.push(format!("{key} has no effect on a chat")),
            Err(sentence) => self.problems.push(Problem(format!("{origin}: {sentence}"))),
        }
    }

    fn expected(&mut self, key: &str, raw: &Raw, origin: &Origin, expected: &str) {
        self.problems.push(Problem(format!("{origin}: {key} is {raw}; expected {expected}")));
    }

    fn finish(self, arguments: &Arguments) -> Result<ChatSettings, Vec<Problem>> {
        let Self { mut problems, .. } = self;
        let by_option = arguments.model.is_some();
        let model = arguments.model.clone().or(self.model).unwrap_or_default();
        if model.is_empty() {
            problems.push(Problem(
                "no model is given; expected --model PATH, or a configuration with model_name_or_path".to_owned(),
            ));
        }
        let adapter = arguments.adapter.clone().or(self.adapter).filter(|adapter| !adapter.is_empty());
        if arguments.compare && adapter.is_none() {
            problems.push(Problem("--compare needs an adapter; expected --adapter PATH".to_owned()));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // As a training reads them, whatever the method is.
        let read = Settings::from_words(&self.quantisation)
            .and_then(|settings| of_settings(&settings).map_err(|found| vec![found]));
        let of_file = read?;
        let precision = arguments.precision.map(Precision::from).or(self.precision);
        let name = arguments.template.clone().or(self.template.name.clone()).filter(|template| !template.is_empty());
        Ok(ChatSettings {
            model,
            model_setting: if by_option { "--model" } else { "model_name_or_path" },
            adapter,
            template: TemplateSettings { name, ..self.template },
            system: arguments.system.clone().or(self.system).filter(|system| !system.is_empty()),
            precision: precision.unwrap_or(Precision::Auto),
            threads: arguments.threads.map(usize::from).or(self.threads),
            quantisation: arguments.quantisation.quantisation().or(of_file),
            hub: self.hub,
            sampling: self.sampling,
            do_sample: self.do_sample,
            notices: self.notices,
        })
    }
}
