//! What a conversation is, whatever file it came from: messages with roles, and the tools that the model may call.
//!
//! Messages serialise as chat templates expect them (transformers' conventions): a reply that calls tools has `tool_calls`,
//! each with its arguments as an object; a reply that was thought about has `reasoning_content`.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model: what is trained.
    Assistant,
    /// A tool that was called: LLaMA-Factory's `observation`.
    Tool,
}

/// One message of a conversation, as chat templates see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What the model thought before it spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the model calls, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The id of the call that a tool's result belongs to, where the record has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// How much the message counts in the loss, where the record says: 0 trains nothing of it.
    #[serde(skip)]
    pub weight: Option<f32>,
}

impl Message {
    /// A message from its two parts.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            weight: None,
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// What its result names it by, where the record has it.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// What it is called with: an object, for nearly all.
    pub arguments: Value,
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        Self { id: None, name: name.into(), arguments }
    }
}

impl Serialize for ToolCall {
    /// `{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}`, without the id where there is none
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut function = Map::new();
        function.insert("name".to_owned(), Value::String(self.name.clone()));
        function.insert("arguments".to_owned(), self.arguments.clone());
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &function)?;
        map.end()
    }
}

/// Messages, and the tools that may be called in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// The messages, in order; a system message is the first.
    pub messages: Vec<Message>,
    /// Descriptions of tools, each a JSON schema as the record has it.
    pub tools: Vec<Value>,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, tools: Vec::new() }
    }
}

/// A prompt with two replies, of which one is better: for reward models and preference training.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The conversation up to the reply.
    pub prompt: Conversation,
    /// The better reply.
    pub chosen: Message,
    /// The worse reply.
    pub rejected: Message,
}

/// A conversation whose last reply is wanted, or not: for KTO.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The conversation, which ends with the reply.
    pub conversation: Conversation,
    /// Whether replies like it are wanted.
    pub desirable: bool,
}
