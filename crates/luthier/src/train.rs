//! `luthier train`: a configuration in, a tuned model out. A run can be left at any moment, by a key, a signal or a power
//! cut, and goes on from its newest checkpoint as if it had not been.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use luthier_train::{End, Trainer};

use crate::checkpoint::{self, Found};
use crate::config::{Resume, TrainConfig};
use crate::journal::Entry;
use crate::machine::ProcessMemory;
use crate::outcome::{self, Outcome, Record};
use crate::preflight::{self, Plan};
use crate::progress::duration;
use crate::run::Run;
use crate::save::save;
use crate::sitting::Sitting;
use crate::{ConfigArguments, Environment, eprint_line, fail, manifest, signals, tensorboard};

/// What follows `luthier train`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier train [CONFIG] [key=value | --key value | --key=value]...")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let mut config = TrainConfig::from_words(&arguments.config.words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    train(&config, environment)
}

/// Trains as a configuration says.
pub(crate) fn train(config: &TrainConfig, environment: &Environment) -> anyhow::Result<Outcome> {
    let folder = &config.output.folder;
    let found = find_checkpoint(config)?;
    // A checkpoint of another folder begins a run in this one.
    let is_here = found.as_ref().is_some_and(|found| lies_in(&found.path, folder));
    config.check_files(is_here).map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let run = Run::prepare(config, environment, None, found.as_ref().map(|found| &found.state.layout))?;
    let first = found.as_ref().map_or(0, |found| found.state.progress.step);
    let plan = Plan::of(config, &run, first);
    preflight::page(config, &run, &plan).iter().for_each(|line| eprint_line(line));
    if config.dry_run {
        return Ok(Outcome::Shown);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("output_dir: {} cannot be made", folder.display()))?;
    let _lock = lock(folder)?;
    for name in luthier_files::remove_unfinished(folder)? {
        eprint_line(&format!("note: removed {name}, which a run that was killed had not finished"));
    }
    let mut trainer = Trainer::new(&run.device, &run.decoder, run.trainer);
    let resumed_from = found.as_ref().map(|found| found.path.display().to_string());
    let mut journal = Vec::new();
    if let Some(found) = found {
        found.restore(&run.device, run.decoder.parameters(), Some(trainer.optimiser()))?;
        eprint_line(&format!("note: going on from {} after step {first} of {}", found.path.display(), run.steps.total));
        trainer.resume(found.state.progress);
        journal = found.journal;
    }
    if is_here {
        checkpoint::remove_later(folder, first)?;
    } else {
        remove_other_run(config)?;
    }
    let record = Record::begin(config, &run, resumed_from, journal.last())?;
    record.write(manifest::Outcome::Running)?;
    signals::listen("stopping after this step, with a checkpoint; once more ends at once, without")?;
    let outcome = drive(config, &run, &mut trainer, journal);
    record.write(match &outcome {
        Ok(Outcome::Stopped) => manifest::Outcome::Stopped("a stop was asked for".to_owned()),
        Ok(_) => manifest::Outcome::Finished,
        Err(error) => manifest::Outcome::Failed(format!("{error:#}")),
    })?;
    if first == 0 && matches!(outcome, Ok(Outcome::Saved)) {
        say_what_it_took(&plan, &run, record.seconds());
    }
    outcome
}

/// From the first step of this sitting to the saved result, or to wherever it ends.
fn drive(config: &TrainConfig, run: &Run, trainer: &mut Trainer, journal: Vec<Entry>) -> anyhow::Result<Outcome> {
    let folder = &config.output.folder;
    let base_model = config.model.name.clone();
    let mut sitting = Sitting::begin(config, run, &base_model, journal)?;
    let end = trainer.run(&run.steps, &mut sitting).map_err(|error| {
        let newest = sitting.newest.as_deref().map_or_else(
            || "there is no earlier checkpoint".to_owned(),
            |path| format!("{} is whole: go on from it with {}", path.display(), resume_command()),
        );
        anyhow::anyhow!("the checkpoint could not be written, and the run has ended: {error}; {newest}")
    })?;
    let progress = trainer.progress();
    match end {
        End::Stopped => {
            let path = folder.join(format!("checkpoint-{}", progress.step));
            let place = if path.exists() { format!(" in {}", path.display()) } else { String::new() };
            sitting.settle();
            sitting.say(&format!(
                "stopped after step {} of {}; the state is kept{place}; to go on: {}",
                progress.step,
                run.steps.total,
                resume_command()
            ));
            return Ok(Outcome::Stopped);
        }
        End::Nonfinite => {
            let newest = sitting.newest.as_deref().map_or_else(String::new, |path| {
                format!("; {} is from before: lower learning_rate and go on from it", path.display())
            });
            bail!(
                "the run has ended after step {}, since the loss or the gradient of {} in a row was not finite; nothing \
                 was saved{newest}",
                progress.step,
                count(progress.skipped_in_a_row, "step")
            );
        }
        End::EarlyStopped => sitting.say(&format!(
            "note: the run ends early: {} were no better than the best (early_stopping_steps)",
            count(progress.evaluations_without_better, "evaluation")
        )),
        End::Finished => {}
    }
    if progress.skipped_steps == progress.step {
        bail!(
            "no step of {} had a finite loss and gradient, so nothing was learned and nothing was saved; check the model \
             (its weights may hold NaN) and lower learning_rate",
            progress.step
        );
    }
    outcome::take_best(config, run, progress, &mut sitting)?;
    outcome::check(run, &mut sitting)?;
    let names = sitting.patiently("the result", |_| save(run, &base_model, folder))?;
    sitting.settle();
    outcome::write_results(config, run, progress, &sitting)?;
    let seconds = sitting.elapsed_seconds();
    sitting.say(&format!(
        "trained {} steps in {}: mean loss {:.4}, {:.0} tokens/s, {} steps left out",
        progress.step,
        duration(seconds),
        progress.mean_loss(),
        progress.tokens as f64 / seconds,
        progress.skipped_steps
    ));
    sitting.say(&format!("saved to {}: {}", folder.display(), names.join(", ")));
    Ok(Outcome::Saved)
}

/// What the plan promised, beside what happened.
fn say_what_it_took(plan: &Plan, run: &Run, seconds: f64) {
    eprint_line(&format!("time: {} in all, {} planned", duration(seconds), duration(plan.seconds)));
    if let (Some(memory), Some(predicted)) = (ProcessMemory::now(), run.predicted_bytes) {
        let [used, planned] = [memory.peak_bytes, predicted].map(|bytes| bytes as f64 / 1e9);
        eprint_line(&format!("memory: {used:.3} GB at the peak, {planned:.3} GB planned"));
    }
}

/// Removes what would mislead whoever reads the folder later: another run's checkpoints and event files.
fn remove_other_run(config: &TrainConfig) -> anyhow::Result<()> {
    let folder = &config.output.folder;
    let removed = checkpoint::remove_all(folder)?;
    if removed > 0 {
        eprint_line(&format!("note: removed {removed} checkpoints of another run from {}", folder.display()));
    }
    match &config.output.tensorboard {
        Some(folder) => tensorboard::remove_older(folder)
            .with_context(|| format!("older event files in {} cannot be removed", folder.display())),
        None => Ok(()),
    }
}

/// The checkpoint that the configuration asks for.
fn find_checkpoint(config: &TrainConfig) -> anyhow::Result<Option<Found>> {
    match &config.saving.resume {
        Resume::No => Ok(None),
        Resume::From(path) => checkpoint::open(path).map(Some),
        Resume::Newest => {
            let folder = &config.output.folder;
            let found = checkpoint::newest(folder)?;
            if found.is_none() {
                eprint_line(&format!("note: {} has no valid checkpoint; the run begins anew", folder.display()));
            }
            Ok(found)
        }
    }
}

/// Whether a checkpoint is one of the folder.
fn lies_in(checkpoint: &Path, folder: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    whole(checkpoint)
        .and_then(|path| path.parent().map(Path::to_path_buf))
        .is_some_and(|found| whole(folder) == Some(found))
}

/// Keeps a second run out of the folder. The lock goes with the process, however that ends.
fn lock(folder: &Path) -> anyhow::Result<Option<File>> {
    // Only Unix opens a folder as a file.
    if !cfg!(unix) {
        return Ok(None);
    }
    let file = File::open(folder).with_context(|| format!("output_dir: {} cannot be opened", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => bail!(
            "output_dir: another run is writing into {}; wait for its end or choose another folder",
            folder.display()
        ),
        // Some network file systems have no locks.
        Err(std::fs::TryLockError::Error(error)) => {
            eprint_line(&format!("note: {} cannot be locked ({error}); start no second run in it", folder.display()));
            Ok(None)
        }
    }
}

/// The command that goes on with this run.
fn resume_command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        "luthier".clone_into(program);
    }
    if !words.iter().any(|word| word.contains("resume_from_checkpoint")) {
        words.push("resume_from_checkpoint=true".to_owned());
    }
    let quoted = words.iter().map(|word| {
        let plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_=./,:+@%".contains(letter));
        if plain && !word.is_empty() { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `1 step`, `2 steps`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
