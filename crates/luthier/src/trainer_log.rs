//! `trainer_log.jsonl`: one object a line with the fields that LLaMA-Factory writes, so that what reads its logs reads
//! ours. Times are texts as Python prints them; `throughput` is tokens a second since the start.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use luthier_train::{Event, StepEvent};
use serde_json::json;

use crate::journal::Entry;
use crate::progress::{LogLine, Window, duration};

/// Name of the file in the output folder.
pub(crate) const FILE_NAME: &str = "trainer_log.jsonl";

/// The log file's reader of the events.
pub(crate) struct TrainerLog {
    file: File,
    window: Window,
}

impl TrainerLog {
    /// Begins the file in an output folder that exists; what was there is gone.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(folder: &Path, every: usize, first_too: bool) -> io::Result<Self> {
        Ok(Self { file: File::create(folder.join(FILE_NAME))?, window: Window::new(every, first_too) })
    }

    /// Begins the file with what happened before.
    pub(crate) fn resume(folder: &Path, every: usize, first_too: bool, entries: &[Entry]) -> io::Result<Self> {
        let mut log = Self::create(folder, every, first_too)?;
        entries.iter().try_for_each(|entry| log.entry(entry))?;
        Ok(log)
    }

    /// Takes an event.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match &entry.event {
            Event::Step(step) => self.step(step, entry.elapsed_seconds),
            _ => Ok(()),
        }
    }

    /// Takes a step and the seconds that the run has lasted, and writes a line when one is due. Each line is in the file when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn step(&mut self, event: &StepEvent, elapsed_seconds: f64) -> io::Result<()> {
        match self.window.push(event, elapsed_seconds) {
            (line, true) => self.file.write_all(format!("{}\n", entry(&line)).as_bytes()),
            (_, false) => Ok(()),
        }
    }
}

fn entry(line: &LogLine) -> serde_json::Value {
    let hundredths = |number: f64| (number * 100.0).round() / 100.0;
    json!({
        "current_steps": line.step,
        "total_steps": line.total_steps,
        "loss": line.loss,
        "lr": line.learning_rate,
        "epoch": line.epoch,
        "percentage": hundredths(line.step as f64 / line.total_steps.max(1) as f64 * 100.0),
        "elapsed_time": duration(line.elapsed_seconds),
        "remaining_time": duration(line.remaining_seconds),
        "throughput": hundredths(line.total_tokens as f64 / line.elapsed_seconds.max(1e-9)),
        "total_tokens": line.total_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use crate::progress::tests::event;

    #[test]
    fn lines_are_those_of_llama_factory() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = TrainerLog::create(folder.path(), 2, false).expect("a file");
        for step in 1..=4 {
            log.step(&event(step, 0.5 * step as f64), 2.0 * step as f64).expect("written");
        }
        let expected = "\
            {\"current_steps\":2,\"total_steps\":4,\"loss\":0.75,\"lr\":0.0001,\"epoch\":1.0,\"percentage\":50.0,\
            \"elapsed_time\":\"0:00:04\",\"remaining_time\":\"0:00:04\",\"throughput\":500.0,\"total_tokens\":2000}\n\
            {\"current_steps\":4,\"total_steps\":4,\"loss\":1.75,\"lr\":0.0001,\"epoch\":2.0,\"percentage\":100.0,\
            \"elapsed_time\":\"0:00:08\",\"remaining_time\":\"0:00:00\",\"throughput\":500.0,\"total_tokens\":4000}\n";
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("a log"), expected);
    }
}
