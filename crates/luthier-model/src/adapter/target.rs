//! Which modules an adapter goes on, by PEFT's rules: a list of names matches whole paths and endings of paths, a text is
//! a regular expression for whole paths, and `all-linear` means every linear module but the head.

use fancy_regex::Regex;
use serde_json::Value;

use crate::error::{Error, short};

const KEY: &str = "target_modules";

/// `target_modules`
#[derive(Clone, Debug, PartialEq)]
pub enum TargetModules {
    /// `all-linear`
    AllLinear,
    /// Paths or their last parts.
    Names(Vec<String>),
    /// A regular expression that matches the whole path.
    Pattern(Box<Pattern>),
}

/// A regular expression in Python's notation, anchored at both ends.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl TargetModules {
    /// From a configuration file.
    ///
    /// # Errors
    /// When the value is neither a text nor a list of texts, or not a regular expression.
    pub fn from_json(file: &str, value: &Value) -> Result<Self, Error> {
        if let Some(text) = value.as_str() {
            return Self::from_text(file, text);
        }
        let names = value.as_array().map(|list| list.iter().map(|name| name.as_str().map(str::to_owned)).collect());
        match names {
            Some(Some(names)) => Ok(Self::Names(names)),
            _ => Err(bad(file, KEY, short(value), "a list of module names, a regular expression or `all-linear`")),
        }
    }

    /// `all-linear` or a regular expression.
    ///
    /// # Errors
    /// When the text is not a regular expression.
    pub fn from_text(file: &str, text: &str) -> Result<Self, Error> {
        if text.eq_ignore_ascii_case("all-linear") {
            return Ok(Self::AllLinear);
        }
        let regex = compile(file, KEY, text, &format!(r"\A(?:{text})\z"))?;
        Ok(Self::Pattern(Box::new(Pattern { text: text.to_owned(), regex })))
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::AllLinear => "all-linear".into(),
            Self::Names(names) => names.clone().into(),
            Self::Pattern(pattern) => pattern.text.clone().into(),
        }
    }
}

/// True when an adapter goes on the module at path `module`. `AllLinear` takes whatever it is asked about: ask about
/// linear modules, and not about the head. A pattern that its engine gives up on (a million backtracks) does not match.
pub fn matches_target(module: &str, targets: &TargetModules) -> bool {
    match targets {
        TargetModules::AllLinear => true,
        TargetModules::Names(names) => names.iter().any(|name| ends_with_path(module, name)),
        TargetModules::Pattern(pattern) => pattern.regex.is_match(module).unwrap_or(false),
    }
}

fn ends_with_path(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The number of the first pattern that matches the end of the path, as PEFT's `get_pattern_key`.
pub(crate) fn pattern_entry(
    file: &str,
    key: &str,
    patterns: &[(String, f64)],
    module: &str,
) -> Result<Option<f64>, Error> {
    for (pattern, number) in patterns {
        let regex = compile(file, key, pattern, &format!(r"\A(?:.*\.)?(?:{pattern})\z"))?;
        if regex.is_match(module).unwrap_or(false) {
            return Ok(Some(*number));
        }
    }
    Ok(None)
}

fn compile(file: &str, key: &str, text: &str, anchored: &str) -> Result<Regex, Error> {
    Regex::new(anchored)
        .map_err(|error| bad(file, key, short(&text.into()), &format!("a regular expression ({error})")))
}

fn bad(file: &str, key: &str, found: String, expected: &str) -> Error {
    Error::BadValue { file: file.into(), key: key.into(), found, expected: expected.into() }
}
