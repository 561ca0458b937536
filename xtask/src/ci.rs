//! `cargo xtask ci`: the one gate, cheapest check first. It stops at the first stage that fails; the tests run to their
//! end, and the last line is their sum.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::test_run::{Sum, run_tests};
use crate::{assets, cargo, execute, licences};

pub(crate) fn run_stage(name: &str, stage: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let result = stage();
    let end = if result.is_ok() { "ok" } else { "FAILED" };
    println!("== {name}: {end}, {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Runs every stage.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let assets = assets::fetch();
    if let Err(error) = &assets {
        println!("\n!!! The real model and data could not be fetched: {error:#}");
        println!("!!! The tests that need them are SKIPPED and counted as skipped. Try `cargo xtask assets`.\n");
    }
    run_stage("format", || {
        need_component("fmt", "rustfmt")?;
        execute(cargo().args(["fmt", "--all", "--check"]))
    })?;
    run_stage("licences", licences::check)?;
    run_stage("clippy", || {
        need_component("clippy", "clippy")?;
        let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        execute(cargo().args(arguments))
    })?;
    run_stage("docs", || {
        let arguments = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
        execute(cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    let mut sum = Sum::default();
    let tests = run_stage("tests", || {
        sum = run_tests(assets.as_deref().ok())?;
        if sum.failed > 0 {
            bail!("tests failed");
        }
        Ok(())
    });
    println!("== all: {:.1} s", start.elapsed().as_secs_f64());
    println!("{sum}");
    tests
}

/// Makes sure that `cargo NAME` is there, and asks rustup for it where it is not.
fn need_component(subcommand: &str, component: &str) -> Result<()> {
    let is_there = || cargo().args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success());
    if !is_there() {
        execute(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}
