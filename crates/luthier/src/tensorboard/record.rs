//! A record of an event file: length, checksum of the length, a protocol buffer, its checksum. The few fields that are
//! needed (`Event`, `Summary`, `Summary.Value` of TensorFlow) are encoded here, so that no library comes in for them.

/// A record of `Event { wall_time, step, summary }`.
pub(super) fn event(wall_time: f64, step: u64, summary: &[u8]) -> Vec<u8> {
    let mut bytes = vec![key(1, FIXED_64)];
    bytes.extend(wall_time.to_le_bytes());
    bytes.push(key(2, VARIABLE));
    push_variable(step, &mut bytes);
    push_bytes(5, summary, &mut bytes);
    record(&bytes)
}

/// A record of `Event { wall_time, file_version }`, which every file begins with.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    let mut bytes = vec![key(1, FIXED_64)];
    bytes.extend(wall_time.to_le_bytes());
    push_bytes(3, b"brain.Event:2", &mut bytes);
    record(&bytes)
}

/// `Summary { value: [Value { tag, simple_value }] }`.
pub(super) fn summary(scalars: &[(&str, f32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, value) in scalars {
        let mut inner = Vec::new();
        push_bytes(1, tag.as_bytes(), &mut inner);
        inner.push(key(2, FIXED_32));
        inner.extend(value.to_le_bytes());
        push_bytes(1, &inner, &mut bytes);
    }
    bytes
}

const VARIABLE: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// A field's number and how its value is stored.
const fn key(field: u8, storage: u8) -> u8 {
    field << 3 | storage
}

fn push_bytes(field: u8, value: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(key(field, BYTES));
    push_variable(value.len() as u64, bytes);
    bytes.extend(value);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn push_variable(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A record: length, its checksum, the content, its checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_checksum(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked_checksum(content).to_le_bytes());
    bytes
}

/// Step and summary, as encoded, of the first record after the version that is laid out as ours are.
pub(super) fn first_summary(file: &[u8]) -> Option<(u64, &[u8])> {
    const FRAME: usize = 12;
    let length = |at: usize| file.get(at..at + 8)?.try_into().ok().map(|bytes| u64::from_le_bytes(bytes) as usize);
    let second = length(0)?.checked_add(FRAME + 4)?;
    let start = second.checked_add(FRAME)?;
    let content = file.get(start..start.checked_add(length(second)?)?)?;
    // The key and the eight bytes of the time, then the step.
    let mut rest = content.get(9..)?.strip_prefix(&[key(2, VARIABLE)])?;
    let step = take_variable(&mut rest)?;
    rest = rest.strip_prefix(&[key(5, BYTES)])?;
    let length = take_variable(&mut rest)?;
    (rest.len() as u64 == length).then_some((step, rest))
}

fn take_variable(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// CRC-32C, turned and shifted as TFRecord files want it.
fn masked_checksum(bytes: &[u8]) -> u32 {
    checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), a bit at a time: records are small.
fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (if sum & 1 == 1 { POLYNOMIAL } else { 0 }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_first_summary_is_found_again() {
        let summary = summary(&[("train/loss", 2.5)]);
        let file = [version(1.0), event(2.0, 300, &summary), event(3.0, 301, b"")].concat();
        assert_eq!(first_summary(&file), Some((300, summary.as_slice())));
    }

    #[test]
    fn broken_files_have_no_first_summary() {
        for bytes in [&b""[..], b"short", &[255; 40], &record(b"x"), &version(1.0)] {
            assert_eq!(first_summary(bytes), None);
        }
    }
}
