//! `luthier train`: a configuration in, a tuned model out. A run can be left at any moment, by a key, a signal or a power
//! cut, and goes on from its newest checkpoint as if it had not been.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};
use luthier_train::{End, Event, Progress, Steps, Trainer};

use crate::checkpoint::{self, Found};
use crate::config::{self, Resume, RunLength, TrainConfig, When};
use crate::machine::ProcessMemory;
use crate::preflight::{self, Plan};
use crate::progress::duration;
use crate::results::Results;
use crate::run::Run;
use crate::save::{for_each_piece, save};
use crate::sitting::{Sitting, logging_steps};
use crate::{ConfigArguments, Environment, eprint_line, fail, signals};

/// What follows `luthier train`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier train [CONFIG] [key=value | --key value | --key=value]...")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The model is saved.
    Saved,
    /// A stop was asked for; a checkpoint is saved.
    Stopped,
    /// Nothing was to be trained.
    Shown,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let config = TrainConfig::from_words(&arguments.config.words).map_err(fail)?;
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
    preflight::lines(config, &run).into_iter().chain(plan.lines(config, &run)).for_each(|line| eprint_line(&line));
    if config.dry_run {
        return Ok(Outcome::Shown);
    }
    std::fs::create_dir_all(folder).with_context(|| format!("output_dir: {} cannot be made", folder.display()))?;
    let _lock = lock(folder)?;
    for name in luthier_files::remove_unfinished(folder)? {
        eprint_line(&format!("note: removed {name}, which a run that was killed had not finished"));
    }
    let mut trainer = Trainer::new(&run.device, &run.decoder, run.trainer);
    let mut journal = Vec::new();
    if let Some(found) = found {
        found.restore(&run.device, run.decoder.parameters(), Some(trainer.optimiser()))?;
        if is_here {
            checkpoint::remove_later(folder, found.state.progress.step)?;
        }
        eprint_line(&format!(
            "note: going on from {} after step {} of {}",
            found.path.display(),
            found.state.progress.step,
            run.steps.total
        ));
        trainer.resume(found.state.progress);
        journal = found.journal;
    }
    if !is_here {
        let removed = checkpoint::remove_all(folder)?;
        if removed > 0 {
            eprint_line(&format!("note: removed {removed} checkpoints of another run from {}", folder.display()));
        }
    }
    let base_model = config.model.model.display().to_string();
    let mut sitting = Sitting::begin(config, &run, &base_model, journal)
        .with_context(|| format!("output_dir: the log in {} cannot be written", folder.display()))?;
    signals::listen("stopping after this step, with a checkpoint; once more ends at once, without")?;
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
            sitting.say(&format!(
                "stopped after step {} of {}; the state is kept{place}; to go on: {}",
                progress.step,
                run.steps.total,
                resume_command()
            ));
            sitting.settle();
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
    take_best(config, &run, progress, &mut sitting)?;
    check_finite(&run)?;
    let names = sitting.patiently("the result", |_| save(&run, &base_model, folder))?;
    sitting.settle();
    write_results(config, &run, progress, &sitting)?;
    let seconds = sitting.elapsed_seconds();
    eprint_line(&format!(
        "trained {} steps in {}: mean loss {:.4}, {:.0} tokens/s, {} steps left out",
        progress.step,
        duration(seconds),
        progress.mean_loss(),
        progress.tokens as f64 / seconds,
        progress.skipped_steps
    ));
    if first == 0 {
        let planned = duration(plan.seconds);
        eprint_line(&format!("time: {} in all, {planned} planned", duration(seconds)));
    }
    if let (Some(memory), Some(predicted)) = (ProcessMemory::now(), run.predicted_bytes) {
        eprint_line(&format!(
            "memory: {:.3} GB at the peak, {:.3} GB planned",
            memory.peak_bytes as f64 / 1e9,
            predicted as f64 / 1e9
        ));
    }
    eprint_line(&format!("saved to {}: {}", folder.display(), names.join(", ")));
    Ok(Outcome::Saved)
}

/// Writes what the training came to under transformers' names.
fn write_results(config: &TrainConfig, run: &Run, progress: &Progress, sitting: &Sitting) -> anyhow::Result<()> {
    let folder = &config.output.folder;
    let total = run.steps.total;
    let evaluation = config.evaluation.as_ref();
    let steps_of = |when: When| match when {
        When::Every(span) => Some(span.steps(total).max(1)),
        When::Never | When::EachEpoch => None,
    };
    let keeps_best = evaluation.is_some_and(|evaluation| evaluation.keeps_best);
    let best = progress.best.map(|best| folder.join(format!("checkpoint-{}", best.step)));
    let saved = progress.best.filter(|best| keeps_best && best.step > 0).map_or(progress.step, |best| best.step);
    let evaluations = sitting.journal.iter().filter_map(|entry| match &entry.event {
        Event::Evaluation(event) => Some(*event),
        _ => None,
    });
    let results = Results {
        entries: &sitting.journal,
        logging_steps: logging_steps(config, run),
        log_first_step: config.output.log_first_step,
        evaluation_steps: evaluation.and_then(|evaluation| steps_of(evaluation.when)),
        saving_steps: steps_of(config.saving.when),
        epochs: match config.batch.length {
            RunLength::Epochs(epochs) => epochs,
            RunLength::Steps(steps) => steps as f64 / run.steps.per_epoch() as f64,
        },
        batch_rows: config.batch.rows,
        trained_rows: progress.step * run.steps.rows_per_step(),
        metric: evaluation.map_or(config::Metric::Loss, |evaluation| evaluation.metric),
        best_checkpoint: best.as_deref().filter(|path| path.exists()),
        evaluation: evaluations.filter(|event| event.step == saved).last(),
    };
    results.write(folder).context("the results cannot be written")
}

/// Puts the best evaluated state back where that is what is to be saved.
fn take_best(config: &TrainConfig, run: &Run, progress: &Progress, sitting: &mut Sitting) -> anyhow::Result<()> {
    let keeps_best = config.evaluation.as_ref().is_some_and(|evaluation| evaluation.keeps_best);
    let Some(best) = progress.best.filter(|best| keeps_best && best.step != progress.step) else { return Ok(()) };
    if best.step == 0 {
        sitting.say(
            "warning: no evaluation was better than the one before the first step; the last state is saved: see the \
             losses, and try another learning_rate",
        );
        return Ok(());
    }
    let path = config.output.folder.join(format!("checkpoint-{}", best.step));
    let found = match checkpoint::open(&path) {
        Ok(found) => found,
        Err(error) => {
            sitting.say(&format!(
                "warning: the best evaluation was after step {}, but its checkpoint cannot be loaded ({error:#}); the last \
                 state is saved",
                best.step
            ));
            return Ok(());
        }
    };
    found.restore(&run.device, run.decoder.parameters(), None)?;
    sitting.say(&format!(
        "note: the best evaluation was after step {} (loss {:.4}, accuracy {:.1} %): that state is saved",
        best.step,
        best.loss,
        100.0 * best.accuracy
    ));
    Ok(())
}

/// A model with numbers that are none must not be saved as a result.
fn check_finite(run: &Run) -> anyhow::Result<()> {
    let broken = |parameter: &&luthier_model::Parameter| {
        let check =
            &mut |numbers: &[f32]| if numbers.iter().all(|number| number.is_finite()) { Ok(()) } else { Err(()) };
        for_each_piece(&run.device, &parameter.value, check).is_err()
    };
    match run.decoder.parameters().iter().find(broken) {
        Some(parameter) => bail!(
            "{} holds numbers that are not finite, so the model is broken and was not saved; lower learning_rate or look \
             for broken records",
            parameter.name
        ),
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
