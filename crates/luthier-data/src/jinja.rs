//! The checkpoint's own Jinja chat template, rendered as transformers renders it.
//!
//! The same settings (`trim_blocks`, `lstrip_blocks`, loop controls), variables and functions. A template is a program
//! of a stranger: it runs with fuel, a recursion limit and a cap on its output, and reaches no file and no clock.
//! `{% generation %}` blocks, which mark replies, are rendered through, and their places are reported.

use std::io::Write;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::conversation::Message;
use crate::error::Error;
use crate::template_functions::{RAISED, add_functions};
use crate::template_limits::{Counted, check_source, confined};
use crate::template_namespaces::{KEPT, kept, with_filter};

/// The texts of special tokens that templates write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTexts {
    /// `bos_token`
    pub begin: Option<String>,
    /// `eos_token`
    pub end: Option<String>,
}

/// A compiled chat template.
#[derive(Debug)]
pub(crate) struct JinjaTemplate {
    environment: Environment<'static>,
    name: String,
    source: String,
    texts: SpecialTexts,
    marks_replies: bool,
    enable_thinking: Option<bool>,
}

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Bytes of the text that came from `{% generation %}` blocks.
    pub generation: Vec<Range<usize>>,
    /// Whether calls of tools got ids, without which the template refuses them.
    pub made_ids: bool,
}

/// Instructions that one rendering may take, of which each may be 64 bytes of text made instead: some hundred for each message
/// are usual. So a rendering makes 128 MB of text at the most.
const FUEL: u64 = 2_000_000;
const OUTPUT_BYTES: usize = 64 << 20;
const RECURSION: usize = 100;
const TEMPLATE: &str = "chat_template";
/// Noncharacters (they are never valid in text) that stand around a reply while it is rendered.
const BEGIN: char = '\u{fdd0}';
const END: char = '\u{fdd1}';

impl JinjaTemplate {
    /// Compiles a template. Errors: it does not compile.
    pub(crate) fn new(
        name: &str,
        source: &str,
        texts: SpecialTexts,
        now_unix_seconds: Option<i64>,
        enable_thinking: Option<bool>,
    ) -> Result<Self, Error> {
        let compiles = |error: minijinja::Error| Error::Template {
            name: name.to_owned(),
            problem: format!("does not compile: {error}"),
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(compiles)?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        add_functions(&mut environment, now_unix_seconds);
        environment.add_filter(KEPT, kept);
        environment.add_filter("__reply", |text: String| format!("{BEGIN}{text}{END}"));
        check_source(source).map_err(|problem| Error::Template { name: name.to_owned(), problem })?;
        let lines = source.replace("\r\n", "\n").replace('\r', "\n"); // as Jinja2's lexer does
        let (compiled, marks_replies) = generation_as_filter(&with_filter(&lines));
        confined(|| environment.add_template_owned(TEMPLATE, compiled)).map_err(compiles)?;
        Ok(Self {
            environment,
            name: name.to_owned(),
            source: source.to_owned(),
            texts,
            marks_replies,
            enable_thinking,
        })
    }

    /// The source, as the model has it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template marks replies with `{% generation %}` blocks.
    pub(crate) fn marks_replies(&self) -> bool {
        self.marks_replies
    }

    /// Writes a conversation with descriptions of tools; with `add_generation_prompt`, up to where the model's reply begins.
    ///
    /// Errors: the template raised an exception or failed, or ran out of fuel or room.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<Rendered, Error> {
        let problem = |problem: String| Error::Template { name: self.name.clone(), problem };
        let failed = |failure: Failure| match failure {
            Failure::Refused(problem) => Error::Refused { name: self.name.clone(), problem },
            Failure::Other(said) => problem(said),
        };
        if self.marks_replies && messages.iter().any(|message| message.content.contains([BEGIN, END])) {
            return Err(problem("marks replies with U+FDD0 and U+FDD1, which the conversation contains".to_owned()));
        }
        let thinking = self.enable_thinking.map_or_else(|| context! {}, |enable_thinking| context! { enable_thinking });
        let values = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => self.texts.begin.as_deref().map_or(Value::UNDEFINED, Value::from),
            eos_token => self.texts.end.as_deref().map_or(Value::UNDEFINED, Value::from),
            tools => if tools.is_empty() { Value::from(()) } else { Value::from(Serde(tools)) },
            documents => (),
            ..thinking
        };
        let _counted = Counted::begin();
        let output = confined(|| {
            let mut output = Capped(Vec::new());
            let template =
                self.environment.get_template(TEMPLATE).map_err(|error| Failure::Other(error.to_string()))?;
            template.render_captured_to(values, &mut output).map_err(|error| describe(&error))?;
            Ok(output.0)
        });
        let text = String::from_utf8(output.map_err(failed)?).map_err(|error| problem(error.to_string()))?;
        if self.marks_replies {
            take_marks(&text).map_err(problem)
        } else {
            Ok(Rendered { text, generation: vec![], made_ids: false })
        }
    }
}

/// What ended a rendering, as the rest of a sentence.
enum Failure {
    /// The template's own exception.
    Refused(String),
    Other(String),
}

fn describe(error: &minijinja::Error) -> Failure {
    let detail = error.detail().unwrap_or_default();
    if let Some(message) = detail.strip_prefix(RAISED) {
        return Failure::Refused(format!("refuses the conversation: {message}"));
    }
    Failure::Other(match error.kind() {
        minijinja::ErrorKind::OutOfFuel => format!("did not end after {FUEL} instructions"),
        minijinja::ErrorKind::WriteFailure => format!("wrote more than {OUTPUT_BYTES} bytes"),
        kind => {
            let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            format!("failed{line}: {kind}{detail}")
        }
    })
}

/// `{% generation %}` is a tag of transformers. A filter block has the same scope and the same trimming of blanks.
fn generation_as_filter(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut found = false;
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let inner = tag.find("%}").map_or(tag, |end| &tag[..end]);
        let name = inner.trim_matches(['-', '+']).trim();
        match name {
            "generation" => {
                found = true;
                out.push_str(&inner.replacen("generation", "filter __reply", 1));
            }
            "endgeneration" => out.push_str(&inner.replacen("endgeneration", "endfilter", 1)),
            _ => out.push_str(inner),
        }
        rest = &tag[inner.len()..];
    }
    out.push_str(rest);
    (out, found)
}

fn take_marks(marked: &str) -> Result<Rendered, String> {
    let mut text = String::with_capacity(marked.len());
    let mut generation = Vec::new();
    let mut begin = None;
    for character in marked.chars() {
        match (character, begin) {
            (BEGIN, None) => begin = Some(text.len()),
            (END, Some(from)) => {
                generation.push(from..text.len());
                begin = None;
            }
            (BEGIN | END, _) => return Err("has {% generation %} blocks inside one another".to_owned()),
            _ => text.push(character),
        }
    }
    Ok(Rendered { text, generation, made_ids: false })
}

/// A buffer that refuses to grow over the cap.
struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES {
            return Err(std::io::Error::other("too much output"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
