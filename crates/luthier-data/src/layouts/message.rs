//! One message of a list, in all the ways that people write one: content as text or as parts, calls of tools beside it or as
//! its JSON text, thoughts, a weight. Images and sound are refused: models here are text only.

use serde_json::{Map, Value};

use crate::conversation::{Message, Role, ToolCall};
use crate::layout::{MessagesLayout, RoleTags, Roles};
use crate::records::{kind, required};

/// The names that roles have where nothing says another.
const USUAL: [(&str, Said); 15] = [
    ("user", Said::By(Role::User)),
    ("human", Said::By(Role::User)),
    ("prompter", Said::By(Role::User)),
    ("assistant", Said::By(Role::Assistant)),
    ("gpt", Said::By(Role::Assistant)),
    ("model", Said::By(Role::Assistant)),
    ("chatgpt", Said::By(Role::Assistant)),
    ("bot", Said::By(Role::Assistant)),
    ("system", Said::By(Role::System)),
    ("developer", Said::By(Role::System)),
    ("tool", Said::By(Role::Tool)),
    ("observation", Said::By(Role::Tool)),
    ("function", Said::By(Role::Tool)),
    ("ipython", Said::By(Role::Tool)),
    ("function_call", Said::Call),
];

#[derive(Clone, Copy)]
enum Said {
    By(Role),
    /// By the assistant, as JSON.
    Call,
}

pub(crate) fn read(layout: &MessagesLayout, value: &Value) -> Result<Message, String> {
    let expected = format!("{}, {}", layout.role_tag, layout.content_tag);
    let Value::Object(object) = value else {
        return Err(format!("expected an object with {expected}, found {}", kind(value)));
    };
    let said = role(layout, required(object, &layout.role_tag, &expected)?)?;
    let mut message = Message::new(if let Said::By(role) = said { role } else { Role::Assistant }, "");
    match object.get(&layout.content_tag) {
        Some(Value::String(text)) if matches!(said, Said::Call) => called(text, &mut message)?,
        Some(Value::String(text)) => message.content = text.clone(),
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                add_part(part, &mut message).map_err(|problem| format!("content part {}: {problem}", index + 1))?;
            }
        }
        None | Some(Value::Null) if has(object, "tool_calls") || has(object, "function_call") => {}
        None => return Err(format!("{:?} is missing; expected {expected}", layout.content_tag)),
        Some(other) => return Err(format!("{:?} is {}, not text", layout.content_tag, kind(other))),
    }
    for key in ["reasoning_content", "reasoning", "thinking"] {
        match object.get(key) {
            Some(Value::String(text)) if message.reasoning_content.is_none() && !text.is_empty() => {
                message.reasoning_content = Some(text.clone());
            }
            None | Some(Value::Null | Value::String(_)) => {}
            Some(other) => return Err(format!("{key:?} is {}, not text", kind(other))),
        }
    }
    match object.get("tool_calls") {
        Some(Value::Array(calls)) => {
            for call in calls {
                message.tool_calls.push(tool_call(call)?);
            }
        }
        None | Some(Value::Null) => {}
        Some(other) => return Err(format!("\"tool_calls\" is {}, not a list", kind(other))),
    }
    if has(object, "function_call") {
        message.tool_calls.push(tool_call(&object["function_call"])?);
    }
    if message.role != Role::Assistant && !message.tool_calls.is_empty() {
        return Err("it calls tools, which only the assistant does".to_owned());
    }
    if message.role == Role::Tool {
        message.tool_call_id = object.get("tool_call_id").and_then(Value::as_str).map(str::to_owned);
    }
    message.weight = weight(object)?;
    Ok(message)
}

fn has(object: &Map<String, Value>, key: &str) -> bool {
    object.get(key).is_some_and(|value| !value.is_null())
}

fn role(layout: &MessagesLayout, name: &str) -> Result<Said, String> {
    let known: Vec<(&str, Said)> = match &layout.roles {
        Roles::Usual => USUAL.to_vec(),
        Roles::Tags(RoleTags { user, assistant, observation, function, system }) => [
            (user, Said::By(Role::User)),
            (assistant, Said::By(Role::Assistant)),
            (observation, Said::By(Role::Tool)),
            (function, Said::Call),
            (system, Said::By(Role::System)),
        ]
        .into_iter()
        .filter_map(|(tag, said)| Some((tag.as_deref()?, said)))
        .collect(),
    };
    known.iter().find(|(tag, _)| *tag == name).map(|(_, said)| *said).ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|(tag, _)| *tag).collect();
        format!("{:?} is {name:?}; expected one of {}", layout.role_tag, known.join(", "))
    })
}

/// The text of a message that is a call, as LLaMA-Factory's formatter takes it: an object or a list of them, a thought in
/// `<think>` before it.
fn called(text: &str, message: &mut Message) -> Result<(), String> {
    let (thought, json) = match text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>")) {
        Some((thought, json)) => (Some(thought.trim()), json),
        None => (None, text),
    };
    if let Some(thought) = thought.filter(|thought| !thought.is_empty()) {
        message.reasoning_content = Some(thought.to_owned());
    }
    let calls: Value =
        serde_json::from_str(json).map_err(|error| format!("the call of a tool is not JSON: {error}"))?;
    match calls {
        Value::Array(calls) => {
            for call in &calls {
                message.tool_calls.push(tool_call(call)?);
            }
        }
        call => message.tool_calls.push(tool_call(&call)?),
    }
    if message.tool_calls.is_empty() { Err("the call of a tool calls none".to_owned()) } else { Ok(()) }
}

/// `{"function": {"name", "arguments"}}`, or what is inside; arguments may be the text of their JSON.
fn tool_call(call: &Value) -> Result<ToolCall, String> {
    let function = call.get("function").filter(|function| function.is_object()).unwrap_or(call);
    let Some(name) = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
        return Err("the call of a tool has no \"name\"".to_owned());
    };
    let arguments = match function.get("arguments").or_else(|| function.get("parameters")) {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(Value::String(text)) if text.trim().is_empty() => Value::Object(Map::new()),
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| format!("the arguments of the call of {name} are not JSON: {error}"))?,
        Some(value) => value.clone(),
    };
    let id = call.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    Ok(ToolCall { id, ..ToolCall::new(name, arguments) })
}

/// A part of a content that is a list: text, a thought or a call.
fn add_part(part: &Value, message: &mut Message) -> Result<(), String> {
    if let Value::String(text) = part {
        message.content.push_str(text);
        return Ok(());
    }
    let what = part.get("type").and_then(Value::as_str).unwrap_or("text");
    let text = || {
        let keys = ["text", "value", "thinking", "reasoning", "content"];
        let found = keys.iter().find_map(|key| part.get(*key).and_then(Value::as_str));
        found.ok_or_else(|| format!("it has no text; expected {{\"type\": {what:?}, \"text\": ...}}"))
    };
    match what {
        "text" | "input_text" | "output_text" => message.content.push_str(text()?),
        "reasoning" | "thinking" => message.reasoning_content.get_or_insert_default().push_str(text()?),
        "tool_call" => match part.get("value") {
            Some(Value::String(text)) => called(text, message)?,
            _ => message.tool_calls.push(tool_call(part)?),
        },
        other => return Err(format!("it is {other:?}, and models here are text only")),
    }
    Ok(())
}

/// What a message says of its weight in the loss: a number, or whether it is trained.
fn weight(object: &Map<String, Value>) -> Result<Option<f32>, String> {
    for key in ["weight", "loss_weight", "train"] {
        match object.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Bool(trained)) => return Ok(Some(f32::from(*trained))),
            Some(value) => match value.as_f64().filter(|weight| weight.is_finite() && *weight >= 0.0) {
                Some(weight) => return Ok(Some(weight as f32)),
                None => return Err(format!("{key:?} is {value}; expected a number from 0 on, or true or false")),
            },
        }
    }
    Ok(None)
}

/// The tools of a record: a list, or the text of its JSON.
pub(crate) fn tools(object: &Map<String, Value>, column: Option<&str>) -> Result<Vec<Value>, String> {
    let Some((column, value)) = column.and_then(|column| Some((column, object.get(column)?))) else {
        return Ok(Vec::new());
    };
    let parsed;
    let value = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|error| format!("{column:?} is not JSON: {error}"))?;
            &parsed
        }
        value => value,
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(tools) => Ok(tools.clone()),
        Value::Object(_) => Ok(vec![value.clone()]),
        other => Err(format!("{column:?} is {}, not a list of tools", kind(other))),
    }
}
