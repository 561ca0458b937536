//! The tokenizer inside a GGUF file, as plain lists. Turning it into a tokenizer is not this crate's business.

use super::gguf::{Gguf, Value};
use crate::error::Error;

/// `tokenizer.ggml.*` and `tokenizer.chat_template`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// The kind: `gpt2` (byte-level BPE), `llama` (SentencePiece), `bert`, ...
    pub model: String,
    /// The name of the splitting rule before BPE, such as `smollm` or `qwen2`.
    pub pre: Option<String>,
    /// The text of each token; its place is its id.
    pub tokens: Vec<String>,
    /// Kind of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty when not given.
    pub token_types: Vec<i32>,
    /// BPE merges in order, two texts with a space between them.
    pub merges: Vec<String>,
    /// SentencePiece log-probabilities. Empty when not given.
    pub scores: Vec<f32>,
    /// The id that starts a row.
    pub bos: Option<u32>,
    /// The id that ends a row.
    pub eos: Option<u32>,
    /// The id that ends a turn, where it is another.
    pub eot: Option<u32>,
    /// The id of what has no token.
    pub unknown: Option<u32>,
    /// The id of padding.
    pub padding: Option<u32>,
    /// Rows begin with `bos`.
    pub add_bos: Option<bool>,
    /// Rows end with `eos`.
    pub add_eos: Option<bool>,
    /// Text gets a space in front (SentencePiece).
    pub add_space_prefix: Option<bool>,
    /// Several blanks count as one (SentencePiece).
    pub remove_extra_whitespaces: Option<bool>,
    /// The table of replaced letters (SentencePiece). Empty when there is none.
    pub charsmap: Vec<u8>,
    /// Letters become small ones before they are split (WordPiece).
    pub lowercase: Option<bool>,
    /// Accents are taken off before letters are split (WordPiece).
    pub strip_accents: Option<bool>,
    /// The Jinja template of conversations.
    pub chat_template: Option<String>,
}

impl GgufTokenizer {
    /// Of a GGUF file's bytes, whatever else is in it: a file that holds a vocabulary and no tensors will do.
    ///
    /// # Errors
    /// When the bytes are no GGUF file, or its tables are damaged.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Error> {
        Self::read(&Gguf::parse(file, bytes)?)
    }

    pub(super) fn read(gguf: &Gguf<'_>) -> Result<Self, Error> {
        let tokens = gguf.texts("tokenizer.ggml.tokens")?;
        let id = |key: &str| -> Result<Option<u32>, Error> {
            // Converters write -1 or the largest number for "none".
            let known = |id: &u64| *id < tokens.len() as u64;
            match gguf.metadata.get(key) {
                Some(Value::Signed(number)) if *number < 0 => Ok(None),
                _ => Ok(gguf.integer(key)?.filter(known).map(|id| id as u32)),
            }
        };
        let integer = |value: &Value| match value {
            Value::Unsigned(number) => i32::try_from(*number).ok(),
            Value::Signed(number) => i32::try_from(*number).ok(),
            _ => None,
        };
        let float = |value: &Value| match value {
            Value::Float(number) => Some(*number as f32),
            other => integer(other).map(|number| number as f32),
        };
        let wrong = |key: &str| gguf.damaged(format!("`{key}` is no list of numbers, one for each token"));
        let token_types = list(gguf, "tokenizer.ggml.token_type", tokens.len(), integer, wrong)?;
        let scores = list(gguf, "tokenizer.ggml.scores", tokens.len(), float, wrong)?;
        let byte = |value: &Value| match value {
            Value::Unsigned(number) => u8::try_from(*number).ok(),
            // The same bytes, where they were written as numbers with a sign.
            Value::Signed(number) => i8::try_from(*number).ok().map(|number| number as u8),
            _ => None,
        };
        let charsmap: Option<Vec<u8>> = gguf.entries("tokenizer.ggml.precompiled_charsmap")?.iter().map(byte).collect();
        let charsmap =
            charsmap.ok_or_else(|| gguf.damaged("`tokenizer.ggml.precompiled_charsmap` is no list of bytes"))?;
        let text = |key: &str| Ok::<_, Error>(gguf.text(key)?.map(str::to_owned));
        Ok(Self {
            model: text("tokenizer.ggml.model")?.unwrap_or_default(),
            pre: text("tokenizer.ggml.pre")?,
            merges: gguf.texts("tokenizer.ggml.merges")?,
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            unknown: id("tokenizer.ggml.unknown_token_id")?,
            padding: id("tokenizer.ggml.padding_token_id")?,
            add_bos: gguf.flag("tokenizer.ggml.add_bos_token")?,
            add_eos: gguf.flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: gguf.flag("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: gguf.flag("tokenizer.ggml.remove_extra_whitespaces")?,
            charsmap,
            lowercase: gguf.flag("tokenizer.ggml.normalizer.lowercase")?,
            strip_accents: gguf.flag("tokenizer.ggml.normalizer.strip_accents")?,
            chat_template: text("tokenizer.chat_template")?,
            tokens,
            token_types,
            scores,
        })
    }
}

/// A list with one number for each token, or none at all.
fn list<T>(
    gguf: &Gguf<'_>,
    key: &str,
    tokens: usize,
    number: impl Fn(&Value) -> Option<T>,
    wrong: impl Fn(&str) -> Error,
) -> Result<Vec<T>, Error> {
    let entries = gguf.entries(key)?;
    let numbers: Option<Vec<T>> = entries.iter().map(number).collect();
    match numbers {
        Some(numbers) if numbers.is_empty() || numbers.len() == tokens => Ok(numbers),
        _ => Err(wrong(key)),
    }
}
