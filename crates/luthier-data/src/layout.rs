//! Which key of a record holds what: found by looking at records (`detect`), or written in `dataset_info.json`.

/// How the records of a dataset are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Instruction, input, output: one prompt and one reply, with an optional history before them.
    Alpaca(AlpacaLayout),
    /// A list of messages with roles: OpenAI's `messages` and ShareGPT's `conversations`.
    Messages(MessagesLayout),
    /// A prompt and what follows it, each a text or a list of messages: TRL's and many others'.
    Prompt(PromptLayout),
    /// Documents, for `stage: pt`.
    Text {
        /// The key of the document.
        text: String,
        /// The key of a second part, which follows on a new line.
        query: Option<String>,
    },
    /// Rows that are tokens already: `input_ids` and `labels`, as Hugging Face's collators have them.
    Tokens,
}

/// The keys of an alpaca record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlpacaLayout {
    /// The instruction.
    pub prompt: Option<String>,
    /// What follows the instruction on a new line, if it is not empty.
    pub query: Option<String>,
    /// The reply.
    pub response: Option<String>,
    /// A list of [prompt, response] that went before.
    pub history: Option<String>,
    /// The system message.
    pub system: Option<String>,
    /// The tools, as a list or as its JSON text.
    pub tools: Option<String>,
    /// What is said of replies.
    pub verdict: Verdict,
}

impl Default for AlpacaLayout {
    fn default() -> Self {
        Self {
            prompt: Some("instruction".to_owned()),
            query: Some("input".to_owned()),
            response: Some("output".to_owned()),
            history: Some("history".to_owned()),
            system: Some("system".to_owned()),
            tools: Some("tools".to_owned()),
            verdict: Verdict::None,
        }
    }
}

impl AlpacaLayout {
    pub(crate) fn expected(&self) -> String {
        let keys = [self.prompt.as_deref(), self.query.as_deref(), self.response.as_deref()];
        keys.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What a record says of its replies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the reply is what is learned.
    #[default]
    None,
    /// One of two is better.
    Ranking {
        /// The key of the better one.
        chosen: String,
        /// The key of the worse one.
        rejected: String,
    },
    /// The reply is wanted or not, which this key says.
    Tag(String),
}

impl Verdict {
    fn keys(&self) -> Vec<&str> {
        match self {
            Self::None => Vec::new(),
            Self::Ranking { chosen, rejected } => vec![chosen, rejected],
            Self::Tag(tag) => vec![tag],
        }
    }
}

/// The keys of a record with a list of messages, and the names that its roles have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesLayout {
    /// The list of messages.
    pub messages: String,
    /// A system message beside the list.
    pub system: Option<String>,
    /// The tools, as a list or as its JSON text.
    pub tools: Option<String>,
    /// In a message, the key of the role.
    pub role_tag: String,
    /// In a message, the key of the text.
    pub content_tag: String,
    /// The names of the roles.
    pub roles: Roles,
    /// What is said of replies.
    pub verdict: Verdict,
}

/// The names of roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roles {
    /// All that are usual; turns may come in any order as long as a reply is the last.
    Usual,
    /// Those of `dataset_info.json`; as LLaMA-Factory asks, user or observation and assistant or function call alternate.
    Tags(RoleTags),
}

/// LLaMA-Factory's `tags`; a role without a name cannot occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleTags {
    /// The user's role.
    pub user: Option<String>,
    /// The assistant's role.
    pub assistant: Option<String>,
    /// The role of what a tool answers.
    pub observation: Option<String>,
    /// The role of a call of tools, whose text is JSON.
    pub function: Option<String>,
    /// The system's role.
    pub system: Option<String>,
}

impl Default for RoleTags {
    fn default() -> Self {
        Self {
            user: Some("human".to_owned()),
            assistant: Some("gpt".to_owned()),
            observation: Some("observation".to_owned()),
            function: Some("function_call".to_owned()),
            system: Some("system".to_owned()),
        }
    }
}

impl MessagesLayout {
    /// OpenAI's: `messages` of `role` and `content`.
    pub fn openai() -> Self {
        Self {
            messages: "messages".to_owned(),
            role_tag: "role".to_owned(),
            content_tag: "content".to_owned(),
            ..Self::sharegpt()
        }
    }

    /// ShareGPT's: `conversations` of `from` and `value`.
    pub fn sharegpt() -> Self {
        Self {
            messages: "conversations".to_owned(),
            system: Some("system".to_owned()),
            tools: Some("tools".to_owned()),
            role_tag: "from".to_owned(),
            content_tag: "value".to_owned(),
            roles: Roles::Usual,
            verdict: Verdict::None,
        }
    }
}

/// The keys of a record of a prompt and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptLayout {
    /// The prompt; without one, it is what two conversations have in common.
    pub prompt: Option<String>,
    /// What follows.
    pub replies: Replies,
}

/// What follows a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replies {
    /// A reply.
    One(String),
    /// A reply, and the key that says whether it is wanted.
    Judged {
        /// The key of the reply.
        completion: String,
        /// The key of the verdict.
        label: String,
    },
    /// Two replies.
    Pair {
        /// The key of the better one.
        chosen: String,
        /// The key of the worse one.
        rejected: String,
    },
}

impl Layout {
    /// The keys of a record that this layout reads.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Layout::Alpaca(columns) => {
                let keys = [&columns.prompt, &columns.query, &columns.response, &columns.history];
                let keys = keys.into_iter().chain([&columns.system, &columns.tools]);
                keys.filter_map(Option::as_deref).chain(columns.verdict.keys()).collect()
            }
            Layout::Messages(columns) => {
                let beside = [columns.system.as_deref(), columns.tools.as_deref()];
                let keys = std::iter::once(columns.messages.as_str()).chain(beside.into_iter().flatten());
                keys.chain(columns.verdict.keys()).collect()
            }
            Layout::Prompt(PromptLayout { prompt, replies }) => {
                let replies = match replies {
                    Replies::One(reply) => [Some(reply), None],
                    Replies::Judged { completion, label } => [Some(completion), Some(label)],
                    Replies::Pair { chosen, rejected } => [Some(chosen), Some(rejected)],
                };
                let replies = replies.into_iter().flatten().map(String::as_str);
                prompt.as_deref().into_iter().chain(replies).chain(["system", "tools"]).collect()
            }
            Layout::Text { text, query } => std::iter::once(text.as_str()).chain(query.as_deref()).collect(),
            Layout::Tokens => vec!["input_ids", "labels", "weights", "attention_mask"],
        }
    }
}
