//! Tables as text: the first line names the columns. Values stay the text that they are, also where they look like numbers;
//! where a layout wants a list, it takes the text of its JSON, since a table has no other way to hold one.

use std::io::{BufRead, Read};

use serde_json::{Map, Value};

use super::{Damaged, Item, Sink, Stop, give, lines};

pub(crate) fn read(reader: &mut dyn BufRead, delimiter: u8, sink: &mut Sink) -> Result<(), Stop> {
    let reader = Watched { reader, last: b'\n' };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(reader);
    let broken = |error: csv::Error| Stop::Broken(format!("it cannot be read as a table: {error}"));
    let header = reader.byte_headers().map_err(broken)?.clone();
    let mut columns: Vec<String> = Vec::with_capacity(header.len());
    for column in &header {
        let name = std::str::from_utf8(column)
            .map_err(|_| Stop::Broken("the names of its columns are not UTF-8 text; save it as UTF-8".to_owned()))?;
        if columns.iter().any(|column| column == name) {
            return Err(Stop::Broken(format!("it has the column {name:?} twice")));
        }
        columns.push(name.to_owned());
    }
    if let [only] = &columns[..]
        && let Some(other) = only.chars().find(|letter| matches!(letter, ';' | '\t' | '|' | ','))
    {
        return Err(Stop::Broken(format!(
            "its columns seem to be separated by {other:?}; expected a comma, or in a .tsv file a tab"
        )));
    }
    let mut record = csv::ByteRecord::new();
    let mut begun = None;
    while reader.read_byte_record(&mut record).map_err(broken)? {
        let line = record.position().and_then(|position| usize::try_from(position.line()).ok());
        begun = line;
        let value = row(&columns, &record).map_err(|problem| {
            let raw: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
            Damaged { problem, raw: raw.join(&char::from(delimiter).to_string()) }
        });
        give(sink, Item { line, value })?;
    }
    // A value of several lines ends with a quotation mark; without one it has taken all lines to the end of the file.
    if record.iter().next_back().is_some_and(|value| value.contains(&b'\n')) && reader.get_ref().last != b'"' {
        let line = begun.map_or_else(String::new, |line| format!(" in the record that begins in line {line}"));
        return Err(Stop::Broken(format!("a quotation mark{line} is never closed, so all that follows is one value")));
    }
    Ok(())
}

/// A reader that knows the last byte that is no end of a line.
struct Watched<'r> {
    reader: &'r mut dyn BufRead,
    last: u8,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.last = buffer[..count].iter().rfind(|byte| !matches!(byte, b'\n' | b'\r')).copied().unwrap_or(self.last);
        Ok(count)
    }
}

fn row(columns: &[String], record: &csv::ByteRecord) -> Result<Value, String> {
    if record.len() != columns.len() {
        return Err(format!("it has {} values, and there are {} columns", record.len(), columns.len()));
    }
    let mut object = Map::new();
    for (column, value) in columns.iter().zip(record) {
        let text = std::str::from_utf8(value).map_err(|error| lines::not_utf8(&error))?;
        object.insert(column.clone(), Value::String(text.to_owned()));
    }
    Ok(Value::Object(object))
}
