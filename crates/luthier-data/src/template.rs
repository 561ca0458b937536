//! The chat template: the one way in which training, chat, generation and export write a conversation.
//!
//! Either the checkpoint's own, in Jinja, or one of those that are named. A name that the user gives wins over the model's
//! own; where the two write a plain conversation differently, a note says so, since servers will use the model's own.

use crate::call_ids::with_ids;
use crate::conversation::{Conversation, Message, Role};
use crate::error::Error;
use crate::jinja::{JinjaTemplate, Rendered, SpecialTexts};
use crate::mask::{needs_reply, parting};
use crate::named::{NamedTemplate, PieceTurn, TemplateOptions, written_from};
use crate::tokenizer::{Specials, Tokenizer};
use crate::truncate::Turn;

/// A chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    kind: Kind,
    name: String,
    texts: SpecialTexts,
    default_system: Option<String>,
    notes: Vec<String>,
    replaces_own: bool,
}

#[derive(Debug)]
enum Kind {
    Jinja(Box<JinjaTemplate>),
    Named(Box<NamedTemplate>),
}

impl ChatTemplate {
    /// The named template, else the model's own. [`Self::notes`] says what does not fit.
    ///
    /// `model` stands in messages. Errors: no such name or tool format, the model has no template, it does not compile.
    pub fn choose(
        named: Option<&str>,
        model: &str,
        tokenizer: &Tokenizer,
        options: &TemplateOptions,
    ) -> Result<Self, Error> {
        let own = tokenizer.chat_template();
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        let texts = SpecialTexts { begin: text(tokenizer.begin_id()), end: text(tokenizer.end_id()) };
        match (named, own) {
            (Some(name), own) => {
                let named = NamedTemplate::new(name, options)?;
                let texts = SpecialTexts { end: text(named.end_id(tokenizer)), ..texts };
                let mut this = Self::of_named(named, texts);
                this.notes = this.unknown_tokens(model, tokenizer);
                let difference = own.map(|own| this.difference(model, own, options));
                this.replaces_own = difference.as_ref().is_none_or(Option::is_some);
                this.notes.extend(difference.flatten());
                Ok(this)
            }
            (None, Some(source)) => {
                if let Some(named) = Self::recognise(source, options) {
                    let texts = SpecialTexts { end: text(named.end_id(tokenizer)), ..texts };
                    return Ok(Self { replaces_own: false, ..Self::of_named(named, texts) });
                }
                let mut this = Self::from_jinja(model, source, texts, options)?;
                if options.tool_format.is_some() {
                    let note =
                        format!("tool_format has no effect: the chat template of {model} writes tools in its own way");
                    this.notes.push(note);
                }
                Ok(this)
            }
            (None, None) => Err(Error::TemplateMissing { model: model.to_owned() }),
        }
    }

    /// A template of the table, with the texts that begin and end token have. Errors: no such name or tool format.
    pub fn named(name: &str, texts: SpecialTexts, options: &TemplateOptions) -> Result<Self, Error> {
        Ok(Self::of_named(NamedTemplate::new(name, options)?, texts))
    }

    /// The named template that a source was written from, if it writes the same with these settings: it knows tools, and
    /// which tokens are replies.
    fn recognise(source: &str, options: &TemplateOptions) -> Option<NamedTemplate> {
        let named = NamedTemplate::new(written_from(source)?, options).ok()?;
        (named.jinja() == source).then_some(named)
    }

    fn of_named(named: NamedTemplate, texts: SpecialTexts) -> Self {
        let name = named.name.to_owned();
        Self {
            kind: Kind::Named(Box::new(named)),
            name,
            texts,
            default_system: None,
            notes: Vec::new(),
            replaces_own: true,
        }
    }

    /// A template from its Jinja source. Errors: it does not compile.
    pub fn from_jinja(name: &str, source: &str, texts: SpecialTexts, options: &TemplateOptions) -> Result<Self, Error> {
        let (now, thinking) = (options.now_unix_seconds, options.enable_thinking);
        let jinja = JinjaTemplate::new(name, source, texts.clone(), now, thinking)?;
        let default_system = options.default_system.clone();
        let (kind, name) = (Kind::Jinja(Box::new(jinja)), name.to_owned());
        Ok(Self { kind, name, texts, default_system, notes: Vec::new(), replaces_own: false })
    }

    /// The name that messages use: the model's, or the template's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What does not fit, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The text of the end token, as the template writes it.
    pub(crate) fn end_text(&self) -> Option<&str> {
        self.texts.end.as_deref()
    }

    /// Whether the template says where replies are, so that they need not be searched.
    pub(crate) fn marks_replies(&self) -> bool {
        match &self.kind {
            Kind::Jinja(jinja) => jinja.marks_replies(),
            Kind::Named(_) => true,
        }
    }

    /// Whether this is a named template and the model has none of its own, or one that writes something else.
    pub fn replaces_own(&self) -> bool {
        self.replaces_own
    }

    /// Stop words that are more than one token, so that [`Self::end_ids`] cannot have them.
    pub fn stop_texts(&self, tokenizer: &Tokenizer) -> Vec<String> {
        match &self.kind {
            Kind::Jinja(_) => Vec::new(),
            Kind::Named(named) => named.stop_texts(tokenizer),
        }
    }

    /// The source in Jinja: the model's own, or one that writes what a named template writes without tools.
    pub fn jinja_source(&self) -> String {
        match &self.kind {
            Kind::Jinja(jinja) => jinja.source().to_owned(),
            Kind::Named(named) => named.jinja(),
        }
    }

    /// Texts that end a reply, beside the tokenizer's end token.
    pub fn stop_words(&self) -> &[&'static str] {
        match &self.kind {
            Kind::Jinja(_) => &[],
            Kind::Named(named) => named.stop_words(),
        }
    }

    /// Every token that ends a reply: the tokenizer's, and the stop words that are one token.
    pub fn end_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match &self.kind {
            Kind::Jinja(_) => tokenizer.end_ids().to_vec(),
            Kind::Named(named) => named.end_ids(tokenizer),
        }
    }

    /// Writes a conversation with descriptions of tools; with `add_generation_prompt`, up to where the model's reply begins.
    ///
    /// Errors: the template refuses the conversation, failed, or ran out of fuel or room.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<Rendered, Error> {
        match &self.kind {
            Kind::Jinja(jinja) => match &self.default_system {
                Some(system) if messages.first().is_none_or(|message| message.role != Role::System) => {
                    let mut with_system = vec![Message::new(Role::System, system.as_str())];
                    with_system.extend_from_slice(messages);
                    render_with_ids(jinja, &with_system, tools, add_generation_prompt)
                }
                _ => render_with_ids(jinja, messages, tools, add_generation_prompt),
            },
            Kind::Named(named) => {
                let turns = match add_generation_prompt {
                    true => named.prompt(messages, tools)?,
                    false => named.turns(messages, tools, false)?,
                };
                Ok(self.join(named, &turns))
            }
        }
    }

    fn join(&self, named: &NamedTemplate, turns: &[PieceTurn]) -> Rendered {
        let (begin, end) = (self.texts.begin.as_deref(), self.texts.end.as_deref());
        let mut rendered = Rendered { text: String::new(), generation: Vec::new(), made_ids: false };
        for turn in turns {
            rendered.text.push_str(&named.text(&turn.prompt, begin, end));
            let from = rendered.text.len();
            rendered.text.push_str(&named.text(&turn.reply, begin, end));
            if turn.content_end.is_some() {
                rendered.generation.push(from..rendered.text.len());
            }
        }
        rendered
    }

    /// Prompt and reply of each turn, as texts, where the template is a named one; the last reply may be missing.
    ///
    /// Errors: as for [`Self::render`].
    pub fn turn_texts(&self, conversation: &Conversation) -> Result<Option<Vec<[String; 2]>>, Error> {
        let Kind::Named(named) = &self.kind else { return Ok(None) };
        let turns = named.turns(&conversation.messages, &conversation.tools, false)?;
        let (begin, end) = (self.texts.begin.as_deref(), self.texts.end.as_deref());
        let texts = |turn: &PieceTurn| [&turn.prompt, &turn.reply].map(|pieces| named.text(pieces, begin, end));
        Ok(Some(turns.iter().map(texts).collect()))
    }

    /// The tokens of what a model is asked with: the conversation, up to where its reply begins.
    ///
    /// Errors: as for [`Self::render`].
    pub fn prompt_ids(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Error> {
        match &self.kind {
            Kind::Jinja(_) => tokenizer.encode(&self.render(messages, tools, true)?.text, Specials::None),
            Kind::Named(named) => {
                let (turns, _) = named.encode(&named.prompt(messages, tools)?, tokenizer)?;
                Ok(turns.into_iter().flat_map(|turn| [turn.prompt, turn.reply]).flatten().collect())
            }
        }
    }

    /// The turns of a conversation as tokens, and the number of end tokens that were added, for a named template.
    pub(crate) fn named_turns(
        &self,
        conversation: &Conversation,
        tokenizer: &Tokenizer,
        last_reply_only: bool,
    ) -> Option<Result<(Vec<Turn>, usize), Error>> {
        let Kind::Named(named) = &self.kind else { return None };
        let turns = needs_reply(&conversation.messages)
            .and_then(|()| named.turns(&conversation.messages, &conversation.tools, last_reply_only));
        Some(turns.and_then(|turns| named.encode(&turns, tokenizer)))
    }

    /// A sentence about what the template writes and the tokenizer does not know as one token.
    fn unknown_tokens(&self, model: &str, tokenizer: &Tokenizer) -> Vec<String> {
        let Kind::Named(named) = &self.kind else { return Vec::new() };
        let unknown = named.unknown_tokens(tokenizer);
        let sentence = || {
            format!(
                "template {}: the tokenizer of {model} has no token of its own for {}; they are written as text, since the \
                 vocabulary is not changed",
                self.name,
                unknown.join(", ")
            )
        };
        (!unknown.is_empty()).then(sentence).into_iter().collect()
    }

    /// A sentence about how the model's own template writes a plain conversation, where that is in another way.
    fn difference(&self, model: &str, own: &str, options: &TemplateOptions) -> Option<String> {
        let plain = [
            Message::new(Role::User, "Hello"),
            Message::new(Role::Assistant, "Hi."),
            Message::new(Role::User, "How are you?"),
        ];
        let own =
            Self::from_jinja(model, own, self.texts.clone(), options).and_then(|own| own.render(&plain, &[], true));
        let here = self.render(&plain, &[], true).ok()?.text;
        let there = match own {
            Ok(there) if there.text == here => return None,
            Ok(there) => there.text,
            Err(error) => return Some(format!("template {} is used: {error}", self.name)),
        };
        let at = parting(&here, &there);
        let from = here[..at].char_indices().rev().take(16).last().map_or(at, |(index, _)| index);
        let [here, there] = [here, there].map(|text| text[from..].chars().take(48).collect::<String>());
        let name = &self.name;
        Some(format!(
            "template {name}: the chat template of {model} itself writes a plain conversation differently, {there:?} where \
             {name} has {here:?}"
        ))
    }
}

/// Writes a conversation; where the template refuses it and calls lack the ids that some templates want, with ids.
fn render_with_ids(
    jinja: &JinjaTemplate,
    messages: &[Message],
    tools: &[serde_json::Value],
    add_generation_prompt: bool,
) -> Result<Rendered, Error> {
    let as_given = jinja.render(messages, tools, add_generation_prompt);
    if let Err(Error::Refused { .. }) = as_given
        && let Some(made) = with_ids(messages)
        && let Ok(rendered) = jinja.render(&made, tools, add_generation_prompt)
    {
        return Ok(Rendered { made_ids: true, ..rendered });
    }
    as_given
}
