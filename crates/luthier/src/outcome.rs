//! What is left of a training when it has ended: the state that is saved, whether it is one, its results, and the record
//! of the run.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use luthier_train::{Event, Progress, Steps, adapter_warning};

use crate::config::{self, RunLength, TrainConfig, When};
use crate::journal::Entry;
use crate::manifest::{self, DataRecord, FileRecord, MachineRecord, Manifest};
use crate::results::Results;
use crate::run::Run;
use crate::save::for_each_piece;
use crate::sitting::{Sitting, logging_steps};
use crate::{builtin, checkpoint, eprint_line};

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

/// Writes what the training came to under transformers' names; `saved` is the step whose state is saved.
pub(crate) fn write_results(
    config: &TrainConfig,
    run: &Run,
    progress: &Progress,
    saved: usize,
    sitting: &Sitting,
) -> anyhow::Result<()> {
    let folder = &config.output.folder;
    let total = run.steps.total;
    let evaluation = config.evaluation.as_ref();
    let steps_of = |when: When| match when {
        When::Every(span) => Some(span.steps(total).max(1)),
        When::Never | When::EachEpoch => None,
    };
    let best = progress.best.map(|best| checkpoint_of(config, best.step));
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
        batch_rows: run.batch_rows,
        trained_rows: run.steps.rows_until(progress.step),
        metric: evaluation.map_or(config::Metric::Loss, |evaluation| evaluation.metric),
        best_checkpoint: best.as_deref().filter(|path| path.exists()),
        evaluation: evaluations.rev().find(|event| event.step == saved),
    };
    results.write(folder).context("the results cannot be written")
}

/// Puts the best evaluated state back where that is what is to be saved; returns the step whose state is in memory then.
pub(crate) fn take_best(
    config: &TrainConfig,
    run: &Run,
    progress: &Progress,
    sitting: &mut Sitting,
) -> anyhow::Result<usize> {
    let keeps_best = config.evaluation.as_ref().is_some_and(|evaluation| evaluation.keeps_best);
    let Some(best) = progress.best.filter(|best| keeps_best && best.step != progress.step) else {
        return Ok(progress.step);
    };
    if best.step == 0 {
        if progress.evaluated_step == Some(0) {
            return Ok(progress.step);
        }
        sitting.say(
            "warning: no evaluation was better than the one before the first step; the last state is saved: see the \
             losses, and try another learning_rate",
        );
        return Ok(progress.step);
    }
    let path = checkpoint_of(config, best.step);
    let found = match checkpoint::open(&path) {
        Ok(found) => found,
        Err(error) => {
            sitting.say(&format!(
                "warning: the best evaluation was after step {}, but its checkpoint cannot be loaded ({error:#}); the last \
                 state is saved",
                best.step
            ));
            return Ok(progress.step);
        }
    };
    found.restore(&run.device, run.decoder.parameters(), None)?;
    sitting.say(&format!(
        "note: the best evaluation was after step {} (loss {:.4}, accuracy {:.1} %): that state is saved",
        best.step,
        best.loss,
        100.0 * best.accuracy
    ));
    Ok(best.step)
}

/// The checkpoint of a step: in the output folder, or beside the one of another folder that the run went on from.
fn checkpoint_of(config: &TrainConfig, step: usize) -> PathBuf {
    let name = format!("checkpoint-{step}");
    let here = config.output.folder.join(&name);
    match &config.saving.resume {
        config::Resume::From(path) if !here.exists() => path.with_file_name(name),
        _ => here,
    }
}

/// A model with numbers that are none must not be saved as a result, and an adapter that changes nothing is said.
///
/// # Errors
/// The tensor that is broken.
pub(crate) fn check(run: &Run, sitting: &mut Sitting) -> anyhow::Result<()> {
    let mut update_norms = Vec::new();
    for parameter in run.decoder.parameters().iter() {
        let mut squares = 0.0;
        let Ok(()) = for_each_piece(&run.device, &parameter.value, &mut |numbers| {
            squares += numbers.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>();
            Ok::<_, std::convert::Infallible>(())
        });
        if !squares.is_finite() {
            bail!(
                "{} holds numbers that are not finite, so the model is broken and was not saved; lower learning_rate or \
                 look for broken records",
                parameter.name
            );
        }
        // B begins at zero: an update is there when it has moved, and modules that are trained whole are one anyway.
        if !parameter.name.contains(".lora_A.") {
            update_norms.push(squares.sqrt());
        }
    }
    let is_adapter = run.tuning.is_adapter();
    if let Some(Event::Warning { name, message }) = adapter_warning(&update_norms).filter(|_| is_adapter) {
        sitting.say(&format!("warning: {name}: {message}"));
    }
    Ok(())
}

/// The record of a run, `run.json`: written at its beginning and at its end.
pub(crate) struct Record<'r> {
    config: &'r TrainConfig,
    run: &'r Run,
    data: DataRecord,
    evaluation_data: Option<DataRecord>,
    model_files: Vec<FileRecord>,
    resumed_from: Option<String>,
    started: SystemTime,
    began: Instant,
}

impl<'r> Record<'r> {
    /// Hashes the data; `last` is the last entry of the sittings before.
    ///
    /// # Errors
    /// When a file of data or model has gone.
    pub(crate) fn begin(
        config: &'r TrainConfig,
        run: &'r Run,
        resumed_from: Option<String>,
        last: Option<&Entry>,
    ) -> anyhow::Result<Self> {
        let data = |files: &[PathBuf], [rows, tokens, trained_tokens]: [usize; 3]| -> anyhow::Result<DataRecord> {
            let files = files.iter().map(|path| FileRecord::hashed(path)).collect::<anyhow::Result<_>>()?;
            Ok(DataRecord { files, rows, tokens, trained_tokens })
        };
        let model = &config.model.model;
        let names = run.model.files.files.keys();
        let files: Vec<PathBuf> = match model.is_dir() {
            _ if builtin::is_named(model) => Vec::new(),
            true => names.map(|name| model.join(name)).collect(),
            false => vec![model.clone()],
        };
        let files = files.iter().filter(|path| path.is_file());
        let before = Duration::from_secs_f64(last.map_or(0.0, |entry| entry.elapsed_seconds));
        let now = SystemTime::now();
        Ok(Self {
            config,
            run,
            data: data(&run.facts.files, run.steps.totals())?,
            evaluation_data: match &config.evaluation {
                Some(_) => Some(data(&run.facts.evaluation_files, run.steps.evaluation_totals())?),
                None => None,
            },
            model_files: files.map(|path| FileRecord::of(path)).collect::<anyhow::Result<_>>()?,
            resumed_from,
            started: now.checked_sub(before).unwrap_or(now),
            began: Instant::now(),
        })
    }

    /// Seconds since this sitting began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Writes the record. A disk that is full must not end a run: then it is said, and the record is as it was.
    pub(crate) fn write(&self, outcome: manifest::Outcome) -> anyhow::Result<()> {
        let ended = (outcome != manifest::Outcome::Running).then(SystemTime::now);
        let record = Manifest {
            settings: &self.config.given,
            command_line: std::env::args().collect(),
            data: self.data.clone(),
            evaluation_data: self.evaluation_data.clone(),
            model: self.config.model.name.clone(),
            model_files: self.model_files.clone(),
            machine: MachineRecord::of(self.run.isa.name(), self.run.facts.threads),
            started: self.started,
            ended,
            resumed_from: self.resumed_from.clone(),
            outcome,
        };
        match record.write(&self.config.output.folder) {
            Err(error) if error.is_full_disk() => {
                eprint_line(&format!("warning: disk_full: {} is not written: {error}", manifest::FILE_NAME));
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

/// Whether the record of a folder says that its run has not come to its end.
pub(crate) fn is_unfinished(folder: &Path) -> bool {
    let record = std::fs::read(folder.join(manifest::FILE_NAME)).ok();
    let record = record.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    record.is_some_and(|record| record["outcome"] != "finished")
}
