//! Asks a model the questions that were held out, and counts the answers that are right to the letter.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use luthier_data::{ChatTemplate, Message, Role, Specials, TemplateOptions, Tokenizer};
use luthier_model::{Checkpoint, Decoder, Generator, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision};

use super::grammar::{Exchange, Kind};
use super::random::Random;

/// Held-out questions of each kind, where there are so many.
const QUESTIONS: usize = 200;
/// Draws after which a kind has shown all that it has.
const DRAWS: usize = 100_000;
/// Longest answer, in tokens.
const ANSWER: usize = 48;
const SEED: u64 = 3;

/// Prints a table: kind, questions, share of right answers.
pub(crate) fn run(folder: &Path, show_wrong: bool) -> Result<()> {
    let model = Answering::open(folder)?;
    let mut random = Random::new(SEED);
    let (mut asked, mut right) = (0, 0);
    println!("| kind | held-out questions | right |\n| --- | --- | --- |");
    for kind in Kind::ALL {
        let questions = held_out(kind, &mut random);
        let mut good = 0;
        for exchange in &questions {
            let answers = model.answers(exchange)?;
            let is_right = answers.iter().zip(&exchange.turns).all(|(found, (_, wanted))| found == wanted);
            good += usize::from(is_right);
            if show_wrong && !is_right {
                println!("{:?} -> {answers:?}", exchange.turns);
            }
        }
        println!("| {} | {} | {} |", kind.name(), questions.len(), share(good, questions.len()));
        asked += questions.len();
        right += good;
    }
    println!("| all | {asked} | {} |", share(right, asked));
    Ok(())
}

fn share(right: usize, all: usize) -> String {
    format!("{:.1} %", 100.0 * right as f64 / all.max(1) as f64)
}

fn held_out(kind: Kind, random: &mut Random) -> Vec<Exchange> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for _ in 0..DRAWS {
        let exchange = Exchange::draw(kind, random);
        if exchange.is_held_out() && seen.insert(format!("{:?}", exchange.turns)) {
            found.push(exchange);
        }
        if found.len() == QUESTIONS {
            break;
        }
    }
    found
}

/// A model that answers.
struct Answering {
    device: Device,
    precision: Precision,
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Answering {
    fn open(folder: &Path) -> Result<Self> {
        let isa = match std::env::var("LUTHIER_CPU") {
            Ok(name) if !name.is_empty() => Isa::named(&name).map_err(anyhow::Error::msg)?,
            _ => Isa::detect(),
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let device = Device::cpu(CpuOptions { threads, isa, memory_bytes: 1 << 30, poison: false }, None)?;
        let precision = if isa.bf16_multiplies() { Precision::Bf16 } else { Precision::F32 };
        let files = luthier_files::read_model(folder)?;
        let checkpoint = Checkpoint::from_files(&files)?;
        let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None)?;
        let json = files.get("tokenizer.json").context("tokenizer.json is missing")?;
        let tokenizer = Tokenizer::from_json(json, files.get("tokenizer_config.json"), None)?;
        let template = ChatTemplate::choose(None, &files.label, &tokenizer, &TemplateOptions::default())?;
        Ok(Self { device, precision, decoder, tokenizer, template })
    }

    /// What it says in each turn, with its own earlier answers before it.
    fn answers(&self, exchange: &Exchange) -> Result<Vec<String>> {
        let mut messages = Vec::new();
        let mut answers = Vec::new();
        for (question, _) in &exchange.turns {
            messages.push(Message::new(Role::User, question.clone()));
            let prompt = self.tokenizer.encode(&self.template.render(&messages, &[], true)?.text, Specials::None)?;
            let mut generator = Generator::new(&self.device, &self.decoder, self.precision, prompt.len() + ANSWER);
            let mut ids = generator.greedy(&prompt, ANSWER, self.tokenizer.end_ids(), &mut |_| true);
            if ids.last().is_some_and(|last| self.tokenizer.end_ids().contains(last)) {
                ids.pop();
            }
            let answer = self.tokenizer.decode(&ids)?;
            messages.push(Message::new(Role::Assistant, answer.clone()));
            answers.push(answer);
        }
        Ok(answers)
    }
}
