//! Which bytes of a rendered conversation are replies.
//!
//! From the table for a named template, from `{% generation %}` blocks where a Jinja template has them. Otherwise by rendering the conversation turn by turn:
//! the text before a reply, with the generation prompt, must begin the text through that reply, which must begin the
//! whole; what lies between is the reply with all that the template closes it with (but for words that are written before
//! the content of the last reply only). A template for which that does not
//! hold is refused: comparing token ids, or searching for the reply, would train the wrong tokens in silence.

use std::ops::Range;

use crate::conversation::{Conversation, Message, Role};
use crate::error::Error;
use crate::jinja::Rendered;
use crate::template::ChatTemplate;

/// A rendered conversation and its replies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedText {
    /// The whole text.
    pub text: String,
    /// Bytes of each reply, in order, apart from one another.
    pub replies: Vec<Range<usize>>,
    /// Whether calls of tools got ids, without which the template refuses them.
    pub made_ids: bool,
}

/// Renders a conversation and finds its replies.
///
/// Errors: there is no assistant message, the template fails, or it is not prefix-stable.
pub fn masked_text(template: &ChatTemplate, conversation: &Conversation) -> Result<MaskedText, Error> {
    let Conversation { messages, tools } = conversation;
    needs_reply(messages)?;
    let whole = template.render(messages, tools, false)?;
    if template.marks_replies() {
        let Rendered { text, mut generation, made_ids } = whole;
        generation.retain(|span| !span.is_empty());
        if generation.is_empty() {
            let problem = format!("the chat template of {} marks no reply in this conversation", template.name());
            return Err(Error::NothingToTrain { problem });
        }
        return Ok(MaskedText { text, replies: generation, made_ids });
    }
    let mut replies = Vec::new();
    for (index, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
        let before = template.render(&messages[..index], tools, true)?.text;
        let mut through = if index + 1 == messages.len() {
            whole.text.clone()
        } else {
            template.render(&messages[..=index], tools, false)?.text
        };
        if !whole.text.starts_with(&through)
            && let Some(shorter) = template.end_text().and_then(|end| through.strip_suffix(end))
        {
            through.truncate(shorter.len()); // some close the whole conversation, not each reply, with the end token
        }
        if !whole.text.starts_with(&through)
            && let Some(plainer) = without_last_words(&before, &through, &message.content, &whole.text)
        {
            through = plainer;
        }
        let unstable = |first_label, first: &str, second_label, second: &str| {
            let from = parting(first, second);
            let [first, second] = [excerpt(first, from), excerpt(second, from)];
            let name = template.name().to_owned();
            Error::NotPrefixStable { name, message: index + 1, first_label, first, second_label, second }
        };
        if !through.starts_with(&before) {
            return Err(unstable("the prompt alone", &before, "the prompt with its reply", &through));
        }
        if !whole.text.starts_with(&through) {
            return Err(unstable("the text through the reply", &through, "the whole conversation", &whole.text));
        }
        // A template that closes a message only when the next begins would give two replies the same text.
        if replies.last().is_some_and(|last: &std::ops::Range<usize>| before.len() < last.end) {
            return Err(unstable("the prompt alone", &before, "the text through the reply before it", &whole.text));
        }
        replies.push(before.len()..through.len());
    }
    Ok(MaskedText { text: whole.text, replies, made_ids: whole.made_ids })
}

/// Errors: there is no assistant message.
pub(crate) fn needs_reply(messages: &[Message]) -> Result<(), Error> {
    if messages.iter().any(|message| message.role == Role::Assistant) {
        return Ok(());
    }
    let problem = "the conversation has no message of the assistant, so there is nothing to train".to_owned();
    Err(Error::NothingToTrain { problem })
}

/// The text through a reply, without what the template writes only before the content of the last one: Qwen3 puts an empty
/// thought there, and leaves it out once another message follows. Prompt, content and all that closes the reply must then
/// follow one another, and begin the whole: a content such as `end` may stand in the closing words too.
fn without_last_words(before: &str, through: &str, content: &str, whole: &str) -> Option<String> {
    let content = content.trim();
    let behind = through.strip_prefix(before)?;
    let mut places = behind.rmatch_indices(content).filter(|_| !content.is_empty());
    places.find_map(|(at, _)| {
        let closing = &behind[at + content.len()..];
        let plainer = format!("{before}{content}{closing}");
        (!closing.is_empty() && whole.starts_with(&plainer)).then_some(plainer)
    })
}

/// The first byte at which two texts differ, at a border of characters.
pub(crate) fn parting(first: &str, second: &str) -> usize {
    let same = first.chars().zip(second.chars()).take_while(|(a, b)| a == b);
    same.map(|(character, _)| character.len_utf8()).sum()
}

/// Some of a text around a place.
fn excerpt(text: &str, at: usize) -> String {
    let from = text[..at].char_indices().rev().take(60).last().map_or(at, |(index, _)| index);
    let to = text[at..].char_indices().nth(100).map_or(text.len(), |(index, _)| at + index);
    let dots = |cut: bool| if cut { "..." } else { "" };
    format!("{}{}{}", dots(from > 0), &text[from..to], dots(to < text.len()))
}
