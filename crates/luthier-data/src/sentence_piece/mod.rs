//! SentencePiece models: `tokenizer.model`, a protocol buffer of pieces with scores and settings.
//! From: SentencePiece, `src/sentencepiece_model.proto`.

mod charsmap;
mod model;
mod normalizer;
mod protobuf;

use crate::error::Error;
use crate::gguf_tokenizer::{BYTE, GgufTokenizer, NORMAL, UNKNOWN};
use protobuf::{Fields, Value};

pub(crate) use normalizer::{Part, SentenceNormalizer, Texts};

/// The kinds of models, by their numbers.
const KINDS: [&str; 5] = ["", "unigram", "bpe", "word", "char"];

/// Reads a `tokenizer.model`. It says the same as a GGUF file's metadata, which were made from one.
///
/// Errors: bytes that are no such model, kinds and settings that are not supported.
pub(crate) fn parse(bytes: &[u8]) -> Result<GgufTokenizer, Error> {
    let mut found =
        GgufTokenizer { add_space_prefix: Some(true), remove_extra_whitespaces: Some(true), ..Default::default() };
    let mut trainer = Trainer::default();
    for (number, value) in fields(bytes)? {
        match (number, value) {
            (1, Value::Bytes(piece)) => {
                let (text, score, kind) = read_piece(piece)?;
                found.tokens.push(text);
                found.scores.push(score);
                found.token_types.push(kind);
            }
            (2, Value::Bytes(spec)) => trainer.read(spec)?,
            (3, Value::Bytes(spec)) => read_normalizer(spec, &mut found)?,
            _ => {}
        }
    }
    if found.tokens.is_empty() {
        return Err(damaged("it has no pieces"));
    }
    found.model = match trainer.kind {
        1 => "t5".to_owned(),
        2 => "llama".to_owned(),
        other => {
            let kind = usize::try_from(other).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"");
            return Err(wrong(format!(
                "it is a SentencePiece model of the kind {kind:?} ({other}); supported: bpe, unigram"
            )));
        }
    };
    if trainer.blank_behind {
        return Err(wrong(
            "it marks blanks behind words (treat_whitespace_as_suffix), which is not supported".to_owned(),
        ));
    }
    let known = |id: i32| u32::try_from(id).ok().filter(|id| (*id as usize) < found.tokens.len());
    let unknown = found.token_types.iter().position(|kind| *kind == UNKNOWN).map(|id| id as u32);
    (found.begin_id, found.end_id, found.padding_id) =
        (known(trainer.begin), known(trainer.end), known(trainer.padding));
    found.unknown_id = unknown;
    if unknown.is_none() && !found.token_types.contains(&BYTE) {
        return Err(damaged("it has no piece for unknown letters"));
    }
    Ok(found)
}

/// What of `TrainerSpec` matters here, with its defaults.
struct Trainer {
    kind: i32,
    blank_behind: bool,
    begin: i32,
    end: i32,
    padding: i32,
}

impl Default for Trainer {
    fn default() -> Self {
        Self { kind: 1, blank_behind: false, begin: 1, end: 2, padding: -1 }
    }
}

impl Trainer {
    fn read(&mut self, spec: &[u8]) -> Result<(), Error> {
        for (number, value) in fields(spec)? {
            // Negative numbers are written as 64 bits in two's complement.
            let Some(integer) = value.integer().map(|integer| integer as i32) else { continue };
            match number {
                3 => self.kind = integer,
                24 => self.blank_behind = integer != 0,
                41 => self.begin = integer,
                42 => self.end = integer,
                43 => self.padding = integer,
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_normalizer(spec: &[u8], found: &mut GgufTokenizer) -> Result<(), Error> {
    for (number, value) in fields(spec)? {
        match (number, value) {
            (2, Value::Bytes(charsmap)) => found.charsmap = charsmap.to_vec(),
            (3, Value::Integer(flag)) => found.add_space_prefix = Some(flag != 0),
            (4, Value::Integer(flag)) => found.remove_extra_whitespaces = Some(flag != 0),
            (5, Value::Integer(0)) => {
                return Err(wrong(
                    "it leaves blanks as they are (escape_whitespaces: false), which is not supported".to_owned(),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_piece(piece: &[u8]) -> Result<(String, f32, i32), Error> {
    let (mut text, mut score, mut kind) = (None, 0.0, NORMAL);
    for (number, value) in fields(piece)? {
        match number {
            1 => text = value.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok()),
            2 => score = value.float().unwrap_or_default(),
            3 => kind = value.integer().and_then(|kind| i32::try_from(kind).ok()).unwrap_or(NORMAL),
            _ => {}
        }
    }
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| damaged("a piece has no text"))?;
    if !score.is_finite() {
        return Err(damaged("a piece has a score that is no number"));
    }
    Ok((text.to_owned(), score, kind))
}

fn fields(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Error> {
    Fields(bytes).collect::<Option<Vec<_>>>().ok_or_else(|| damaged("its fields are cut or broken"))
}

fn damaged(reason: &str) -> Error {
    wrong(format!("it is no SentencePiece model, or damaged: {reason}; copy or download it again"))
}

fn wrong(problem: String) -> Error {
    Error::Tokenizer { problem: format!("tokenizer.model: {problem}") }
}
