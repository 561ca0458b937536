//! How numbers and texts are packed inside a page: runs, bit-packed groups, and differences.

use super::super::allowance::Allowance;
use super::Result;

/// The most values that a page may say it has: no tool writes nearly as many.
pub(crate) const MOST_VALUES: usize = 1 << 25;

/// Bytes of a page, taken from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'b>(pub(crate) &'b [u8]);

impl<'b> Bytes<'b> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a page ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or("a page ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A length of four bytes.
    pub(crate) fn length(&mut self) -> Result<usize> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a page has a number without end".to_owned())
    }

    fn zigzag(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

/// `count` numbers of `width` bits each, packed from the lowest bit on.
fn unpack(bytes: &[u8], width: u32, count: usize, into: &mut Vec<u64>) {
    let mut buffer = 0_u128;
    let mut filled = 0;
    let mut bytes = bytes.iter();
    for _ in 0..count {
        while filled < width {
            buffer |= u128::from(bytes.next().copied().unwrap_or_default()) << filled;
            filled += 8;
        }
        into.push((buffer & ((1_u128 << width) - 1)) as u64);
        buffer >>= width;
        filled -= width;
    }
}

/// Runs and bit-packed groups: levels, places in a dictionary, booleans.
pub(crate) fn hybrid(mut bytes: Bytes, width: u32, count: usize) -> Result<Vec<u32>> {
    if width > 32 || count > MOST_VALUES {
        return Err("a page has numbers that are too wide, or too many".to_owned());
    }
    let mut values: Vec<u32> = Vec::new();
    let mut group = Vec::new();
    while values.len() < count {
        let head = bytes.varint()?;
        let left = count - values.len();
        if head & 1 == 1 {
            let groups = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            let packed = bytes.take(groups.saturating_mul(width as usize).min(bytes.0.len()))?;
            let there = if width == 0 { left } else { packed.len() * 8 / width as usize };
            let here = groups.saturating_mul(8).min(left).min(there);
            if here == 0 {
                return Err("a page ends early".to_owned());
            }
            group.clear();
            unpack(packed, width, here, &mut group);
            values.extend(group.iter().map(|value| *value as u32));
        } else {
            let mut value = [0_u8; 4];
            let size = width.div_ceil(8) as usize;
            value[..size].copy_from_slice(bytes.take(size)?);
            let run = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            if run == 0 {
                return Err("a page has an empty run".to_owned());
            }
            values.extend(std::iter::repeat_n(u32::from_le_bytes(value), run.min(left)));
        }
    }
    Ok(values)
}

/// Differences in blocks: `DELTA_BINARY_PACKED`. What follows it is left in `bytes`.
pub(crate) fn delta(bytes: &mut Bytes, allowance: &Allowance) -> Result<Vec<i64>> {
    let wrong = || "a page of differences is damaged".to_owned();
    let size = |value: u64| usize::try_from(value).ok().filter(|size| *size <= MOST_VALUES).ok_or_else(wrong);
    let (block, parts, count) = (size(bytes.varint()?)?, size(bytes.varint()?)?, size(bytes.varint()?)?);
    let mut value = bytes.zigzag()?;
    if parts == 0 || !block.is_multiple_of(parts) || !(block / parts).is_multiple_of(8) || block == 0 {
        return Err(wrong());
    }
    allowance.values(count, 0)?;
    let each = block / parts;
    let mut values = Vec::new();
    if count > 0 {
        values.push(value);
    }
    let mut group = Vec::new();
    while values.len() < count {
        let least = bytes.zigzag()?;
        let widths = bytes.take(parts)?;
        for &width in widths {
            if values.len() >= count {
                break;
            }
            if width > 64 {
                return Err(wrong());
            }
            let packed = bytes.take(each * usize::from(width) / 8)?;
            group.clear();
            unpack(packed, u32::from(width), each.min(count - values.len()), &mut group);
            for &step in &group {
                value = value.wrapping_add(least).wrapping_add(step as i64);
                values.push(value);
            }
        }
    }
    Ok(values)
}

/// Texts after their lengths: `DELTA_LENGTH_BYTE_ARRAY`.
pub(crate) fn delta_lengths<'b>(bytes: &mut Bytes<'b>, allowance: &Allowance) -> Result<Vec<&'b [u8]>> {
    let lengths = delta(bytes, allowance)?;
    let taken = |length: i64| bytes.take(usize::try_from(length).map_err(|_| "a text has a negative length")?);
    lengths.into_iter().map(taken).collect()
}

/// Texts that begin as the one before: `DELTA_BYTE_ARRAY`.
pub(crate) fn delta_texts(bytes: &mut Bytes, allowance: &Allowance) -> Result<Vec<Vec<u8>>> {
    let shared = delta(bytes, allowance)?;
    let rests = delta_lengths(bytes, allowance)?;
    let mut texts: Vec<Vec<u8>> = Vec::with_capacity(rests.len());
    for (shared, rest) in shared.into_iter().zip(rests) {
        let before = texts.last().map_or(&[][..], Vec::as_slice);
        let begin = usize::try_from(shared).ok().and_then(|shared| before.get(..shared));
        let begin = begin.ok_or("a text begins as one that is shorter")?;
        allowance.bytes(begin.len() + rest.len())?;
        let text = [begin, rest].concat();
        texts.push(text);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_groups() {
        // The format's example: 0 to 7 in 3 bits each; then a run of five 4s.
        let bytes = [0x03, 0x88, 0xc6, 0xfa, 0x0a, 0x04];
        assert_eq!(hybrid(Bytes(&bytes), 3, 13), Ok(vec![0, 1, 2, 3, 4, 5, 6, 7, 4, 4, 4, 4, 4]));
        assert!(hybrid(Bytes(&bytes), 3, 14).is_err());
        assert!(hybrid(Bytes(&[0x00, 0x04]), 3, 1).is_err());
    }

    #[test]
    fn unpacking_is_wide_enough() {
        let mut values = Vec::new();
        unpack(&[0xff; 17], 64, 2, &mut values);
        assert_eq!(values, [u64::MAX, u64::MAX]);
    }
}
