//! `cargo run --package luthier-fuzz -- TARGET --seconds N [--from NUMBER]`: runs inputs of a target until the time is over or
//! one fails; that one is made small and kept in `fuzz/crashes`. `-- TARGET --file PATH` runs one input.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore says what it does")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use luthier_fuzz::guard::{self, Counting, Limits};
use luthier_fuzz::{TARGETS, Target, mutate};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: Limits = Limits { seconds: 10.0, bytes: 512 << 20 };
/// How often a failing input is tried smaller.
const TRIES: usize = 400;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let number = |name: &str| after(name).and_then(|text| text.parse::<u64>().ok());
    let Some(target) = words.first().and_then(|name| TARGETS.iter().find(|target| target.name == name)) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("expected a target: {names}; then --seconds N, --from NUMBER or --file PATH");
        return ExitCode::FAILURE;
    };
    guard::watch(3, |text| eprintln!("{text}"));
    match after("--file") {
        Some(path) => match std::fs::read(path) {
            Ok(input) => end(guard::run(target.run, &input, LIMITS, None)),
            Err(error) => end(Err(format!("{path} cannot be read: {error}"))),
        },
        None => {
            let seconds = Duration::from_secs(number("--seconds").unwrap_or(60));
            fuzz(target, seconds, number("--from").unwrap_or(0))
        }
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

fn fuzz(target: &Target, time: Duration, from: u64) -> ExitCode {
    let crashes = Path::new(env!("CARGO_MANIFEST_DIR")).join("crashes");
    if let Err(error) = std::fs::create_dir_all(&crashes) {
        return end(Err(format!("{} cannot be made: {error}", crashes.display())));
    }
    let seeds = (target.seeds)();
    let (began, mut number, mut slowest) = (Instant::now(), from, (Duration::ZERO, 0));
    while began.elapsed() < time {
        let input = mutate::input(&seeds, number);
        let place = crashes.join(format!("{}-{number}", target.name));
        let start = Instant::now();
        if let Err(problem) = guard::run(target.run, &input, LIMITS, Some(place.clone())) {
            eprintln!("input {number}: {problem}");
            return keep(target, input, &place);
        }
        slowest = slowest.max((start.elapsed(), number));
        number += 1;
    }
    println!(
        "{}: {} inputs in {:.0} s without a failure; the slowest took {:.2} s (input {})",
        target.name,
        number - from,
        began.elapsed().as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1
    );
    ExitCode::SUCCESS
}

/// Makes a failing input smaller, each try in a process of its own, and writes it.
fn keep(target: &Target, input: Vec<u8>, place: &PathBuf) -> ExitCode {
    let fails = |candidate: &[u8]| {
        let (Ok(()), Ok(program)) = (std::fs::write(place, candidate), std::env::current_exe()) else { return false };
        let run = Command::new(program).args([target.name, "--file"]).arg(place).stderr(Stdio::null()).status();
        run.is_ok_and(|status| !status.success())
    };
    let small = mutate::minimise(input, TRIES, fails);
    match std::fs::write(place, &small) {
        Ok(()) => eprintln!("it is kept as {} ({} bytes)", place.display(), small.len()),
        Err(error) => eprintln!("{} cannot be written: {error}", place.display()),
    }
    ExitCode::FAILURE
}
