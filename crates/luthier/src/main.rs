//! The command line of Luthier: arguments become a checked configuration, and that becomes calls into the engine.
//!
//! This is the only crate that prints and the only one that reads the environment. Results go to standard output,
//! progress and messages to standard error. A failure is one line that says what, where and what was expected; the exit
//! code is then 1, and 2 for arguments that cannot be understood.

mod adapters;
mod bench;
mod builtin;
mod chart;
mod chat;
mod checkpoint;
mod config;
mod data_preview;
mod datasets;
mod environment;
mod estimate;
mod expand;
mod export;
mod fit;
mod generate;
mod hub;
mod journal;
mod logits;
mod machine;
mod manifest;
mod method;
mod model;
mod outcome;
mod plan;
mod preflight;
mod progress;
mod quantised;
mod quickstart;
mod range_test;
mod rate;
mod reference;
mod results;
mod rows;
mod run;
mod sampling;
mod save;
mod settings;
mod shell;
mod signals;
mod sitting;
mod stop;
mod template;
mod tensorboard;
mod terminal;
mod tokenizer_command;
mod train;
mod trainer_log;
mod watch;
mod wording;
mod work;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use hub::HubEnvironment;
use settings::Problem;

/// Fine-tunes large language models on the machine that you have.
#[derive(Debug, Parser)]
#[command(name = "luthier", version = environment::version(), max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: teach the built-in model something new, in less than a minute
    Quickstart(quickstart::Arguments),
    /// Train a model as a configuration says
    Train(train::Arguments),
    /// Show what a training would do and take, with memory, time and disk, and stop
    Plan(plan::Arguments),
    /// Talk with a model, with an adapter, or with both side by side
    Chat(chat::Arguments),
    /// Let a model, with or without an adapter, go on with a text
    Generate(generate::Arguments),
    /// Write a model, with its adapter merged, as files that other programs read
    Export(export::Arguments),
    /// Add blocks to a model that change nothing until they are trained (LLaMA-Pro)
    Expand(expand::Arguments),
    /// Write the logits of a text into a file, for comparing with other programs
    #[command(hide = true)]
    Logits(logits::Arguments),
    /// Measure the training of a configuration: speed, share of the processor's peak, memory, time by operation
    Bench(bench::Arguments),
    /// Find a learning rate: train some steps with one that grows, draw the loss, and keep nothing of the model
    #[command(name = "lr-find")]
    RangeTest(range_test::Arguments),
    /// Look at data before training on it
    #[command(subcommand)]
    Data(DataCommand),
    /// Look at chat templates: their names, what they are, what they make of a conversation
    #[command(subcommand)]
    Template(template::Command),
    /// Split texts into tokens and put them together, as a model does
    #[command(subcommand)]
    Tokenizer(tokenizer_command::Command),
    /// Show what Luthier finds on this machine
    Env,
    /// Print the version
    Version,
    /// Print the completions of a shell
    Completions(shell::Arguments),
    /// Print the man page
    Man,
    /// Print all settings: the reference page, or a JSON schema for editors
    Settings(reference::Arguments),
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Show rows as training sees them, and which of their tokens are trained
    Preview(data_preview::Arguments),
}

/// What the environment says about machine and terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `LUTHIER_CPU`: the instruction set to use instead of the best one.
    pub(crate) cpu: Option<String>,
    /// `NO_COLOR`: whether nothing is coloured (see no-color.org).
    pub(crate) no_color: bool,
    /// What it says about the Hugging Face hub.
    pub(crate) hub: HubEnvironment,
}

const CPU_VARIABLE: &str = "LUTHIER_CPU";
const CPU_NAMES: [&str; 4] = ["amx", "avx512", "avx2", "portable"];

impl Environment {
    fn read() -> anyhow::Result<Self> {
        let cpu = std::env::var(CPU_VARIABLE).ok().filter(|name| !name.is_empty());
        if let Some(name) = &cpu
            && !CPU_NAMES.contains(&name.as_str())
        {
            anyhow::bail!("{CPU_VARIABLE} is {name:?}; expected {}", settings::either(&CPU_NAMES));
        }
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(Self { cpu, no_color, hub: HubEnvironment::read(text, std::env::home_dir()) })
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub(crate) struct Problems(Vec<Problem>);

impl std::fmt::Display for Problems {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sentences: Vec<_> = self.0.iter().map(|problem| problem.0.as_str()).collect();
        out.write_str(&sentences.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// Makes an error of problems: each of its lines is printed as one.
pub(crate) fn fail(problems: Vec<Problem>) -> anyhow::Error {
    anyhow::Error::new(Problems(problems))
}

/// What is to be trained, and how: a file of settings, or none, and settings that win over it.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArguments {
    /// A file of settings (YAML, JSON or TOML), then settings that win over it: key=value, --key value or --key=value
    #[arg(value_name = "CONFIG or SETTING", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// When the process began, as near as it can tell.
pub(crate) fn started() -> Instant {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

fn main() -> ExitCode {
    started();
    let command = Arguments::command()
        .mut_subcommand("train", |train| train.after_long_help(reference::help_text()))
        .mut_subcommand("export", |export| export.after_long_help(export::HELP));
    let words = help_alone(std::env::args_os().collect());
    let arguments = match Arguments::from_arg_matches(&command.get_matches_from(words)) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprint_line(&format!("error: {line}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Settings are taken as they come, flags too, so that `--help` among them must be found first: the command with it alone.
fn help_alone(words: Vec<OsString>) -> Vec<OsString> {
    let is = |at: usize, names: &[&str]| words.get(at).is_some_and(|word| names.iter().any(|name| word == name));
    let command = match () {
        () if is(1, &["train", "plan", "bench", "lr-find"]) => 2,
        () if is(1, &["data"]) => 3,
        () => return words,
    };
    match words.iter().skip(command).find(|word| *word == "--help" || *word == "-h") {
        Some(help) => words[..command].iter().chain([help]).cloned().collect(),
        None => words,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let environment = Environment::read()?;
    match command {
        Command::Quickstart(arguments) => {
            if quickstart::run(&arguments, &environment)? == outcome::Outcome::Stopped {
                return Ok(ExitCode::from(signals::INTERRUPTED));
            }
        }
        Command::Train(arguments) => {
            if train::run(&arguments, &environment)? == outcome::Outcome::Stopped {
                return Ok(ExitCode::from(signals::INTERRUPTED));
            }
        }
        Command::Export(arguments) => {
            if export::run(&arguments, &environment)? == outcome::Outcome::Stopped {
                return Ok(ExitCode::from(signals::INTERRUPTED));
            }
        }
        Command::Expand(arguments) => {
            if expand::run(&arguments, &environment)? == outcome::Outcome::Stopped {
                return Ok(ExitCode::from(signals::INTERRUPTED));
            }
        }
        Command::Logits(arguments) => logits::run(&arguments, &environment)?,
        Command::Plan(arguments) => plan::run(&arguments, &environment)?,
        Command::Chat(arguments) => return chat::run(&arguments, &environment),
        Command::Generate(arguments) => generate::run(&arguments, &environment)?,
        Command::Bench(arguments) => bench::run(&arguments, &environment)?,
        Command::RangeTest(arguments) => range_test::run(&arguments, &environment)?,
        Command::Data(DataCommand::Preview(arguments)) => data_preview::run(&arguments, &environment)?,
        Command::Template(command) => template::run(&command)?,
        Command::Tokenizer(command) => tokenizer_command::run(&command)?,
        Command::Env => environment::run(&environment)?,
        Command::Version => print_text(&format!("luthier {}\n", environment::version())),
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man => shell::man()?,
        Command::Settings(arguments) => print_text(&reference::text(&arguments)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output; a reader that went away is no failure.
pub(crate) fn print_text(text: &str) {
    use std::io::Write;
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

/// Writes a line to standard error; a reader that went away is no failure.
pub(crate) fn eprint_line(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
