//! `trainer_log.jsonl`: one object a line with the fields that LLaMA-Factory writes, so that what reads its logs reads
//! ours; an evaluation's accuracy and perplexity, and the overflows of fp16, are added. Times are texts as Python prints
//! them; `throughput` is tokens a second. What is not a finite number is left out, since JSON has none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use luthier_train::{EvaluationEvent, Event, OverflowEvent};
use serde_json::{Value, json};

use crate::journal::Entry;
use crate::progress::{LogLine, Totals, Window};
use crate::wording::duration;

/// Name of the file in the output folder.
pub(crate) const FILE_NAME: &str = "trainer_log.jsonl";

/// The log file's reader of the events.
pub(crate) struct TrainerLog {
    file: File,
    window: Window,
}

impl TrainerLog {
    /// Begins the file in an output folder that exists, with the lines of the past of a run that is continued; any others
    /// that were there are gone.
    ///
    /// # Errors
    /// When the file cannot be written; then the older one is still there.
    pub(crate) fn resume(folder: &Path, every: usize, first_too: bool, entries: &[Entry]) -> io::Result<Self> {
        let mut window = Window::new(every, first_too);
        let lines: String = entries.iter().filter_map(|entry| line(&mut window, entry)).collect();
        window.begin_sitting();
        let path = folder.join(FILE_NAME);
        luthier_files::write_atomically(&path, |writer| writer.write_all(lines.as_bytes()))
            .map_err(io::Error::other)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, window })
    }

    /// Takes an event, and writes a line when one is due. Each line is in the file when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match line(&mut self.window, entry) {
            Some(line) => self.file.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }
}

/// The line of an event, if it has one.
fn line(window: &mut Window, entry: &Entry) -> Option<String> {
    let mut object = match &entry.event {
        Event::Step(step) => {
            let (line, due) = window.push(step, entry.elapsed_seconds);
            due.then(|| of_steps(&line))?
        }
        Event::Evaluation(evaluation) => {
            let totals = window.evaluate(evaluation, entry.elapsed_seconds);
            of_evaluation(evaluation, &totals)
        }
        Event::Overflow(overflow) => of_overflow(overflow),
        Event::Warning { .. } => return None,
    };
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| !value.is_null());
    }
    Some(format!("{object}\n"))
}

fn of_overflow(event: &OverflowEvent) -> Value {
    json!({
        "current_steps": event.step,
        "total_steps": event.total_steps,
        "overflows": event.overflows,
        "loss_scale": event.loss_scale,
        "next_loss_scale": event.next_loss_scale,
        "percentage": percentage(event.step, event.total_steps),
    })
}

fn of_steps(line: &LogLine) -> Value {
    json!({
        "current_steps": line.step,
        "total_steps": line.total_steps,
        "loss": line.loss,
        "lr": line.learning_rate,
        "epoch": line.epoch,
        "percentage": percentage(line.step, line.total_steps),
        "elapsed_time": duration(line.totals.elapsed_seconds),
        "remaining_time": duration(line.totals.remaining_seconds),
        "throughput": hundredths(line.totals.tokens_per_second),
        "total_tokens": line.totals.tokens,
    })
}

fn of_evaluation(event: &EvaluationEvent, totals: &Totals) -> Value {
    json!({
        "current_steps": event.step,
        "total_steps": event.total_steps,
        "eval_loss": event.loss,
        "eval_accuracy": event.accuracy,
        "eval_perplexity": event.perplexity(),
        "epoch": event.epoch,
        "percentage": percentage(event.step, event.total_steps),
        "elapsed_time": duration(totals.elapsed_seconds),
        "remaining_time": duration(totals.remaining_seconds),
        "throughput": hundredths(totals.tokens_per_second),
        "total_tokens": totals.tokens,
    })
}

fn percentage(step: usize, total_steps: usize) -> f64 {
    hundredths(step as f64 / total_steps.max(1) as f64 * 100.0)
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{event, journal};

    const TWO: &str = "{\"current_steps\":2,\"total_steps\":4,\"loss\":1.5,\"lr\":0.0001,\"epoch\":1.0,\"percentage\":50.0,\
        \"elapsed_time\":\"0:00:04\",\"remaining_time\":\"0:00:04\",\"throughput\":500.0,\"total_tokens\":2000}\n";
    const EVALUATION: &str = "{\"current_steps\":2,\"total_steps\":4,\"eval_loss\":1.25,\"eval_accuracy\":0.625,\
        \"eval_perplexity\":3.4903429574618414,\"epoch\":1.0,\"percentage\":50.0,\"elapsed_time\":\"0:00:05\",\
        \"remaining_time\":\"0:00:05\",\"throughput\":400.0,\"total_tokens\":2000}\n";
    const FOUR: &str = "{\"current_steps\":4,\"total_steps\":4,\"loss\":1.0,\"lr\":0.0001,\"epoch\":2.0,\"percentage\":100.0,\
        \"elapsed_time\":\"0:00:09\",\"remaining_time\":\"0:00:00\",\"throughput\":444.44,\"total_tokens\":4000}\n";

    fn read(folder: &Path) -> String {
        std::fs::read_to_string(folder.join(FILE_NAME)).expect("a log")
    }

    #[test]
    fn lines_are_those_of_llama_factory() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = TrainerLog::resume(folder.path(), 2, false, &[]).expect("a file");
        journal().iter().for_each(|entry| log.entry(entry).expect("written"));
        assert_eq!(read(folder.path()), format!("{TWO}{EVALUATION}{FOUR}"));
    }

    #[test]
    fn a_loss_that_is_not_finite_is_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = TrainerLog::resume(folder.path(), 1, false, &[]).expect("a file");
        log.entry(&Entry { elapsed_seconds: 2.0, event: Event::Step(event(1, f64::NAN)) }).expect("written");
        let line: Value = serde_json::from_str(&read(folder.path())).expect("JSON");
        assert_eq!((line.get("loss"), &line["lr"]), (None, &json!(1e-4)));
    }

    #[test]
    fn resuming_cuts_back_and_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal();
        for kept in 0..=journal.len() {
            std::fs::write(folder.path().join(FILE_NAME), format!("{TWO}{EVALUATION}{FOUR}{{\"half a li"))
                .expect("written");
            let mut log = TrainerLog::resume(folder.path(), 2, false, &journal[..kept]).expect("a file");
            let before: String = [TWO, EVALUATION, FOUR]
                .into_iter()
                .zip([2, 3, 5])
                .filter(|(_, at)| *at <= kept)
                .map(|(line, _)| line)
                .collect();
            assert_eq!(read(folder.path()), before);
            journal[kept..].iter().for_each(|entry| log.entry(entry).expect("written"));
            let after: Vec<Value> =
                read(folder.path()).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert_eq!(after.len(), 3);
            assert_eq!(
                (&after[0]["loss"], &after[1]["eval_loss"], &after[2]["loss"]),
                (&json!(1.5), &json!(1.25), &json!(1.0))
            );
        }
    }
}
