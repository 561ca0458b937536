//! Files of lines: a JSON value or a document on each. A line that is no JSON or no UTF-8 is damaged by itself.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::{Damaged, Item, Sink, Stop, TEXT_COLUMN, give};

/// Skips blanks before the first value; gives the number of lines that they fill.
pub(crate) fn skip_blanks(reader: &mut dyn BufRead) -> Result<usize, Stop> {
    let mut lines = 0;
    loop {
        let bytes = reader.fill_buf()?;
        let blanks = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        lines += bytes[..blanks].iter().filter(|byte| **byte == b'\n').count();
        let ended = blanks < bytes.len() || bytes.is_empty();
        reader.consume(blanks);
        if ended {
            return Ok(lines);
        }
    }
}

/// Lines of JSON, after some lines of nothing.
pub(crate) fn json(reader: &mut dyn BufRead, blanks: usize, sink: &mut Sink) -> Result<(), Stop> {
    let mut number = blanks;
    let mut first = None;
    let mut line = Vec::new();
    while next(reader, &mut line)? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        if first.is_none() {
            first = Some(number);
            if line.trim_ascii() == b"{" {
                return Err(Stop::Broken(
                    "it is one JSON object over several lines; expected a list of records, [{...}, {...}], or a record on each \
                     line"
                        .to_owned(),
                ));
            }
        }
        let value = serde_json::from_slice(&line).map_err(|error| {
            let problem = match std::str::from_utf8(&line) {
                Ok(_) => format!("it is not valid JSON: {}", place(&error)),
                Err(error) => not_utf8(&error),
            };
            Damaged { problem, raw: String::from_utf8_lossy(line.trim_ascii()).into_owned() }
        });
        give(sink, Item { line: Some(number), value })?;
    }
    Ok(())
}

/// What an error of one line says, without the line, which it counts anew.
fn place(error: &serde_json::Error) -> String {
    error.to_string().replace(&format!(" at line {} column {}", error.line(), error.column()), "")
        + &format!(" at column {}", error.column())
}

/// Lines of text, each a document. Blank ones are none, as in LLaMA-Factory, which drops them later.
pub(crate) fn text(reader: &mut dyn BufRead, sink: &mut Sink) -> Result<(), Stop> {
    let mut number = 0;
    let mut line = Vec::new();
    while next(reader, &mut line)? {
        number += 1;
        let value = match std::str::from_utf8(&line) {
            Ok(text) => Ok(Value::Object(Map::from_iter([(TEXT_COLUMN.to_owned(), Value::String(text.to_owned()))]))),
            Err(error) => Err(Damaged { problem: not_utf8(&error), raw: String::from_utf8_lossy(&line).into_owned() }),
        };
        give(sink, Item { line: Some(number), value })?;
    }
    Ok(())
}

pub(crate) fn not_utf8(error: &std::str::Utf8Error) -> String {
    format!("it is not UTF-8 text: byte {} of it belongs to no character", error.valid_up_to() + 1)
}

/// The next line without its end; whether there was one.
fn next(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> Result<bool, Stop> {
    line.clear();
    if reader.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    Ok(true)
}
