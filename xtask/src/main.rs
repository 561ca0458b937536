//! The chores of the project, `cargo xtask CHORE`. The gate that every change passes is `cargo xtask ci`; continuous
//! integration runs that and nothing else.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore says what it does")]

mod assets;
mod builtin;
mod ci;
mod fixtures;
mod licences;
mod llamafactory;
mod test_run;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
cargo xtask CHORE

  ci              everything that a change must pass: format, licences, clippy, docs, tests
  assets          fetch the real model and data that some tests use into assets/
  licences        check the licences and sources of all dependencies
  builtin STEP    make the built-in model from nothing: corpus, tokenizer, train, measure, or all
  settings        write docs/settings.md, docs/settings.schema.json, docs/differences.md from the table of settings
  llamafactory    check LLaMA-Factory's examples and write docs/llamafactory.md and the list of its keys
  fixtures DIR    compare with the reference over a folder of fixtures (DIR/NAME for one; --dtype f32|bf16)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["ci"] => ci::run(),
        ["assets"] => assets::fetch().map(|folder| println!("the assets are in {}", folder.display())),
        ["licences"] => licences::check(),
        ["builtin", arguments @ ..] => builtin::command(arguments),
        ["settings"] => write_settings(),
        ["llamafactory"] => llamafactory::run(),
        ["fixtures", arguments @ ..] => fixtures::command(arguments),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        [other, ..] => Err(anyhow::anyhow!("there is no chore {other:?} of these arguments\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that everything is relative to.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The cargo that runs this, in the project's folder.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command that shows its own output.
fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", output.status);
    }
    Ok(output.stdout)
}

fn write_settings() -> Result<()> {
    for (option, name) in
        [("--markdown", "settings.md"), ("--schema", "settings.schema.json"), ("--differences", "differences.md")]
    {
        let page = output(cargo().args(["run", "--quiet", "--package", "luthier", "--", "settings", option]))?;
        let path = root().join("docs").join(name);
        std::fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
