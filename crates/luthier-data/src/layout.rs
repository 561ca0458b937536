//! Which key of a record holds what. Found by looking at the first record, or written in `dataset_info.json`.

use serde_json::{Map, Value};

/// How the records of a dataset are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Instruction, input, output: one prompt and one response, with an optional history before them.
    Alpaca(AlpacaLayout),
    /// A list of messages with roles: OpenAI's `messages` and ShareGPT's `conversations`.
    Messages(MessagesLayout),
    /// Documents, for `stage: pt`.
    Text {
        /// The key of the document.
        text: String,
    },
    /// Rows that are tokens already: `input_ids` and `labels`, as Hugging Face's collators have them.
    Tokens,
}

/// The keys of an alpaca record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlpacaLayout {
    /// The instruction.
    pub prompt: String,
    /// What follows the instruction on a new line, if it is not empty.
    pub query: Option<String>,
    /// The reply.
    pub response: String,
    /// A list of [prompt, response] that went before.
    pub history: Option<String>,
    /// The system message.
    pub system: Option<String>,
}

impl Default for AlpacaLayout {
    fn default() -> Self {
        Self {
            prompt: "instruction".to_owned(),
            query: Some("input".to_owned()),
            response: "output".to_owned(),
            history: Some("history".to_owned()),
            system: Some("system".to_owned()),
        }
    }
}

impl AlpacaLayout {
    pub(crate) fn expected(&self) -> String {
        let keys = [Some(&self.prompt), self.query.as_ref(), Some(&self.response)];
        keys.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The keys of a record with a list of messages, and the names that its roles have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesLayout {
    /// The list of messages.
    pub messages: String,
    /// A system message beside the list.
    pub system: Option<String>,
    /// In a message, the key of the role.
    pub role_tag: String,
    /// In a message, the key of the text.
    pub content_tag: String,
    /// The user's role.
    pub user_tag: String,
    /// The assistant's role.
    pub assistant_tag: String,
    /// The system's role.
    pub system_tag: Option<String>,
}

impl MessagesLayout {
    /// OpenAI's: `messages` of `role` and `content`; roles user, assistant, system.
    pub fn openai() -> Self {
        Self {
            messages: "messages".to_owned(),
            system: Some("system".to_owned()),
            role_tag: "role".to_owned(),
            content_tag: "content".to_owned(),
            user_tag: "user".to_owned(),
            assistant_tag: "assistant".to_owned(),
            system_tag: Some("system".to_owned()),
        }
    }

    /// ShareGPT's: `conversations` of `from` and `value`; roles human, gpt, system.
    pub fn sharegpt() -> Self {
        Self {
            messages: "conversations".to_owned(),
            system: Some("system".to_owned()),
            role_tag: "from".to_owned(),
            content_tag: "value".to_owned(),
            user_tag: "human".to_owned(),
            assistant_tag: "gpt".to_owned(),
            system_tag: Some("system".to_owned()),
        }
    }
}

impl Layout {
    /// The layout that the first record of a file fits. None or two is an error, the clause that says so.
    pub(crate) fn detect(record: &Map<String, Value>) -> Result<Self, String> {
        let mut fits: Vec<(String, Layout)> = Vec::new();
        let alpaca: Vec<&str> = ["instruction", "output"].into_iter().filter(|key| record.contains_key(*key)).collect();
        if !alpaca.is_empty() {
            fits.push((format!("alpaca ({})", alpaca.join(", ")), Layout::Alpaca(AlpacaLayout::default())));
        }
        for key in ["messages", "conversations"] {
            if let Some(Value::Array(list)) = record.get(key) {
                let sharegpt = list.first().is_some_and(|message| message.get("from").is_some());
                let layout = if sharegpt { MessagesLayout::sharegpt() } else { MessagesLayout::openai() };
                let layout = MessagesLayout { messages: key.to_owned(), ..layout };
                fits.push((format!("a list of messages ({key})"), Layout::Messages(layout)));
            }
        }
        if record.get("text").is_some_and(Value::is_string) {
            fits.push(("documents (text)".to_owned(), Layout::Text { text: "text".to_owned() }));
        }
        if record.contains_key("input_ids") {
            fits.push(("tokens (input_ids)".to_owned(), Layout::Tokens));
        }
        if fits.len() > 1 {
            let names: Vec<String> = fits.into_iter().map(|(name, _)| name).collect();
            return Err(format!(
                "its records fit {}; say which with an entry in dataset_info.json (file_name, formatting, columns)",
                names.join(" and ")
            ));
        }
        fits.pop().map(|(_, layout)| layout).ok_or_else(|| {
            let keys: Vec<&str> = record.keys().map(String::as_str).collect();
            format!(
                "its records have the keys {}; expected instruction and output, or messages, or conversations, or text, or \
                 input_ids; \
                 say what they mean with an entry in dataset_info.json (file_name, formatting, columns)",
                keys.join(", ")
            )
        })
    }

    /// The keys of a record that this layout reads.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Layout::Alpaca(columns) => {
                let optional = [&columns.query, &columns.history, &columns.system];
                let optional = optional.into_iter().filter_map(|key| key.as_deref());
                [columns.prompt.as_str(), columns.response.as_str()].into_iter().chain(optional).collect()
            }
            Layout::Messages(columns) => {
                std::iter::once(columns.messages.as_str()).chain(columns.system.as_deref()).collect()
            }
            Layout::Text { text } => vec![text],
            Layout::Tokens => vec!["input_ids", "labels", "weights", "attention_mask"],
        }
    }
}
