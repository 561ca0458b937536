//! `cargo run --package luthier-fuzz -- TARGET --seconds N [--from NUMBER]`: runs inputs of a target until the time is over or
//! one fails; that one is made small and kept in `fuzz/crashes`. `-- TARGET --file PATH` runs one input.
//!
//! The inputs run in a process of their own, which writes down the number of each before it begins, so that one that ends the
//! process (a full stack, no memory, no time) is found as well as one that panics.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore says what it does")]

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use luthier_fuzz::guard::{self, Counting, Limits};
use luthier_fuzz::{TARGETS, Target, mutate};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST_SECONDS: f64 = 10.0;
/// How often a failing input is tried smaller.
const TRIES: usize = 400;
/// For how long at the most.
const MINIMISING: Duration = Duration::from_secs(60);
/// Where such inputs are kept.
const CRASHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crashes");

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let number = |name: &str| after(name).and_then(|text| text.parse::<u64>().ok());
    let Some(target) = words.first().and_then(|name| TARGETS.iter().find(|target| target.name == name)) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("expected a target: {names}; then --seconds N, --from NUMBER or --file PATH");
        return ExitCode::FAILURE;
    };
    let seconds = Duration::from_secs(number("--seconds").unwrap_or(60));
    let from = number("--from").unwrap_or(0);
    if after("--file").is_none() && !words.iter().any(|word| word == "--here") {
        return supervise(target, seconds, from);
    }
    let limits = Limits { seconds: MOST_SECONDS, bytes: target.most_bytes };
    guard::watch(3, |text| eprintln!("{text}"));
    match after("--file") {
        Some(path) => match std::fs::read(path) {
            Ok(input) => end(guard::run(target.run, &input, limits, None)),
            Err(error) => end(Err(format!("{path} cannot be read: {error}"))),
        },
        None => end(fuzz(target, limits, seconds, from)),
    }
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Where the number of the input is that runs.
fn running(target: &Target) -> PathBuf {
    Path::new(CRASHES).join(format!("{}.running", target.name))
}

/// Runs the inputs in another process, and keeps the one that ends it.
fn supervise(target: &Target, time: Duration, from: u64) -> ExitCode {
    if let Err(error) = std::fs::create_dir_all(CRASHES) {
        return end(Err(format!("{CRASHES} cannot be made: {error}")));
    }
    let (seconds, from) = (time.as_secs().to_string(), from.to_string());
    let run = std::env::current_exe().and_then(|program| {
        Command::new(program).args([target.name, "--here", "--seconds", &seconds, "--from", &from]).status()
    });
    match run {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            let written = std::fs::read(running(target)).unwrap_or_default();
            match written.try_into().map(u64::from_le_bytes) {
                Ok(number) => {
                    eprintln!("input {number} of {} ended the process ({status})", target.name);
                    keep(target, mutate::input(&(target.seeds)(), number), number)
                }
                Err(_) => end(Err(format!("no input was begun ({status})"))),
            }
        }
        Err(error) => end(Err(format!("the inputs cannot be run: {error}"))),
    }
}

fn fuzz(target: &Target, limits: Limits, time: Duration, from: u64) -> Result<(), String> {
    let place = running(target);
    let mut file =
        std::fs::File::create(&place).map_err(|error| format!("{} cannot be made: {error}", place.display()))?;
    let seeds = (target.seeds)();
    let (began, mut number, mut slowest) = (Instant::now(), from, (Duration::ZERO, 0));
    while began.elapsed() < time {
        file.rewind().and_then(|()| file.write_all(&number.to_le_bytes())).map_err(|error| error.to_string())?;
        let input = mutate::input(&seeds, number);
        let start = Instant::now();
        guard::run(target.run, &input, limits, None)?;
        slowest = slowest.max((start.elapsed(), number));
        number += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{}: {} inputs in {seconds:.0} s ({:.0} a second) without a failure; the slowest took {:.2} s (input {})",
        target.name,
        number - from,
        (number - from) as f64 / seconds,
        slowest.0.as_secs_f64(),
        slowest.1
    );
    Ok(())
}

/// Makes a failing input smaller, each try in a process of its own, and writes it.
fn keep(target: &Target, input: Vec<u8>, number: u64) -> ExitCode {
    let place = Path::new(CRASHES).join(format!("{}-{number}", target.name));
    let began = Instant::now();
    let fails = |candidate: &[u8]| {
        let (Ok(()), Ok(program)) = (std::fs::write(&place, candidate), std::env::current_exe()) else { return false };
        let run = Command::new(program).args([target.name, "--file"]).arg(&place).stderr(Stdio::null()).status();
        began.elapsed() < MINIMISING && run.is_ok_and(|status| !status.success())
    };
    let small = mutate::minimise(input, TRIES, fails);
    match std::fs::write(&place, &small) {
        Ok(()) => eprintln!("it is kept as {} ({} bytes)", place.display(), small.len()),
        Err(error) => eprintln!("{} cannot be written: {error}", place.display()),
    }
    ExitCode::FAILURE
}
