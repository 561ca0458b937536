//! A conversation as a named template writes it: prompts and replies in turn, each in pieces of text and tokens.
//!
//! As LLaMA-Factory's `Template._encode` and its kinds: the first prompt has prefix and system message with the tools; some
//! templates put the system message into the first message; some begin replies with a thought. Messages must take turns:
//! what is said to the model, then its reply. Results of several tools that follow one another are one message.

use super::{NamedTemplate, Row, Thinks};
use crate::conversation::{Message, Role, ToolCall};
use crate::error::Error;

/// Text, or a token that is named and not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Encoded by itself: no token reaches over its ends.
    Text(String),
    /// The tokenizer's begin token.
    Begin,
    /// The end token.
    End,
    /// The token of this name.
    Token(String),
}

/// A prompt and its reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PieceTurn {
    pub(crate) prompt: Vec<Piece>,
    pub(crate) reply: Vec<Piece>,
    /// The piece of the reply in which its content ends, and the byte there; `None` where there is no reply.
    pub(crate) content_end: Option<(usize, usize)>,
}

/// What is said to the model, or by it.
enum Said<'a> {
    User(&'a str),
    Tool(String),
    Reply { message: &'a Message, content: String },
}

/// A text of the table, filled.
fn fill(slots: &str, content: &str, turn: usize) -> (Vec<Piece>, (usize, usize)) {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut content_end = (0, 0);
    let mut rest = slots;
    let close = |text: &mut String, pieces: &mut Vec<Piece>| {
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(text)));
        }
    };
    while let Some((before, behind)) = rest.split_once("{{") {
        text.push_str(before);
        let (name, behind) = behind.split_once("}}").unwrap_or((behind, ""));
        rest = behind;
        let token = match name {
            "content" => {
                text.push_str(content);
                content_end = (pieces.len(), text.len());
                continue;
            }
            "turn" => {
                text.push_str(&turn.to_string());
                continue;
            }
            "apart" => {
                close(&mut text, &mut pieces);
                continue;
            }
            "bos" => Piece::Begin,
            "eos" => Piece::End,
            other => Piece::Token(other.trim_start_matches("token:").to_owned()),
        };
        close(&mut text, &mut pieces);
        pieces.push(token);
    }
    text.push_str(rest);
    close(&mut text, &mut pieces);
    (pieces, content_end)
}

/// Removes what stands between the words, and the words.
fn without_thought(text: &str, (open, close): (&str, &str)) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(open)
        && let Some(length) = rest[at + open.len()..].find(close)
    {
        out.push_str(&rest[..at]);
        rest = &rest[at + open.len() + length + close.len()..];
    }
    out.push_str(rest);
    out.trim_start_matches('\n').to_owned()
}

impl NamedTemplate {
    fn problem(&self, problem: String) -> Error {
        Error::Refused { name: self.name.to_owned(), problem }
    }

    /// The messages after the system message, with thoughts written out.
    fn said<'a>(&self, messages: &'a [Message]) -> Result<Vec<Said<'a>>, Error> {
        let (open, close) = self.thought_words();
        let mut said: Vec<Said> = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let reply_before = matches!(said.last(), None | Some(Said::Reply { .. }));
            let number = index + 1;
            match message.role {
                Role::System if index == 0 => {}
                Role::System => {
                    return Err(
                        self.problem(format!("has no place for the system message {number}: it must be the first"))
                    );
                }
                Role::Tool => match said.last_mut() {
                    Some(Said::Tool(before)) => {
                        let tagged = self.row.observation.contains("<tool_response>\n");
                        before.push_str(if tagged { "\n</tool_response>\n<tool_response>\n" } else { "\n" });
                        before.push_str(&message.content);
                    }
                    _ if reply_before => said.push(Said::Tool(message.content.clone())),
                    _ => return Err(self.no_turn(number, "a tool's result", "a message of the user")),
                },
                Role::User if reply_before => said.push(Said::User(&message.content)),
                Role::User => return Err(self.no_turn(number, "a message of the user", "another without a reply")),
                Role::Assistant if said.is_empty() => {
                    return Err(
                        self.problem(format!("needs a message of the user before the reply in message {number}"))
                    );
                }
                Role::Assistant if reply_before => return Err(self.no_turn(number, "a reply", "another")),
                Role::Assistant => {
                    let thought = message.reasoning_content.as_deref().map(|thought| thought.trim_matches('\n'));
                    let thought = thought.filter(|thought| !thought.is_empty());
                    let mut content = thought.map(|thought| format!("{open}{thought}{close}")).unwrap_or_default();
                    content.push_str(&message.content);
                    said.push(Said::Reply { message, content });
                }
            }
        }
        Ok(said)
    }

    fn no_turn(&self, number: usize, what: &str, before: &str) -> Error {
        self.problem(format!("needs messages that take turns, but message {number} is {what} after {before}"))
    }

    /// The rows of a training. With `last_reply_only` thoughts of earlier replies are removed, as they are when the model is
    /// asked. A conversation that does not end with a reply leaves a last prompt.
    ///
    /// Errors: messages that do not take turns, tools that cannot be written.
    pub(crate) fn turns(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        last_reply_only: bool,
    ) -> Result<Vec<PieceTurn>, Error> {
        let mut said = self.said(messages)?;
        let discards = last_reply_only && !self.options.preserve_thinking;
        let last = said.iter().rposition(|said| matches!(said, Said::Reply { .. }));
        if self.row.thinks != Thinks::Never {
            for (index, said) in said.iter_mut().enumerate() {
                if let Said::Reply { content, .. } = said
                    && (!self.thinking() || (discards && Some(index) != last))
                {
                    *content = without_thought(content, self.thought_words());
                }
            }
        }
        let mut turns = self.write(messages, tools, &said)?;
        let count = turns.len();
        for (number, turn) in turns.iter_mut().enumerate() {
            if let Some(Said::Reply { content, .. }) = said.get(2 * number + 1)
                && !(discards && number + 1 < count)
            {
                self.add_empty_thought(content, turn);
            }
        }
        Ok(turns)
    }

    /// What the model is asked with: all that stands before the reply that it is to write, as prompts and replies.
    ///
    /// Errors: as for [`Self::turns`]; the last message is a reply.
    pub(crate) fn prompt(&self, messages: &[Message], tools: &[serde_json::Value]) -> Result<Vec<PieceTurn>, Error> {
        let mut said = self.said(messages)?;
        if matches!(said.last(), None | Some(Said::Reply { .. })) {
            return Err(self.problem("needs a message to reply to, and the conversation ends without one".to_owned()));
        }
        if self.row.thinks != Thinks::Never && !self.options.preserve_thinking {
            for said in &mut said {
                if let Said::Reply { content, .. } = said {
                    *content = without_thought(content, self.thought_words());
                }
            }
        }
        let mut turns = self.write(messages, tools, &said)?;
        if let Some(turn) = turns.last_mut()
            && !self.thinking()
        {
            self.add_empty_thought("", turn);
        }
        Ok(turns)
    }

    /// An empty thought for a reply without one: trained where the model shall think, else given.
    fn add_empty_thought(&self, content: &str, turn: &mut PieceTurn) {
        let (open, close) = self.thought_words();
        let thought = match self.row.thinks {
            Thinks::Never => return,
            Thinks::OpenAndClose => format!("{open}{close}"),
            Thinks::Close => close.to_owned(),
        };
        if content.contains(open.trim()) || content.contains(close.trim()) {
            return;
        }
        if self.thinking() {
            turn.reply.insert(0, Piece::Text(thought));
            turn.content_end = turn.content_end.map(|(piece, byte)| (piece + 1, byte));
        } else {
            turn.prompt.push(Piece::Text(thought));
        }
    }

    fn write(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        said: &[Said<'_>],
    ) -> Result<Vec<PieceTurn>, Error> {
        let Row { prefix, system, user, assistant, system_in_user, .. } = self.row;
        let given = messages.first().filter(|message| message.role == Role::System).map(|message| &*message.content);
        let mut instructions = given.filter(|given| !given.is_empty()).unwrap_or(self.default_system()).to_owned();
        let described = self.row.tools.describe(tools, self.options.now_unix_seconds);
        instructions.push_str(&described.map_err(|problem| self.problem(problem))?);
        let (mut first, _) = fill(prefix, "", 0);
        let mut inside = String::new();
        if !instructions.is_empty() {
            let (written, _) = fill(system, &instructions, 0);
            match written.first() {
                Some(Piece::Text(text)) if system_in_user => inside.clone_from(text),
                _ => first.extend(written),
            }
        }
        let mut turns: Vec<PieceTurn> = Vec::with_capacity(said.len().div_ceil(2));
        for said in said {
            let number = turns.len();
            match said {
                Said::Reply { message, content } => {
                    let Some(turn) = turns.last_mut() else { continue };
                    let text = self.reply_text(content, &message.tool_calls)?;
                    let slots = if message.tool_calls.is_empty() { assistant } else { self.function };
                    let (reply, content_end) = fill(slots, &text, number - 1);
                    (turn.reply, turn.content_end) = (reply, Some(content_end));
                }
                Said::User(text) => {
                    let text = std::mem::take(&mut inside) + text;
                    let mut prompt = std::mem::take(&mut first);
                    prompt.extend(fill(user, &text, number).0);
                    turns.push(PieceTurn { prompt, ..PieceTurn::default() });
                }
                Said::Tool(text) => {
                    let text = std::mem::take(&mut inside) + text;
                    let mut prompt = std::mem::take(&mut first);
                    prompt.extend(fill(self.row.observation_slots(), &text, number).0);
                    turns.push(PieceTurn { prompt, ..PieceTurn::default() });
                }
            }
        }
        Ok(turns)
    }

    fn reply_text(&self, content: &str, calls: &[ToolCall]) -> Result<String, Error> {
        if calls.is_empty() {
            return Ok(content.to_owned());
        }
        let calls = self.row.calls.call(calls).map_err(|problem| self.problem(problem))?;
        Ok(format!("{content}{calls}"))
    }
}
