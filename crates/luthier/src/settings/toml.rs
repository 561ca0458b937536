//! Reading settings from TOML: `key = value` lines. Tables (`[name]`) are values that are nested.

use toml_edit::{Document, Item, Value};

use super::file::{Entry, FileError, Raw};

/// Reads the entries of a file in their order; an empty file has none.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, FileError> {
    let line = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        FileError::new(line(at), format!("this is not valid TOML: {reason}"))
    })?;
    let mut entries: Vec<Entry> = document
        .iter()
        .filter_map(|(name, _)| document.get_key_value(name))
        .map(|(key, item)| {
            let at = key.span().or_else(|| item.span()).map_or(0, |span| span.start);
            Entry { key: key.get().to_owned(), value: raw(text, item), line: line(at) }
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn raw(text: &str, item: &Item) -> Raw {
    match item {
        Item::Value(Value::Array(items)) => {
            items.iter().map(|value| scalar(text, value)).collect::<Option<_>>().map_or(Raw::Nested, Raw::List)
        }
        Item::Value(Value::InlineTable(table)) => {
            let texts = table.iter().map(|(key, value)| scalar(text, value).map(|value| (key.to_owned(), value)));
            texts.collect::<Option<_>>().map_or(Raw::Nested, Raw::Map)
        }
        Item::Table(table) => {
            let texts = table.iter().map(|(key, item)| Some((key.to_owned(), scalar(text, item.as_value()?)?)));
            texts.collect::<Option<_>>().map_or(Raw::Nested, Raw::Map)
        }
        Item::Value(value) => scalar(text, value).map_or(Raw::Nested, Raw::Text),
        Item::None => Raw::Null,
        Item::ArrayOfTables(_) => Raw::Nested,
    }
}

/// The text of a value that is one text; numbers keep their writing.
fn scalar(text: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(value) => Some(value.value().clone()),
        Value::Boolean(value) => Some(value.value().to_string()),
        Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => {
            value.span().and_then(|span| text.get(span)).map(str::to_owned)
        }
        Value::Array(_) | Value::InlineTable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_their_lines() {
        let text = "\nseed = 42\n\"lora_rank\" = 1_6\nx = [1, 'a']\n[fsdp_config]\na = 1\n";
        let found: Vec<_> = read(text).expect("valid").into_iter().map(|e| (e.key, e.value, e.line)).collect();
        let expected = [
            ("seed", Raw::Text("42".to_owned()), 2),
            ("lora_rank", Raw::Text("1_6".to_owned()), 3),
            ("x", Raw::List(vec!["1".to_owned(), "a".to_owned()]), 4),
            ("fsdp_config", Raw::Map(vec![("a".to_owned(), "1".to_owned())]), 5),
        ];
        assert_eq!(found, expected.map(|(key, value, line)| (key.to_owned(), value, line)));
    }

    #[test]
    fn errors() {
        let error = read("a = 1\nb = q_proj\n").expect_err("no quotes");
        assert_eq!(error.line, 2);
        assert!(error.sentence.starts_with("this is not valid TOML: "), "{}", error.sentence);
        assert_eq!(read("a = 1\na = 2\n").expect_err("twice").line, 2);
    }
}
