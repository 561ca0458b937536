//! Named chat templates: how LLaMA-Factory writes a conversation, name by name.
//!
//! `table` has the templates as data; `tools` has the ways to write tools; `turns` writes a conversation as prompts and
//! replies, so that what is trained is known by construction; `encode` turns these into tokens; `jinja` writes a template
//! for other programs. Nothing here changes a vocabulary: a token that a template writes and the tokenizer does not know
//! as one is said.

mod encode;
mod jinja;
mod table;
mod tools;
mod turns;

pub(crate) use jinja::written_from;
pub(crate) use tools::ToolFormat;
pub(crate) use turns::{Piece, PieceTurn};

use crate::error::Error;
use crate::names::nearest;

/// A template, as the table has it.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    /// Before everything.
    prefix: &'static str,
    system: &'static str,
    user: &'static str,
    assistant: &'static str,
    /// A reply that calls tools; empty: as `assistant`.
    function: &'static str,
    /// What a tool gave; empty: as `user`.
    observation: &'static str,
    /// How calls are written.
    calls: ToolFormat,
    /// How tools are described.
    tools: ToolFormat,
    default_system: &'static str,
    stop_words: &'static [&'static str],
    /// What stands around a thought, where it is not [`THOUGHT`].
    thought: Option<(&'static str, &'static str)>,
    thinks: Thinks,
    /// The system message stands within the first message of the user.
    system_in_user: bool,
    /// The end token stands behind the whole conversation only; a reply within ends where the next message begins.
    efficient_eos: bool,
    /// The first stop word takes the place of the tokenizer's end token.
    replace_eos: bool,
}

/// What stands around a thought in most templates.
const THOUGHT: (&str, &str) = ("<think>\n", "\n</think>\n\n");

/// Whether replies begin with a thought, and what a reply without one begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinks {
    Never,
    OpenAndClose,
    Close,
}

/// Settings of LLaMA-Factory's of the same names, and the time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateOptions {
    /// The system message of conversations that have none.
    pub default_system: Option<String>,
    /// How tools are written; only named templates can be told.
    pub tool_format: Option<String>,
    /// Named templates that think train thoughts, empty ones too, unless it is `false`: then they are removed, and an empty one
    /// is given. Templates of models get it as a variable, where it is set.
    pub enable_thinking: Option<bool>,
    /// Keep thoughts of earlier replies in prompts.
    pub preserve_thinking: bool,
    /// The time that templates tell, in seconds since 1970; without it one that asks is an error.
    pub now_unix_seconds: Option<i64>,
}

/// What the table says of a template, for people and other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateFacts {
    /// The name.
    pub name: &'static str,
    /// The template that the name stands for, where that is another.
    pub alias_of: Option<&'static str>,
    /// The system message of conversations that have none.
    pub default_system: &'static str,
    /// What ends a reply beside the end token.
    pub stop_words: &'static [&'static str],
    /// How tools are written.
    pub tool_format: &'static str,
    /// Whether replies begin with a thought.
    pub thinks: bool,
    /// What is written before everything, for a system message, a user, a reply, a reply that calls tools, a tool's result.
    pub texts: [(&'static str, &'static str); 6],
    /// Whether the end token stands behind the whole conversation only.
    pub efficient_eos: bool,
    /// Whether the first stop word takes the place of the tokenizer's end token.
    pub replace_eos: bool,
}

/// All names, in order.
pub fn template_names() -> Vec<&'static str> {
    let rows = table::TEMPLATES.iter().map(|row| row.name);
    let mut names: Vec<&str> = rows.chain(table::ALIASES.iter().map(|(name, _)| *name)).collect();
    names.sort_unstable();
    names
}

/// What the table says of a name.
pub fn template_facts(name: &str) -> Option<TemplateFacts> {
    let (name, row) = find(name)?;
    Some(TemplateFacts {
        name,
        alias_of: (row.name != name).then_some(row.name),
        default_system: row.default_system,
        stop_words: row.stop_words,
        tool_format: row.tools.name(),
        thinks: row.thinks != Thinks::Never,
        texts: [
            ("prefix", row.prefix),
            ("system", row.system),
            ("user", row.user),
            ("assistant", row.assistant),
            ("function", row.function_slots()),
            ("observation", row.observation_slots()),
        ],
        efficient_eos: row.efficient_eos,
        replace_eos: row.replace_eos,
    })
}

fn find(name: &str) -> Option<(&'static str, &'static Row)> {
    let row = |name: &str| table::TEMPLATES.iter().find(|row| row.name == name);
    match table::ALIASES.iter().find(|(alias, _)| *alias == name) {
        Some((alias, of)) => row(of).map(|row| (*alias, row)),
        None => row(name).map(|row| (row.name, row)),
    }
}

impl Row {
    fn function_slots(&self) -> &'static str {
        if self.function.is_empty() { self.assistant } else { self.function }
    }

    fn observation_slots(&self) -> &'static str {
        if self.observation.is_empty() { self.user } else { self.observation }
    }
}

/// A named template with its settings.
#[derive(Debug, Clone)]
pub(crate) struct NamedTemplate {
    /// The name that was given.
    pub(crate) name: &'static str,
    row: Row,
    options: TemplateOptions,
    /// A reply that calls tools is written so.
    function: &'static str,
}

impl NamedTemplate {
    /// The template of a name. Errors: there is none, or the tool format is unknown; the nearest known name is told.
    pub(crate) fn new(name: &str, options: &TemplateOptions) -> Result<Self, Error> {
        let Some((name, row)) = find(name) else {
            return Err(Error::UnknownTemplate { name: name.to_owned(), nearest: nearest(name, &template_names()) });
        };
        let (mut row, mut function) = (*row, row.function_slots());
        if let Some(format) = &options.tool_format {
            let Some(known) = ToolFormat::named(format) else {
                let known: Vec<&str> = ToolFormat::names().collect();
                return Err(Error::UnknownToolFormat { name: format.clone(), known: known.join(", ") });
            };
            (row.calls, row.tools) = (known, known);
            function = if row.efficient_eos { "{{content}}" } else { "{{content}}{{eos}}" };
        }
        Ok(Self { name, row, options: options.clone(), function })
    }

    /// The system message of conversations that have none.
    fn default_system(&self) -> &str {
        self.options.default_system.as_deref().unwrap_or(self.row.default_system)
    }

    /// Whether replies shall think.
    fn thinking(&self) -> bool {
        self.options.enable_thinking.unwrap_or(true)
    }

    fn thought_words(&self) -> (&'static str, &'static str) {
        self.row.thought.unwrap_or(THOUGHT)
    }

    /// What ends a reply beside the end token.
    pub(crate) fn stop_words(&self) -> &'static [&'static str] {
        self.row.stop_words
    }
}
