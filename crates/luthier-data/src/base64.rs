//! Base64 with the usual letters, as tiktoken's files and tables of characters are written.

/// Base64 with its padding. None: it is something else.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let value = |letter: u8| {
        Some(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    };
    let letters = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - letters.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(letters.len() * 3 / 4);
    for group in letters.chunks(4) {
        let mut bits = 0_u32;
        for letter in group {
            bits = bits << 6 | u32::from(value(*letter)?);
        }
        bits <<= 6 * (4 - group.len());
        out.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_padding() {
        for (text, bytes) in [("IQ==", "!"), ("aGk=", "hi"), ("aGkh", "hi!"), ("aGkhIQ==", "hi!!")] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for wrong in ["IQ", "I===", "a*==", "=", "aGkh="] {
            assert_eq!(decode_base64(wrong), None, "{wrong}");
        }
    }
}
