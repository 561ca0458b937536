//! What a person sees while it trains: a line for each entry of the log, and on a terminal a last line that follows
//! every step. It writes to standard error, so that standard output stays free for results.

use std::io::{self, IsTerminal, Write};

use luthier_train::{Event, StepEvent};

use crate::journal::Entry;
use crate::progress::{LogLine, Window, duration};

/// The terminal's reader of the events.
pub(crate) struct Terminal<Output: Write = io::Stderr> {
    output: Output,
    /// Whether a line can be written over.
    live: bool,
    window: Window,
}

impl Terminal {
    /// Writes to standard error, a line after each `every` steps.
    pub(crate) fn new(every: usize, first_too: bool) -> Self {
        let output = io::stderr();
        let live = output.is_terminal();
        Self { output, live, window: Window::new(every, first_too) }
    }
}

impl<Output: Write> Terminal<Output> {
    /// Says one sentence, above the live line.
    pub(crate) fn say(&mut self, sentence: &str) {
        let clear = self.clear();
        let _ = writeln!(self.output, "{clear}{sentence}");
    }

    /// Shows a step, which ended so many seconds after the start. What cannot be written is lost: a closed terminal must not end a training.
    pub(crate) fn step(&mut self, event: &StepEvent, elapsed_seconds: f64) {
        let (line, due) = self.window.push(event, elapsed_seconds);
        let clear = self.clear();
        if due {
            let _ = writeln!(self.output, "{clear}{}", show(&line));
        } else if self.live {
            let _ = write!(self.output, "{clear}{}", show(&line));
        }
        let _ = self.output.flush();
    }

    /// Shows an event.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Step(step) => self.step(step, entry.elapsed_seconds),
            Event::Evaluation(evaluation) => self.say(&format!("evaluation: loss {:.4}", evaluation.loss)),
            Event::Warning { name, message } => self.say(&format!("warning: {name}: {message}")),
        }
    }

    /// Takes what happened before.
    pub(crate) fn replay(&mut self, _entries: &[Entry]) {}

    /// Shows how far an evaluation is.
    pub(crate) fn evaluating(&mut self, _done: usize, _total: usize) {}

    fn clear(&self) -> &'static str {
        if self.live { "\r\x1b[2K" } else { "" }
    }
}

fn show(line: &LogLine) -> String {
    let width = line.total_steps.to_string().len();
    format!(
        "step {:>width$}/{}  epoch {:.2}  loss {:.4}  rate {:.2e}  gradient {:.3}  {:.0} tokens/s  {:.2} GB  {} left",
        line.step,
        line.total_steps,
        line.epoch,
        line.loss,
        line.learning_rate,
        line.gradient_norm,
        line.tokens_per_second,
        line.peak_bytes as f64 / 1e9,
        duration(line.remaining_seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use crate::progress::tests::event;

    fn check(live: bool, expected: &str) {
        let mut terminal = Terminal { output: Vec::new(), live, window: Window::new(3, false) };
        for step in 1..=4 {
            terminal.step(&event(step, 2.0), 2.0 * step as f64);
        }
        assert_eq!(String::from_utf8_lossy(&terminal.output), expected);
    }

    const THREE: &str =
        "step 3/4  epoch 1.50  loss 2.0000  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  0:00:02 left\n";
    const FOUR: &str =
        "step 4/4  epoch 2.00  loss 2.0000  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  0:00:00 left\n";

    #[test]
    fn lines_only_where_there_is_no_terminal() {
        check(false, &format!("{THREE}{FOUR}"));
    }

    #[test]
    fn the_last_line_lives_on_a_terminal() {
        let one =
            "step 1/4  epoch 0.50  loss 2.0000  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  0:00:06 left";
        let two =
            "step 2/4  epoch 1.00  loss 2.0000  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  0:00:04 left";
        let clear = "\r\x1b[2K";
        check(true, &format!("{clear}{one}{clear}{two}{clear}{THREE}{clear}{FOUR}"));
    }
}
