//! Values as Python writes them: `json.dumps` and `str`. Templates and tool formats were made there, and models learned
//! its blanks.

use serde_json::{Number, Value};

/// How `json.dumps` is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// Blanks a level; `None` for one line.
    pub(crate) indent: Option<usize>,
    /// What stands between items.
    pub(crate) item: &'a str,
    /// What stands between a key and its value.
    pub(crate) key: &'a str,
    /// Whether keys are sorted.
    pub(crate) sort: bool,
    /// Whether what is not ASCII is escaped.
    pub(crate) ascii: bool,
}

/// `json.dumps(value, ensure_ascii=False)`
pub(crate) fn dumps(value: &Value) -> String {
    Style { indent: None, item: ", ", key: ": ", sort: false, ascii: false }.dumps(value)
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`
pub(crate) fn dumps_indented(value: &Value, indent: usize) -> String {
    Style { indent: Some(indent), item: ",", key: ": ", sort: false, ascii: false }.dumps(value)
}

/// `str(value)`
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => representation(other),
    }
}

/// `repr(value)`
fn representation(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(representation).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(object) => {
            let items: Vec<String> =
                object.iter().map(|(key, value)| format!("{}: {}", quoted(key), representation(value))).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

/// `repr` of a string: in single quotes, unless it has some and no double ones.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            quoted if quoted == quote => out.extend(['\\', quoted]),
            control if (control as u32) < 32 || control as u32 == 127 => {
                out.push_str(&format!("\\x{:02x}", control as u32));
            }
            other => out.push(other),
        }
    }
    out.push(quote);
    out
}

pub(crate) fn number_text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_text(float),
        _ => number.to_string(),
    }
}

/// `repr` of a float: the shortest digits, with an exponent from 1e16 on and below 1e-4.
pub(crate) fn float_text(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() {
            "nan"
        } else if float > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{float}");
    if plain.contains('.') { plain } else { plain + ".0" }
}

impl Style<'_> {
    pub(crate) fn dumps(&self, value: &Value) -> String {
        let mut out = String::new();
        self.write(value, 0, &mut out);
        out
    }

    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push(']');
            }
            Value::Object(object) if !object.is_empty() => {
                let mut entries: Vec<(&String, &Value)> = object.iter().collect();
                if self.sort {
                    entries.sort_by_key(|(key, _)| *key);
                }
                out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.separate(index, depth + 1, out);
                    self.string(key, out);
                    out.push_str(self.key);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push('}');
            }
            Value::Number(number) => out.push_str(&number_text(number)),
            Value::String(text) => self.string(text, out),
            scalar => out.push_str(&scalar.to_string()),
        }
    }

    fn separate(&self, index: usize, depth: usize, out: &mut String) {
        if index > 0 {
            out.push_str(self.item);
        }
        self.new_line(depth, out);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        let text = Value::from(text).to_string();
        if !self.ascii {
            return out.push_str(&text);
        }
        for character in text.chars() {
            if matches!(character, ' '..='~') {
                out.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_pythons() {
        for (float, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(float_text(float), expected);
        }
    }

    #[test]
    fn values_are_pythons() {
        let value: Value = serde_json::from_str(r#"{"a": [1, null, "it's é\n"], "b": {}}"#).expect("JSON");
        assert_eq!(dumps(&value), r#"{"a": [1, null, "it's é\n"], "b": {}}"#);
        assert_eq!(text(&value), r#"{'a': [1, None, "it's é\n"], 'b': {}}"#);
        assert_eq!(
            dumps_indented(&value, 2),
            "{\n  \"a\": [\n    1,\n    null,\n    \"it's é\\n\"\n  ],\n  \"b\": {}\n}"
        );
    }
}
