//! One sitting of a run: what happens goes to its readers and into the journal, and the state to checkpoints. A disk that
//! is full makes it wait, for the training is worth more than the time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use luthier_train::{Control, Event, Listener, Monitor, Optimiser, Progress};

use crate::checkpoint::Checkpoints;
use crate::config::TrainConfig;
use crate::journal::Entry;
use crate::machine::ProcessMemory;
use crate::run::Run;
use crate::save::Failure;
use crate::tensorboard::TensorBoard;
use crate::terminal::Terminal;
use crate::trainer_log::TrainerLog;
use crate::{chart, manifest, signals, trainer_log};

/// How long to wait until a full disk is tried again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A chart is drawn with a checkpoint, but not more often than this, and at the end.
const BETWEEN_CHARTS: Duration = Duration::from_secs(20);

/// What listens to a run.
pub(crate) struct Sitting<'r> {
    run: &'r Run,
    checkpoints: Checkpoints<'r>,
    terminal: Terminal,
    files: Files<'r>,
    monitor: Monitor,
    /// The machine's.
    memory_bytes: Option<u64>,
    pub(crate) journal: Vec<Entry>,
    /// The newest checkpoint.
    pub(crate) newest: Option<PathBuf>,
    began: Instant,
    drawn: Instant,
    /// Seconds of earlier sittings.
    before: f64,
}

impl<'r> Sitting<'r> {
    /// Begins where `journal` ends.
    pub(crate) fn begin(
        config: &'r TrainConfig,
        run: &'r Run,
        base_model: &'r str,
        journal: Vec<Entry>,
        newest: Option<PathBuf>,
        older: Vec<usize>,
    ) -> anyhow::Result<Self> {
        let output = &config.output;
        let every = logging_steps(config, run);
        let mut terminal = Terminal::new(every, output.log_first_step);
        terminal.replay(&journal);
        let mut monitor = Monitor::default();
        for entry in &journal {
            // What it warned of then was shown then.
            drop(monitor.event(&entry.event));
        }
        let mut files = Files { config, every, log: None, tensorboard: None };
        files.begin(&journal)?;
        let checkpoints = Checkpoints { folder: &output.folder, limit: config.saving.limit, base_model, older };
        let before = journal.last().map_or(0.0, |entry| entry.elapsed_seconds);
        let now = Instant::now();
        Ok(Self {
            run,
            checkpoints,
            terminal,
            files,
            monitor,
            memory_bytes: manifest::memory_bytes(),
            journal,
            newest,
            began: now,
            drawn: now,
            before,
        })
    }

    /// Seconds of training, those of earlier sittings included.
    pub(crate) fn elapsed_seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// Says one sentence above the live line.
    pub(crate) fn say(&mut self, sentence: &str) {
        self.terminal.say(sentence);
    }

    /// Does `work` again and again while the disk is full, until a stop is asked for.
    pub(crate) fn patiently<T>(
        &mut self,
        what: &str,
        mut work: impl FnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut said = false;
        loop {
            match work(self) {
                Err(error) if error.is_full_disk() => {
                    if !said {
                        self.say(&format!(
                            "warning: disk_full: {what} cannot be written: {error}; the run waits: make room, and it goes \
                             on by itself (Ctrl-C twice ends it; earlier checkpoints are whole)"
                        ));
                    }
                    said = true;
                    std::thread::sleep(PATIENCE);
                }
                result => {
                    if said && result.is_ok() {
                        self.say(&format!("note: {what} is written, the run goes on"));
                    }
                    return result;
                }
            }
        }
    }

    /// Removes what an older run left, now that this one has written something.
    pub(crate) fn remove_older(&mut self, newest: Option<usize>) {
        let removed = self.checkpoints.remove_older(newest);
        if removed > 0 {
            let folder = self.checkpoints.folder.display();
            self.say(&format!("note: removed {removed} checkpoints of an older run from {folder}"));
        }
    }

    /// Draws the chart, and writes anew what could not be written before.
    pub(crate) fn settle(&mut self) {
        self.drawn = Instant::now();
        let chart = self.files.config.output.chart;
        if chart && let Err(error) = chart::draw(&self.journal, self.checkpoints.folder) {
            self.say(&format!("warning: chart: {error:#}"));
        }
        if let Err(error) = self.files.mend(&self.journal) {
            self.say(&format!("warning: log: {error:#}"));
        }
    }

    /// Gives an event to every reader and to the journal.
    fn take(&mut self, event: Event) {
        let entry = Entry { elapsed_seconds: self.elapsed_seconds(), event };
        self.terminal.entry(&entry);
        // A full disk must not cost the training: the run goes on, and the files are written anew once they can be.
        if let Err(error) = self.files.entry(&entry) {
            self.say(&format!("warning: log: {error:#}; it is written anew when there is room"));
        }
        self.journal.push(entry);
    }

    fn control(&self) -> Control {
        if signals::is_asked() { Control::Stop } else { Control::Continue }
    }
}

/// Steps between lines of the log.
pub(crate) fn logging_steps(config: &TrainConfig, run: &Run) -> usize {
    config.output.logging.steps(run.steps.total).max(1)
}

/// The files that follow the journal line by line.
struct Files<'r> {
    config: &'r TrainConfig,
    every: usize,
    /// `None` while it cannot be written.
    log: Option<TrainerLog>,
    /// `None` too where none is wanted.
    tensorboard: Option<TensorBoard>,
}

impl Files<'_> {
    /// Begins each file with what happened before.
    fn begin(&mut self, journal: &[Entry]) -> anyhow::Result<()> {
        let output = &self.config.output;
        let at = |path: &Path| format!("{} cannot be written", path.display());
        self.log = Some(
            TrainerLog::resume(&output.folder, self.every, output.log_first_step, journal)
                .with_context(|| at(&output.folder.join(trainer_log::FILE_NAME)))?,
        );
        if let Some(folder) = &output.tensorboard {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
            self.tensorboard = Some(
                TensorBoard::resume(folder, self.every, output.log_first_step, now, journal)
                    .with_context(|| at(folder))?,
            );
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.entry(entry)) {
            self.log = None;
            return Err(error).context("trainer_log.jsonl cannot be written");
        }
        if let Some(Err(error)) = self.tensorboard.as_mut().map(|board| board.entry(entry)) {
            self.tensorboard = None;
            return Err(error).context("TensorBoard's file cannot be written");
        }
        Ok(())
    }

    /// Writes anew what could not be written.
    fn mend(&mut self, journal: &[Entry]) -> anyhow::Result<()> {
        let is_broken = self.log.is_none() || self.tensorboard.is_none() && self.config.output.tensorboard.is_some();
        if is_broken { self.begin(journal) } else { Ok(()) }
    }
}

impl Listener for Sitting<'_> {
    type Error = Failure;

    fn event(&mut self, event: &Event) -> Control {
        let mut warnings = self.monitor.event(event);
        if let (Event::Step(step), Some(total)) = (event, self.memory_bytes)
            && step.step.is_multiple_of(self.files.every)
            && let Some(used) = ProcessMemory::now()
        {
            warnings.extend(self.monitor.memory(used.anonymous_bytes + used.file_bytes, total));
        }
        self.take(event.clone());
        warnings.into_iter().for_each(|warning| self.take(warning));
        self.control()
    }

    fn evaluating(&mut self, done: usize, total: usize) -> Control {
        self.terminal.evaluating(done, total);
        self.control()
    }

    fn save(&mut self, progress: &Progress, optimiser: &Optimiser) -> Result<(), Failure> {
        let what = format!("checkpoint-{}", progress.step);
        let path = self.patiently(&what, |sitting| {
            sitting.checkpoints.write(sitting.run, progress, optimiser, &sitting.journal)
        })?;
        self.say(&format!("checkpoint: {}", path.display()));
        self.newest = Some(path);
        self.remove_older(Some(progress.step));
        if self.drawn.elapsed() > BETWEEN_CHARTS {
            self.settle();
        }
        Ok(())
    }
}
