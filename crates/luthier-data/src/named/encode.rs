//! The turns of a named template as tokens, each reply with the token that ends it.
//!
//! As LLaMA-Factory does, each piece is encoded by itself. Where a template leaves the end of a reply to what follows, the
//! token that begins the next message ends it, if it is a stop word; else an end token is put there, and counted unless
//! the template says that it belongs there.

use super::{NamedTemplate, Piece, PieceTurn};
use crate::error::Error;
use crate::tokenizer::{Specials, Tokenizer};
use crate::truncate::{Ending, Turn};

impl NamedTemplate {
    /// The token that ends replies.
    pub(crate) fn end_id(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let replaced = self.row.stop_words.first().filter(|_| self.row.replace_eos);
        let replaced = replaced.and_then(|word| single(tokenizer, word));
        replaced.or(tokenizer.end_id()).or(tokenizer.end_ids().first().copied())
    }

    /// All tokens that end a reply: the tokenizer's, and the stop words.
    pub(crate) fn end_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: Vec<u32> = self.end_id(tokenizer).into_iter().collect();
        let words = self.row.stop_words.iter().filter_map(|word| single(tokenizer, word));
        for id in tokenizer.end_ids().iter().copied().chain(words) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// Stop words that are more than one token.
    pub(crate) fn stop_texts(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let words = self.row.stop_words.iter().filter(|word| single(tokenizer, word).is_none());
        words.map(|word| (*word).to_owned()).collect()
    }

    /// The text of pieces.
    pub(crate) fn text(&self, pieces: &[Piece], begin: Option<&str>, end: Option<&str>) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) | Piece::Token(text) => text.clone(),
            Piece::Begin => begin.unwrap_or_default().to_owned(),
            Piece::End => end.unwrap_or_default().to_owned(),
        };
        pieces.iter().map(text).collect()
    }

    fn ids(&self, pieces: &[Piece], tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Begin => ids.extend(tokenizer.begin_id()),
                Piece::End => ids.extend(self.end_id(tokenizer)),
                Piece::Text(text) => ids.extend(tokenizer.encode(text, Specials::None)?),
                Piece::Token(name) => match tokenizer.token_id(name) {
                    Some(id) => ids.push(id),
                    None => ids.extend(tokenizer.encode(name, Specials::None)?),
                },
            }
        }
        Ok(ids)
    }

    /// The turns as tokens, and the number of end tokens that had to be added.
    ///
    /// Errors: an end token is needed and the tokenizer has none.
    pub(crate) fn encode(&self, turns: &[PieceTurn], tokenizer: &Tokenizer) -> Result<(Vec<Turn>, usize), Error> {
        let ends = self.end_ids(tokenizer);
        let mut prompts =
            turns.iter().map(|turn| self.ids(&turn.prompt, tokenizer)).collect::<Result<Vec<_>, Error>>()?;
        let mut encoded = Vec::with_capacity(turns.len());
        let mut added = 0;
        for (number, turn) in turns.iter().enumerate() {
            let prompt = std::mem::take(&mut prompts[number]);
            let Some(content_end) = turn.content_end else {
                encoded.push(Turn { prompt, ..Turn::default() });
                continue;
            };
            let mut reply = self.ids(&turn.reply, tokenizer)?;
            let mut ending = Ending::Reply;
            let end = match end_position(&reply, &ends, tokenizer)? {
                Some(end) => end,
                None => match prompts.get_mut(number + 1) {
                    Some(next) if next.first().is_some_and(|id| ends.contains(id)) => {
                        reply.push(next.remove(0));
                        if self.row.efficient_eos {
                            ending = Ending::NextPrompt;
                        }
                        reply.len() - 1
                    }
                    next => {
                        if next.is_none() && self.row.efficient_eos {
                            ending = Ending::Row;
                        } else {
                            added += 1;
                        }
                        self.add_end(&mut reply, &turn.reply, content_end, tokenizer)?
                    }
                },
            };
            encoded.push(Turn { prompt, reply, end, ending });
        }
        Ok((encoded, added))
    }

    /// Puts the end token behind the content of a reply, or behind all of it where the template has it there.
    fn add_end(
        &self,
        reply: &mut Vec<u32>,
        pieces: &[Piece],
        (index, at): (usize, usize),
        tokenizer: &Tokenizer,
    ) -> Result<usize, Error> {
        let Some(end) = self.end_id(tokenizer) else {
            let problem = format!(
                "the template {} does not end replies with an end token, and the tokenizer names none",
                self.name
            );
            return Err(Error::Tokenizer { problem });
        };
        let behind = match pieces.get(index) {
            Some(Piece::Text(text)) if !self.row.efficient_eos && at < text.len() => {
                let mut before = pieces[..index].to_vec();
                before.push(Piece::Text(text[..at].to_owned()));
                *reply = self.ids(&before, tokenizer)?;
                let mut behind = vec![Piece::Text(text[at..].to_owned())];
                behind.extend_from_slice(&pieces[index + 1..]);
                self.ids(&behind, tokenizer)?
            }
            _ => Vec::new(),
        };
        reply.push(end);
        let position = reply.len() - 1;
        reply.extend(behind);
        Ok(position)
    }

    /// Tokens that the template writes and the tokenizer does not know as one.
    pub(crate) fn unknown_tokens(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let row = &self.row;
        let slots = [row.prefix, row.system, row.user, row.assistant, self.function, row.observation];
        let mut tokens: Vec<String> = Vec::new();
        for token in slots.iter().flat_map(|slots| written_tokens(slots)).chain(row.stop_words.iter().copied()) {
            if single(tokenizer, token).is_none() && !tokens.iter().any(|known| known == token) {
                tokens.push(token.to_owned());
            }
        }
        tokens
    }
}

/// The id of a text that is one token.
fn single(tokenizer: &Tokenizer, text: &str) -> Option<u32> {
    tokenizer.token_id(text).or_else(|| match tokenizer.encode(text, Specials::None).ok()?.as_slice() {
        [id] => Some(*id),
        _ => None,
    })
}

/// What looks like a token of its own in a text of the table: `<|...|>` and its like, and those that are named.
fn written_tokens(slots: &'static str) -> Vec<&'static str> {
    const MARKS: [(&str, &str); 5] =
        [("<|", "|>"), ("<｜", "｜>"), ("{{token:", "}}"), ("<start_of_", ">"), ("<end_of_", ">")];
    let mut found = Vec::new();
    for (open, close) in MARKS {
        let mut rest = slots;
        while let Some(at) = rest.find(open)
            && let Some(length) = rest[at + open.len()..].find(close)
        {
            let inside = &rest[at + open.len()..at + open.len() + length];
            let whole = &rest[at..at + open.len() + length + close.len()];
            found.push(if open.starts_with("{{") { inside } else { whole });
            rest = &rest[at + whole.len()..];
        }
    }
    found
}

/// The position of the token that ends a reply: only blanks may follow it.
fn end_position(reply: &[u32], ends: &[u32], tokenizer: &Tokenizer) -> Result<Option<usize>, Error> {
    for (position, id) in reply.iter().enumerate().rev() {
        if ends.contains(id) {
            return Ok(Some(position));
        }
        if !tokenizer.decode(&[*id])?.trim().is_empty() {
            break;
        }
    }
    Ok(None)
}
