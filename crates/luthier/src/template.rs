//! `luthier template`: the named chat templates, and what a template makes of a conversation.

use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_data::{ChatTemplate, Conversation, SpecialTexts, Tokenizer, masked_text, template_facts, template_names};

use crate::config::TemplateSettings;
use crate::model::{Model, template_options};
use crate::{eprint_line, print_text};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The names that `template` can have, and what they are
    List,
    /// All that is known of one
    Show {
        /// The name
        name: String,
        /// Show it as Jinja source, for other programs
        #[arg(long)]
        jinja: bool,
    },
    /// Write a conversation as a template does
    Render(RenderArguments),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RenderArguments {
    /// The conversation: a JSON list of messages, or an object with `messages` and `tools`
    #[arg(long, value_name = "FILE.json")]
    conversation: PathBuf,
    /// A named template
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    template: Option<String>,
    /// A file with a template in Jinja
    #[arg(long, value_name = "FILE.jinja")]
    file: Option<PathBuf>,
    /// A model whose template is taken, and the texts of its begin and end token: a folder, or a GGUF file
    #[arg(long, value_name = "MODEL", required_unless_present_any = ["template", "file"])]
    model: Option<PathBuf>,
    /// The text of the begin token [default: the model's]
    #[arg(long, value_name = "TEXT")]
    bos: Option<String>,
    /// The text of the end token [default: the model's]
    #[arg(long, value_name = "TEXT")]
    eos: Option<String>,
    /// Write what the model is asked with: up to where its reply begins
    #[arg(long)]
    ask: bool,
    /// Put ⟦ and ⟧ around what would be trained
    #[arg(long, conflicts_with = "ask")]
    marked: bool,
    /// What the template is told about thinking
    #[arg(long, value_name = "BOOL")]
    enable_thinking: Option<bool>,
    /// The system message of a conversation without one
    #[arg(long, value_name = "TEXT")]
    default_system: Option<String>,
    /// How a named template writes tools
    #[arg(long, value_name = "NAME")]
    tool_format: Option<String>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(),
        Command::Show { name, jinja } => return show(name, *jinja),
        Command::Render(arguments) => return render(arguments),
    }
    Ok(())
}

fn list() {
    let names = template_names();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for facts in names.iter().filter_map(|name| template_facts(name)) {
        let what = match facts.alias_of {
            Some(other) => format!("as {other}"),
            None => {
                let user = facts.texts[2].1.replace('\n', "\\n");
                format!("{}{}", if facts.thinks { "thinks; " } else { "" }, shortened(&user))
            }
        };
        text += &format!("{:width$}  {what}\n", facts.name);
    }
    print_text(&text);
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

fn show(name: &str, jinja: bool) -> anyhow::Result<()> {
    let options = template_options(&TemplateSettings::default());
    let template = ChatTemplate::named(name, SpecialTexts::default(), &options)?;
    if jinja {
        print_text(&format!("{}\n", template.jinja_source()));
        return Ok(());
    }
    let facts = template_facts(name).context("the name was found")?;
    let mut text = format!("{}\n", facts.name);
    let mut line = |what: &str, value: &str| text += &format!("  {what:<15} {value}\n");
    if let Some(other) = facts.alias_of {
        line("same as", other);
    }
    for (what, slots) in facts.texts {
        line(what, &format!("{slots:?}"));
    }
    line("default_system", &format!("{:?}", facts.default_system));
    line("stop words", &facts.stop_words.join("  "));
    line("tool_format", facts.tool_format);
    line("thinks", if facts.thinks { "yes" } else { "no" });
    let end = match (facts.efficient_eos, facts.replace_eos) {
        (true, _) => "the tokenizer's end token, behind the conversation; before that, what begins the next message",
        (false, true) => "the first stop word, which takes the place of the tokenizer's end token",
        (false, false) => "the tokenizer's end token",
    };
    line("replies end with", end);
    print_text(&text);
    Ok(())
}

fn render(arguments: &RenderArguments) -> anyhow::Result<()> {
    let path = arguments.conversation.display();
    let bytes = std::fs::read(&arguments.conversation).with_context(|| format!("{path}: cannot be read"))?;
    let json = serde_json::from_slice(&bytes).with_context(|| format!("{path}: it is no JSON"))?;
    let conversation = Conversation::from_json(&json).map_err(|problem| anyhow::anyhow!("{path}: {problem}"))?;
    let template = template(arguments)?;
    for note in template.notes() {
        eprint_line(&format!("note: {note}"));
    }
    let text = if arguments.marked {
        let masked = masked_text(&template, &conversation)?;
        let mut text = masked.text;
        for reply in masked.replies.iter().rev() {
            text.insert(reply.end, '⟧');
            text.insert(reply.start, '⟦');
        }
        text
    } else {
        template.render(&conversation.messages, &conversation.tools, arguments.ask)?.text
    };
    print_text(&text);
    Ok(())
}

/// The template that is asked for, with the texts of the special tokens.
fn template(arguments: &RenderArguments) -> anyhow::Result<ChatTemplate> {
    let settings = TemplateSettings {
        name: arguments.template.clone(),
        default_system: arguments.default_system.clone(),
        tool_format: arguments.tool_format.clone(),
        enable_thinking: arguments.enable_thinking,
        preserve_thinking: false,
    };
    let options = template_options(&settings);
    let opened = arguments.model.as_deref().map(open).transpose()?;
    let token = |id: Option<u32>| opened.as_ref().and_then(|(_, tokenizer)| tokenizer.token(id?));
    let tokenizer = opened.as_ref().map(|(_, tokenizer)| tokenizer);
    let texts = SpecialTexts {
        begin: arguments.bos.clone().or_else(|| token(tokenizer?.begin_id())),
        end: arguments.eos.clone().or_else(|| token(tokenizer?.end_id())),
    };
    match (&arguments.file, &arguments.template, &opened) {
        (Some(file), ..) => {
            let name = file.display().to_string();
            let source = std::fs::read_to_string(file).with_context(|| format!("{name}: cannot be read"))?;
            Ok(ChatTemplate::from_jinja(&name, &source, texts, &options)?)
        }
        (None, _, Some((model, tokenizer))) => model.template(&settings, tokenizer),
        (None, name, None) => Ok(ChatTemplate::named(name.as_deref().unwrap_or_default(), texts, &options)?),
    }
}

fn open(path: &Path) -> anyhow::Result<(Model, Tokenizer)> {
    let model = Model::open(path)?;
    let tokenizer = model.tokenizer()?;
    Ok((model, tokenizer))
}
