//! A typed reader over a configuration's JSON. Whatever it returns is within its range, so that no code behind it can
//! divide by zero or allocate by an absurd number; whatever is not becomes an error that names file and key.

use serde_json::{Map, Value};

use crate::error::{Error, short};

/// One JSON object of a configuration file. A key with the value `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    file: &'a str,
    /// The key that this object stands under, with a dot; empty at the top.
    within: &'a str,
    object: &'a Map<String, Value>,
}

/// No size in a configuration is larger; it bounds every product of two of them far below overflow.
const LARGEST_SIZE: u64 = 1 << 28;

impl<'a> Raw<'a> {
    /// The top of `file`.
    pub(crate) fn new(file: &'a str, value: &'a Value) -> Result<Self, Error> {
        match value.as_object() {
            Some(object) => Ok(Self { file, within: "", object }),
            None => Err(Error::NotJson { file: file.into(), reason: "expected an object in braces".into() }),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// True when the key is there, be it `null`.
    pub(crate) fn names(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.object.keys().map(String::as_str)
    }

    pub(crate) fn child(&self, key: &'a str) -> Result<Option<Self>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { file: self.file, within: key, object })),
            Some(_) => Err(self.bad(key, "an object in braces or null")),
        }
    }

    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        Error::MissingKey { file: self.file.into(), key: self.full(key), expected: expected.into() }
    }

    pub(crate) fn bad(&self, key: &str, expected: impl Into<String>) -> Error {
        match self.object.get(key) {
            Some(value) => Error::BadValue {
                file: self.file.into(),
                key: self.full(key),
                found: short(value),
                expected: expected.into(),
            },
            None => self.missing(key, &expected.into()),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, reason: impl Into<String>) -> Error {
        let found = self.object.get(key).map_or_else(|| "absent".to_owned(), short);
        Error::Unsupported { file: self.file.into(), key: self.full(key), found, reason: reason.into() }
    }

    fn full(&self, key: &str) -> String {
        if self.within.is_empty() { key.to_owned() } else { format!("{}.{key}", self.within) }
    }

    /// A positive whole number that may be absent.
    pub(crate) fn size_if_given(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64().or_else(|| whole(value)) {
            Some(size @ 1..=LARGEST_SIZE) => Ok(Some(size as usize)),
            _ => Err(self.bad(key, format!("a positive whole number up to {LARGEST_SIZE}"))),
        }
    }

    /// A positive whole number that must be there.
    pub(crate) fn size(&self, key: &str) -> Result<usize, Error> {
        self.size_if_given(key)?.ok_or_else(|| self.missing(key, "a positive whole number"))
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        Ok(self.size_if_given(key)?.unwrap_or(default))
    }

    /// A finite number that may be absent.
    pub(crate) fn number_if_given(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.bad(key, "a number")),
        }
    }

    /// A number above zero that may be absent.
    pub(crate) fn positive_if_given(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.number_if_given(key)? {
            Some(number) if number <= 0.0 => Err(self.bad(key, "a number above 0")),
            other => Ok(other),
        }
    }

    pub(crate) fn positive_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        Ok(self.positive_if_given(key)?.unwrap_or(default))
    }

    pub(crate) fn positive(&self, key: &str) -> Result<f64, Error> {
        self.positive_if_given(key)?.ok_or_else(|| self.missing(key, "a number above 0"))
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(key, "true or false")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.bad(key, "a text in quotes")),
        }
    }

    /// A list of exactly `length` numbers above zero.
    pub(crate) fn positive_list(&self, key: &str, length: usize) -> Result<Vec<f64>, Error> {
        let expected = format!("a list of {length} numbers above 0");
        let Some(value) = self.value(key) else { return Err(self.missing(key, &expected)) };
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| {
            list.iter().map(|item| item.as_f64().filter(|number| number.is_finite() && *number > 0.0)).collect()
        });
        match numbers {
            Some(numbers) if numbers.len() == length => Ok(numbers),
            Some(numbers) => Err(Error::BadValue {
                file: self.file.into(),
                key: self.full(key),
                found: format!("a list of {}", numbers.len()),
                expected,
            }),
            None => Err(self.bad(key, expected)),
        }
    }

    /// One token id or a list of them; absent is `None`.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.value(key) {
            None => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| self.bad(key, "a token id or a list of token ids"))
    }
}

/// A whole number written with a point, as some tools do: `4096.0`.
fn whole(value: &Value) -> Option<u64> {
    value
        .as_f64()
        .filter(|number| *number >= 0.0 && *number <= 1e15 && number.fract() == 0.0)
        .map(|number| number as u64)
}
