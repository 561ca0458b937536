//! `cargo xtask builtin`: everything that makes the model that is built into the program, from nothing: text from a
//! grammar, a tokenizer, two trainings by Luthier itself (`builtin/pretrain.yaml`, `builtin/sft.yaml`), and what it
//! answers then. What is only needed on the way goes to the ignored folder `builtin/work`.

mod facts;
mod grammar;
mod lesson;
mod measure;
mod prose;
mod random;
mod tokenizer;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::grammar::{Exchange, Kind};
use self::random::Random;
use crate::{cargo, execute, root};

const DOCUMENTS: usize = 40_000;
const CONVERSATIONS: usize = 90_000;

const USAGE: &str = "\
cargo xtask builtin STEP

  corpus            write the text of both trainings into builtin/work, and the records of `luthier quickstart`
  tokenizer         train the tokenizer on it
  train             train the model and put it into builtin/model
  measure [FOLDER]  ask a model the held-out questions (--wrong: show wrong answers)
  all               all of these";

/// Runs a step.
pub(crate) fn command(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["corpus"] => corpus(),
        ["tokenizer"] => train_tokenizer(),
        ["train"] => train(),
        ["measure"] => measure::run(&folder().join("model"), false),
        ["measure", "--wrong"] => measure::run(&folder().join("model"), true),
        ["measure", model] => measure::run(Path::new(model), false),
        ["measure", "--wrong", model] | ["measure", model, "--wrong"] => measure::run(Path::new(model), true),
        ["all"] => {
            corpus()?;
            train_tokenizer()?;
            train()?;
            measure::run(&folder().join("model"), false)
        }
        _ => bail!("there is no such step\n\n{USAGE}"),
    }
}

fn folder() -> PathBuf {
    root().join("builtin")
}

fn work() -> PathBuf {
    folder().join("work")
}

fn corpus() -> Result<()> {
    let mut random = Random::new(1);
    let documents: Vec<Value> = (0..DOCUMENTS).map(|_| json!({ "text": prose::document(&mut random) })).collect();
    write(&work().join("pretrain.jsonl"), &lines(&documents))?;

    let mut random = Random::new(2);
    let mut conversations = Vec::with_capacity(CONVERSATIONS);
    while conversations.len() < CONVERSATIONS {
        let mut exchange = Exchange::draw(Kind::draw(&mut random), &mut random);
        if exchange.is_held_out() {
            continue;
        }
        exchange.disturb(&mut random);
        let message = |role: &str, content: String| json!({ "role": role, "content": content });
        let messages: Vec<Value> = exchange
            .turns
            .into_iter()
            .flat_map(|(question, answer)| [message("user", question), message("assistant", answer)])
            .collect();
        conversations.push(json!({ "messages": messages }));
    }
    write(&work().join("sft.jsonl"), &lines(&conversations))?;

    let records = lesson::records(&mut Random::new(4));
    let records: Vec<String> = records
        .iter()
        .map(|(question, answer)| format!("  {}", json!({ "instruction": question, "output": answer })))
        .collect();
    write(&folder().join("lesson.json"), &format!("[\n{}\n]\n", records.join(",\n")))?;
    println!("{DOCUMENTS} documents, {CONVERSATIONS} conversations, {} records of the lesson", records.len());
    Ok(())
}

fn train_tokenizer() -> Result<()> {
    let mut texts: Vec<String> =
        read_lines("pretrain.jsonl")?.iter().filter_map(|record| record["text"].as_str().map(str::to_owned)).collect();
    for record in read_lines("sft.jsonl")? {
        let messages = record["messages"].as_array().into_iter().flatten();
        texts.extend(messages.filter_map(|message| message["content"].as_str().map(str::to_owned)));
    }
    let start = work().join("start");
    write(&start.join("tokenizer.json"), &tokenizer::train(&texts)?)?;
    write(&start.join("tokenizer_config.json"), &format!("{:#}\n", tokenizer::config()))?;
    let config = fs::read_to_string(folder().join("config.json")).context("builtin/config.json cannot be read")?;
    write(&start.join("config.json"), &config)
}

fn train() -> Result<()> {
    for config in ["builtin/pretrain.yaml", "builtin/sft.yaml"] {
        execute(cargo().args(["run", "--release", "--package", "luthier", "--", "train", config]))?;
    }
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let (from, to) = (work().join("tuned").join(name), folder().join("model").join(name));
        let bytes = fs::read(&from).with_context(|| format!("{} cannot be read", from.display()))?;
        println!("{:x}  builtin/model/{name}, {} bytes", Sha256::digest(&bytes), bytes.len());
        fs::write(&to, bytes).with_context(|| format!("{} cannot be written", to.display()))?;
    }
    Ok(())
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

fn read_lines(name: &str) -> Result<Vec<Value>> {
    let path = work().join(name);
    let hint = || format!("{} cannot be read; run `cargo xtask builtin corpus` first", path.display());
    let text = fs::read_to_string(&path).with_context(hint)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(hint)).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
