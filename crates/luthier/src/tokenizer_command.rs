//! `luthier tokenizer`: a model's tokenizer at work, without its weights. `encode` shows how a text is split and the id of
//! each part; `decode` puts ids together again.

mod train;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_data::{Specials, Tokenizer};

use crate::model::open_tokenizer;
use crate::print_text;

/// What follows `luthier tokenizer`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Split texts into tokens, and print the id and the text of each
    Encode(EncodeArguments),
    /// Print the text of ids
    Decode(DecodeArguments),
    /// Train a tokenizer on texts
    Train(train::Arguments),
}

/// What follows `luthier tokenizer encode`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct EncodeArguments {
    /// A model folder, a GGUF file (with or without tensors), a tokenizer.json, or a tokenizer.model
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// A file whose whole content is one text
    #[arg(long, value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// A text; may be given several times
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    text: Vec<String>,
    /// Add the tokens that the model wants before and after a text
    #[arg(long)]
    add_special: bool,
    /// One line of JSON for each text: {"ids": [...], "tokens": [...]}
    #[arg(long)]
    json: bool,
}

/// What follows `luthier tokenizer decode`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct DecodeArguments {
    /// A model folder, a GGUF file (with or without tensors), a tokenizer.json, or a tokenizer.model
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// A file with ids, with blanks, commas or ends of lines between them
    #[arg(long, value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// Token ids
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',', group = "input")]
    ids: Vec<u32>,
    /// One line of JSON: {"text": "...", "tokens": [...]}
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Encode(arguments) => encode(arguments),
        Command::Decode(arguments) => decode(arguments),
        Command::Train(arguments) => train::run(arguments),
    }
}

fn encode(arguments: &EncodeArguments) -> anyhow::Result<()> {
    let tokenizer = open_tokenizer(&arguments.model)?;
    let texts = match &arguments.file {
        Some(file) => vec![read_text(file)?],
        None => arguments.text.clone(),
    };
    let specials = if arguments.add_special { Specials::Add } else { Specials::None };
    let mut page = String::new();
    for text in &texts {
        let ids = tokenizer.encode(text, specials)?;
        let tokens = tokens(&tokenizer, &ids)?;
        if arguments.json {
            let _ = writeln!(page, "{}", serde_json::json!({"ids": ids, "tokens": tokens}));
            continue;
        }
        let digits = ids.iter().max().map_or(1, |id| id.to_string().len());
        for (id, token) in ids.iter().zip(&tokens) {
            let _ = writeln!(page, "{id:>digits$}  {token:?}");
        }
        let _ = writeln!(page, "{} tokens", ids.len());
    }
    print_text(&page);
    Ok(())
}

fn decode(arguments: &DecodeArguments) -> anyhow::Result<()> {
    let tokenizer = open_tokenizer(&arguments.model)?;
    let ids = match &arguments.file {
        Some(file) => read_ids(file)?,
        None => arguments.ids.clone(),
    };
    let tokens = tokens(&tokenizer, &ids)?;
    let text = tokenizer.decode(&ids)?;
    print_text(&match arguments.json {
        true => format!("{}\n", serde_json::json!({"text": text, "tokens": tokens})),
        false => format!("{text}\n"),
    });
    Ok(())
}

/// The texts of tokens, as the vocabulary writes them.
fn tokens(tokenizer: &Tokenizer, ids: &[u32]) -> anyhow::Result<Vec<String>> {
    let text = |id: &u32| {
        let known = tokenizer.vocabulary_size();
        tokenizer.token(*id).with_context(|| format!("there is no token {id}: the tokenizer knows {known}"))
    };
    ids.iter().map(text).collect()
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{}: could not read it as UTF-8 text", file.display()))
}

fn read_ids(file: &Path) -> anyhow::Result<Vec<u32>> {
    let text = read_text(file)?;
    let words = text.split(|letter: char| letter.is_whitespace() || letter == ',').filter(|word| !word.is_empty());
    let id = |word: &str| {
        let parsed = word.parse::<u32>();
        parsed.with_context(|| format!("{}: {word:?} is no token id; expected whole numbers", file.display()))
    };
    words.map(id).collect()
}
