//! What one record of a dataset is, once its [`Layout`] is known. A record that lacks something is an error, a clause that
//! says what: whoever reads it sets it aside or stops.

use serde_json::{Map, Value};

use crate::conversation::{Conversation, Judged, Preference};
use crate::example::Example;
use crate::layout::Layout;
use crate::layouts::{alpaca, messages, prompt};

/// One record of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A conversation that ends with the assistant: for `stage: sft`.
    Conversation(Conversation),
    /// A prompt with a better and a worse reply.
    Preference(Preference),
    /// A conversation with a verdict on its last reply.
    Judged(Judged),
    /// A document: for `stage: pt`.
    Text(String),
    /// A row that is tokens already.
    Tokens(Example),
}

/// Reads one record; the error is the clause that says what is wrong with it.
pub(crate) fn read_record(layout: &Layout, value: &Value) -> Result<Record, String> {
    let Value::Object(object) = value else {
        return Err(format!("expected an object with keys and values, found {}", kind(value)));
    };
    match layout {
        Layout::Alpaca(columns) => alpaca::read(columns, object),
        Layout::Messages(columns) => messages::read(columns, object),
        Layout::Prompt(columns) => prompt::read(columns, object),
        Layout::Text { text, query } => {
            let first = required(object, text, text)?;
            let query = optional_column(object, query.as_deref())?.unwrap_or_default();
            let parts: Vec<&str> = [first, query].into_iter().filter(|part| !part.is_empty()).collect();
            Ok(Record::Text(parts.join("\n")))
        }
        Layout::Tokens => crate::tokens::read(object).map(Record::Tokens),
    }
}

pub(crate) fn required<'a>(object: &'a Map<String, Value>, column: &str, expected: &str) -> Result<&'a str, String> {
    match object.get(column) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{column:?} is {}, not text", kind(other))),
        None => Err(format!("{column:?} is missing; expected {expected}")),
    }
}

/// The text of a column that need not be there.
pub(crate) fn optional_column<'a>(
    object: &'a Map<String, Value>,
    column: Option<&str>,
) -> Result<Option<&'a str>, String> {
    match column.and_then(|column| object.get(column).map(|value| (column, value))) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text)),
        Some((column, other)) => Err(format!("{column:?} is {}, not text", kind(other))),
    }
}

/// A verdict: true or false, also as 1 and 0 or in words, since a CSV file has nothing else.
pub(crate) fn verdict(object: &Map<String, Value>, column: &str) -> Result<bool, String> {
    let found = match object.get(column) {
        Some(Value::Bool(verdict)) => Some(*verdict),
        Some(Value::Number(number)) => number.as_u64().and_then(|number| [false, true].get(number as usize).copied()),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Some(_) => None,
        None => return Err(format!("{column:?} is missing; expected true or false")),
    };
    found.ok_or_else(|| format!("{column:?} is not true or false"))
}

/// What a JSON value is, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
