//! The columns of a record batch into JSON values.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

use serde_json::{Map, Number, Value, json};

use super::super::allowance::Allowance;
use super::Result;
use super::flatbuffer::Table;
use super::schema::{Field, Kind};

/// The most bytes that a buffer may say it unpacks to.
const MOST_BYTES: usize = 1 << 31;

/// A record batch: its arrays and buffers in the order of the fields.
pub(crate) struct Batch<'b> {
    body: &'b [u8],
    /// Length of each array.
    nodes: std::vec::IntoIter<i64>,
    /// Place and length of each buffer.
    buffers: std::vec::IntoIter<(i64, i64)>,
    /// How many buffers each column of views has more.
    more: std::vec::IntoIter<i64>,
    compressed: bool,
    dictionaries: &'b HashMap<i64, Vec<Value>>,
    allowance: &'b Allowance,
}

fn longs(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap_or_default())).collect()
}

impl<'b> Batch<'b> {
    pub(crate) fn of(
        header: &Table,
        body: &'b [u8],
        dictionaries: &'b HashMap<i64, Vec<Value>>,
        allowance: &'b Allowance,
    ) -> Result<Self> {
        let nodes: Vec<i64> = longs(header.vector(1, 16)?).chunks_exact(2).map(|node| node[0]).collect();
        let buffers: Vec<(i64, i64)> =
            longs(header.vector(2, 16)?).chunks_exact(2).map(|buffer| (buffer[0], buffer[1])).collect();
        let compressed = match header.table(3)? {
            None => false,
            Some(compression) if compression.byte(0)? == 1 => true,
            Some(_) => {
                return Err("it is compressed with LZ4, which is not read; write it with zstd or without".to_owned());
            }
        };
        let more = longs(header.vector(4, 8)?);
        Ok(Self {
            body,
            nodes: nodes.into_iter(),
            buffers: buffers.into_iter(),
            more: more.into_iter(),
            compressed,
            dictionaries,
            allowance,
        })
    }

    fn length(&mut self) -> Result<usize> {
        let length = self.nodes.next().ok_or("a batch has fewer arrays than columns")?;
        let length = usize::try_from(length).map_err(|_| "an array has a negative length")?;
        self.allowance.values(length, 0).map(|()| length)
    }

    fn buffer(&mut self) -> Result<Cow<'b, [u8]>> {
        let (offset, length) = self.buffers.next().ok_or("a batch has fewer buffers than columns")?;
        let outside = "a buffer lies outside of its batch";
        let start = usize::try_from(offset).map_err(|_| outside)?;
        let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length)).ok_or(outside)?;
        let bytes = self.body.get(start..end).ok_or(outside)?;
        if !self.compressed || bytes.is_empty() {
            return Ok(Cow::Borrowed(bytes));
        }
        let (size, packed) = bytes.split_first_chunk::<8>().ok_or(outside)?;
        match i64::from_le_bytes(*size) {
            -1 => Ok(Cow::Borrowed(packed)),
            size => {
                let size =
                    usize::try_from(size).ok().filter(|size| *size <= MOST_BYTES).ok_or("a buffer is too large")?;
                let wrong = |error: &dyn std::fmt::Display| format!("a buffer cannot be unpacked: {error}");
                let frame = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| wrong(&error))?;
                let mut unpacked = Vec::new();
                let most = size.min(self.allowance.left().saturating_add(1));
                frame.take(most as u64).read_to_end(&mut unpacked).map_err(|error| wrong(&error))?;
                self.allowance.bytes(unpacked.len())?;
                Ok(Cow::Owned(unpacked))
            }
        }
    }

    /// The values of the next column.
    pub(crate) fn values(&mut self, field: &Field) -> Result<Vec<Value>> {
        let length = self.length()?;
        let kind = field.dictionary.as_ref().map_or(field.kind, |(_, places)| **places);
        if kind == Kind::Null {
            return Ok(vec![Value::Null; length]);
        }
        let valid = self.buffer()?;
        let mut values = self.present(field, kind, length)?;
        if values.len() != length {
            return Err("an array has fewer values than it says".to_owned());
        }
        if let Some((id, _)) = &field.dictionary {
            let dictionary = self.dictionaries.get(id).map(Vec::as_slice).unwrap_or_default();
            for value in &mut values {
                let place = value.as_u64().and_then(|place| dictionary.get(usize::try_from(place).ok()?));
                self.allowance.bytes(place.map_or(0, weight))?;
                *value = place.cloned().unwrap_or_default();
            }
        }
        if !valid.is_empty() {
            for (index, value) in values.iter_mut().enumerate() {
                let byte = valid.get(index / 8).ok_or("an array says too little of what is missing")?;
                if byte >> (index % 8) & 1 == 0 {
                    *value = Value::Null;
                }
            }
        }
        Ok(values)
    }

    /// The values of a column as if all were there.
    fn present(&mut self, field: &Field, kind: Kind, length: usize) -> Result<Vec<Value>> {
        let short = || "a buffer is shorter than its array".to_owned();
        match kind {
            Kind::Null => Ok(Vec::new()),
            Kind::Bool => {
                let bits = self.buffer()?;
                let bit = |index: usize| bits.get(index / 8).map(|byte| Value::Bool(byte >> (index % 8) & 1 == 1));
                (0..length).map(|index| bit(index).ok_or_else(short)).collect()
            }
            Kind::Int { bytes, signed } => {
                let buffer = self.buffer()?;
                Ok(buffer.chunks_exact(bytes).take(length).map(|chunk| int(chunk, signed)).collect())
            }
            Kind::Float => {
                let buffer = self.buffer()?;
                let read = |chunk: &[u8]| float(f32::from_le_bytes(chunk.try_into().unwrap_or_default()).into());
                Ok(buffer.chunks_exact(4).take(length).map(read).collect())
            }
            Kind::Double => {
                let buffer = self.buffer()?;
                let read = |chunk: &[u8]| float(f64::from_le_bytes(chunk.try_into().unwrap_or_default()));
                Ok(buffer.chunks_exact(8).take(length).map(read).collect())
            }
            Kind::Fixed(_) => {
                self.buffer()?;
                Ok(vec![json!({"bytes": Value::Null}); length])
            }
            Kind::Bytes(size) => {
                let offsets = self.offsets(size, length)?;
                let data = self.buffer()?;
                self.allowance.bytes(data.len())?;
                let one = |pair: &[usize]| data.get(pair[0]..pair[1]).map(text).ok_or_else(short);
                offsets.windows(2).map(one).collect()
            }
            Kind::View => {
                let views = self.buffer()?;
                let more = usize::try_from(self.more.next().unwrap_or_default()).unwrap_or(0);
                let mut data = Vec::new();
                for _ in 0..more {
                    data.push(self.buffer()?);
                }
                let one = |view: &[u8]| {
                    let bytes = seen(view, &data).ok_or_else(short)?;
                    self.allowance.bytes(bytes.len()).map(|()| text(bytes))
                };
                views.chunks_exact(16).take(length).map(one).collect()
            }
            Kind::List(size) => {
                let offsets = self.offsets(size, length)?;
                let children = self.values(&field.children[0])?;
                let one = |pair: &[usize]| children.get(pair[0]..pair[1]).map(|list| Value::Array(list.to_vec()));
                offsets.windows(2).map(|pair| one(pair).ok_or_else(short)).collect()
            }
            Kind::FixedList(size) => {
                let children = self.values(&field.children[0])?;
                let one = |index: usize| {
                    children.get(index * size..(index + 1) * size).map(|list| Value::Array(list.to_vec()))
                };
                (0..length).map(|index| one(index).ok_or_else(short)).collect()
            }
            Kind::Struct => {
                let mut rows = vec![Map::new(); length];
                for child in &field.children {
                    self.allowance.cells(length, &child.name)?;
                    let values = self.values(child)?;
                    if values.len() < length {
                        return Err(short());
                    }
                    for (row, value) in rows.iter_mut().zip(values) {
                        row.insert(child.name.clone(), value);
                    }
                }
                Ok(rows.into_iter().map(Value::Object).collect())
            }
            Kind::Map => {
                let offsets = self.offsets(4, length)?;
                let entries = self.values(&field.children[0])?;
                let one =
                    |pair: &[usize]| entries.get(pair[0]..pair[1]).map(|list| list.iter().filter_map(entry).collect());
                offsets.windows(2).map(|pair| one(pair).map(Value::Object).ok_or_else(short)).collect()
            }
        }
    }

    /// Where each of so many values begins, and the last one ends; rising.
    fn offsets(&mut self, size: usize, length: usize) -> Result<Vec<usize>> {
        let buffer = self.buffer()?;
        if length == 0 {
            return Ok(vec![0]);
        }
        let offsets: Vec<usize> = buffer
            .chunks_exact(size)
            .take(length + 1)
            .map(|chunk| int(chunk, true).as_u64().map_or(usize::MAX, |offset| offset as usize))
            .collect();
        if offsets.len() <= length || !offsets.is_sorted() {
            return Err("the offsets of an array are damaged".to_owned());
        }
        Ok(offsets)
    }
}

fn int(chunk: &[u8], signed: bool) -> Value {
    let negative = signed && chunk.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut bytes = if negative { [0xff; 8] } else { [0; 8] };
    bytes[..chunk.len()].copy_from_slice(chunk);
    if signed { Value::from(i64::from_le_bytes(bytes)) } else { Value::from(u64::from_le_bytes(bytes)) }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Text; what is none, no layout takes for some.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => json!({"bytes": bytes.len()}),
    }
}

/// What a view shows: up to 12 bytes inside it, or a place in a buffer.
fn seen<'d>(view: &'d [u8], data: &'d [Cow<[u8]>]) -> Option<&'d [u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(view.get(at..at + 4)?.try_into().ok()?) as usize);
    let length = number(0)?;
    if length <= 12 {
        return view.get(4..4 + length);
    }
    let start = number(12)?;
    data.get(number(8)?)?.get(start..start.checked_add(length)?)
}

/// What a copy of a value takes, as an allowance counts it.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(|value| size_of::<Value>() + weight(value)).sum(),
        Value::Object(object) => object.iter().map(|(key, value)| size_of::<Value>() + key.len() + weight(value)).sum(),
        _ => 0,
    }
}

/// A key and its value.
fn entry(value: &Value) -> Option<(String, Value)> {
    let mut values = value.as_object()?.values();
    let key = values.next()?;
    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    Some((key, values.next()?.clone()))
}
