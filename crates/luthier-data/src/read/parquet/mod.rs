//! Parquet files, in Rust alone and without a table engine: rows as JSON values, a row group at a time. Read is what tools
//! write: flat and nested columns, dictionaries, plain and delta encodings, none, Snappy, gzip and zstd. Everything else is
//! refused by name. Every length in a file is checked before it is believed.
//!
//! From: the Parquet format, <https://parquet.apache.org/docs/file-format/>, and Melnik et al. 2010 for nested values.

mod encodings;
mod pages;
mod rows;
mod schema;
mod thrift;

use super::allowance::Allowance;
use super::{Item, Sink, Stop, give};
use schema::Schema;
use thrift::Thrift;

/// Errors of this format are clauses.
type Result<T> = std::result::Result<T, String>;

/// Reads a whole file.
pub(crate) fn read(bytes: &[u8], sink: &mut Sink) -> std::result::Result<(), Stop> {
    let damaged = |problem: String| Stop::Broken(format!("it is no whole Parquet file: {problem}"));
    let metadata = footer(bytes).map_err(damaged)?;
    let schema = Schema::of(&metadata).map_err(damaged)?;
    let groups = metadata.list(4).map_err(damaged)?;
    let allowance = Allowance::of(bytes.len());
    let mut given = 0;
    for group in groups {
        let broken = |problem: String| {
            Stop::Broken(format!("it is no whole Parquet file: {problem}, in the rows after record {given}"))
        };
        let columns = group.list(1).map_err(broken)?;
        if columns.len() != schema.leaves.len() {
            return Err(broken("a row group has other columns than the schema".to_owned()));
        }
        let count = usize::try_from(group.int(3).map_err(broken)?).unwrap_or(0);
        let read = |(leaf, column)| pages::column(bytes, column, leaf, &allowance);
        let columns = schema.leaves.iter().zip(columns).map(read).collect::<Result<Vec<_>>>().map_err(broken)?;
        let mut rows = rows::Rows::new(&schema, columns, &allowance);
        for _ in 0..count {
            let value = rows
                .next()
                .map_err(|problem| Stop::Broken(format!("it is damaged: {problem}, after record {given}")))?;
            given += 1;
            give(sink, Item { line: None, value: Ok(value) })?;
        }
    }
    Ok(())
}

/// The metadata at the end of a file.
fn footer(bytes: &[u8]) -> Result<Thrift<'_>> {
    let (body, end) = bytes.split_last_chunk::<8>().ok_or("it is too short")?;
    let [a, b, c, d, magic @ ..] = *end;
    if &magic != b"PAR1" {
        return Err("its end is missing; it was cut off while it was written or copied".to_owned());
    }
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let start = body.len().checked_sub(length).ok_or("its metadata is longer than the file")?;
    thrift::read(&body[start..]).map(|(metadata, _)| metadata)
}
