//! What a chat template may call, as transformers provides it (`utils/chat_template_utils.py`).

use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use crate::python_json::{Style, text};
use crate::strftime::strftime;

/// Adds `raise_exception`, `strftime_now`, `tojson`, Python's methods and Python's way to write values.
pub(crate) fn add_functions(environment: &mut Environment<'_>, now_unix_seconds: Option<i64>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(format_like_python);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: Jinja| python_text(&value).unwrap_or_else(|| value.to_string()));
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

/// As Python writes a value that is no text: `True`, `None`, `2e-07`, `{'a': 1}`.
fn format_like_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Jinja) -> Result<(), Error> {
    match python_text(value) {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    }
}

/// `str(value)`, for values that minijinja writes in another way.
fn python_text(value: &Jinja) -> Option<String> {
    let is_plain = match value.kind() {
        ValueKind::Bool | ValueKind::None | ValueKind::Map | ValueKind::Seq => true,
        ValueKind::Number => !value.is_integer(),
        _ => false,
    };
    let plain = is_plain.then(|| serde_json::to_value(value).ok()).flatten()?;
    Some(text(&plain))
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
    Ok(Jinja::from_safe_string(style.dumps(&value)))
}
