//! Reading settings from JSON: one object. The text is checked by `serde_json`; then its keys are found again by a walk
//! over the text, since `serde_json` tells neither the line of a key nor that a key came twice.

use serde_json::Value;

use super::file::{Entry, FileError, Raw};

/// Reads the entries of a file in their order; an empty file has none.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, FileError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let whole: Value = serde_json::from_str(text).map_err(|error| {
        let full = error.to_string();
        let reason = full.rsplit_once(" at line ").map_or(full.as_str(), |(reason, _)| reason);
        FileError::new(error.line(), format!("this is not valid JSON: {reason}"))
    })?;
    if !whole.is_object() {
        return Err(FileError::new(1, "expected settings in one object, such as {\"lora_rank\": 8}"));
    }
    Ok(entries(text))
}

/// The members of the object that a valid text is.
fn entries(text: &str) -> Vec<Entry> {
    let bytes = text.as_bytes();
    let mut entries = Vec::new();
    let (mut at, mut depth, mut line) = (0, 0, 1);
    // The key that is being read, and where its value begins.
    let mut member: Option<(String, usize, usize)> = None;
    let mut last_string = String::new();
    let mut string_line = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = at + string_bytes(&bytes[at..]);
                string_line = line;
                last_string = serde_json::from_str(&text[at..end]).unwrap_or_default();
                at = end;
                continue;
            }
            b'\n' => line += 1,
            b':' if depth == 1 => member = Some((std::mem::take(&mut last_string), at + 1, string_line)),
            b'{' | b'[' => depth += 1,
            byte @ (b'}' | b']' | b',') => {
                if depth == 1
                    && let Some((key, from, line)) = member.take()
                {
                    entries.push(Entry { key, value: raw(text[from..at].trim()), line });
                }
                depth -= usize::from(byte != b',');
            }
            _ => {}
        }
        at += 1;
    }
    entries
}

/// The length of a string with its quotes, which begins the bytes.
fn string_bytes(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += 1 + usize::from(bytes[at] == b'\\');
    }
    (at + 1).min(bytes.len())
}

/// A value as its text; numbers keep their writing.
fn raw(text: &str) -> Raw {
    match serde_json::from_str(text) {
        Ok(Value::Null) => Raw::Null,
        Ok(Value::String(text)) => Raw::Text(text),
        Ok(Value::Bool(_) | Value::Number(_)) => Raw::Text(text.to_owned()),
        Ok(Value::Array(items)) => {
            let texts = items.into_iter().map(|item| match item {
                Value::String(text) => Some(text),
                Value::Bool(_) | Value::Number(_) => Some(item.to_string()),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Raw::Nested, Raw::List)
        }
        Ok(Value::Object(members)) => {
            let texts = members.into_iter().map(|(key, value)| match value {
                Value::String(text) => Some((key, text)),
                Value::Bool(_) | Value::Number(_) => Some((key, value.to_string())),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Raw::Nested, Raw::Map)
        }
        _ => Raw::Nested,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_with_their_lines() {
        let text = "{\"a\": {\"b\": [1, {\"c\": 2}]},\n \"q\\\"{\\u00e9\": \"x, \\\\\", \"a\":\nnull,\n\"n\": -1e-4}";
        let found: Vec<_> = read(text).expect("valid").into_iter().map(|e| (e.key, e.value, e.line)).collect();
        let expected = [
            ("a", Raw::Nested, 1),
            ("q\"{é", Raw::Text("x, \\".to_owned()), 2),
            ("a", Raw::Null, 2),
            ("n", Raw::Text("-1e-4".to_owned()), 4),
        ];
        assert_eq!(found, expected.map(|(key, value, line)| (key.to_owned(), value, line)));
    }

    #[test]
    fn errors() {
        let fails = |text: &str| read(text).map_err(|error| (error.line, error.sentence));
        assert_eq!(fails("{\n\"a\": 1,\n}"), Err((3, "this is not valid JSON: trailing comma".to_owned())));
        let expected = "expected settings in one object, such as {\"lora_rank\": 8}";
        assert_eq!(fails("[1]"), Err((1, expected.to_owned())));
        assert_eq!(fails(" \n"), Ok(Vec::new()));
    }
}
