//! The settings of a training: what one is, how its text becomes a value, and how all of them are read.
//!
//! [`table::SETTINGS`] is the one place that names them. From it come the reader of files ([`mod@file`]: YAML, JSON, TOML),
//! that of the command line ([`words`]), the help text and the reference page ([`crate::reference`]), the JSON schema
//! ([`schema`]) and the page of what differs from LLaMA-Factory ([`differences`]). Names, meanings and defaults are those
//! of LLaMA-Factory 0.9.5 and of transformers' `TrainingArguments`, unless a row says why not. Whether the values make
//! sense together is not decided here but in [`crate::config`].

pub(crate) mod differences;
pub(crate) mod file;
mod json;
#[cfg(test)]
mod llamafactory;
pub(crate) mod schema;
pub(crate) mod table;
mod toml;
pub(crate) mod value;
pub(crate) mod words;
pub(crate) mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use differences::Difference;
use file::{Entry, FileError, Raw};
use table::SETTINGS;
pub(crate) use value::{Kind, Value, either};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The key in a file and on the command line.
    pub(crate) name: &'static str,
    /// Other keys that mean the same.
    pub(crate) aliases: &'static [&'static str],
    /// What its value may be.
    pub(crate) kind: Kind,
    /// Its value when nothing is said, as one would write it; empty when there is none.
    pub(crate) default: &'static str,
    /// Its value when `--name` stands alone; empty when it must not. Switches are true.
    pub(crate) alone: &'static str,
    /// The heading it stands under.
    pub(crate) group: Group,
    /// Where it matters, as `key: value`, or several of them with ` or ` between; empty for everywhere.
    pub(crate) applies_to: &'static str,
    /// What Luthier does with it.
    pub(crate) status: Status,
    /// One sentence for whoever sets it.
    pub(crate) help: &'static str,
    /// Whether LLaMA-Factory does not have it.
    pub(crate) ours: bool,
    /// Where default or meaning are not LLaMA-Factory's, on purpose.
    pub(crate) differs: Option<Difference>,
}

impl Setting {
    /// The keys and values of which one must be so for the setting to matter; none: it always does. Read from texts such as
    /// `finetuning_type: lora, ia3 or oft` and `finetuning_type: freeze or use_llama_pro: true`.
    fn conditions(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let mut key = "";
        self.applies_to.split(" or ").flat_map(|part| part.split(", ")).filter(|part| !part.is_empty()).map(
            move |part| {
                let (named, value) = part.split_once(": ").unwrap_or((key, part));
                key = named;
                (named, value)
            },
        )
    }
}

/// What Luthier does with a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Status {
    /// It does what it says.
    Honoured,
    /// Any value is accepted; the result is the same, for this reason.
    NoEffect(&'static str),
    /// Only its default is accepted, since the result would differ; the reason says what to do.
    Refused(&'static str),
}

/// The headings of the help text, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Model,
    Method,
    Lora,
    Data,
    Batch,
    Optimiser,
    Machine,
    Output,
    Evaluation,
    Hub,
}

impl Group {
    pub(crate) const ALL: [Self; 10] = [
        Self::Model,
        Self::Method,
        Self::Lora,
        Self::Data,
        Self::Batch,
        Self::Optimiser,
        Self::Machine,
        Self::Output,
        Self::Evaluation,
        Self::Hub,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Model => "Model",
            Self::Method => "Method",
            Self::Lora => "LoRA",
            Self::Data => "Data",
            Self::Batch => "Length and batches",
            Self::Optimiser => "Optimiser and schedule",
            Self::Machine => "Machine",
            Self::Output => "Output",
            Self::Evaluation => "Evaluation",
            Self::Hub => "Hub, trackers, clusters",
        }
    }
}

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    File { path: String, line: usize },
    CommandLine,
}

impl Origin {
    /// Messages come in the order of the file, those about the command line last.
    fn order(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            Self::CommandLine => usize::MAX,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(out, "{path}, line {line}"),
            Self::CommandLine => write!(out, "command line"),
        }
    }
}

/// A whole sentence about what is wrong with the settings and what was expected.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A value for every row of the table. Every value is of its row's kind and within its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (Value, Option<Origin>)>,
    /// One sentence for each reason for which settings that were given have no effect.
    pub(crate) notices: Vec<String>,
}

impl Settings {
    /// Reads what a user typed after a command: a file of settings, or none, and then settings that win over it.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub(crate) fn from_words(words: &[String]) -> Result<Self, Vec<Problem>> {
        match words.split_first() {
            Some((path, words)) if words::is_file(path) => {
                let entries = file::read(Path::new(path)).map_err(|error| vec![in_file(path, &error)])?;
                Self::collect(path, entries, words)
            }
            _ => Self::collect("", Vec::new(), words),
        }
    }

    /// Reads the text of a YAML file (its path is only named in messages) and then the words that follow it.
    #[cfg(test)]
    pub(crate) fn read(path: &str, text: &str, words: &[String]) -> Result<Self, Vec<Problem>> {
        let entries = file::parse("yaml", text).map_err(|error| vec![in_file(path, &error)])?;
        Self::collect(path, entries, words)
    }

    fn collect(path: &str, entries: Vec<Entry>, words: &[String]) -> Result<Self, Vec<Problem>> {
        let said = words::read(words);
        let on_command_line = said.given.into_iter().map(|(key, value)| (key, value, Origin::CommandLine));
        let mut problems: Vec<(usize, Problem)> =
            said.problems.into_iter().map(|problem| (Origin::CommandLine.order(), problem)).collect();
        let in_file = entries.into_iter().map(|Entry { key, value, line }| {
            let origin = Origin::File { path: path.to_owned(), line };
            (key, value, origin)
        });

        let mut given: Vec<Given> = Vec::new();
        for (key, raw, origin) in in_file.chain(on_command_line) {
            let Some(setting) = find(&key) else {
                problems.push((origin.order(), unknown(&key, &origin)));
                continue;
            };
            if let Some(at) = given.iter().position(|earlier| earlier.setting.name == setting.name) {
                let earlier = given.remove(at);
                if let (Origin::File { line, .. }, Origin::File { .. }) = (&earlier.origin, &origin) {
                    let also = if earlier.key == key { String::new() } else { format!(" as {}", earlier.key) };
                    let sentence = format!("{origin}: {key} was already set on line {line}{also}; expected it once");
                    problems.push((origin.order(), Problem(sentence)));
                }
            }
            given.push(Given { setting, key, raw, origin });
        }

        let mut values: BTreeMap<_, _> =
            SETTINGS.iter().map(|setting| (setting.name, (setting.default_value(), None))).collect();
        let mut without_effect: Vec<(&str, Vec<String>)> = Vec::new();
        for Given { setting, key, raw, origin } in given {
            match setting.accept(&key, &raw) {
                Ok((value, reason)) => {
                    values.insert(setting.name, (value, Some(origin)));
                    let Some(reason) = reason else { continue };
                    match without_effect.iter_mut().find(|(known, _)| *known == reason) {
                        Some((_, keys)) => keys.push(key),
                        None => without_effect.push((reason, vec![key])),
                    }
                }
                Err(sentence) => problems.push((origin.order(), Problem(format!("{origin}: {sentence}")))),
            }
        }
        if problems.is_empty() {
            let have = |keys: &[String]| if keys.len() == 1 { "has" } else { "have" };
            let mut notices: Vec<String> = without_effect
                .into_iter()
                .map(|(reason, keys)| format!("{} {} no effect: {reason}", keys.join(", "), have(&keys)))
                .collect();
            let settings = Self { values, notices: Vec::new() };
            notices.extend(settings.beside_the_point());
            return Ok(Self { notices, ..settings });
        }
        problems.sort_by_key(|(order, _)| *order);
        Err(problems.into_iter().map(|(_, problem)| problem).collect())
    }

    /// A sentence for each condition that settings were given for, and that is not so.
    fn beside_the_point(&self) -> Vec<String> {
        let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
        for setting in SETTINGS.iter().filter(|setting| setting.status == Status::Honoured) {
            let mut conditions = setting.conditions().peekable();
            let (value, origin) = &self.values[setting.name];
            let applies = conditions.peek().is_none() || conditions.any(|(key, wanted)| self.is(key, wanted));
            if origin.is_none() || *value == setting.default_value() || applies {
                continue;
            }
            match found.iter_mut().find(|(known, _)| *known == setting.applies_to) {
                Some((_, names)) => names.push(setting.name),
                None => found.push((setting.applies_to, vec![setting.name])),
            }
        }
        let sentence = |(condition, names): (&str, Vec<&str>)| {
            let have = if names.len() == 1 { "has" } else { "have" };
            format!("{} {have} no effect without {condition}", names.join(", "))
        };
        found.into_iter().map(sentence).collect()
    }

    /// Whether a setting has the value that this text means.
    fn is(&self, name: &str, wanted: &str) -> bool {
        let wanted = find(name).and_then(|setting| setting.parse(&Raw::Text(wanted.to_owned())).ok());
        wanted.as_ref() == Some(&self.values[name].0)
    }

    /// The value of a setting of the table, and where it was given if it was.
    pub(crate) fn of(&self, name: &str) -> (&Value, Option<&Origin>) {
        let (value, origin) = &self.values[name];
        (value, origin.as_ref())
    }

    /// Where the setting was given, for messages: `train.yaml, line 3: `, or nothing when it was not.
    pub(crate) fn place(&self, name: &str) -> String {
        self.values[name].1.as_ref().map(|origin| format!("{origin}: ")).unwrap_or_default()
    }

    /// Whether anything was said about the setting.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.values[name].1.is_some()
    }

    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        match &self.values[name].0 {
            Value::Switch(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn whole(&self, name: &str) -> Option<i64> {
        match &self.values[name].0 {
            Value::Whole(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match &self.values[name].0 {
            Value::Number(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match &self.values[name].0 {
            Value::Text(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn weights(&self, name: &str) -> &[(&'static str, f64)] {
        match &self.values[name].0 {
            Value::Weights(value) => value,
            _ => &[],
        }
    }

    pub(crate) fn options(&self, name: &str) -> &[(String, String)] {
        match &self.values[name].0 {
            Value::Options(value) => value,
            _ => &[],
        }
    }

    pub(crate) fn names(&self, name: &str) -> &[String] {
        match &self.values[name].0 {
            Value::Names(value) => value,
            _ => &[],
        }
    }
}

fn in_file(path: &str, error: &FileError) -> Problem {
    match error.line {
        0 => Problem(format!("{path}: {}", error.sentence)),
        line => Problem(format!("{path}, line {line}: {}", error.sentence)),
    }
}

/// What was said about one row.
struct Given {
    setting: &'static Setting,
    key: String,
    raw: Raw,
    origin: Origin,
}

impl Setting {
    /// The value that the text means under this key, if the row's status lets it through, and why it has no effect.
    pub(crate) fn accept(&self, key: &str, raw: &Raw) -> Result<(Value, Option<&'static str>), String> {
        let value = match self.parse(raw) {
            Ok(Value::Unset) => self.default_value(),
            Ok(value) => value,
            // What the value would have been does not matter where none is accepted.
            Err(_) if self.status != Status::Honoured => Value::Nested,
            Err(expected) => return Err(format!("{key} is {raw}{expected}")),
        };
        match self.status {
            Status::Refused(reason) if value != self.default_value() => Err(format!("{key} is refused: {reason}")),
            Status::NoEffect(reason) if value != self.default_value() => Ok((value, Some(reason))),
            _ => Ok((value, None)),
        }
    }
}

/// The row of this name or alias.
pub(crate) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == key || setting.aliases.contains(&key))
}

pub(crate) fn unknown(key: &str, origin: &Origin) -> Problem {
    let near = nearest(key).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
    Problem(format!("{origin}: there is no setting {key:?}{near} (`luthier train --help` lists all)"))
}

fn unknown_flag(name: &str) -> Problem {
    let near = nearest(name).map(|name| format!("; did you mean --{name}?")).unwrap_or_default();
    Problem(format!("command line: there is no setting --{name}{near} (`luthier train --help` lists all)"))
}

/// The known key that is most like this one, if any is.
fn nearest(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    SETTINGS
        .iter()
        .flat_map(|setting| std::iter::once(setting.name).chain(setting.aliases.iter().copied()))
        .map(|name| (strsim::normalized_damerau_levenshtein(&key, name), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_kind() {
        for setting in SETTINGS {
            let parsed = setting.parse(&yaml::read_value(setting.default));
            assert!(setting.default.is_empty() || parsed.is_ok(), "{}: {:?}", setting.name, setting.default);
        }
    }

    #[test]
    fn no_key_is_named_twice() {
        let mut keys: Vec<_> = SETTINGS.iter().flat_map(|s| std::iter::once(&s.name).chain(s.aliases)).collect();
        keys.sort();
        for pair in keys.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn only_settings_that_are_not_honoured_may_be_anything() {
        for setting in SETTINGS {
            assert!(setting.kind != Kind::Anything || setting.status != Status::Honoured, "{}", setting.name);
        }
    }

    #[test]
    fn conditions_name_a_setting_and_a_value() {
        let conditions = |setting: &'static Setting| setting.conditions().map(move |condition| (setting, condition));
        for (setting, (key, value)) in SETTINGS.iter().flat_map(conditions) {
            assert!(
                find(key).is_some_and(|found| found.parse(&Raw::Text(value.to_owned())).is_ok()),
                "{}",
                setting.name
            );
        }
    }

    #[test]
    fn overrides_win_and_null_means_the_default() {
        let settings = Settings::read("a.yaml", "lora_rank: 4\nseed: null\nbf16: yes\n", &["lora_rank=16".to_owned()]);
        let settings = settings.expect("valid");
        assert_eq!(settings.whole("lora_rank"), Some(16));
        assert_eq!(settings.whole("seed"), Some(42));
        assert_eq!(settings.switch("bf16"), Some(true));
        assert_eq!(settings.place("lora_rank"), "command line: ");
    }

    #[test]
    fn what_has_no_effect_is_said_once_for_each_reason() {
        let text = "finetuning_type: full\nlora_rank: 4\nlora_alpha: 8\ndataloader_num_workers: 4\ntf32: true\n\
                    preprocessing_num_workers: 16\nfreeze_trainable_layers: 2\nlora_dropout: 0.0\n";
        let settings = Settings::read("a.yaml", text, &[]).expect("valid");
        assert_eq!(
            settings.notices,
            [
                "dataloader_num_workers, preprocessing_num_workers have no effect: data is prepared by the threads that train",
                "tf32 has no effect: it is a format of GPUs",
                "lora_rank, lora_alpha have no effect without finetuning_type: lora",
            ]
        );
    }

    #[test]
    fn nearest_names() {
        for (typed, meant) in [
            ("lora_rnk", Some("lora_rank")),
            ("learning-rate", Some("learning_rate")),
            ("num_epoch", Some("num_epochs")),
            ("per_device_batch_size", Some("per_device_eval_batch_size")),
            ("colour", None),
        ] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }
}
