//! Reading settings from YAML: one mapping of keys to texts, lists of texts or null, with the line of each key.
//!
//! It keeps the text of a value as it was written, so that `1e-4` is a number where a number is expected and `007` stays
//! a name where a name is. It refuses aliases, tags and several documents: a configuration needs none of them.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::file::{Entry, FileError, Raw};

/// Reads the entries of a file in their order; an empty file has none.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, FileError> {
    mapping(text).map_err(|error| match tab_before(text, error.line) {
        Some(line) => FileError::new(line, "a tab indents this line; YAML wants blanks there"),
        None => error,
    })
}

/// The first line, up to the one after this one, that a tab indents.
fn tab_before(text: &str, line: usize) -> Option<usize> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let has_tab = |line: &str| !line.trim().is_empty() && line[..indent(line)].contains('\t');
    text.lines().take(line + 1).position(has_tab).map(|index| index + 1)
}

fn mapping(text: &str) -> Result<Vec<Entry>, FileError> {
    let mut events = Events(Parser::new_from_str(text));
    let mut entries = Vec::new();
    loop {
        match events.next()? {
            (Event::StreamStart | Event::DocumentStart(_), _) => {}
            (Event::StreamEnd, _) => return Ok(entries),
            (Event::MappingStart(..), _) => break,
            // A file of comments only.
            (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => {}
            (Event::DocumentEnd, _) => {}
            (Event::SequenceStart(..), span) => {
                return fail(span, "this is a list; expected settings, one `key: value` a line");
            }
            (Event::Scalar(text, ..), span) if text.contains(':') => {
                return fail(span, "expected settings, one `key: value` a line, with a blank after the colon");
            }
            (_, span) => return fail(span, "expected settings, one `key: value` a line"),
        }
    }
    loop {
        let (key, line) = match events.next()? {
            (Event::MappingEnd, _) => break,
            (Event::Scalar(key, ..), span) => (key.into_owned(), span.start.line()),
            (_, span) => return fail(span, "expected a key, such as `lora_rank: 8`"),
        };
        entries.push(Entry { key, value: events.value()?, line });
    }
    match (events.next()?, events.next()?) {
        ((Event::DocumentEnd, _), (Event::StreamEnd, _)) => Ok(entries),
        (_, (_, span)) => fail(span, "expected one document, but another begins here"),
    }
}

/// Reads the value of a `key=value`: a list in brackets, or else its text without quotes around it.
pub(crate) fn read_value(text: &str) -> Raw {
    let text = text.trim();
    if text.starts_with('[') {
        let mut events = Events(Parser::new_from_str(text));
        let list = events.next().and_then(|_| events.next()).and_then(|_| events.value());
        return list.unwrap_or_else(|_| Raw::Text(text.to_owned()));
    }
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Raw::Text(inner.to_owned());
        }
    }
    if is_null(text) { Raw::Null } else { Raw::Text(text.to_owned()) }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn fail<T>(span: Span, sentence: &str) -> Result<T, FileError> {
    Err(FileError::new(span.start.line(), sentence))
}

struct Events<'text, Input: saphyr_parser::Input>(Parser<'text, Input>);

impl<'text, Input: saphyr_parser::Input> Events<'text, Input> {
    fn next(&mut self) -> Result<(Event<'text>, Span), FileError> {
        match self.0.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(FileError::new(error.marker().line(), format!("this is not valid YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self) -> Result<Raw, FileError> {
        match self.next()? {
            (Event::Scalar(text, ScalarStyle::Plain, ..), _) if is_null(&text) => Ok(Raw::Null),
            (Event::Scalar(text, ..), _) => Ok(Raw::Text(text.into_owned())),
            (Event::SequenceStart(..), _) => self.list(),
            (Event::MappingStart(..), _) => self.map(),
            (_, span) => fail(span, "aliases (`*name`) are not read; write the value itself"),
        }
    }

    fn list(&mut self) -> Result<Raw, FileError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Raw::List(items)),
                (Event::Scalar(text, ..), _) => items.push(text.into_owned()),
                (Event::SequenceStart(..) | Event::MappingStart(..), _) => {
                    self.skip()?;
                    return self.skip().map(|()| Raw::Nested);
                }
                (_, span) => return fail(span, "aliases (`*name`) are not read; write the value itself"),
            }
        }
    }

    fn map(&mut self) -> Result<Raw, FileError> {
        let mut entries = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Raw::Map(entries)),
                (Event::Scalar(key, ..), _) => key.into_owned(),
                (Event::SequenceStart(..) | Event::MappingStart(..), _) => {
                    self.skip()?;
                    return self.skip().map(|()| Raw::Nested);
                }
                (_, span) => return fail(span, "aliases (`*name`) are not read; write the value itself"),
            };
            match self.next()? {
                (Event::Scalar(text, ..), _) => entries.push((key, text.into_owned())),
                (Event::SequenceStart(..) | Event::MappingStart(..), _) => {
                    self.skip()?;
                    return self.skip().map(|()| Raw::Nested);
                }
                (_, span) => return fail(span, "aliases (`*name`) are not read; write the value itself"),
            }
        }
    }

    /// Passes over the rest of what has been opened.
    fn skip(&mut self) -> Result<(), FileError> {
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                (Event::SequenceStart(..) | Event::MappingStart(..), _) => depth += 1,
                (Event::SequenceEnd | Event::MappingEnd, _) => depth -= 1,
                (Event::StreamEnd, span) => return fail(span, "the file ends inside a value"),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, Raw, usize)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(key, value, line)| Entry { key: (*key).to_owned(), value: value.clone(), line: *line })
            .collect();
        assert_eq!(read(text), Ok(expected), "{text:?}");
    }

    fn fails(text: &str, line: usize, sentence: &str) {
        let error = read(text).expect_err(text);
        assert_eq!((error.line, error.sentence.as_str()), (line, sentence), "{text:?}");
    }

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn values() {
        check("", &[]);
        check("# nothing\n", &[]);
        check("### model\na: 1e-4 # small\n\nb: \"null\"\n", &[("a", text("1e-4"), 2), ("b", text("null"), 4)]);
        check("a:\nb: null\nc: ~\n", &[("a", Raw::Null, 1), ("b", Raw::Null, 2), ("c", Raw::Null, 3)]);
        let list = Raw::List(vec!["x".to_owned(), "y z".to_owned()]);
        check("a: [x, y z]\nb:\n  - x\n  - y z\n", &[("a", list.clone(), 1), ("b", list, 2)]);
        check(
            "a: {b: {c: 1}}\nd: [[1], {e: 2}]\nf: 3",
            &[("a", Raw::Nested, 1), ("d", Raw::Nested, 2), ("f", text("3"), 3)],
        );
        let map = Raw::Map(vec![("b".to_owned(), "1".to_owned()), ("c".to_owned(), "x y".to_owned())]);
        check("a: {b: 1, c: x y}\nd:\n  b: 1\n  c: x y\n", &[("a", map.clone(), 1), ("d", map, 2)]);
    }

    #[test]
    fn errors() {
        fails("- a\n- b\n", 1, "this is a list; expected settings, one `key: value` a line");
        fails("hello\n", 1, "expected settings, one `key: value` a line");
        fails("lora_rank:8\n", 1, "expected settings, one `key: value` a line, with a blank after the colon");
        fails("a: 1\n\tb: 2\n", 2, "a tab indents this line; YAML wants blanks there");
        fails("a: &x 1\nb: *x\n", 2, "aliases (`*name`) are not read; write the value itself");
        fails("a: 1\n---\nb: 2\n", 2, "expected one document, but another begins here");
        assert_eq!(read("a: 1\n  b: 2\n").expect_err("bad indentation").line, 2);
    }

    #[test]
    fn override_values() {
        assert_eq!(read_value("a # b: c"), text("a # b: c"));
        assert_eq!(read_value("'x'"), text("x"));
        assert_eq!(read_value("null"), Raw::Null);
        assert_eq!(read_value("[q_proj,v_proj]"), Raw::List(vec!["q_proj".to_owned(), "v_proj".to_owned()]));
    }
}
