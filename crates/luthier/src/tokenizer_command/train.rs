//! `luthier tokenizer train`: a tokenizer from texts, as the two files that a Hugging Face folder has.

use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_data::{Specials, Tokenizer, TokenizerKind, TokenizerOptions, train_tokenizer};
use serde_json::Value;

use crate::wording::{count, size, thousands};
use crate::{eprint_line, print_text};

/// What follows `luthier tokenizer train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files with text: .txt (each line is a text), .jsonl or .json (every text of a record is one)
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    files: Vec<PathBuf>,
    /// The keys of records whose texts are read [default: all]
    #[arg(long, value_name = "KEY", num_args = 1..)]
    keys: Vec<String>,
    /// How many tokens there are to be, special ones too
    #[arg(long, value_name = "N", default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    vocab_size: u32,
    /// How text is cut: byte-level BPE, Unigram with bytes, or WordPiece (which loses blanks)
    #[arg(long, value_enum, default_value_t = Kind::Bpe)]
    model: Kind,
    /// The special tokens [default: <|endoftext|> <|im_start|> <|im_end|>]
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    special: Vec<String>,
    /// The special token that ends a text [default: <|im_end|>, else the first]
    #[arg(long, value_name = "TOKEN")]
    end: Option<String>,
    /// The folder to write tokenizer.json and tokenizer_config.json into
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Bpe,
    Unigram,
    Wordpiece,
}

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", END];
const END: &str = "<|im_end|>";
const WRITTEN: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let out = &arguments.out;
    if let Some(name) = WRITTEN.iter().find(|name| out.join(name).exists()) {
        anyhow::bail!("{} has a {name} already; give another folder with --out", out.display());
    }
    let mut texts = Vec::new();
    for file in &arguments.files {
        read(file, &arguments.keys, &mut texts).with_context(|| file.display().to_string())?;
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    let (files, read) = (count(arguments.files.len(), "file"), count(texts.len(), "text"));
    eprint_line(&format!("read {files}: {read}, {}", size(bytes as u64)));
    let special: Vec<String> = match arguments.special.as_slice() {
        [] => SPECIAL.map(str::to_owned).into(),
        given => given.to_vec(),
    };
    let default_end = special.iter().find(|token| *token == END).or(special.first());
    let end = arguments.end.clone().or(default_end.cloned()).unwrap_or_default();
    let kind = match arguments.model {
        Kind::Bpe => TokenizerKind::Bpe,
        Kind::Unigram => TokenizerKind::Unigram,
        Kind::Wordpiece => TokenizerKind::WordPiece,
    };
    if kind == TokenizerKind::WordPiece {
        eprint_line("note: WordPiece loses blanks and line ends; a model that is to write text needs bpe or unigram");
    }
    let vocabulary_size = arguments.vocab_size as usize;
    eprint_line(&format!("training {} tokens", thousands(vocabulary_size)));
    let trained = train_tokenizer(&texts, &TokenizerOptions { kind, vocabulary_size, special, end })?;
    if trained.tokens < vocabulary_size {
        eprint_line(&format!("note: the texts gave no more than {} tokens", thousands(trained.tokens)));
    }

    // What was made is read back as every model's is.
    let tokenizer = Tokenizer::from_json(&trained.tokenizer, Some(&trained.config), None)?;
    let (mut tokens, mut lost) = (0, 0);
    for text in &texts {
        let ids = tokenizer.encode(text, Specials::None)?;
        tokens += ids.len();
        lost += usize::from(kind != TokenizerKind::WordPiece && tokenizer.decode(&ids)? != *text);
    }
    anyhow::ensure!(lost == 0, "{} do not come back from their ids, which is a fault of Luthier", count(lost, "text"));
    std::fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    for (name, content) in WRITTEN.iter().zip([&trained.tokenizer, &trained.config]) {
        luthier_files::write_atomically(&out.join(name), |writer| writer.write_all(content))?;
    }
    print_text(&format!(
        "{}: {} tokens, {:.2} bytes a token on these texts\n",
        out.display(),
        thousands(trained.tokens),
        bytes as f64 / tokens.max(1) as f64
    ));
    Ok(())
}

/// Adds the texts of a file.
fn read(file: &Path, keys: &[String], texts: &mut Vec<String>) -> anyhow::Result<()> {
    let content = std::fs::read_to_string(file).context("it cannot be read as UTF-8 text")?;
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let before = texts.len();
    match extension.as_deref() {
        Some("jsonl") => {
            for (index, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let value = serde_json::from_str(line).with_context(|| format!("line {}", index + 1))?;
                collect(&value, keys, keys.is_empty(), texts);
            }
        }
        Some("json") => collect(&serde_json::from_str(&content)?, keys, keys.is_empty(), texts),
        Some("txt") => texts.extend(content.lines().filter(|line| !line.is_empty()).map(str::to_owned)),
        _ => anyhow::bail!("expected a file that ends in .txt, .jsonl or .json"),
    }
    if texts.len() == before {
        let of = if keys.is_empty() { String::new() } else { format!(" under {}", keys.join(", ")) };
        anyhow::bail!("there is no text in it{of}");
    }
    Ok(())
}

/// The texts of a value: all of them, or those below the keys.
fn collect(value: &Value, keys: &[String], wanted: bool, texts: &mut Vec<String>) {
    match value {
        Value::String(text) if wanted && !text.is_empty() => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, keys, wanted, texts)),
        Value::Object(entries) => {
            for (key, value) in entries {
                collect(value, keys, wanted || keys.contains(key), texts);
            }
        }
        _ => {}
    }
}
