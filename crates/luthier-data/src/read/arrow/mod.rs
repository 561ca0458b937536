//! Arrow's IPC files and streams (what Hugging Face `datasets` saves as `.arrow`), in Rust alone: rows as JSON values, a record
//! batch at a time. A file is a stream between two marks, and is read as one. Every length is checked before it is believed.
//!
//! From: the Arrow columnar format, <https://arrow.apache.org/docs/format/Columnar.html>.

mod arrays;
mod flatbuffer;
mod schema;

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::allowance::Allowance;
use super::{Item, Sink, Stop, give};
use arrays::Batch;
use flatbuffer::Table;
use schema::Field;

/// Errors of this format are clauses.
type Result<T> = std::result::Result<T, String>;

/// The values of columns, each with its name.
type Columns = Vec<(String, Vec<Value>)>;

const MARK: &[u8] = b"ARROW1";
const SCHEMA: u8 = 1;
const DICTIONARY: u8 = 2;
const RECORDS: u8 = 3;

/// Reads a whole file or stream.
pub(crate) fn read(bytes: &[u8], sink: &mut Sink) -> std::result::Result<(), Stop> {
    let mut given = 0;
    let rest = match bytes.strip_prefix(MARK) {
        Some(rest) if rest.ends_with(MARK) => rest.get(2..).unwrap_or_default(),
        Some(_) => {
            let problem =
                "it is no whole Arrow file: its end is missing; it was cut off while it was written or copied";
            return Err(Stop::Broken(problem.to_owned()));
        }
        None => bytes,
    };
    let mut stream = Stream { rest, fields: None, dictionaries: HashMap::new(), allowance: Allowance::of(bytes.len()) };
    loop {
        let columns = stream.next_batch();
        let columns =
            columns.map_err(|problem| Stop::Broken(format!("it is damaged: {problem}, after record {given}")))?;
        let Some((length, columns)) = columns else { return Ok(()) };
        let mut columns: Vec<(String, std::vec::IntoIter<Value>)> =
            columns.into_iter().map(|(name, values)| (name, values.into_iter())).collect();
        for _ in 0..length {
            let cell = |(name, values): &mut (String, std::vec::IntoIter<Value>)| {
                (name.clone(), values.next().unwrap_or_default())
            };
            let row: Map<String, Value> = columns.iter_mut().map(cell).collect();
            given += 1;
            give(sink, Item { line: None, value: Ok(Value::Object(row)) })?;
        }
    }
}

/// Messages one after another.
struct Stream<'b> {
    rest: &'b [u8],
    fields: Option<Vec<Field>>,
    dictionaries: HashMap<i64, Vec<Value>>,
    allowance: Allowance,
}

impl<'b> Stream<'b> {
    /// The length and the columns of the next record batch; `None` at the end.
    fn next_batch(&mut self) -> Result<Option<(usize, Columns)>> {
        loop {
            let Some((message, body)) = self.next_message()? else { return Ok(None) };
            let header = message.table(2)?.ok_or("a message has no header")?;
            match message.byte(1)? {
                SCHEMA => self.fields = Some(schema::fields(&header)?),
                DICTIONARY => {
                    let id = header.long(0)?;
                    let data = header.table(1)?.ok_or("a dictionary is empty")?;
                    let fields = self.fields.as_deref().ok_or("there is no schema")?;
                    let field = schema::of_dictionary(fields, id).ok_or("a dictionary belongs to no column")?;
                    let values = Batch::of(&data, body, &self.dictionaries, &self.allowance)?.values(&field)?;
                    match self.dictionaries.get_mut(&id) {
                        Some(known) if header.byte(2)? == 1 => known.extend(values),
                        _ => _ = self.dictionaries.insert(id, values),
                    }
                }
                RECORDS => {
                    let fields = self.fields.as_deref().ok_or("there is no schema")?;
                    let mut batch = Batch::of(&header, body, &self.dictionaries, &self.allowance)?;
                    let read = |field: &Field| Ok((field.name.clone(), batch.values(field)?));
                    let columns: Columns = fields.iter().map(read).collect::<Result<_>>()?;
                    let length = usize::try_from(header.long(0)?).map_err(|_| "a batch has a negative length")?;
                    if columns.iter().any(|(_, values)| values.len() != length) {
                        return Err("the columns of a batch have different lengths".to_owned());
                    }
                    let length = if columns.is_empty() { 0 } else { length };
                    self.allowance.rows(length)?;
                    columns.iter().try_for_each(|(name, _)| self.allowance.cells(length, name))?;
                    return Ok(Some((length, columns)));
                }
                _ => {}
            }
        }
    }

    fn next_message(&mut self) -> Result<Option<(Table<'b>, &'b [u8])>> {
        if self.rest.is_empty() {
            return match self.fields {
                Some(_) => Ok(None),
                None => Err("it ends before its schema".to_owned()),
            };
        }
        let cut = "a message is cut off";
        let (mark, rest) = self.rest.split_first_chunk::<4>().ok_or(cut)?;
        // Streams of before 2019 have no mark before the length.
        let (length, rest) = if *mark == [0xff; 4] { rest.split_first_chunk::<4>().ok_or(cut)? } else { (mark, rest) };
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| cut)?;
        if length == 0 {
            return Ok(None);
        }
        let (head, rest) = rest.split_at_checked(length).ok_or(cut)?;
        let message = Table::root(head)?;
        let size = usize::try_from(message.long(3)?).map_err(|_| cut)?;
        let (body, rest) = rest.split_at_checked(size).ok_or(cut)?;
        self.rest = rest;
        Ok(Some((message, body)))
    }
}
