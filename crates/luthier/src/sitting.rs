//! One sitting of a run: what happens goes to its readers and into the journal, and the state to checkpoints. A disk that
//! is full makes it wait, for the training is worth more than the time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use luthier_train::{Control, Event, Listener, Optimiser, Progress};

use crate::checkpoint::Checkpoints;
use crate::config::TrainConfig;
use crate::journal::Entry;
use crate::run::Run;
use crate::save::Failure;
use crate::signals;
use crate::terminal::Terminal;
use crate::trainer_log::TrainerLog;

/// How long to wait until a full disk is tried again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What listens to a run.
pub(crate) struct Sitting<'r> {
    run: &'r Run,
    checkpoints: Checkpoints<'r>,
    terminal: Terminal,
    /// `None` while it cannot be written.
    log: Option<TrainerLog>,
    every: usize,
    log_first_step: bool,
    pub(crate) journal: Vec<Entry>,
    /// The newest checkpoint.
    pub(crate) newest: Option<PathBuf>,
    began: Instant,
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
    ) -> anyhow::Result<Self> {
        let output = &config.output;
        let every = output.logging.steps(run.steps.total);
        let mut terminal = Terminal::new(every, output.log_first_step);
        terminal.replay(&journal);
        let log = TrainerLog::resume(&output.folder, every, output.log_first_step, &journal)?;
        let checkpoints = Checkpoints { folder: &output.folder, limit: config.saving.limit, base_model };
        let before = journal.last().map_or(0.0, |entry| entry.elapsed_seconds);
        Ok(Self {
            run,
            checkpoints,
            terminal,
            log: Some(log),
            every,
            log_first_step: output.log_first_step,
            journal,
            newest: None,
            began: Instant::now(),
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
                Err(error) if error.is_full_disk() && !signals::is_asked() => {
                    if !said {
                        self.say(&format!(
                            "warning: disk_full: {what} cannot be written: {error}; the run waits: make room, and it goes \
                             on by itself (Ctrl-C ends it; earlier checkpoints are whole)"
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

    /// Writes the log anew from the journal where it could not be written before.
    pub(crate) fn mend_log(&mut self) {
        if self.log.is_none() {
            let folder = self.checkpoints.folder;
            self.log = TrainerLog::resume(folder, self.every, self.log_first_step, &self.journal).ok();
        }
    }

    fn control(&self) -> Control {
        if signals::is_asked() { Control::Stop } else { Control::Continue }
    }
}

impl Listener for Sitting<'_> {
    type Error = Failure;

    fn event(&mut self, event: &Event) -> Control {
        let entry = Entry { elapsed_seconds: self.elapsed_seconds(), event: event.clone() };
        self.terminal.entry(&entry);
        // A full disk must not cost the training: the run goes on, and the log is written anew once it can be.
        if let Some(Err(error)) = self.log.as_mut().map(|log| log.entry(&entry)) {
            self.say(&format!("warning: log: trainer_log.jsonl cannot be written now: {error}"));
            self.log = None;
        }
        self.journal.push(entry);
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
        self.mend_log();
        Ok(())
    }
}
