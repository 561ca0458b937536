//! A file of settings, whatever it is written in, as entries: keys, the texts of their values, and the lines they are on.
//!
//! The extension decides: `.json`, `.toml`, and YAML for everything else. Values keep the text that was written, so that
//! `1e-4` is a number where a number is expected and `007` stays a name where a name is. What is not text is refused with
//! the reason, before any of the readers sees it.

use std::fmt;
use std::path::Path;

use super::{json, toml, yaml};
use crate::config::describe;

/// One `key: value` of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Raw,
    /// Line of the key, from 1.
    pub(crate) line: usize,
}

/// A value before anyone knows what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    Null,
    Text(String),
    List(Vec<String>),
    /// A mapping of keys to texts.
    Map(Vec<(String, String)>),
    /// A mapping or a list of more than texts.
    Nested,
}

impl fmt::Display for Raw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => write!(out, "null"),
            Self::Text(text) => write!(out, "{text:?}"),
            Self::List(items) => write!(out, "[{}]", items.join(", ")),
            Self::Map(entries) => {
                let entries: Vec<String> = entries.iter().map(|(key, text)| format!("{key}: {text}")).collect();
                write!(out, "{{{}}}", entries.join(", "))
            }
            Self::Nested => write!(out, "a nested value"),
        }
    }
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FileError {
    /// From 1; 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) sentence: String,
}

impl FileError {
    pub(crate) fn new(line: usize, sentence: impl Into<String>) -> Self {
        Self { line, sentence: sentence.into() }
    }
}

/// More is no file of settings: the largest have some kilobytes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads the entries of a file in their order. Errors: a line (0 for the whole) and a sentence.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let unreadable =
        |error: std::io::Error| FileError::new(0, format!("the settings cannot be read: {}", describe(&error)));
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if about.is_dir() {
        return Err(FileError::new(0, "this is a folder; expected a file of settings in YAML, JSON or TOML"));
    }
    if about.len() > MOST_BYTES {
        let model = "; a model is given as model_name_or_path=PATH";
        let sentence =
            format!("this has {} bytes, too many for settings; expected YAML, JSON or TOML{model}", about.len());
        return Err(FileError::new(0, sentence));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    parse(path.extension().and_then(|extension| extension.to_str()).unwrap_or_default(), text(&bytes)?)
}

/// Reads the entries of a text in the format of a file's extension.
pub(crate) fn parse(extension: &str, text: &str) -> Result<Vec<Entry>, FileError> {
    match extension.to_ascii_lowercase().as_str() {
        "json" => json::read(text),
        "toml" => toml::read(text),
        _ => yaml::read(text),
    }
}

/// The text of a file, without its byte order mark.
fn text(bytes: &[u8]) -> Result<&str, FileError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(FileError::new(0, "this is text in UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with(b"GGUF") {
        return Err(FileError::new(0, "this is a GGUF model, not settings; give it as model_name_or_path=PATH"));
    }
    let line = |at: usize| 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    if bytes.contains(&0) {
        return Err(FileError::new(0, "this is not a text file; expected settings in YAML, JSON or TOML"));
    }
    std::str::from_utf8(bytes)
        .map_err(|error| FileError::new(line(error.valid_up_to()), "this is not text in UTF-8; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<&str, (usize, &str)>) {
        let found = text(bytes).map_err(|error| (error.line, error.sentence));
        assert_eq!(found, expected.map_err(|(line, sentence)| (line, sentence.to_owned())));
    }

    #[test]
    fn what_is_not_text() {
        check(b"\xef\xbb\xbfseed: 1\r\n", Ok("seed: 1\r\n"));
        check(b"a: 1\nb: \xe9\n", Err((2, "this is not text in UTF-8; save the file as UTF-8")));
        check(b"\xff\xfea\0", Err((0, "this is text in UTF-16; save it as UTF-8")));
        check(b"\x7fELF\0", Err((0, "this is not a text file; expected settings in YAML, JSON or TOML")));
        check(b"GGUF\x03\0", Err((0, "this is a GGUF model, not settings; give it as model_name_or_path=PATH")));
    }

    #[test]
    fn the_three_formats_say_the_same() {
        let entry = |key: &str, value: Raw, line| Entry { key: key.to_owned(), value, line };
        let list = Raw::List(vec!["q_proj".to_owned(), "v_proj".to_owned()]);
        let expected = vec![
            entry("learning_rate", Raw::Text("1.0e-4".to_owned()), 2),
            entry("bf16", Raw::Text("true".to_owned()), 3),
            entry("lora_target", list, 4),
            entry("dataset", Raw::Text("a,b".to_owned()), 5),
            entry("role_weights", Raw::Map(vec![("user".to_owned(), "0.1".to_owned())]), 6),
        ];
        let yaml = "# comment\nlearning_rate: 1.0e-4\nbf16: true\nlora_target: [q_proj, v_proj]\ndataset: a,b\nrole_weights: {user: 0.1}\n";
        let json = "{\n\"learning_rate\": 1.0e-4,\n\"bf16\": true,\n\"lora_target\": [\"q_proj\", \"v_proj\"],\n\"dataset\": \"a,b\",\n\"role_weights\": {\"user\": 0.1}}";
        let toml = "# comment\nlearning_rate = 1.0e-4\nbf16 = true\nlora_target = [\"q_proj\", \"v_proj\"]\ndataset = \"a,b\"\nrole_weights = {user = 0.1}\n";
        for (extension, text) in [("yaml", yaml), ("JSON", json), ("toml", toml)] {
            assert_eq!(parse(extension, text), Ok(expected.clone()), "{extension}");
            assert_eq!(parse(extension, &text.replace('\n', "\r\n")), Ok(expected.clone()), "{extension}, CRLF");
        }
    }
}
