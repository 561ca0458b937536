//! One JSON value of a dataset into one [`Record`], by the [`Layout`] of the dataset.
//!
//! Follows LLaMA-Factory's converters (`data/converter.py`): an alpaca prompt is `prompt + "\n" + query` with empty
//! parts left out; `history` is a list of [prompt, response]. A record that lacks something is an error, never skipped.

use serde_json::{Map, Value};

use crate::conversation::{Conversation, Judged, Message, Preference, Role};
use crate::example::Example;
use crate::layout::{AlpacaLayout, Layout, MessagesLayout};

/// One record of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A conversation that ends with the assistant: for `stage: sft`.
    Conversation(Conversation),
    /// A prompt with a better and a worse reply.
    Preference(Preference),
    /// A conversation with a verdict on its last reply.
    Judged(Judged),
    /// A document: for `stage: pt`.
    Text(String),
    /// A row that is tokens already.
    Tokens(Example),
}

/// Reads one record; the error is the clause that says what is wrong with it.
pub(crate) fn read_record(layout: &Layout, value: &Value) -> Result<Record, String> {
    let Value::Object(object) = value else {
        return Err(format!("expected an object with keys and values, found {}", kind(value)));
    };
    match layout {
        Layout::Alpaca(columns) => alpaca(columns, object).map(|messages| Record::Conversation(messages.into())),
        Layout::Messages(columns) => messages(columns, object).map(|messages| Record::Conversation(messages.into())),
        Layout::Text { text } => required(object, text, text).map(|text| Record::Text(text.to_owned())),
        Layout::Tokens => crate::tokens::read(object).map(Record::Tokens),
    }
}

fn alpaca(columns: &AlpacaLayout, object: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let expected = columns.expected();
    let mut conversation = Vec::new();
    if let Some(system) = optional_column(object, columns.system.as_deref())?.filter(|text| !text.is_empty()) {
        conversation.push(Message::new(Role::System, system));
    }
    if let Some(column) = &columns.history {
        history(object.get(column), column, &mut conversation)?;
    }
    let prompt = required(object, &columns.prompt, &expected)?;
    let query = optional_column(object, columns.query.as_deref())?.unwrap_or_default();
    let parts: Vec<&str> = [prompt, query].into_iter().filter(|part| !part.is_empty()).collect();
    conversation.push(Message::new(Role::User, parts.join("\n")));
    conversation.push(Message::new(Role::Assistant, required(object, &columns.response, &expected)?));
    Ok(conversation)
}

fn history(value: Option<&Value>, column: &str, conversation: &mut Vec<Message>) -> Result<(), String> {
    let turns = match value {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(turns)) => turns,
        Some(other) => return Err(format!("{column:?} is {}, not a list of [prompt, response]", kind(other))),
    };
    for (index, turn) in turns.iter().enumerate() {
        let pair = turn.as_array().map(Vec::as_slice);
        let Some([Value::String(prompt), Value::String(response)]) = pair else {
            return Err(format!("{column:?}, turn {}: expected two texts, [prompt, response]", index + 1));
        };
        conversation.push(Message::new(Role::User, prompt));
        conversation.push(Message::new(Role::Assistant, response));
    }
    Ok(())
}

fn messages(columns: &MessagesLayout, object: &Map<String, Value>) -> Result<Vec<Message>, String> {
    let list = match object.get(&columns.messages) {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("{:?} is {}, not a list of messages", columns.messages, kind(other))),
        None => return Err(format!("{:?} is missing; expected a list of messages", columns.messages)),
    };
    let mut conversation = Vec::with_capacity(list.len() + 1);
    if let Some(system) = optional_column(object, columns.system.as_deref())?.filter(|text| !text.is_empty()) {
        conversation.push(Message::new(Role::System, system));
    }
    for (index, value) in list.iter().enumerate() {
        let message = message(columns, value).map_err(|problem| format!("message {}: {problem}", index + 1))?;
        if message.role == Role::System && index == 0 {
            conversation.clear(); // as LLaMA-Factory: the conversation's own system message wins over the column
        }
        conversation.push(message);
    }
    match conversation.last().map(|message| message.role) {
        Some(Role::Assistant) => Ok(conversation),
        Some(_) => Err("the conversation does not end with the assistant, so its end has no reply to train".to_owned()),
        None => Err("the conversation is empty".to_owned()),
    }
}

fn message(columns: &MessagesLayout, value: &Value) -> Result<Message, String> {
    let expected = format!("{}, {}", columns.role_tag, columns.content_tag);
    let Value::Object(object) = value else {
        return Err(format!("expected an object with {expected}, found {}", kind(value)));
    };
    let name = required(object, &columns.role_tag, &expected)?;
    let roles = [
        (Some(&columns.user_tag), Role::User),
        (Some(&columns.assistant_tag), Role::Assistant),
        (columns.system_tag.as_ref(), Role::System),
    ];
    let Some(&(_, role)) = roles.iter().find(|(tag, _)| tag.is_some_and(|tag| tag == name)) else {
        let known: Vec<&str> = roles.iter().filter_map(|(tag, _)| tag.map(String::as_str)).collect();
        return Err(format!("{:?} is {name:?}; expected one of {}", columns.role_tag, known.join(", ")));
    };
    if object.get("tool_calls").is_some_and(|calls| !calls.is_null()) {
        return Err("\"tool_calls\" are not supported yet".to_owned());
    }
    Ok(Message::new(role, required(object, &columns.content_tag, &expected)?))
}

fn required<'a>(object: &'a Map<String, Value>, column: &str, expected: &str) -> Result<&'a str, String> {
    match object.get(column) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("{column:?} is {}, not text", kind(other))),
        None => Err(format!("{column:?} is missing; expected {expected}")),
    }
}

fn optional_column<'a>(object: &'a Map<String, Value>, column: Option<&str>) -> Result<Option<&'a str>, String> {
    match column.and_then(|column| object.get(column).map(|value| (column, value))) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((_, Value::String(text))) => Ok(Some(text)),
        Some((column, other)) => Err(format!("{column:?} is {}, not text", kind(other))),
    }
}

/// What a JSON value is, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
