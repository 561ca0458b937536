//! Records that are lists of messages, alone or with two replies or a verdict. Where `dataset_info.json` names the roles, turns
//! must alternate as LLaMA-Factory asks; elsewhere the last message must be a reply, or there is nothing to learn.

use serde_json::{Map, Value};

use super::message;
use crate::conversation::{Conversation, Judged, Message, Preference, Role};
use crate::layout::{MessagesLayout, Roles, Verdict};
use crate::records::{Record, kind, optional_column, verdict};

pub(crate) fn read(layout: &MessagesLayout, object: &Map<String, Value>) -> Result<Record, String> {
    let tools = message::tools(object, layout.tools.as_deref())?;
    let mut messages = list(layout, object.get(&layout.messages), &layout.messages)?;
    if let Some(system) = optional_column(object, layout.system.as_deref())?.filter(|text| !text.is_empty()) {
        // As LLaMA-Factory: the conversation's own system message wins over the column.
        if messages.first().is_none_or(|first| first.role != Role::System) {
            messages.insert(0, Message::new(Role::System, system));
        }
    }
    if let Roles::Tags(_) = layout.roles {
        alternating(&messages)?;
    }
    if messages.is_empty() {
        return Err("the conversation is empty".to_owned());
    }
    let replied = messages.last().is_some_and(|message| message.role == Role::Assistant);
    match &layout.verdict {
        Verdict::Ranking { .. } if replied => {
            Err("the conversation ends with the assistant, where the two replies should follow".to_owned())
        }
        Verdict::Ranking { chosen, rejected } => {
            let (chosen, rejected) = (reply(layout, object, chosen)?, reply(layout, object, rejected)?);
            Ok(Record::Preference(Preference { prompt: Conversation { messages, tools }, chosen, rejected }))
        }
        _ if !replied => {
            Err("the conversation does not end with the assistant, so its end has no reply to train".to_owned())
        }
        Verdict::Tag(tag) => {
            let conversation = Conversation { messages, tools };
            Ok(Record::Judged(Judged { conversation, desirable: verdict(object, tag)? }))
        }
        Verdict::None => Ok(Record::Conversation(Conversation { messages, tools })),
    }
}

/// The messages of a list.
pub(crate) fn list(layout: &MessagesLayout, value: Option<&Value>, column: &str) -> Result<Vec<Message>, String> {
    let parsed;
    let list = match value {
        Some(Value::Array(list)) => list,
        // A table holds a list as the text of its JSON.
        Some(Value::String(text)) if text.trim_start().starts_with('[') => {
            parsed =
                serde_json::from_str::<Vec<Value>>(text).map_err(|error| format!("{column:?} is not JSON: {error}"))?;
            &parsed
        }
        Some(other) => return Err(format!("{column:?} is {}, not a list of messages", kind(other))),
        None => return Err(format!("{column:?} is missing; expected a list of messages")),
    };
    let read =
        |(index, value)| message::read(layout, value).map_err(|problem| format!("message {}: {problem}", index + 1));
    list.iter().enumerate().map(read).collect()
}

/// A reply that stands in a column of its own: a message, a list of one, or its text.
fn reply(layout: &MessagesLayout, object: &Map<String, Value>, column: &str) -> Result<Message, String> {
    let message = match object.get(column) {
        Some(Value::String(text)) => Message::new(Role::Assistant, text),
        Some(Value::Array(list)) if list.len() == 1 => {
            message::read(layout, &list[0]).map_err(|problem| format!("{column:?}: {problem}"))?
        }
        Some(value @ Value::Object(_)) => {
            message::read(layout, value).map_err(|problem| format!("{column:?}: {problem}"))?
        }
        Some(other) => return Err(format!("{column:?} is {}, not a message", kind(other))),
        None => return Err(format!("{column:?} is missing; expected a message")),
    };
    if message.role == Role::Assistant { Ok(message) } else { Err(format!("{column:?} is not of the assistant")) }
}

/// Whether user or tools, and the assistant, take turns after the system message. Several answers of tools are one turn.
fn alternating(messages: &[Message]) -> Result<(), String> {
    let mut replies = true;
    let mut before = None;
    for (index, message) in messages.iter().enumerate() {
        match message.role {
            Role::System if index == 0 => continue,
            Role::System => return Err(format!("message {}: a system message can only be the first", index + 1)),
            Role::Tool if before == Some(Role::Tool) => continue,
            role => {
                let reply = role == Role::Assistant;
                if reply == replies {
                    let expected = if replies { "the user or a tool" } else { "the assistant" };
                    return Err(format!("message {}: turns must alternate, and {expected} has this one", index + 1));
                }
                replies = reply;
            }
        }
        before = Some(message.role);
    }
    Ok(())
}
