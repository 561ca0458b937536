//! Tables of FlatBuffers, read in place: a table knows where each of its fields is, or that it has its default.

use super::Result;

/// A table in a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'b> {
    bytes: &'b [u8],
    at: usize,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found.copied().ok_or_else(|| "its metadata ends early".to_owned())
}

fn offset(bytes: &[u8], at: usize) -> Result<usize> {
    Ok(at.saturating_add(u32::from_le_bytes(array(bytes, at)?) as usize))
}

impl<'b> Table<'b> {
    pub(crate) fn root(bytes: &'b [u8]) -> Result<Self> {
        Ok(Self { bytes, at: offset(bytes, 0)? })
    }

    /// Where a field is.
    fn field(&self, number: usize) -> Result<Option<usize>> {
        let back = i64::from(i32::from_le_bytes(array(self.bytes, self.at)?));
        let table = usize::try_from(self.at as i64 - back).map_err(|_| "its metadata is damaged")?;
        let size = usize::from(u16::from_le_bytes(array(self.bytes, table)?));
        let entry = 4 + 2 * number;
        if entry + 2 > size {
            return Ok(None);
        }
        let step = usize::from(u16::from_le_bytes(array(self.bytes, table + entry)?));
        Ok((step > 0).then_some(self.at + step))
    }

    /// Whether a field is written down.
    pub(crate) fn has(&self, number: usize) -> Result<bool> {
        self.field(number).map(|at| at.is_some())
    }

    pub(crate) fn byte(&self, number: usize) -> Result<u8> {
        let at = self.field(number)?;
        at.map_or(Ok(0), |at| array::<1>(self.bytes, at).map(|[byte]| byte))
    }

    pub(crate) fn short(&self, number: usize) -> Result<i16> {
        self.field(number)?.map_or(Ok(0), |at| array(self.bytes, at).map(i16::from_le_bytes))
    }

    pub(crate) fn int(&self, number: usize) -> Result<i32> {
        self.field(number)?.map_or(Ok(0), |at| array(self.bytes, at).map(i32::from_le_bytes))
    }

    pub(crate) fn long(&self, number: usize) -> Result<i64> {
        self.field(number)?.map_or(Ok(0), |at| array(self.bytes, at).map(i64::from_le_bytes))
    }

    pub(crate) fn table(&self, number: usize) -> Result<Option<Self>> {
        let Some(at) = self.field(number)? else { return Ok(None) };
        Ok(Some(Self { bytes: self.bytes, at: offset(self.bytes, at)? }))
    }

    pub(crate) fn text(&self, number: usize) -> Result<String> {
        let bytes = self.vector(number, 1)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The bytes of a list of things of so many bytes each.
    pub(crate) fn vector(&self, number: usize, size: usize) -> Result<&'b [u8]> {
        let Some(at) = self.field(number)? else { return Ok(&[]) };
        let at = offset(self.bytes, at)?;
        let count = u32::from_le_bytes(array(self.bytes, at)?) as usize;
        let end = count.checked_mul(size).and_then(|length| length.checked_add(at + 4));
        end.and_then(|end| self.bytes.get(at + 4..end)).ok_or_else(|| "its metadata ends early".to_owned())
    }

    pub(crate) fn tables(&self, number: usize) -> Result<Vec<Self>> {
        let Some(at) = self.field(number)? else { return Ok(Vec::new()) };
        let count = self.vector(number, 4)?.len() / 4;
        let first = offset(self.bytes, at)? + 4;
        (0..count).map(|index| Ok(Self { bytes: self.bytes, at: offset(self.bytes, first + 4 * index)? })).collect()
    }
}
