//! The command line of Luthier: arguments become a checked configuration, and that becomes calls into the engine.
//!
//! This is the only crate that prints and the only one that reads the environment. Results go to standard output,
//! progress and messages to standard error. A failure is one line that says what, where and what was expected; the exit
//! code is then 1, and 2 for arguments that cannot be understood.

mod bench;
mod builtin;
mod config;
mod generate;
mod journal;
mod machine;
mod model;
mod progress;
mod quickstart;
mod reference;
mod rows;
mod run;
mod save;
mod settings;
mod terminal;
mod train;
mod trainer_log;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use settings::Problem;

/// Fine-tunes large language models on the machine that you have.
#[derive(Debug, Parser)]
#[command(name = "luthier", version, max_term_width = 120)]
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
    /// Let a model, with or without an adapter, go on with a text
    Generate(generate::Arguments),
    /// Measure the training of a configuration: speed, share of the processor's peak, memory, time by operation
    Bench(bench::Arguments),
    /// Print the reference page of all settings
    #[command(hide = true)]
    Settings,
}

/// What the environment says about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Environment {
    /// `LUTHIER_CPU`: the instruction set to use instead of the best one.
    pub(crate) cpu: Option<String>,
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
        Ok(Self { cpu })
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

/// A configuration file and what is to be different from it.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigArguments {
    /// Settings, one `key: value` a line
    #[arg(value_name = "CONFIG.yaml")]
    pub(crate) config: PathBuf,
    /// Settings that win over the file
    #[arg(value_name = "key=value")]
    pub(crate) overrides: Vec<String>,
}

/// When the process began, as near as it can tell.
pub(crate) fn started() -> Instant {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

fn main() -> ExitCode {
    started();
    let command = Arguments::command().mut_subcommand("train", |train| train.after_long_help(reference::help_text()));
    let arguments = match Arguments::from_arg_matches(&command.get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprint_line(&format!("error: {line}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let environment = Environment::read()?;
    match command {
        Command::Quickstart(arguments) => quickstart::run(&arguments, &environment),
        Command::Train(arguments) => train::run(&arguments, &environment),
        Command::Generate(arguments) => generate::run(&arguments, &environment),
        Command::Bench(arguments) => bench::run(&arguments, &environment),
        Command::Settings => {
            print_text(&reference::page());
            Ok(())
        }
    }
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
