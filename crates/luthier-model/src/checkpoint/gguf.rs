//! Reading the GGUF container, versions 2 and 3: metadata and tensor table. Every length in the file is checked against
//! what is left of it before it is believed, so a damaged or hostile file is an error and never a large allocation.
//! From: ggml, `docs/gguf.md`.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Error;

const FORMAT: &str = "GGUF";
/// Arrays of arrays deeper than this do not occur.
const DEEPEST_ARRAY: usize = 4;

/// A metadata value. Numbers are widened; arrays are ranges of the file until somebody wants them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(String),
    Array { kind: u32, count: usize, bytes: Range<usize> },
}

/// A row of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Outermost first: the file has them the other way round.
    pub(super) dims: Vec<usize>,
    /// ggml's number of the storage type.
    pub(super) kind: u32,
    /// Bytes from the start of the file.
    pub(super) offset: usize,
}

/// The container's tables.
pub(super) struct Gguf<'a> {
    pub(super) file: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) metadata: BTreeMap<String, Value>,
    /// Key, type and place of each value, in the order of the file.
    pub(super) raw: Vec<(String, u32, Range<usize>)>,
    pub(super) tensors: Vec<TensorInfo>,
}

impl<'a> Gguf<'a> {
    pub(super) fn parse(file: &'a str, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut cursor = Cursor { file, bytes, position: 0 };
        if cursor.take(4, "the magic")? != b"GGUF" {
            return Err(cursor.damaged("it does not begin with `GGUF`"));
        }
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                return Err(cursor.damaged("it is big-endian; convert it with gguf-py's gguf_convert_endian.py"));
            }
            version => return Err(cursor.damaged(format!("version {version} is not known; expected 2 or 3"))),
        }
        // A tensor's entry has at least 24 bytes, a metadata entry 13.
        let tensor_count = cursor.count(24, "the number of tensors")?;
        let metadata_count = cursor.count(13, "the number of metadata entries")?;
        let mut metadata = BTreeMap::new();
        let mut raw = Vec::new();
        for _ in 0..metadata_count {
            let key = cursor.text("a metadata key")?;
            let kind = cursor.u32(&key)?;
            let start = cursor.position;
            let value = cursor.value(kind, &key, 0)?;
            raw.push((key.clone(), kind, start..cursor.position));
            if metadata.insert(key.clone(), value).is_some() {
                return Err(cursor.damaged(format!("metadata key `{key}` occurs twice")));
            }
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(cursor.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment <= 1 << 16 => {
                *alignment as usize
            }
            Some(_) => return Err(cursor.damaged("`general.alignment` is no power of two")),
        };
        let start = cursor.position.next_multiple_of(alignment);
        for tensor in &mut tensors {
            let offset = start.checked_add(tensor.offset).filter(|_| tensor.offset.is_multiple_of(alignment));
            tensor.offset =
                offset.ok_or_else(|| cursor.damaged(format!("the offset of `{}` is wrong", tensor.name)))?;
        }
        Ok(Self { file, bytes, metadata, raw, tensors })
    }

    pub(super) fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { file: self.file.into(), format: FORMAT, reason: reason.into() }
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match &self.metadata[key] {
            Value::Array { count, .. } => format!("a list of {count}"),
            Value::Text(text) => crate::error::short(&text.as_str().into()),
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
        };
        Error::BadValue { file: self.file.into(), key: key.into(), found, expected: expected.into() }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(number)) => Ok(Some(*number)),
            Some(Value::Signed(number)) if *number >= 0 => Ok(Some(*number as u64)),
            Some(_) => Err(self.wrong(key, "a whole number from 0")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(*number)),
            Some(Value::Unsigned(number)) => Ok(Some(*number as f64)),
            Some(Value::Signed(number)) => Ok(Some(*number as f64)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// The entries of an array; empty when it is absent.
    pub(super) fn entries(&self, key: &str) -> Result<Vec<Value>, Error> {
        match self.metadata.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array { kind, count, bytes }) => {
                let mut cursor = Cursor { file: self.file, bytes: self.bytes, position: bytes.start };
                (0..*count).map(|_| cursor.value(*kind, key, 1)).collect()
            }
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    /// The entries of an array of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        let text = |value| match value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong(key, "a list of texts")),
        };
        self.entries(key)?.into_iter().map(text).collect()
    }
}

/// A place in the file that never leaves it.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn damaged(&self, reason: impl Into<String>) -> Error {
        Error::Damaged { file: self.file.into(), format: FORMAT, reason: reason.into() }
    }

    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], Error> {
        let end = self.position.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            let size = self.bytes.len();
            return Err(self.damaged(format!("it ends after {size} bytes, within {what}; copy or download it again")));
        };
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.number(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.number(what)?))
    }

    /// A number of things of at least `smallest` bytes each, which must fit into the rest of the file.
    fn count(&mut self, smallest: usize, what: &str) -> Result<usize, Error> {
        let count = self.u64(what)?;
        let most = (self.bytes.len() - self.position) / smallest;
        if count > most as u64 {
            let reason = format!("{what} is {count}, but the rest of the file has room for {most}");
            return Err(self.damaged(reason));
        }
        Ok(count as usize)
    }

    fn text(&mut self, what: &str) -> Result<String, Error> {
        let length = self.count(1, what)?;
        let bytes = self.take(length, what)?;
        // Token texts of byte-level vocabularies may be no UTF-8 in old files.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value, Error> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.number::<1>(key)?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.number(key)?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.number(key)?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.number(key)?))),
            4 => Value::Unsigned(u64::from(self.u32(key)?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.number(key)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.number(key)?))),
            7 => Value::Flag(self.number::<1>(key)?[0] != 0),
            8 => Value::Text(self.text(key)?),
            9 => self.array(key, depth)?,
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.number(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.number(key)?)),
            other => return Err(self.damaged(format!("metadata key `{key}` has the unknown value type {other}"))),
        })
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<Value, Error> {
        if depth >= DEEPEST_ARRAY {
            return Err(self.damaged(format!("metadata key `{key}` nests lists too deeply")));
        }
        let kind = self.u32(key)?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(self.damaged(format!("metadata key `{key}` lists the unknown value type {other}"))),
        };
        let count = self.count(smallest, key)?;
        let start = self.position;
        match kind {
            8 => {
                for _ in 0..count {
                    let length = self.count(1, key)?;
                    self.take(length, key)?;
                }
            }
            9 => {
                for _ in 0..count {
                    self.array(key, depth + 1)?;
                }
            }
            _ => drop(self.take(count * smallest, key)?),
        }
        Ok(Value::Array { kind, count, bytes: start..self.position })
    }

    fn tensor(&mut self) -> Result<TensorInfo, Error> {
        let name = self.text("a tensor's name")?;
        let ranks = self.u32(&name)?;
        if ranks > 4 {
            return Err(self.damaged(format!("tensor `{name}` has {ranks} dimensions; the most is 4")));
        }
        let mut dims = Vec::new();
        let mut numbers = 1u64;
        for _ in 0..ranks {
            let length = self.u64(&name)?;
            let product = numbers.checked_mul(length.max(1)).filter(|product| *product < 1 << 48);
            numbers = product.ok_or_else(|| self.damaged(format!("tensor `{name}` has absurd dimensions")))?;
            dims.push(length as usize);
        }
        dims.reverse();
        let kind = self.u32(&name)?;
        let offset = usize::try_from(self.u64(&name)?).unwrap_or(usize::MAX);
        Ok(TensorInfo { name, dims, kind, offset })
    }
}
