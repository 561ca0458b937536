//! What a person sees while it trains: a line for each entry of the log and each evaluation, and on a terminal a last
//! line that follows every step. It writes to standard error, so that standard output stays free for results.

use std::io::{self, IsTerminal, Write};

use luthier_train::{EvaluationEvent, Event, OverflowEvent, StepEvent};

use crate::journal::Entry;
use crate::progress::{LogLine, Window};
use crate::wording::duration;

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
    /// Goes through the past of a run that is continued, without showing it.
    pub(crate) fn replay(&mut self, entries: &[Entry]) {
        for entry in entries {
            match &entry.event {
                Event::Step(step) => drop(self.window.push(step, entry.elapsed_seconds)),
                Event::Evaluation(evaluation) => _ = self.window.evaluate(evaluation, entry.elapsed_seconds),
                Event::Overflow(_) | Event::Warning { .. } => {}
            }
        }
        self.window.begin_sitting();
    }

    /// Shows an event. What cannot be written is lost: a closed terminal must not end a training.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Step(step) => self.step(step, entry.elapsed_seconds),
            Event::Evaluation(evaluation) => {
                self.window.evaluate(evaluation, entry.elapsed_seconds);
                self.say(&show_evaluation(evaluation));
            }
            Event::Overflow(overflow) => self.say(&show_overflow(overflow)),
            Event::Warning { name, message } => self.say(&format!("warning: {name}: {message}")),
        }
    }

    /// Says one sentence, above the live line.
    pub(crate) fn say(&mut self, sentence: &str) {
        let clear = self.clear();
        let _ = writeln!(self.output, "{clear}{sentence}");
    }

    /// Shows on a terminal how far an evaluation is.
    pub(crate) fn evaluating(&mut self, done: usize, total: usize) {
        if self.live {
            let clear = self.clear();
            let _ = write!(self.output, "{clear}evaluating {done}/{total}");
            let _ = self.output.flush();
        }
    }

    fn step(&mut self, event: &StepEvent, elapsed_seconds: f64) {
        let (line, due) = self.window.push(event, elapsed_seconds);
        let clear = self.clear();
        if due {
            let _ = writeln!(self.output, "{clear}{}", show(&line));
        } else if self.live {
            // A line that is wider than the terminal is cut, since one that wraps could not be written over.
            let _ = write!(self.output, "{clear}\x1b[?7l{}\x1b[?7h", show(&line));
        }
        let _ = self.output.flush();
    }

    fn clear(&self) -> &'static str {
        if self.live { "\r\x1b[2K" } else { "" }
    }
}

fn show(line: &LogLine) -> String {
    let width = line.total_steps.to_string().len();
    format!(
        "step {:>width$}/{}  epoch {:.2}  loss {:.4}  smoothed {:.4}  rate {:.2e}  gradient {:.3}  {:.0} tokens/s  {:.2} GB  {} left",
        line.step,
        line.total_steps,
        line.epoch,
        line.loss,
        line.smoothed_loss,
        line.learning_rate,
        line.gradient_norm,
        line.tokens_per_second,
        line.peak_bytes as f64 / 1e9,
        duration(line.totals.remaining_seconds),
    )
}

fn show_overflow(event: &OverflowEvent) -> String {
    format!(
        "overflow: step {} changed nothing, since a gradient outgrew fp16; the scale of the loss falls from {} to {}",
        event.step, event.loss_scale, event.next_loss_scale
    )
}

fn show_evaluation(event: &EvaluationEvent) -> String {
    format!(
        "evaluation: loss {:.4}, perplexity {:.2}, accuracy {:.1} %{}",
        event.loss,
        event.perplexity(),
        event.accuracy * 100.0,
        if event.is_best { ", best so far" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{event, journal};

    fn check(live: bool, show: impl FnOnce(&mut Terminal<Vec<u8>>), expected: &str) {
        let mut terminal = Terminal { output: Vec::new(), live, window: Window::new(3, false) };
        show(&mut terminal);
        assert_eq!(String::from_utf8_lossy(&terminal.output), expected);
    }

    fn four_steps(terminal: &mut Terminal<Vec<u8>>) {
        (1..=4).for_each(|step| terminal.step(&event(step, 2.0), 2.0 * step as f64));
    }

    fn line(step: usize, epoch: &str, left: &str) -> String {
        format!(
            "step {step}/4  epoch {epoch}  loss 2.0000  smoothed 2.0000  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  \
             {left} left"
        )
    }

    #[test]
    fn lines_only_where_there_is_no_terminal() {
        check(false, four_steps, &format!("{}\n{}\n", line(3, "1.50", "0:00:02"), line(4, "2.00", "0:00:00")));
    }

    #[test]
    fn the_last_line_lives_on_a_terminal() {
        let (one, two) = (line(1, "0.50", "0:00:06"), line(2, "1.00", "0:00:04"));
        let (three, four) = (line(3, "1.50", "0:00:02"), line(4, "2.00", "0:00:00"));
        let (clear, cut, wrap) = ("\r\x1b[2K", "\x1b[?7l", "\x1b[?7h");
        let live = format!("{clear}{cut}{one}{wrap}{clear}{cut}{two}{wrap}");
        check(true, four_steps, &format!("{live}{clear}{three}\n{clear}{four}\n"));
    }

    #[test]
    fn evaluations_and_warnings_have_a_line() {
        let warning = Event::Warning { name: "nonfinite".into(), message: "step 3 was left out".to_owned() };
        let show = |terminal: &mut Terminal<Vec<u8>>| {
            terminal.entry(&journal()[2]);
            terminal.entry(&Entry { elapsed_seconds: 6.0, event: warning });
        };
        check(
            false,
            show,
            "evaluation: loss 1.2500, perplexity 3.49, accuracy 62.5 %, best so far\n\
             warning: nonfinite: step 3 was left out\n",
        );
    }

    #[test]
    fn a_replay_shows_nothing_and_the_next_line_goes_on() {
        let show = |terminal: &mut Terminal<Vec<u8>>| {
            terminal.replay(&journal()[..3]);
            terminal.entry(&journal()[3]);
        };
        // The mean of three steps, the speed of one.
        let expected = "step 3/4  epoch 1.50  loss 1.5000  smoothed 1.4785  rate 1.00e-4  gradient 1.500  500 tokens/s  1.50 GB  \
                        0:00:02 left\n";
        check(false, show, expected);
    }
}
