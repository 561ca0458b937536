//! SentencePiece's table of replacements (`precompiled_charsmap`): which letters become which before a text is split.
//!
//! A double array (Darts-clone) that is walked byte by byte, then the replacements, each ended by a zero. The bytes come
//! from a file, so that every step is checked: a damaged table replaces less, and can neither panic nor run on.
//! From: SentencePiece, `src/normalizer.cc`; Darts-clone, `darts.h`.

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    /// None where the bytes are no table.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (array, replacements) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (units, left) = array.as_chunks::<4>();
        let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        (left.is_empty() && !units.is_empty()).then(|| Self { units, replacements: replacements.to_vec() })
    }

    /// The longest beginning of a text that is replaced: its length in bytes, and what comes in its place.
    pub(super) fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut position = offset(*self.units.first()?);
        let mut found = None;
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            position ^= byte as usize;
            let Some(&unit) =
                self.units.get(position).filter(|unit| byte != 0 && **unit & 0x8000_00FF == u32::from(byte))
            else {
                break;
            };
            position ^= offset(unit);
            if unit >> 8 & 1 == 1
                && text.is_char_boundary(index + 1)
                && let Some(replacement) = self.units.get(position).and_then(|leaf| self.replacement(*leaf))
            {
                found = Some((index + 1, replacement));
            }
        }
        found
    }

    fn replacement(&self, leaf: u32) -> Option<&str> {
        let from = self.replacements.get((leaf & 0x7FFF_FFFF) as usize..)?;
        let end = from.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&from[..end]).ok()
    }
}

/// How far a unit's children are.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 0x200) >> 6)) as usize
}
