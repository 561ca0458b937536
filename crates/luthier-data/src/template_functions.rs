//! What a chat template may call, as transformers provides it (`utils/chat_template_utils.py`).

use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use serde_json::Value;

use crate::strftime::strftime;

/// Adds `raise_exception`, `strftime_now`, `tojson`, Python's methods and Python's way to write values.
pub(crate) fn add_functions(environment: &mut Environment<'_>, now_unix_seconds: Option<i64>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(format_like_python);
    environment.add_filter("tojson", to_json);
    // As in Python, None is not iterable: templates ask so before they take the length of `tools`.
    environment.add_test("iterable", |value: &Jinja| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, RAISED.to_owned() + &message))
    });
    environment.add_function("strftime_now", move |format: String| match now_unix_seconds {
        Some(now) => Ok(strftime(&format, now)),
        None => Err(Error::new(ErrorKind::InvalidOperation, "the template asks for the time, and none was given")),
    });
}

/// Marks a message of `raise_exception` in an error's text.
pub(crate) const RAISED: &str = "raised: ";

/// Python writes `True`, `False` and `None` with capitals.
fn format_like_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Jinja) -> Result<(), Error> {
    let name = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(name).map_err(Error::from)
}

/// `json.dumps(value, ensure_ascii=False, indent=..., separators=..., sort_keys=...)`
fn to_json(value: Jinja, options: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson got an undefined value"));
    }
    let value = serde_json::to_value(&value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "tojson failed").with_source(error))?;
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.as_str(), key.as_str()],
        _ => [if indent.is_some() { "," } else { ", " }, ": "],
    };
    let style = Style { indent, item, key, sort: sort_keys == Some(true), ascii: ensure_ascii == Some(true) };
    let mut out = String::new();
    style.write(&value, 0, &mut out);
    Ok(Jinja::from_safe_string(out))
}

struct Style<'a> {
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    sort: bool,
    ascii: bool,
}

impl Style<'_> {
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
                    self.text(&Value::from(key.as_str()), out);
                    out.push_str(self.key);
                    self.write(item, depth + 1, out);
                }
                self.new_line(depth, out);
                out.push('}');
            }
            scalar => self.text(scalar, out),
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

    fn text(&self, scalar: &Value, out: &mut String) {
        let text = scalar.to_string();
        if !self.ascii {
            return out.push_str(&text);
        }
        for character in text.chars() {
            if character.is_ascii() {
                out.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}
