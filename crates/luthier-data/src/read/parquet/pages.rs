//! The pages of a column of a row group into its levels and values.

use std::borrow::Cow;
use std::io::Read;
use std::rc::Rc;

use serde_json::{Number, Value, json};

use super::super::allowance::Allowance;
use super::Result;
use super::encodings::{Bytes, MOST_VALUES, delta, delta_lengths, delta_texts, hybrid};
use super::schema::{Leaf, Physical};
use super::thrift::{self, Thrift};

/// What is stored of a column in a row group: an entry for each value, and for each place where there is none.
#[derive(Debug, Default)]
pub(crate) struct Column {
    /// Empty where all are 0.
    pub(crate) repetitions: Vec<u32>,
    /// Empty where every entry is a value.
    pub(crate) definitions: Vec<u32>,
    values: std::collections::VecDeque<Values>,
}

/// The values of a page. Those of a dictionary are made when their rows are: a few bytes can stand for many of them.
#[derive(Debug)]
enum Values {
    Made(std::vec::IntoIter<Value>),
    Places(Rc<[Value]>, std::vec::IntoIter<u32>),
}

impl Column {
    /// The next value; none at the end.
    pub(crate) fn next_value(&mut self, allowance: &Allowance) -> Result<Option<Value>> {
        while let Some(values) = self.values.front_mut() {
            let next = match values {
                Values::Made(values) => values.next(),
                Values::Places(dictionary, places) => {
                    let value = places.next().and_then(|place| dictionary.get(place as usize));
                    allowance.bytes(value.and_then(Value::as_str).map_or(0, str::len))?;
                    value.cloned()
                }
            };
            if next.is_some() {
                return Ok(next);
            }
            self.values.pop_front();
        }
        Ok(None)
    }
}

/// The most bytes that a page may say it unpacks to.
const MOST_BYTES: usize = 1 << 30;

pub(crate) fn column(file: &[u8], chunk: &Thrift, leaf: &Leaf, allowance: &Allowance) -> Result<Column> {
    let name = &leaf.name;
    let said = |problem: String| format!("{problem} (column {name})");
    let data = chunk.field(3).ok_or_else(|| said("a column lacks its metadata".to_owned()))?;
    let codec = data.int(4)?;
    let count = data.count(5)?;
    let first = data.int(9)?;
    let start = data.optional_int(11).filter(|offset| *offset > 0).map_or(first, |dictionary| dictionary.min(first));
    let start = usize::try_from(start).map_err(|_| said("a column begins before the file".to_owned()))?;
    let mut bytes = Bytes(file.get(start..).ok_or_else(|| said("a column begins behind the file".to_owned()))?);
    let mut column = Column::default();
    let mut dictionary: Rc<[Value]> = Rc::default();
    let mut entries = 0;
    while entries < count {
        let (header, length) = thrift::read(bytes.0).map_err(said)?;
        bytes.take(length)?;
        // Columns may lie in one place, and each reads it anew.
        allowance.values(length, 0)?;
        let packed = bytes.take(header.count(3)?).map_err(said)?;
        let unpacked = header.count(2)?;
        match header.int(1)? {
            0 => {
                let page = header.field(5).ok_or("a page lacks its header")?;
                let here = entries_of(page, allowance)?;
                let unpacked = decompress(codec, packed, unpacked, allowance).map_err(said)?;
                let mut rest = Bytes(&unpacked);
                let repetitions = levels(&mut rest, leaf.level, here)?;
                let definitions = levels(&mut rest, leaf.definition, here)?;
                let levels = (repetitions, definitions, here);
                add(&mut column, leaf, levels, page.int(2)?, rest, &dictionary, allowance).map_err(said)?;
                entries += here;
            }
            2 => {
                let page = header.field(7).ok_or("a page lacks its header")?;
                let unpacked = decompress(codec, packed, unpacked, allowance).map_err(said)?;
                let here = entries_of(page, allowance)?;
                dictionary = plain(&mut Bytes(&unpacked), leaf, here, allowance).map_err(said)?.into();
            }
            3 => {
                let page = header.field(8).ok_or("a page lacks its header")?;
                let here = entries_of(page, allowance)?;
                let (definition_bytes, repetition_bytes) = (page.count(5)?, page.count(6)?);
                let mut rest = Bytes(packed);
                let repetitions = levels_in(Bytes(rest.take(repetition_bytes)?), leaf.level, here)?;
                let definitions = levels_in(Bytes(rest.take(definition_bytes)?), leaf.definition, here)?;
                let unpacked = unpacked.saturating_sub(definition_bytes + repetition_bytes);
                let values = match page.switch(7) {
                    Some(false) => Cow::Borrowed(rest.0),
                    _ => decompress(codec, rest.0, unpacked, allowance).map_err(said)?,
                };
                let levels = (repetitions, definitions, here);
                add(&mut column, leaf, levels, page.int(4)?, Bytes(&values), &dictionary, allowance).map_err(said)?;
                entries += here;
            }
            _ => {} // an index
        }
    }
    Ok(column)
}

/// The number of entries of a page; two levels and a place are kept of each.
fn entries_of(page: &Thrift, allowance: &Allowance) -> Result<usize> {
    let count = page.count(1)?;
    if count > MOST_VALUES {
        return Err("a page is too large".to_owned());
    }
    allowance.bytes(count.saturating_mul(3 * size_of::<u32>())).map(|()| count)
}

/// Levels after their length.
fn levels(bytes: &mut Bytes, most: u32, count: usize) -> Result<Vec<u32>> {
    if most == 0 {
        return Ok(Vec::new());
    }
    let length = bytes.length()?;
    levels_in(Bytes(bytes.take(length)?), most, count)
}

fn levels_in(bytes: Bytes, most: u32, count: usize) -> Result<Vec<u32>> {
    if most == 0 { Ok(Vec::new()) } else { hybrid(bytes, u32::BITS - most.leading_zeros(), count) }
}

fn add(
    column: &mut Column,
    leaf: &Leaf,
    (repetitions, definitions, here): (Vec<u32>, Vec<u32>, usize),
    encoding: i64,
    mut bytes: Bytes,
    dictionary: &Rc<[Value]>,
    allowance: &Allowance,
) -> Result<()> {
    let count = match leaf.definition {
        0 => here,
        most => definitions.iter().filter(|level| **level == most).count(),
    };
    column.repetitions.extend(repetitions);
    column.definitions.extend(definitions);
    let values: Vec<Value> = match encoding {
        _ if count == 0 => Vec::new(),
        0 => plain(&mut bytes, leaf, count, allowance)?,
        2 | 8 => {
            let [width] = bytes.array()?;
            let places = hybrid(bytes, u32::from(width), count)?;
            if places.iter().any(|place| *place as usize >= dictionary.len()) {
                return Err("a page points behind its dictionary".to_owned());
            }
            column.values.push_back(Values::Places(dictionary.clone(), places.into_iter()));
            return Ok(());
        }
        3 if leaf.physical == Physical::Boolean => {
            let length = bytes.length()?;
            allowance.values(count, 0)?;
            let values = hybrid(Bytes(bytes.take(length)?), 1, count)?;
            values.into_iter().map(|value| Value::Bool(value == 1)).collect()
        }
        5 => delta(&mut bytes, allowance)?.into_iter().take(count).map(|value| integer(value, leaf)).collect(),
        6 => delta_lengths(&mut bytes, allowance)?.into_iter().take(count).map(text).collect(),
        7 => delta_texts(&mut bytes, allowance)?.iter().take(count).map(|bytes| text(bytes)).collect(),
        other => {
            return Err(format!("a page has the encoding {other}, which is not read; write the file with another"));
        }
    };
    if values.len() != count {
        return Err("a page has fewer values than it says".to_owned());
    }
    column.values.push_back(Values::Made(values.into_iter()));
    Ok(())
}

fn plain(bytes: &mut Bytes, leaf: &Leaf, count: usize, allowance: &Allowance) -> Result<Vec<Value>> {
    allowance.values(count, 0)?;
    if leaf.physical == Physical::Boolean {
        let packed = bytes.take(count.div_ceil(8))?;
        return Ok((0..count).map(|index| Value::Bool(packed[index / 8] >> (index % 8) & 1 == 1)).collect());
    }
    let one = |bytes: &mut Bytes| -> Result<Value> {
        Ok(match leaf.physical {
            Physical::Boolean => Value::Null, // handled above
            Physical::Int32 => integer(i32::from_le_bytes(bytes.array()?).into(), leaf),
            Physical::Int64 => integer(i64::from_le_bytes(bytes.array()?), leaf),
            Physical::Float => float(f32::from_le_bytes(bytes.array()?).into()),
            Physical::Double => float(f64::from_le_bytes(bytes.array()?)),
            Physical::Int96 => binary(bytes.take(12)?),
            Physical::Fixed(size) => binary(bytes.take(size)?),
            Physical::Bytes => {
                let length = bytes.length()?;
                text(bytes.take(length)?)
            }
        })
    };
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(one(bytes)?);
    }
    Ok(values)
}

fn integer(value: i64, leaf: &Leaf) -> Value {
    match leaf.physical {
        Physical::Int32 if !leaf.unsigned => Value::from(value as i32),
        _ if !leaf.unsigned => Value::from(value),
        Physical::Int32 => Value::from(value as u32),
        _ => Value::from(value as u64),
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| binary(bytes), |text| Value::String(text.to_owned()))
}

/// What is no text: no layout takes it for some.
fn binary(bytes: &[u8]) -> Value {
    json!({"bytes": bytes.len()})
}

fn decompress<'p>(codec: i64, packed: &'p [u8], size: usize, allowance: &Allowance) -> Result<Cow<'p, [u8]>> {
    if size > MOST_BYTES {
        return Err("a page is too large".to_owned());
    }
    let wrong = |error: &dyn std::fmt::Display| format!("a page cannot be unpacked: {error}");
    let read = |reader: &mut dyn Read| {
        let mut unpacked = Vec::new();
        let most = size.min(allowance.left().saturating_add(1));
        reader.take(most as u64).read_to_end(&mut unpacked).map_err(|error| wrong(&error))?;
        allowance.bytes(unpacked.len())?;
        Ok(Cow::Owned(unpacked))
    };
    match codec {
        0 => Ok(Cow::Borrowed(packed)),
        1 => {
            // The length stands in front of the data too.
            match snap::raw::decompress_len(packed) {
                Ok(length) if length <= size => allowance.bytes(length)?,
                _ => return Err("a page unpacks to more than it says".to_owned()),
            }
            snap::raw::Decoder::new().decompress_vec(packed).map(Cow::Owned).map_err(|error| wrong(&error))
        }
        2 => read(&mut flate2::read::MultiGzDecoder::new(packed)),
        6 => read(&mut ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| wrong(&error))?),
        other => {
            let name = match other {
                3 => "LZO",
                4 => "Brotli",
                5 | 7 => "LZ4",
                _ => "something unknown",
            };
            Err(format!("it is compressed with {name}; write it with Snappy, gzip or zstd"))
        }
    }
}
