//! What the value of a setting may be, and how its text becomes one: as YAML, TOML, Python and transformers read texts.

use super::file::Raw;
use super::{Setting, yaml};

/// What the value of a setting may be. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Switch,
    /// A whole number within bounds.
    Whole(i64, i64),
    /// A whole number within bounds, or `auto`.
    WholeOrAuto(i64, i64),
    /// A number within bounds.
    Number(f64, f64),
    /// One of the first names; the second ones are known, but not there yet.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// Any text.
    Text,
    /// Names separated by commas, or a list.
    Names,
    /// Weights of 0 or more for some of these names: `user=0.1,tool=0`, a list of such, or a mapping.
    Weights(&'static [&'static str]),
    /// Names with texts: `a=1,b=2`, or a mapping.
    Options,
    /// Anything, nested values too: only for settings that are not honoured.
    Anything,
}

/// The value of a setting after its text has been read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Unset,
    Switch(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    Names(Vec<String>),
    /// In the order of the kind's names.
    Weights(Vec<(&'static str, f64)>),
    /// In the order in which they were given.
    Options(Vec<(String, String)>),
    /// Something nested that no one will look into.
    Nested,
}

impl Setting {
    /// The default as a value.
    pub(crate) fn default_value(&self) -> Value {
        if self.default.is_empty() {
            return Value::Unset;
        }
        self.parse(&yaml::read_value(self.default)).unwrap_or(Value::Unset)
    }

    /// The error is the end of a sentence that began with the key and its text.
    pub(crate) fn parse(&self, raw: &Raw) -> Result<Value, String> {
        if let Kind::Weights(names) = self.kind
            && *raw != Raw::Null
        {
            return weights(names, raw).ok_or_else(|| format!("; expected {}", self.kind.expected()));
        }
        if self.kind == Kind::Options && *raw != Raw::Null {
            return options(raw).ok_or_else(|| format!("; expected {}", self.kind.expected()));
        }
        let text = match raw {
            Raw::Null => return Ok(Value::Unset),
            Raw::Text(text) => text.trim(),
            Raw::List(items) if self.kind == Kind::Names => return Ok(Value::Names(clean(items.iter()))),
            Raw::List(items) if items.len() == 1 && self.kind != Kind::Anything => items[0].trim(),
            Raw::List(_) | Raw::Map(_) | Raw::Nested if self.kind == Kind::Anything => return Ok(Value::Nested),
            Raw::List(_) | Raw::Map(_) | Raw::Nested => return Err(format!("; expected {}", self.kind.expected())),
        };
        if text.is_empty() {
            let default = if self.default.is_empty() { "" } else { ", or null for the default" };
            return Err(format!("; expected {}{default}", self.kind.expected()));
        }
        let value = match self.kind {
            Kind::Switch => switch(text).map(Value::Switch),
            Kind::WholeOrAuto(..) if text == "auto" => Some(Value::Text(text.to_owned())),
            Kind::Whole(least, most) | Kind::WholeOrAuto(least, most) => match number(text) {
                Some(value) if value.abs() >= i64::MAX as f64 => return Err(too_large(self.kind)),
                Some(value) if value.fract() == 0.0 => {
                    let exact = text.replace('_', "").parse().unwrap_or(value as i64);
                    (least..=most).contains(&exact).then_some(Value::Whole(exact))
                }
                _ => None,
            },
            Kind::Number(least, most) => match number(text) {
                Some(value) if value.is_infinite() => return Err(too_large(self.kind)),
                value => value.filter(|value| (least..=most).contains(value)).map(Value::Number),
            },
            Kind::Choice(now, later) => {
                if later.contains(&text) {
                    return Err(format!(", which Luthier does not have yet; expected {}", self.kind.expected()));
                }
                // YAML 1.1 and Python read a bare `no` as false.
                let text = if text.eq_ignore_ascii_case("false") && now.contains(&"no") { "no" } else { text };
                // What was a switch once is still one.
                let text = match switch(text) {
                    Some(on) if now.contains(&"on") => ["off", "on"][usize::from(on)],
                    _ => text,
                };
                now.contains(&text).then(|| Value::Text(text.to_owned()))
            }
            Kind::Names => Some(Value::Names(clean(text.split(',')))),
            Kind::Text | Kind::Weights(_) | Kind::Options | Kind::Anything => Some(Value::Text(text.to_owned())),
        };
        value.ok_or_else(|| format!("; expected {}", self.kind.expected()))
    }
}

/// Each name at most once.
fn options(raw: &Raw) -> Option<Value> {
    let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    let found: Vec<(String, String)> = match raw {
        Raw::Text(text) => text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect::<Option<_>>()?,
        Raw::List(items) => items.iter().map(|item| pair(item)).collect::<Option<_>>()?,
        Raw::Map(entries) => entries.clone(),
        Raw::Null | Raw::Nested => return None,
    };
    let twice =
        found.iter().enumerate().any(|(index, (name, _))| found[..index].iter().any(|(other, _)| other == name));
    (!twice).then_some(Value::Options(found))
}

/// Each name at most once, with a number of 0 or more.
fn weights(names: &[&'static str], raw: &Raw) -> Option<Value> {
    let pair =
        |text: &str| text.split_once('=').map(|(name, weight)| (name.trim().to_owned(), weight.trim().to_owned()));
    let pairs: Vec<(String, String)> = match raw {
        Raw::Text(text) => text.split(',').map(pair).collect::<Option<_>>()?,
        Raw::List(items) => items.iter().map(|item| pair(item)).collect::<Option<_>>()?,
        Raw::Map(entries) => entries.clone(),
        Raw::Null | Raw::Nested => return None,
    };
    let mut found = vec![None; names.len()];
    for (name, weight) in pairs {
        let place = names.iter().position(|known| *known == name)?;
        let weight = number(&weight).filter(|weight| (0.0..=f64::from(f32::MAX)).contains(weight))?;
        if found[place].replace(weight).is_some() {
            return None;
        }
    }
    let named = names.iter().zip(found).filter_map(|(name, weight)| Some((*name, weight?)));
    Some(Value::Weights(named.collect()))
}

/// As transformers reads a boolean.
fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
        _ => None,
    }
}

/// A number as YAML, TOML and Python write it, with underscores between digits; infinite when it is too large. The words
/// `inf` and `nan` are no numbers.
fn number(text: &str) -> Option<f64> {
    let is_number = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E' | '_'));
    let lone = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (is_number && !lone).then(|| text.replace('_', "").parse().ok()).flatten()
}

fn too_large(kind: Kind) -> String {
    format!(", which is too large; expected {}", kind.expected())
}

fn clean(items: impl Iterator<Item = impl AsRef<str>>) -> Vec<String> {
    items.map(|item| item.as_ref().trim().to_owned()).filter(|item| !item.is_empty()).collect()
}

impl Kind {
    /// What a value of this kind looks like, for messages and the reference.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::WholeOrAuto(least, _) => format!("a whole number of {least} or more, or auto"),
            Self::Whole(least, i64::MAX) => format!("a whole number of {least} or more"),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Number(f64::MIN, f64::MAX) => "a number".to_owned(),
            Self::Number(least, f64::MAX) => format!("a number of {least} or more"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Choice(now, _) => either(now),
            Self::Text => "one text".to_owned(),
            Self::Names => "names, separated by commas or as a list".to_owned(),
            Self::Weights(names) => {
                format!("weights of 0 or more for some of {}, as {}=0.1, each once", names.join(", "), names[0])
            }
            Self::Options => "options such as a=1,b=2, or a mapping, each once".to_owned(),
            Self::Anything => "anything".to_owned(),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn values_as_yaml_and_python_write_them() {
        let value = |key: &str, text: &str| find(key).expect(key).parse(&Raw::Text(text.to_owned()));
        let number = |text: &str| value("learning_rate", text).ok();
        for text in ["1.0e-4", "1e-4", "0.0001", "+1E-4", ".0001", "1_0e-5"] {
            assert_eq!(number(text), Some(Value::Number(1e-4)), "{text}");
        }
        for text in ["-1", "nan", ".nan", "inf", "1e400", "0x10", "1,5", "_1", "1__0", "--1", ""] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(value("lora_rank", "8.0"), Ok(Value::Whole(8)));
        assert_eq!(value("lora_rank", "8.5"), Err("; expected a whole number from 1 to 65536".to_owned()));
        assert_eq!(value("max_steps", "9007199254740993"), Ok(Value::Whole(9_007_199_254_740_993)));
        let too_large = ", which is too large; expected a whole number of -1 or more";
        assert_eq!(value("max_steps", "99999999999999999999"), Err(too_large.to_owned()));
        assert_eq!(value("save_strategy", "False"), Ok(Value::Text("no".to_owned())));
        assert_eq!(value("packing", "Yes"), Ok(Value::Switch(true)));
    }
}
