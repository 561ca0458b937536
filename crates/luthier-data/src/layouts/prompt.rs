//! A prompt and what follows it, each a text or a list of messages: TRL's prompt-completion, unpaired preference and
//! preference records. Without a prompt, it is what the two conversations of a pair have in common.

use serde_json::{Map, Value};

use super::{message, messages};
use crate::conversation::{Conversation, Judged, Message, Preference, Role};
use crate::layout::{MessagesLayout, PromptLayout, Replies};
use crate::records::{Record, kind, optional_column, verdict};

pub(crate) fn read(layout: &PromptLayout, object: &Map<String, Value>) -> Result<Record, String> {
    let tools = message::tools(object, Some("tools"))?;
    let prompt = match &layout.prompt {
        Some(column) => said(object, column, Role::User)?,
        None => Vec::new(),
    };
    let system = optional_column(object, Some("system"))?.filter(|text| !text.is_empty());
    let begins = prompt.first().is_some_and(|first| first.role == Role::System);
    let system = system.filter(|_| !begins).map(|text| Message::new(Role::System, text));
    let whole = |rest: Vec<Message>| {
        // A completion may tell the whole conversation again: TRL's implicit prompt.
        let rest_alone = rest.first().is_some_and(|first| first.role == Role::Assistant);
        let prompt = if rest_alone { prompt.clone() } else { Vec::new() };
        let system = system.clone().filter(|_| rest.first().is_none_or(|first| first.role != Role::System));
        system.into_iter().chain(prompt).chain(rest).collect::<Vec<Message>>()
    };
    let ended = |messages: Vec<Message>, column: &str| match messages.last() {
        Some(last) if last.role == Role::Assistant => Ok(messages),
        _ => Err(format!("{column:?} does not end with the assistant, so there is no reply to train")),
    };
    let completed = |column: &str| ended(whole(said(object, column, Role::Assistant)?), column);
    match &layout.replies {
        Replies::One(column) => Ok(Record::Conversation(Conversation { messages: completed(column)?, tools })),
        Replies::Judged { completion, label } => {
            let conversation = Conversation { messages: completed(completion)?, tools };
            Ok(Record::Judged(Judged { conversation, desirable: verdict(object, label)? }))
        }
        Replies::Pair { chosen, rejected } => {
            if layout.prompt.is_none() && object.get(chosen).is_some_and(Value::is_string) {
                return Err(format!(
                    "{chosen:?} is a text without a prompt; expected \"prompt\", or lists of messages"
                ));
            }
            pair(completed(chosen)?, completed(rejected)?, tools)
        }
    }
}

/// Two conversations that differ in the last reply only.
fn pair(mut one: Vec<Message>, mut other: Vec<Message>, tools: Vec<Value>) -> Result<Record, String> {
    let (Some(chosen), Some(rejected)) = (one.pop(), other.pop()) else {
        return Err("the conversations are empty".to_owned());
    };
    if one != other {
        return Err("the two conversations differ before their last reply".to_owned());
    }
    if one.iter().all(|message| message.role == Role::System) {
        return Err("nothing stands before the two replies that they would answer".to_owned());
    }
    Ok(Record::Preference(Preference { prompt: Conversation { messages: one, tools }, chosen, rejected }))
}

/// A text that one role says, a message, or a list of messages.
fn said(object: &Map<String, Value>, column: &str, role: Role) -> Result<Vec<Message>, String> {
    match object.get(column) {
        Some(Value::String(text)) => Ok(vec![Message::new(role, text)]),
        Some(value @ Value::Object(_)) => message::read(&of(value), value)
            .map(|message| vec![message])
            .map_err(|problem| format!("{column:?}: {problem}")),
        Some(value @ Value::Array(list)) => {
            messages::list(&of(list.first().unwrap_or(&Value::Null)), Some(value), column)
                .map_err(|problem| format!("{column:?}: {problem}"))
        }
        Some(other) => Err(format!("{column:?} is {}, not text or a list of messages", kind(other))),
        None => Err(format!("{column:?} is missing; expected text or a list of messages")),
    }
}

/// Which keys a message has.
fn of(message: &Value) -> MessagesLayout {
    if message.get("from").is_some() { MessagesLayout::sharegpt() } else { MessagesLayout::openai() }
}
