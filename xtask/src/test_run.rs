//! Building and running the tests. They are built once; those of the crates that compute then run once for each
//! instruction set that this machine has, named by `LUTHIER_CPU`, and the others once.
//!
//! A test that needs the real model is marked `#[ignore = "needs assets: cargo xtask assets"]` and finds the folder in
//! `LUTHIER_ASSETS`. Where the assets are there, ignored tests run too; elsewhere they are counted as skipped.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use luthier_tensor::Isa;
use serde_json::Value;

use crate::{cargo, output, root};

/// The packages whose tests compute, so that their numbers depend on the instruction set.
const COMPUTING: [&str; 4] = ["luthier-tensor", "luthier-model", "luthier-train", "xtask"];

/// How many tests had which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |name: &str| {
            counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok()).unwrap_or_default()
        };
        Some(Self { passed: count("passed"), failed: count("failed"), skipped: count("ignored") })
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// A program that cargo built from tests.
struct Executable {
    package: String,
    /// What cargo calls it, such as `src/lib.rs`.
    source: String,
    path: PathBuf,
    /// Where cargo would start it.
    folder: PathBuf,
}

/// Builds and runs everything; a line for each instruction set.
pub(crate) fn run_tests(assets: Option<&Path>) -> Result<Sum> {
    let executables = build()?;
    let (computing, others): (Vec<_>, Vec<_>) =
        executables.iter().partition(|executable| COMPUTING.contains(&executable.package.as_str()));
    let mut sum = Sum::default();
    let mut lines = Vec::new();
    for isa in Isa::available() {
        let start = Instant::now();
        let part = run_all(&computing, isa.name(), assets)?;
        lines.push(format!("LUTHIER_CPU={}: {part}, {:.1} s", isa.name(), start.elapsed().as_secs_f64()));
        sum.add(part);
    }
    let start = Instant::now();
    let mut part = run_all(&others, "", assets)?;
    part.add(watch("documentation", cargo().args(["test", "--locked", "--workspace", "--doc", "--quiet"]))?);
    lines.push(format!("other crates and documentation: {part}, {:.1} s", start.elapsed().as_secs_f64()));
    sum.add(part);
    for line in lines {
        println!("{line}");
    }
    Ok(sum)
}

fn build() -> Result<Vec<Executable>> {
    let start = Instant::now();
    let arguments = ["test", "--locked", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"];
    let messages = output(cargo().args(arguments))?;
    let mut executables = Vec::new();
    for line in messages.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).context("cargo printed no JSON")?;
        let (Some(path), Some(true), Some(manifest), Some(source)) = (
            message["executable"].as_str(),
            message["profile"]["test"].as_bool(),
            message["manifest_path"].as_str(),
            message["target"]["src_path"].as_str(),
        ) else {
            continue;
        };
        let folder = Path::new(manifest).parent().unwrap_or(Path::new(".")).to_path_buf();
        let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = Path::new(source).strip_prefix(root()).unwrap_or(Path::new(source)).display().to_string();
        executables.push(Executable { package, source, path: path.into(), folder });
    }
    executables.sort_by(|one, other| one.source.cmp(&other.source));
    println!("built {} test programs in {:.1} s", executables.len(), start.elapsed().as_secs_f64());
    Ok(executables)
}

fn run_all(executables: &[&Executable], cpu: &str, assets: Option<&Path>) -> Result<Sum> {
    let mut sum = Sum::default();
    for executable in executables {
        let mut command = Command::new(&executable.path);
        command.current_dir(&executable.folder).env("CARGO_MANIFEST_DIR", &executable.folder);
        command.env_remove("LUTHIER_CPU");
        if !cpu.is_empty() {
            command.env("LUTHIER_CPU", cpu);
        }
        if let Some(assets) = assets {
            command.arg("--include-ignored").env("LUTHIER_ASSETS", assets);
        }
        let name = if cpu.is_empty() { executable.source.clone() } else { format!("{} on {cpu}", executable.source) };
        sum.add(watch(&name, &mut command)?);
    }
    Ok(sum)
}

/// Runs a test program and passes its output on, without the lines of tests that passed.
fn watch(name: &str, command: &mut Command) -> Result<Sum> {
    println!("-- {name}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?} cannot be started"))?;
    let mut sum = Sum::default();
    let lines = child.stdout.take().context("a pipe was asked for")?;
    for line in BufReader::new(lines).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(part) = Sum::parse(&line) {
            sum.add(part);
        }
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        if !passed && !line.trim().is_empty() && !line.starts_with("running ") {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && sum.failed == 0 {
        println!("{name} ended with {status}: counted as one failed test");
        sum.failed += 1;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines() {
        let line = "test result: FAILED. 17 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Sum::parse(line), Some(Sum { passed: 17, failed: 2, skipped: 1 }));
        assert_eq!(Sum::parse("test a ... ok"), None);
        assert_eq!(Sum::parse(line).unwrap_or_default().to_string(), "17 passed, 2 failed, 1 skipped");
    }
}
