//! Thrift's compact protocol, as much of it as Parquet's metadata needs: any struct, its fields by number.

use super::Result;

/// A value of Thrift.
#[derive(Debug)]
pub(crate) enum Thrift<'b> {
    Bool(bool),
    Int(i64),
    Double,
    Bytes(&'b [u8]),
    List(Vec<Thrift<'b>>),
    Struct(Vec<(i64, Thrift<'b>)>),
}

/// How deep structs may lie in one another.
const DEEPEST: usize = 16;

/// Reads a struct; also gives how many bytes it has.
pub(crate) fn read(bytes: &[u8]) -> Result<(Thrift<'_>, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.structure(0)?;
    Ok((value, reader.at))
}

impl<'b> Thrift<'b> {
    /// A field of a struct.
    pub(crate) fn field(&self, number: i64) -> Option<&Thrift<'b>> {
        match self {
            Self::Struct(fields) => fields.iter().find(|(field, _)| *field == number).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn optional_int(&self, number: i64) -> Option<i64> {
        match self.field(number) {
            Some(Self::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn int(&self, number: i64) -> Result<i64> {
        self.optional_int(number).ok_or_else(|| format!("its metadata lacks number {number}"))
    }

    /// A number of things.
    pub(crate) fn count(&self, number: i64) -> Result<usize> {
        usize::try_from(self.int(number)?).map_err(|_| format!("its metadata has a negative number {number}"))
    }

    pub(crate) fn switch(&self, number: i64) -> Option<bool> {
        match self.field(number) {
            Some(Self::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn text(&self, number: i64) -> Result<String> {
        match self.field(number) {
            Some(Self::Bytes(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            _ => Err(format!("its metadata lacks name {number}")),
        }
    }

    pub(crate) fn list(&self, number: i64) -> Result<&[Thrift<'b>]> {
        match self.field(number) {
            Some(Self::List(list)) => Ok(list),
            _ => Err(format!("its metadata lacks list {number}")),
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or("its metadata ends early")?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("its metadata has a number without end".to_owned())
    }

    fn int(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("its metadata ends early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn structure(&mut self, depth: usize) -> Result<Thrift<'b>> {
        if depth > DEEPEST {
            return Err("its metadata is nested too deep".to_owned());
        }
        let mut fields = Vec::new();
        let mut number = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(Thrift::Struct(fields));
            }
            number = match head >> 4 {
                0 => self.int()?,
                step => number.wrapping_add(i64::from(step)),
            };
            let value = match head & 0x0f {
                1 => Thrift::Bool(true),
                2 => Thrift::Bool(false),
                kind => self.value(kind, depth)?,
            };
            fields.push((number, value));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Thrift<'b>> {
        Ok(match kind {
            1 | 2 => Thrift::Bool(self.byte()? == 1), // of a list
            3 => Thrift::Int(i64::from(self.byte()? as i8)),
            4..=6 => Thrift::Int(self.int()?),
            7 => {
                self.take(8)?;
                Thrift::Double
            }
            8 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Thrift::Bytes(self.take(length)?)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => usize::try_from(self.varint()?).unwrap_or(usize::MAX),
                    count => usize::from(count),
                };
                // Each has a byte at least.
                if count > self.bytes.len() - self.at {
                    return Err("its metadata has a list that is longer than itself".to_owned());
                }
                let values = (0..count).map(|_| self.value(head & 0x0f, depth + 1)).collect::<Result<_>>()?;
                Thrift::List(values)
            }
            12 => self.structure(depth + 1)?,
            _ => return Err("its metadata has a type that Parquet does not use".to_owned()),
        })
    }
}
