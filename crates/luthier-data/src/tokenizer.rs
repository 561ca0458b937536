//! Text to token ids and back, from a Hugging Face folder's files or a GGUF file's metadata.
//!
//! A wrapper over the `tokenizers` crate that knows what training needs beside it: which tokens begin and end text,
//! which stop a reply, and how a piece of text is encoded that goes on from another piece, so that a rendered
//! conversation can be encoded reply by reply and still decodes to itself.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::error::Error;
use crate::gguf_tokenizer::{Built, GgufTokenizer};
use crate::sentence_piece::{Part, SentenceNormalizer};

/// What happens with tokens beside the text's own. Those written in the text are always recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// The text's tokens and no others: for text that a template wrote.
    None,
    /// What the tokenizer adds to a text on its own (a begin token, for many): for plain text.
    Add,
}

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    start: tokenizers::Tokenizer,
    continuing: Option<Box<tokenizers::Tokenizer>>,
    /// What is done to a text before it is split, where the `tokenizers` crate cannot do it.
    sentence: Option<Box<SentenceNormalizer>>,
    /// The first piece after a special token counts as a start, not as going on.
    special_starts: bool,
    special: HashSet<u32>,
    begin_id: Option<u32>,
    end_id: Option<u32>,
    padding_id: Option<u32>,
    end_ids: Vec<u32>,
    pub(crate) added_before: Vec<u32>,
    pub(crate) added_after: Vec<u32>,
    pub(crate) chat_template: Option<String>,
}

/// Tokens that end a turn or a text, by the names that model families give them (llama.cpp's list).
const END_TOKENS: [&str; 13] = [
    "</s>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|eot|>",
    "<|end▁of▁sentence|>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
];

impl Tokenizer {
    /// From the metadata of a GGUF file.
    ///
    /// Errors: an unknown kind of tokenizer, an unknown pre-tokenizer (named), merges that do not fit the tokens.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self, Error> {
        Ok(Self::from_built(gguf, gguf.build()?))
    }

    pub(crate) fn from_built(gguf: &GgufTokenizer, built: Built) -> Self {
        let in_vocabulary = |id: Option<u32>| id.filter(|id| (*id as usize) < gguf.tokens.len());
        let (begin_id, end_id) = (in_vocabulary(gguf.begin_id), in_vocabulary(gguf.end_id));
        let padding_id = in_vocabulary(gguf.padding_id);
        let mut this = Self::new(built.start, built.continuing, true, begin_id, end_id, padding_id);
        this.added_before = begin_id.filter(|_| built.add_begin).into_iter().collect();
        this.added_after = end_id.filter(|_| built.add_end).into_iter().collect();
        this.chat_template = gguf.chat_template.clone();
        this.special_starts = built.sentence.as_ref().is_none_or(|sentence| sentence.prefix_after_special);
        this.sentence = built.sentence.map(Box::new);
        this
    }

    pub(crate) fn new(
        start: tokenizers::Tokenizer,
        continuing: Option<tokenizers::Tokenizer>,
        special_starts: bool,
        begin_id: Option<u32>,
        end_id: Option<u32>,
        padding_id: Option<u32>,
    ) -> Self {
        let added = start.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let known = END_TOKENS.iter().filter_map(|text| start.token_to_id(text)).filter(|id| added.contains_key(id));
        let mut end_ids: Vec<u32> = end_id.into_iter().collect();
        for id in known {
            if !end_ids.contains(&id) {
                end_ids.push(id);
            }
        }
        Self {
            start,
            continuing: continuing.map(Box::new),
            sentence: None,
            special_starts,
            special,
            begin_id,
            end_id,
            padding_id,
            end_ids,
            added_before: Vec::new(),
            added_after: Vec::new(),
            chat_template: None,
        }
    }

    /// The ids of a text.
    pub fn encode(&self, text: &str, specials: Specials) -> Result<Vec<u32>, Error> {
        let ids = ids(&self.start, &self.prepared(text, Part::Whole))?;
        Ok(match specials {
            Specials::None => ids,
            Specials::Add => [self.added_before.as_slice(), &ids, &self.added_after].concat(),
        })
    }

    /// The ids of a text that comes in pieces: no token reaches over the border of two, and all of them together decode
    /// to the whole text. Nothing is added.
    pub fn encode_pieces(&self, pieces: &[&str]) -> Result<Vec<Vec<u32>>, Error> {
        let mut last: Option<u32> = None;
        let mut encoded = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let starts = last.is_none_or(|last| self.special_starts && self.special.contains(&last));
            let tokenizer = self.continuing.as_deref().filter(|_| !starts).unwrap_or(&self.start);
            let ids = match piece.is_empty() {
                true => Vec::new(),
                false => ids(tokenizer, &self.prepared(piece, Part::Piece { starts }))?,
            };
            last = ids.last().copied().or(last);
            encoded.push(ids);
        }
        Ok(encoded)
    }

    fn prepared<'a>(&self, text: &'a str, part: Part) -> Cow<'a, str> {
        match &self.sentence {
            Some(sentence) => Cow::Owned(sentence.apply(text, part)),
            None => Cow::Borrowed(text),
        }
    }

    /// The text of ids, special tokens written out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.start.decode(ids, false).map_err(failed)
    }

    /// The id of a token, by its own text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.start.token_to_id(token)
    }

    /// The text of a token in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.start.id_to_token(id)
    }

    /// The number of tokens, added ones too.
    pub fn vocabulary_size(&self) -> usize {
        self.start.get_vocab_size(true)
    }

    /// Whether an id is a special (control) token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token that begins a text.
    pub fn begin_id(&self) -> Option<u32> {
        self.begin_id
    }

    /// The token that ends a text, as the model's files say.
    pub fn end_id(&self) -> Option<u32> {
        self.end_id
    }

    /// The token that fills up batches elsewhere; nothing here pads.
    pub fn padding_id(&self) -> Option<u32> {
        self.padding_id
    }

    /// Every token that ends a turn or a text: where generation stops. The files' own end token comes first.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// Whether plain text gets a begin token.
    pub fn adds_begin(&self) -> bool {
        self.begin_id.is_some_and(|id| self.added_before.first() == Some(&id))
    }

    /// The same with another chat template.
    pub fn with_chat_template(self, source: String) -> Self {
        Self { chat_template: Some(source), ..self }
    }

    /// The checkpoint's own chat template.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }
}

pub(crate) fn ids(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    Ok(tokenizer.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
}

pub(crate) fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer { problem: error.to_string() }
}
