//! `luthier train`: a configuration in, a tuned model out. A run can be left at any moment, by a key, a signal or a power
//! cut, and goes on from its newest checkpoint as if it had not been.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use luthier_train::{End, Trainer};

use crate::checkpoint::{self, Found};
use crate::config::{Resume, TrainConfig};
use crate::machine::ProcessMemory;
use crate::outcome::{self, Outcome, Record};
use crate::preflight::{self, Plan};
use crate::run::Run;
use crate::save::save;
use crate::sitting::Sitting;
use crate::wording::{count, duration};
use crate::{ConfigArguments, Environment, datasets, eprint_line, fail, manifest, signals, tensorboard};

/// What follows `luthier train`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier train [CONFIG] [key=value | --key value | --key=value]...")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let config = TrainConfig::from_words(&arguments.config.words).map_err(fail)?;
    train(config, environment, &resume_command())
}

/// Trains as a configuration says; `resume` is the command that goes on with it.
pub(crate) fn train(mut config: TrainConfig, environment: &Environment, resume: &str) -> anyhow::Result<Outcome> {
    let folder = &config.output.folder.clone();
    // Before its checkpoints are looked at: another run may be about to write one.
    let mut held = if folder.is_dir() && !config.dry_run { lock(folder)? } else { None };
    let found = find_checkpoint(&config)?;
    // A checkpoint of another folder begins a run in this one.
    let is_newest = config.saving.resume == Resume::Newest;
    let is_here = found.as_ref().is_some_and(|found| is_newest || lies_in(&found.path, folder));
    config.find_files(is_here, &environment.hub)?;
    let config = &config;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let run = Run::prepare(config, environment, None, found.as_ref().map(|found| &found.state.layout))?;
    let first = found.as_ref().map_or(0, |found| found.state.progress.step);
    if first > run.steps.total {
        bail!(
            "resume_from_checkpoint: {first} steps are done, and the run is to have {}; expected more (max_steps, \
             num_train_epochs)",
            run.steps.total
        );
    }
    let plan = Plan::of(config, &run, first);
    preflight::page(config, &run, &plan).iter().for_each(|line| eprint_line(line));
    if config.dry_run {
        return Ok(Outcome::Shown);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("output_dir: {} cannot be made", folder.display()))?;
    if held.is_none() {
        held = lock(folder)?;
    }
    for name in luthier_files::remove_unfinished(folder)? {
        eprint_line(&format!("note: removed {name}, which a run that was killed had not finished"));
    }
    let quarantine = config.data.quarantine.clone().unwrap_or_else(|| folder.join(datasets::QUARANTINE_FILE));
    datasets::quarantine(&quarantine, &run.facts.broken)?.iter().for_each(|note| eprint_line(&format!("note: {note}")));
    let mut trainer = Trainer::new(&run.device, &run.decoder, run.trainer.clone());
    let newest = found.as_ref().map(|found| found.path.clone());
    let mut journal = Vec::new();
    if let Some(found) = found {
        trainer.resume(found.state.progress.clone());
        found.restore(&run.device, run.decoder.parameters(), Some(trainer.optimiser()))?;
        eprint_line(&format!("note: going on from {} after step {first} of {}", found.path.display(), run.steps.total));
        journal = found.journal;
    }
    let mut older = Vec::new();
    if is_here {
        checkpoint::remove_later(folder, first)?;
    } else {
        older = checkpoint::ours(folder);
        remove_older_events(config)?;
    }
    let resumed_from = newest.as_ref().map(|path| path.display().to_string());
    let record = Record::begin(config, &run, resumed_from, journal.last())?;
    record.write(manifest::Outcome::Running)?;
    signals::listen("stopping after this step, with a checkpoint; once more ends at once, without")?;
    let mut sitting = Sitting::begin(config, &run, &config.model.name, journal, newest, older)?;
    let outcome = drive(config, &run, &mut trainer, &mut sitting, resume);
    sitting.settle();
    record.write(match &outcome {
        Ok(Outcome::Stopped) => manifest::Outcome::Stopped("a stop was asked for".to_owned()),
        Ok(_) => manifest::Outcome::Finished,
        Err(error) => manifest::Outcome::Failed(format!("{error:#}")),
    })?;
    drop(held);
    let is_whole = first == 0 && trainer.progress().step == run.steps.total;
    if is_whole && matches!(outcome, Ok(Outcome::Saved)) {
        say_what_it_took(&plan, &run, record.seconds());
    }
    outcome
}

/// From the first step of this sitting to the saved result, or to wherever it ends.
fn drive(
    config: &TrainConfig,
    run: &Run,
    trainer: &mut Trainer,
    sitting: &mut Sitting,
    resume: &str,
) -> anyhow::Result<Outcome> {
    let folder = &config.output.folder;
    let end = trainer.run(&run.steps, sitting).map_err(|error| {
        let newest = sitting.newest.as_deref().map_or_else(
            || "there is no earlier checkpoint".to_owned(),
            |path| format!("{} is whole: go on from it with {resume}", path.display()),
        );
        anyhow::anyhow!("the checkpoint could not be written, and the run has ended: {error}; {newest}")
    })?;
    let progress = trainer.progress();
    match end {
        End::Stopped => {
            let (step, total) = (progress.step, run.steps.total);
            sitting.say(&match &sitting.newest {
                Some(path) => {
                    format!(
                        "stopped after step {step} of {total}; the state is kept in {}; to go on: {resume}",
                        path.display()
                    )
                }
                None => "stopped before the first step; nothing was trained yet".to_owned(),
            });
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
        End::OutOfMemory => {
            let newest = sitting.newest.as_deref().map_or_else(
                || "there is no checkpoint".to_owned(),
                |path| format!("go on from {} with {resume}", path.display()),
            );
            bail!(
                "memory ran out in step {}, and its parts cannot be smaller; close other programs, lower cutoff_len, or set \
                 gradient_checkpointing: on; {newest}",
                progress.step + 1
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
    let saved = outcome::take_best(config, run, progress, sitting)?;
    outcome::check(run, sitting)?;
    let names = sitting.patiently("the result", |_| save(run, &config.model.name, folder))?;
    sitting.remove_older(None);
    if let Err(error) = outcome::write_results(config, run, progress, saved, sitting) {
        sitting.say(&format!("warning: results: {error:#}"));
    }
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

/// Removes the event files of an older run of the output folder. A folder that several runs share is left alone.
fn remove_older_events(config: &TrainConfig) -> anyhow::Result<()> {
    match config.output.tensorboard.as_ref().filter(|folder| folder.starts_with(&config.output.folder)) {
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
    let above = checkpoint.parent().and_then(|above| above.canonicalize().ok());
    above.is_some() && above == folder.canonicalize().ok()
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

/// The command that goes on with this run, without secrets.
fn resume_command() -> String {
    const KEY: &str = "resume_from_checkpoint";
    let mut words = manifest::without_secrets(&std::env::args().collect::<Vec<_>>());
    if let Some(program) = words.first_mut() {
        "luthier".clone_into(program);
    }
    let mut kept: Vec<String> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default().replace('-', "_");
        if name != KEY {
            kept.push(word);
        } else if !word.contains('=') {
            // `--resume_from_checkpoint PATH`: the path goes too.
            words.next_if(|next| !next.starts_with("--") && !next.contains('='));
        }
    }
    kept.push(format!("{KEY}=true"));
    let quoted = kept.iter().map(|word| {
        let plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_=./,:+@%()".contains(letter));
        if plain && !word.is_empty() { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
