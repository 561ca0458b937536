//! Settings on the command line, in the three ways that people type them: `key=value`, `--key value` and `--key=value`,
//! with dashes or underscores in the key. As LLaMA-Factory's parser does, a switch alone (`--bf16`) is true, `--no_key`
//! is false, and a list may be several words (`--lora_target q_proj v_proj`). Negative numbers are values.

use super::file::Raw;
use super::yaml::read_value;
use super::{Kind, Problem, Setting, find, unknown_flag};

/// What was said, in its order, and what could not be understood.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Words {
    pub(crate) given: Vec<(String, Raw)>,
    pub(crate) problems: Vec<Problem>,
}

/// Whether a first word is the file of settings, not a setting.
pub(crate) fn is_file(word: &str) -> bool {
    !word.starts_with('-') && assignment(word).is_none()
}

/// Takes `--name` out of the words, where it is an option of the command and no setting.
pub(crate) fn take_flag(words: &mut Vec<String>, name: &str) -> bool {
    let before = words.len();
    words.retain(|word| word.strip_prefix("--") != Some(name));
    words.len() < before
}

/// Takes `--name N` or `--name=N` out of the words, where it is an option of the command and no setting.
pub(crate) fn take_count(words: &mut Vec<String>, name: &str) -> Result<Option<usize>, Vec<Problem>> {
    let Some(value) = take_text(words, name) else { return Ok(None) };
    match value.parse() {
        Ok(count) if count > 0 => Ok(Some(count)),
        _ => {
            let sentence = format!("command line: --{name} is {value:?}; expected a whole number of 1 or more");
            Err(vec![Problem(sentence)])
        }
    }
}

/// Takes `--name TEXT` or `--name=TEXT` out of the words, where it is an option of the command and no setting; empty where
/// nothing follows.
pub(crate) fn take_text(words: &mut Vec<String>, name: &str) -> Option<String> {
    let rest = |word: &str| word.strip_prefix("--").and_then(|word| word.strip_prefix(name)).map(str::to_owned);
    let (at, length, value) = words.iter().enumerate().find_map(|(at, word)| match rest(word)?.strip_prefix('=') {
        Some(value) => Some((at, 1, value.to_owned())),
        None if rest(word)?.is_empty() => Some((at, 2, words.get(at + 1).cloned().unwrap_or_default())),
        None => None,
    })?;
    words.drain(at..(at + length).min(words.len()));
    Some(value)
}

/// Reads the words after the file of settings.
pub(crate) fn read(words: &[String]) -> Words {
    let mut read = Words::default();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        if let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) {
            let taken = read.flag(flag, rest);
            rest = &rest[taken..];
        } else if let Some((key, value)) = assignment(word) {
            let key = key.replace('-', "_");
            // What is unknown is reported where files are too.
            let key = if find(&key).is_some() { key } else { word.split('=').next().unwrap_or_default().to_owned() };
            read.given.push((key, read_value(value)));
        } else {
            let sentence = match find(&word.replace('-', "_")) {
                Some(_) => format!("{word} has no value; expected {word}=VALUE or --{word} VALUE"),
                None if is_file(word) => {
                    format!("{word:?} is neither key=value nor --key value; a file of settings comes first")
                }
                None => format!("{word:?} is neither key=value nor --key value"),
            };
            read.problem(sentence);
        }
    }
    read
}

impl Words {
    fn problem(&mut self, sentence: String) {
        self.problems.push(Problem(format!("command line: {sentence}")));
    }

    /// Reads `--flag`, whose values may be the first of the words that follow; says how many it took.
    fn flag(&mut self, flag: &str, rest: &[String]) -> usize {
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        let key = name.replace('-', "_");
        let Some(setting) = find(&key) else {
            let negated = key.strip_prefix("no_").and_then(find).filter(|setting| setting.kind == Kind::Switch);
            return match negated {
                Some(setting) if value.is_none() => {
                    self.given.push((setting.name.to_owned(), Raw::Text("false".to_owned())));
                    0
                }
                _ => {
                    self.problems.push(unknown_flag(name));
                    // Its values, whatever they are, are no words of their own.
                    if value.is_some() { 0 } else { rest.iter().take_while(|word| !begins_setting(word)).count() }
                }
            };
        };
        if let Some(value) = value {
            self.given.push((key, read_value(value)));
            return 0;
        }
        let most = match setting.kind {
            Kind::Names => usize::MAX,
            _ => 1,
        };
        let alone = setting.value_alone();
        let is_value = |word: &&String| match alone {
            // What may stand alone takes no word that is another setting; what may not takes any but a flag.
            None if most == 1 => !is_flag(word),
            _ => !begins_setting(word),
        };
        let values: Vec<&str> = rest.iter().take_while(is_value).take(most).map(String::as_str).collect();
        let raw = match (values.as_slice(), alone) {
            ([], Some(alone)) => Raw::Text(alone.to_owned()),
            ([], None) => {
                self.problem(format!("--{name} has no value; expected {}", setting.kind.expected()));
                return 0;
            }
            ([one], _) => read_value(one),
            (several, _) => Raw::Text(several.join(",")),
        };
        self.given.push((key, raw));
        values.len()
    }
}

impl Setting {
    /// What its flag means when no value follows.
    fn value_alone(&self) -> Option<&'static str> {
        if self.kind == Kind::Switch { Some("true") } else { Some(self.alone).filter(|alone| !alone.is_empty()) }
    }
}

/// `--key`, but not `-1`.
fn is_flag(word: &str) -> bool {
    word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn begins_setting(word: &str) -> bool {
    is_flag(word) || assignment(word).is_some()
}

/// The two sides of `key=value`, where the first looks like a key: `runs/a=1/b.yaml` is a path.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (!key.is_empty() && !key.starts_with('-') && is_key(key.trim())).then_some((key.trim(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[(&str, Raw)]) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        assert_eq!(read(&words), Words { given: expected, problems: Vec::new() }, "{line}");
    }

    #[track_caller]
    fn fails(line: &str, expected: &str) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let problems: Vec<_> = read(&words).problems.into_iter().map(|problem| problem.0).collect();
        assert_eq!(problems, [expected], "{line}");
    }

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn three_styles_mix() {
        check(
            "--stage sft lora_rank=4 --lora-alpha=16 --do_train --seed 7",
            &[
                ("stage", text("sft")),
                ("lora_rank", text("4")),
                ("lora_alpha", text("16")),
                ("do_train", text("true")),
                ("seed", text("7")),
            ],
        );
        check(
            "--bf16 --no-plot_loss --bf16 false",
            &[("bf16", text("true")), ("plot_loss", text("false")), ("bf16", text("false"))],
        );
        check("--resume_from_checkpoint seed=1", &[("resume_from_checkpoint", text("true")), ("seed", text("1"))]);
        check("--resume_from_checkpoint out/checkpoint-3", &[("resume_from_checkpoint", text("out/checkpoint-3"))]);
        check("--max_steps -1 max-steps=-1", &[("max_steps", text("-1")), ("max_steps", text("-1"))]);
        check("--output_dir a=b", &[("output_dir", text("a=b"))]);
        check("--seed= template=null", &[("seed", Raw::Null), ("template", Raw::Null)]);
    }

    #[test]
    fn lists() {
        check("--lora_target q_proj v_proj --seed 1", &[("lora_target", text("q_proj,v_proj")), ("seed", text("1"))]);
        check("--lora_target q_proj,v_proj seed=1", &[("lora_target", text("q_proj,v_proj")), ("seed", text("1"))]);
        let list = Raw::List(vec!["a".to_owned(), "b".to_owned()]);
        check("dataset=[a,b] --dataset [a,b]", &[("dataset", list.clone()), ("dataset", list)]);
    }

    #[test]
    fn what_is_no_setting() {
        fails("--lora_rank", "command line: --lora_rank has no value; expected a whole number from 1 to 65536");
        fails("--lora_rank --bf16", "command line: --lora_rank has no value; expected a whole number from 1 to 65536");
        fails(
            "seed=1 a.yaml",
            "command line: \"a.yaml\" is neither key=value nor --key value; a file of settings comes first",
        );
        fails("lora_rank", "command line: lora_rank has no value; expected lora_rank=VALUE or --lora_rank VALUE");
        fails("-x", "command line: \"-x\" is neither key=value nor --key value");
        fails(
            "--lora-rnk 8 --seed 1",
            "command line: there is no setting --lora-rnk; did you mean --lora_rank? (`luthier train --help` lists all)",
        );
    }

    #[test]
    fn the_file_comes_first() {
        for (word, expected) in [("a.yaml", true), ("runs/a=1/b.yaml", true), ("seed=1", false), ("--seed", false)] {
            assert_eq!(is_file(word), expected, "{word}");
        }
    }
}
