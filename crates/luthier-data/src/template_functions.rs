//! What a chat template may call, as transformers provides it (`utils/chat_template_utils.py`).

use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use crate::python_json::{Style, text};
use crate::strftime::strftime;

/// Adds `raise_exception`, `strftime_now`, `tojson`, Python's methods and Python's way to write values.
pub(crate) fn add_functions(environment: &mut Environment<'_>, now_unix_seconds: Option<i64>) {
    environment.set_unknown_method_callback(method_of_python);
    environment.add_filter("join", join);
    environment.add_filter("string", |state: &mut State<'_, '_>, value: &Jinja| text_of(state, value));
    environment.set_formatter(format_like_python);
    environment.add_filter("tojson", to_json);
    // As in Python, None is not iterable: templates ask so before they take the length of `tools`.
    environment.add_test("iterable", |value: &Jinja| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: &str| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, RAISED.to_owned() + message))
    });
    environment.add_function("strftime_now", move |format: &str| match now_unix_seconds {
        Some(now) if format.len() <= LONGEST_FORMAT => Ok(strftime(format, now)),
        Some(_) => Err(Error::new(ErrorKind::InvalidOperation, "the format of strftime_now is too long")),
        None => Err(Error::new(ErrorKind::InvalidOperation, "the template asks for the time, and none was given")),
    });
}

/// Marks a message of `raise_exception` in an error's text.
pub(crate) const RAISED: &str = "raised: ";

/// A format of a time is not longer.
const LONGEST_FORMAT: usize = 1024;
/// The bytes that one unit of fuel stands for.
const BYTES_OF_FUEL: usize = 64;

/// Python's methods; `format` has widths that the engine does not look at.
fn method_of_python(state: &mut State<'_, '_>, value: &Jinja, method: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    if let (Some(text), "format") = (value.as_str(), method) {
        let digits = text.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max();
        if digits.is_some_and(|digits| digits > 3) {
            return Err(Error::new(ErrorKind::InvalidOperation, "format is given a number of more than three digits"));
        }
        state.consume_fuel(text.matches('{').count() as u64 * (1000 / BYTES_OF_FUEL) as u64)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `join`, which pays for its text before it makes it.
fn join(state: &mut State<'_, '_>, value: &Jinja, between: Option<Jinja>, attribute: Kwargs) -> Result<Jinja, Error> {
    let attribute: Option<&str> = attribute.get("attribute")?;
    if value.is_undefined() || value.is_none() {
        return Ok(Jinja::from(""));
    }
    let between = between.map(|between| text_of(state, &between)).transpose()?.unwrap_or_default();
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        let item = attribute.map_or(Ok(item.clone()), |name| item.get_attr(name))?;
        let item = text_of(state, &item)?;
        let between = if index > 0 { between.as_str() } else { "" };
        state.consume_fuel(1 + ((between.len() + item.len()) / BYTES_OF_FUEL) as u64)?;
        out.push_str(between);
        out.push_str(&item);
    }
    Ok(Jinja::from(out))
}

/// A value as text, as the template writes it.
fn text_of(state: &mut State<'_, '_>, value: &Jinja) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => {
            pay_for_text(state, value)?;
            Ok(python_text(value).unwrap_or_else(|| value.to_string()))
        }
    }
}

/// Counts what would be written of a list or a map, and ends where the fuel does not pay for it.
struct Counter {
    whole: u64,
    left: u64,
    full: bool,
}

impl Counter {
    /// Bytes of a list that one unit of fuel stands for: walking over one is slower than copying text.
    const BYTES: u64 = 4;

    fn of(state: &State<'_, '_>) -> Self {
        let whole = state.fuel_levels().map_or(u64::MAX, |(_, remaining)| remaining.saturating_mul(Self::BYTES));
        Self { whole, left: whole, full: false }
    }

    fn pay(&self, state: &State<'_, '_>) -> Result<(), Error> {
        state.consume_fuel(if self.full { u64::MAX } else { (self.whole - self.left) / Self::BYTES })
    }

    fn take(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes as u64);
        (self.left, self.full) = (left.unwrap_or(0), left.is_none());
        !self.full
    }
}

/// Pays for writing a list or a map.
fn pay_for_text(state: &State<'_, '_>, value: &Jinja) -> Result<(), Error> {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        let mut counter = Counter::of(state);
        // It ends early where the counter says so, and the counter is asked.
        let _ = std::fmt::Write::write_fmt(&mut counter, format_args!("{value}"));
        counter.pay(state)?;
    }
    Ok(())
}

impl std::fmt::Write for Counter {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.take(text.len()) { Ok(()) } else { Err(std::fmt::Error) }
    }
}

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.take(bytes.len()) { Ok(bytes.len()) } else { Err(std::io::Error::other("too large")) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As Python writes a value that is no text: `True`, `None`, `2e-07`, `{'a': 1}`.
fn format_like_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Jinja) -> Result<(), Error> {
    pay_for_text(state, value)?;
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
fn to_json(state: &State<'_, '_>, value: Jinja, options: Kwargs) -> Result<Jinja, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, "tojson failed").with_source(error);
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson got an undefined value"));
    }
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        // A list that stands in itself twice, many times over, is small until it is written.
        let mut counter = Counter::of(state);
        let written = serde_json::to_writer(&mut counter, &value);
        counter.pay(state)?;
        written.map_err(failed)?;
    }
    let value = serde_json::to_value(&value).map_err(failed)?;
    let [item, key] = match separators.as_deref() {
        Some([item, key]) => [item.as_str(), key.as_str()],
        _ => [if indent.is_some() { "," } else { ", " }, ": "],
    };
    let style = Style { indent, item, key, sort: sort_keys == Some(true), ascii: ensure_ascii == Some(true) };
    Ok(Jinja::from_safe_string(style.dumps(&value)))
}
