//! Ids to text one at a time, as generation gives them.

use crate::error::Error;
use crate::tokenizer::Tokenizer;

impl Tokenizer {
    /// A decoder that takes one id at a time and gives text as soon as it is certain.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, ids: Vec::new(), settled: 0, shown: 0 }
    }
}

/// Decodes a stream of ids; see [`Tokenizer::stream`].
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids from the last border of words on; those before it are not needed any more.
    ids: Vec<u32>,
    /// The first ids of `ids` that are there as context only.
    settled: usize,
    /// Bytes of the text of the context.
    shown: usize,
}

impl StreamDecoder<'_> {
    /// Takes an id and gives the text that it completes; empty in the middle of a character.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with('\u{fffd}') || text.len() <= self.shown {
            return Ok(String::new());
        }
        let new = text.get(self.shown..).unwrap_or_default().to_owned();
        self.ids.drain(..self.settled);
        self.settled = self.ids.len();
        self.shown = self.tokenizer.decode(&self.ids)?.len();
        Ok(new)
    }

    /// The text that is left, with the replacement character where a character was not finished.
    pub fn finish(self) -> Result<String, Error> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(text.get(self.shown..).unwrap_or_default().to_owned())
    }
}
