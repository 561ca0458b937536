//! A conversation from JSON as servers take it: a list of messages, or an object with `messages` and `tools`.

use serde_json::{Map, Value};

use crate::conversation::{Conversation, Message, Role, ToolCall};

impl Conversation {
    /// Reads a list of messages, or an object with `messages` and, perhaps, `tools`. The error is a clause.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let messages = value.as_array().or_else(|| value.get("messages").and_then(Value::as_array));
        let messages = messages.ok_or("it is no list of messages, and no object with \"messages\"")?;
        let messages = messages.iter().enumerate();
        let messages: Result<Vec<Message>, String> = messages
            .map(|(index, message)| read(message).map_err(|problem| format!("message {}: {problem}", index + 1)))
            .collect();
        let tools = match value.get("tools") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tools)) => tools.clone(),
            Some(_) => return Err("\"tools\" is no list".to_owned()),
        };
        Ok(Self { messages: messages?, tools })
    }
}

fn read(value: &Value) -> Result<Message, String> {
    let object = value.as_object().ok_or("it is no object")?;
    let role = match object.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => return Err("\"role\" is none of system, user, assistant, tool".to_owned()),
    };
    let mut message = Message::new(role, text(object, "content")?.unwrap_or_default());
    message.reasoning_content = text(object, "reasoning_content")?;
    message.tool_call_id = text(object, "tool_call_id")?;
    if let Some(calls) = object.get("tool_calls").filter(|calls| !calls.is_null()) {
        let calls = calls.as_array().ok_or("\"tool_calls\" is no list")?;
        message.tool_calls = calls.iter().map(call).collect::<Result<_, _>>()?;
    }
    Ok(message)
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key:?} is no text")),
    }
}

fn call(value: &Value) -> Result<ToolCall, String> {
    let function = value.get("function").unwrap_or(value);
    let name = function.get("name").and_then(Value::as_str).ok_or("a call of a tool has no \"name\"")?;
    let arguments = match function.get("arguments") {
        // OpenAI writes them as a text.
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())),
        Some(arguments) => arguments.clone(),
        None => Value::Object(Map::new()),
    };
    let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
    Ok(ToolCall { id, ..ToolCall::new(name, arguments) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_thoughts_are_read() {
        let json = r#"{"tools": [{"name": "f"}], "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
            "reasoning_content": "t", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]}"#;
        let found = Conversation::from_json(&serde_json::from_str(json).expect("JSON")).expect("a conversation");
        assert_eq!((found.tools.len(), found.messages.len()), (1, 2));
        let reply = &found.messages[1];
        assert_eq!(reply.reasoning_content.as_deref(), Some("t"));
        assert_eq!(reply.tool_calls[0].arguments, serde_json::json!({"x": 1}));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |json: &str, expected: &str| {
            let found = Conversation::from_json(&serde_json::from_str(json).expect("JSON"));
            assert_eq!(found, Err(expected.to_owned()));
        };
        check("1", "it is no list of messages, and no object with \"messages\"");
        check(r#"[{"role": "x"}]"#, "message 1: \"role\" is none of system, user, assistant, tool");
        check(r#"[{"role": "user", "content": 1}]"#, "message 1: \"content\" is no text");
    }
}
