//! A look at SentencePiece's `precompiled_charsmap` before it is believed: a trie of replacements as a double array (Darts),
//! then the replacements, each with a zero at its end. The library that applies it follows offsets without checking them.

use crate::error::Error;

/// The longest replacement, in bytes: what stands in tables of Unicode's has 33.
const LONGEST_REPLACEMENT: usize = 256;

/// Checks that no text can lead outside the table. Errors: it can, or the table is cut off.
pub(crate) fn check_charsmap(bytes: &[u8]) -> Result<(), Error> {
    let problem = |problem: &str| Error::Tokenizer { problem: format!("the precompiled_charsmap {problem}") };
    let Some((size, rest)) = bytes.split_first_chunk::<4>() else { return Err(problem("is cut off")) };
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) || size > rest.len() {
        return Err(problem("says that it is larger than it is"));
    }
    let (trie, replacements) = rest.split_at(size);
    let units: Vec<u32> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    let Ok(replacements) = std::str::from_utf8(replacements) else {
        return Err(problem("has replacements that are no UTF-8 text"));
    };
    let outside = || problem("leads outside of itself");
    let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
    let mut seen = vec![false; units.len()];
    let mut places = vec![offset(*units.first().ok_or_else(outside)?)];
    while let Some(place) = places.pop() {
        for byte in 1..=255 {
            let child = place ^ byte;
            let unit = *units.get(child).ok_or_else(outside)?;
            if (unit & ((1 << 31) | 0xff)) as usize != byte || std::mem::replace(&mut seen[child], true) {
                continue;
            }
            let next = child ^ offset(unit);
            if (unit >> 8) & 1 == 1 {
                let value = (*units.get(next).ok_or_else(outside)? & ((1 << 31) - 1)) as usize;
                // The text from there to the next zero, or to the end, must be whole characters.
                if value > replacements.len() || !replacements.is_char_boundary(value) {
                    return Err(outside());
                }
                let text = &replacements.as_bytes()[value..];
                if text.iter().take(LONGEST_REPLACEMENT + 1).take_while(|byte| **byte != 0).count()
                    > LONGEST_REPLACEMENT
                {
                    return Err(problem(&format!("has a replacement of more than {LONGEST_REPLACEMENT} bytes")));
                }
            }
            places.push(next);
        }
    }
    Ok(())
}
