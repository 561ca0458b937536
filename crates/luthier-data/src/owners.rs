//! Whose tokens are whose: which message wrote which tokens of a prompt, to weigh them in the loss and to show them.
//!
//! The conversation is rendered once more with every prompt message between two noncharacters, which no text holds. What
//! stands between them is the message's; it is closed by the special token right behind it, if there is one. The rest is
//! the template's. Nothing is searched for in the text: a person may say "user" as well as a template does.

use std::ops::Range;

use crate::conversation::{Conversation, Role};
use crate::error::Error;
use crate::example::{RoleSpan, RoleWeights, SftOptions};
use crate::mask::{MaskedText, masked_text};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::tokens::is_weight;
use crate::truncate::Turn;

/// Who wrote the tokens of a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TurnOwners {
    /// Where tokens of the prompt end, and the message that wrote them; `None` for the template.
    prompt: Vec<(usize, Option<usize>)>,
    /// The roles of those messages.
    roles: Vec<Option<Role>>,
}

/// How much the tokens of a turn count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TurnWeights {
    /// `[tokens of the prompt]`; empty where all of it counts as `train_on_prompt` says.
    pub(crate) prompt: Vec<f32>,
    pub(crate) reply: f32,
}

impl TurnOwners {
    /// Adds the spans of the first tokens of prompt and reply, which begin at token `first` of the row.
    pub(crate) fn spans(&self, first: usize, prompt: usize, reply: usize, spans: &mut Vec<RoleSpan>) {
        let mut add = |end: usize, role| match spans.last_mut() {
            Some(last) if last.end >= end => {}
            Some(last) if last.role == role => last.end = end,
            _ if end == 0 => {}
            _ => spans.push(RoleSpan { end, role }),
        };
        for ((end, _), role) in self.prompt.iter().zip(&self.roles) {
            add(first + end.min(&prompt), *role);
        }
        add(first + prompt, None);
        add(first + prompt + reply, Some(Role::Assistant));
    }
}

/// Whether the prompts of a conversation count by message.
fn weighs_prompts(conversation: &Conversation, options: &SftOptions) -> bool {
    let by_role = options.role_weights.is_some_and(|RoleWeights { system, user, tool, .. }| system + user + tool > 0.0);
    let mut prompts = conversation.messages.iter().filter(|message| message.role != Role::Assistant);
    by_role || prompts.any(|message| message.weight.is_some_and(|weight| weight > 0.0 || options.train_on_prompt))
}

/// Who wrote the tokens of each turn; nothing where nothing asks for it.
///
/// Errors: weights ask for it, and the template changes what messages say.
pub(crate) fn owners(
    conversation: &Conversation,
    turns: &[Turn],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &SftOptions,
) -> Result<Vec<TurnOwners>, Error> {
    let weighs = weighs_prompts(conversation, options);
    if !weighs && !options.roles {
        return Ok(Vec::new());
    }
    let masked = masked_text(template, conversation)?;
    let Some(written) = written(conversation, &masked.text, template) else {
        if weighs {
            let problem = format!(
                "the chat template of {} changes what messages say, so it is unknown which tokens are theirs, and prompts \
                 cannot be weighed: remove role_weights, or name another template",
                template.name()
            );
            return Err(Error::Weights { problem });
        }
        return Ok(vec![TurnOwners::default(); turns.len()]);
    };
    let mut found = Vec::with_capacity(turns.len());
    for (index, turn) in turns.iter().enumerate() {
        found.push(turn_owners(conversation, &masked, &written, index, turn, tokenizer)?);
    }
    Ok(found)
}

/// The bytes of the text that each prompt message wrote, in order, with the message's index; `None` where the template
/// makes something else of them.
fn written(conversation: &Conversation, text: &str, template: &ChatTemplate) -> Option<Vec<(Range<usize>, usize)>> {
    const BEGIN: char = '\u{fdd2}';
    const END: char = '\u{fdd3}';
    let mut marked = conversation.clone();
    for message in marked.messages.iter_mut().filter(|message| message.role != Role::Assistant) {
        // Templates trim: what they trim must stand outside.
        let content = message.content.trim();
        if !content.is_empty() {
            message.content = message.content.replacen(content, &format!("{BEGIN}{content}{END}"), 1);
        }
    }
    let rendered = template.render(&marked.messages, &marked.tools, false).ok()?.text;
    let prompts = |index: &usize| {
        let message = &conversation.messages[*index];
        message.role != Role::Assistant && !message.content.trim().is_empty()
    };
    let mut messages = (0..conversation.messages.len()).filter(prompts);
    let (mut plain, mut spans) = (String::with_capacity(text.len()), Vec::new());
    let mut begin = None;
    for letter in rendered.chars() {
        match letter {
            BEGIN => begin = Some(plain.len()),
            END => spans.push((begin.take()?..plain.len(), messages.next()?)),
            _ => plain.push(letter),
        }
    }
    (plain == text).then_some(spans)
}

fn turn_owners(
    conversation: &Conversation,
    masked: &MaskedText,
    written: &[(Range<usize>, usize)],
    index: usize,
    turn: &Turn,
    tokenizer: &Tokenizer,
) -> Result<TurnOwners, Error> {
    let end = masked.replies.get(index).map_or(masked.text.len(), |reply| reply.start);
    let begins = token_begins(turn, end, tokenizer)?;
    let mut owners = TurnOwners::default();
    let mut at = 0;
    for (span, message) in written {
        if span.start >= end || begins.first().is_none_or(|begin| span.end <= *begin) {
            continue; // in another turn
        }
        let mut first = begins.partition_point(|begin| *begin < span.start);
        let mut last = begins.partition_point(|begin| *begin < span.end);
        // A token that begins before the message, with the blank before a word, says some of it.
        if begins.get(first) != Some(&span.start) {
            first = first.saturating_sub(1);
        }
        first = first.max(at);
        if first >= last {
            continue;
        }
        if turn.prompt.get(last).is_some_and(|id| tokenizer.is_special(*id) || tokenizer.end_ids().contains(id)) {
            last += 1;
        }
        owners.prompt.extend([(first, None), (last, Some(*message))]);
        owners.roles.extend([None, Some(conversation.messages[*message].role)]);
        at = last;
    }
    owners.prompt.push((turn.prompt.len(), None));
    owners.roles.push(None);
    Ok(owners)
}

/// The byte of the whole text at which each token of a prompt begins, whose last one ends at `end`.
fn token_begins(turn: &Turn, end: usize, tokenizer: &Tokenizer) -> Result<Vec<usize>, Error> {
    let mut stream = tokenizer.stream();
    let (mut begins, mut bytes) = (Vec::with_capacity(turn.prompt.len()), 0);
    for id in &turn.prompt {
        begins.push(bytes);
        bytes += stream.push(*id)?.len();
    }
    bytes += stream.finish()?.len();
    // Counted from the end, since a tokenizer may write another blank at the beginning.
    begins.iter_mut().for_each(|begin| *begin = (end + *begin).saturating_sub(bytes));
    Ok(begins)
}

/// How much the tokens of each turn count; `None` where `train_on_prompt` and `mask_history` say all.
///
/// Errors: a weight that is none; weights of replies that the template does not part as the conversation does.
pub(crate) fn turn_weights(
    conversation: &Conversation,
    turns: &[Turn],
    owners: &[TurnOwners],
    options: &SftOptions,
) -> Result<Option<Vec<TurnWeights>>, Error> {
    let messages = &conversation.messages;
    if options.role_weights.is_none() && messages.iter().all(|message| message.weight.is_none()) {
        return Ok(None);
    }
    if let Some(index) = messages.iter().position(|message| message.weight.is_some_and(|weight| !is_weight(weight))) {
        let weight = messages[index].weight.unwrap_or_default();
        let problem = format!("message {} has the weight {weight}; expected a number of 0 or more", index + 1);
        return Err(Error::Weights { problem });
    }
    let rest = if options.train_on_prompt { 1.0 } else { 0.0 };
    let plain = RoleWeights { system: rest, user: rest, assistant: 1.0, tool: rest };
    let by_role = options.role_weights.unwrap_or(plain);
    let weight = |index: usize| messages[index].weight.unwrap_or_else(|| by_role.of(messages[index].role));
    let replies: Vec<usize> = (0..messages.len()).filter(|index| messages[*index].role == Role::Assistant).collect();
    let parted = turns.iter().filter(|turn| !turn.reply.is_empty()).count() == replies.len();
    let alike = replies.windows(2).all(|pair| weight(pair[0]) == weight(pair[1]));
    if !parted && !alike {
        let problem = format!(
            "the chat template marks {} replies where the conversation has {}, so their weights cannot be told apart",
            turns.iter().filter(|turn| !turn.reply.is_empty()).count(),
            replies.len()
        );
        return Err(Error::Weights { problem });
    }
    let weighs = weighs_prompts(conversation, options);
    let weights = turns.iter().enumerate().map(|(index, turn)| {
        let reply = replies.get(index).or(replies.last()).map_or(1.0, |message| weight(*message));
        let mut prompt = Vec::new();
        if let Some(owners) = owners.get(index).filter(|_| weighs) {
            for (end, message) in &owners.prompt {
                prompt.resize(*end, message.map_or(rest, weight));
            }
        }
        prompt.resize(if weighs { turn.prompt.len() } else { 0 }, rest);
        TurnWeights { prompt, reply }
    });
    Ok(Some(weights.collect()))
}
