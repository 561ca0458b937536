//! What SentencePiece does to a text before it is split: letters are replaced by its table, blanks become `▁`, and a blank
//! is put before the first word, each where the model says so.
//!
//! The `tokenizers` crate can do this only in part (it replaces by graphemes and treats what stands between added tokens as
//! texts of their own), so it is done here, before its models see the text. From: SentencePiece, `src/normalizer.cc`.

use super::charsmap::CharsMap;

/// SentencePiece's mark for a blank.
const BLANK: char = '\u{2581}';

/// Texts that are found in others, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts(Vec<String>);

impl Texts {
    pub(crate) fn new(texts: impl Iterator<Item = String>) -> Self {
        let mut texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
        texts.sort_unstable_by(|a, b| a.as_bytes()[0].cmp(&b.as_bytes()[0]).then_with(|| b.len().cmp(&a.len())));
        texts.dedup();
        Self(texts)
    }

    /// The longest one that a text begins with.
    fn at_start<'a>(&self, text: &'a str) -> Option<&'a str> {
        let first = *text.as_bytes().first()?;
        let from = self.0.partition_point(|known| known.as_bytes()[0] < first);
        let mut same = self.0[from..].iter().take_while(|known| known.as_bytes()[0] == first);
        same.find(|known| text.starts_with(known.as_str())).map(|known| &text[..known.len()])
    }
}

/// The settings of a model, and what it leaves as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct SentenceNormalizer {
    pub(super) charsmap: Option<CharsMap>,
    /// A blank goes before the first word (`add_dummy_prefix`).
    pub(crate) prefix: bool,
    /// ... and before the first word after a special token.
    pub(crate) prefix_after_special: bool,
    /// Blanks at both ends go away, and several become one (`remove_extra_whitespaces`).
    pub(crate) remove_extra: bool,
    /// Special tokens: what stands between them are texts of their own.
    pub(crate) special: Texts,
    /// Tokens that are recognised in a text and stay as they are.
    pub(crate) defined: Texts,
}

/// A part of a longer text, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The whole text.
    Whole,
    /// A piece; whether a text starts with it.
    Piece { starts: bool },
}

impl SentenceNormalizer {
    /// Bytes of SentencePiece's table. False where they are none.
    pub(crate) fn take_charsmap(&mut self, bytes: &[u8]) -> bool {
        self.charsmap = if bytes.is_empty() { None } else { CharsMap::parse(bytes) };
        bytes.is_empty() || self.charsmap.is_some()
    }

    /// The text as the model's pieces are written.
    pub(crate) fn apply(&self, text: &str, part: Part) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 4);
        let mut strip_start = part != Part::Piece { starts: false };
        let mut prefix = self.prefix && strip_start;
        let mut start = 0;
        let mut at = 0;
        while at < text.len() {
            if let Some(special) = self.special.at_start(&text[at..]) {
                self.section(&text[start..at], prefix, strip_start, part == Part::Whole, &mut out);
                out.push_str(special);
                at += special.len();
                start = at;
                prefix = self.prefix && self.prefix_after_special;
                strip_start = true;
            } else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.section(&text[start..], prefix, strip_start, part == Part::Whole, &mut out);
        out
    }

    fn section(&self, text: &str, prefix: bool, strip_start: bool, strip_end: bool, out: &mut String) {
        let begin = out.len();
        let mut rest = text;
        let mut after_blank = self.remove_extra && strip_start;
        while after_blank && let (" ", length) = self.next(rest) {
            rest = &rest[length..];
        }
        if rest.is_empty() {
            return;
        }
        if prefix {
            out.push(BLANK);
        }
        while !rest.is_empty() {
            let (mut letters, length) = self.next(rest);
            rest = &rest[length..];
            if after_blank {
                letters = letters.trim_start_matches(' ');
            }
            if !letters.is_empty() {
                out.extend(letters.chars().map(|letter| if letter == ' ' { BLANK } else { letter }));
                after_blank = self.remove_extra && letters.ends_with(' ');
            }
        }
        if self.remove_extra && strip_end {
            while out.len() > begin && out.ends_with(BLANK) {
                out.pop();
            }
        }
    }

    /// What comes in place of the first letters of a text, and how many bytes they are.
    fn next<'a>(&'a self, text: &'a str) -> (&'a str, usize) {
        if let Some(defined) = self.defined.at_start(text) {
            return (defined, defined.len());
        }
        if let Some((length, replacement)) = self.charsmap.as_ref().and_then(|map| map.longest(text)) {
            return (replacement, length);
        }
        let length = text.chars().next().map_or(0, char::len_utf8);
        (&text[..length], length)
    }
}
