//! A tokenizer from `tokenizer.model`, for model folders that have no `tokenizer.json`, with the tokens that
//! `tokenizer_config.json` and `added_tokens.json` add to its pieces.

use serde_json::Value;

use crate::error::Error;
use crate::gguf_tokenizer::{CONTROL, GgufTokenizer, UNUSED, USER_DEFINED};
use crate::sentence_piece;
use crate::tokenizer::Tokenizer;
use crate::tokenizer_json::configured_template;

/// The most ids without a token before an added one; more of them are a damaged file.
const MOST_MISSING: usize = 1 << 16;

impl Tokenizer {
    /// From the bytes of `tokenizer.model`, `tokenizer_config.json` and `added_tokens.json`, and the text of
    /// `chat_template.jinja`, which wins over the configuration's template.
    ///
    /// Errors: a file that does not parse; kinds and settings of SentencePiece that are not supported.
    pub fn from_sentence_piece(
        model: &[u8],
        config: Option<&[u8]>,
        added_tokens: Option<&[u8]>,
        chat_template: Option<&str>,
    ) -> Result<Self, Error> {
        let mut pieces = sentence_piece::parse(model)?;
        let json = |file: &str, bytes: Option<&[u8]>| match bytes {
            None => Ok(Value::Null),
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer { problem: format!("{file}: {error}") })
            }
        };
        let config: Value = json("tokenizer_config.json", config)?;
        let added: Value = json("added_tokens.json", added_tokens)?;
        add_tokens(&mut pieces, &config, &added)?;
        take_settings(&mut pieces, &config);
        pieces.chat_template = chat_template.map(str::to_owned).or_else(|| configured_template(&config));
        // transformers' slow tokenizers put the blank before every part between special tokens unless told otherwise.
        let prefix_after_special = config["legacy"] != false;
        let built = pieces.build_pieces(prefix_after_special)?;
        Ok(Self::from_built(&pieces, built))
    }
}

/// Puts the tokens that the other files add into the list of pieces, by their ids.
pub(crate) fn add_tokens(pieces: &mut GgufTokenizer, config: &Value, added: &Value) -> Result<(), Error> {
    let wrong = |file: &str, problem: String| Err(Error::Tokenizer { problem: format!("{file}: {problem}") });
    let mut found: Vec<(usize, String, bool, &str)> = Vec::new();
    for (text, id) in added.as_object().into_iter().flatten() {
        let Some(id) = id.as_u64() else {
            return wrong("added_tokens.json", format!("the token {text:?} has the id {id}; expected a whole number"));
        };
        found.push((id as usize, text.clone(), false, "added_tokens.json"));
    }
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let (Ok(id), Some(text)) = (id.parse::<usize>(), token["content"].as_str()) else {
            return wrong(
                "tokenizer_config.json",
                format!("added_tokens_decoder has {id:?}: {token}; expected an id and a token"),
            );
        };
        found.push((id, text.to_owned(), token["special"] == true, "tokenizer_config.json"));
    }
    // The configuration's entries stand last and win.
    found.sort_by_key(|(id, ..)| *id);
    for (id, text, special, file) in found {
        if id > pieces.tokens.len() + MOST_MISSING {
            let known = pieces.tokens.len();
            return wrong(
                file,
                format!("the token {text:?} has the id {id}, but there are only {known} tokens before it"),
            );
        }
        while pieces.tokens.len() <= id {
            pieces.tokens.push(format!("<unused-id-{}>", pieces.tokens.len()));
            pieces.token_types.push(UNUSED);
            if !pieces.scores.is_empty() {
                pieces.scores.push(0.0);
            }
        }
        pieces.tokens[id] = text;
        pieces.token_types[id] = if special { CONTROL } else { USER_DEFINED };
    }
    Ok(())
}

/// What the configuration says otherwise than the model does.
fn take_settings(pieces: &mut GgufTokenizer, config: &Value) {
    let id = |key: &str| {
        let text = config[key].as_str().or_else(|| config[key]["content"].as_str())?;
        pieces.tokens.iter().position(|token| token == text).map(|id| id as u32)
    };
    let (begin, end, padding) = (id("bos_token"), id("eos_token"), id("pad_token"));
    pieces.begin_id = begin.or(pieces.begin_id);
    pieces.end_id = end.or(pieces.end_id);
    pieces.padding_id = padding.or(pieces.padding_id);
    pieces.add_begin = config["add_bos_token"].as_bool();
    pieces.add_end = config["add_eos_token"].as_bool();
    if let Some(prefix) = config["add_prefix_space"].as_bool() {
        pieces.add_space_prefix = Some(prefix);
    }
}
