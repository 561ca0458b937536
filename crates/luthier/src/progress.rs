//! From events to the lines of a log: [`Window`] puts the steps since the last line together, as transformers does, and
//! its readers ([`crate::terminal`], [`crate::trainer_log`], [`crate::tensorboard`], [`crate::results`]) write what it
//! gives them. Neither the engine nor this reads a clock: whoever passes an event on says how long the run has lasted.
//!
//! A run that was interrupted replays its journal through the same window, so that means and counts are those of one
//! long run. Speed and time left are those of the present sitting, which [`Window::begin_sitting`] begins.

use luthier_train::{EvaluationEvent, StepEvent};

/// What one line of a log says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogLine {
    pub(crate) step: usize,
    pub(crate) total_steps: usize,
    pub(crate) epoch: f64,
    /// Mean over the steps since the last line; NaN when none of them had a finite loss.
    pub(crate) loss: f64,
    /// Exponential mean over all steps so far.
    pub(crate) smoothed_loss: f64,
    /// Of the last step, before clipping.
    pub(crate) gradient_norm: f64,
    /// Of the last step.
    pub(crate) learning_rate: f64,
    /// Real tokens a second of the steps since the last line, without what was evaluated between them.
    pub(crate) tokens_per_second: f64,
    pub(crate) totals: Totals,
    pub(crate) peak_bytes: usize,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Totals {
    /// Real tokens since the start.
    pub(crate) tokens: usize,
    /// Real tokens a second of this sitting.
    pub(crate) tokens_per_second: f64,
    pub(crate) elapsed_seconds: f64,
    /// By the speed of this sitting; 0 before its first step.
    pub(crate) remaining_seconds: f64,
}

/// The steps since the last line.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    every: usize,
    first_too: bool,
    losses: usize,
    loss: f64,
    smoothed: Smoothed,
    tokens: usize,
    /// Seconds that the steps since the last line took.
    seconds: f64,
    /// Seconds of the run when the last event was.
    now: f64,
    total_tokens: usize,
    sitting: Sitting,
}

/// What was done since the program began.
#[derive(Clone, Copy, Debug, Default)]
struct Sitting {
    began: f64,
    steps: usize,
    tokens: usize,
}

impl Window {
    /// A line after each `every` steps, counted from step 0, and after the first step if wished.
    pub(crate) fn new(every: usize, first_too: bool) -> Self {
        Self {
            every: every.max(1),
            first_too,
            losses: 0,
            loss: 0.0,
            smoothed: Smoothed::default(),
            tokens: 0,
            seconds: 0.0,
            now: 0.0,
            total_tokens: 0,
            sitting: Sitting::default(),
        }
    }

    /// What comes from here on was computed by this process: speed and time left are measured anew.
    pub(crate) fn begin_sitting(&mut self) {
        (self.tokens, self.seconds) = (0, 0.0);
        self.sitting = Sitting { began: self.now, ..Sitting::default() };
    }

    /// Takes a step and the seconds that the run has lasted; gives the line that it ends, and whether that line is due.
    /// The last step's always is.
    pub(crate) fn push(&mut self, event: &StepEvent, elapsed_seconds: f64) -> (LogLine, bool) {
        // A step that was left out has no loss to average.
        if event.loss.is_finite() {
            self.loss += event.loss;
            self.losses += 1;
        }
        self.smoothed.push(event.loss);
        self.tokens += event.tokens;
        self.seconds += elapsed_seconds - self.now;
        self.now = elapsed_seconds;
        self.total_tokens += event.tokens;
        self.sitting.steps += 1;
        self.sitting.tokens += event.tokens;
        let left = event.total_steps.saturating_sub(event.step);
        let line = LogLine {
            step: event.step,
            total_steps: event.total_steps,
            epoch: event.epoch,
            loss: if self.losses == 0 { f64::NAN } else { self.loss / self.losses as f64 },
            smoothed_loss: self.smoothed.mean(),
            gradient_norm: event.gradient_norm,
            learning_rate: event.learning_rate,
            tokens_per_second: self.tokens as f64 / self.seconds.max(1e-9),
            totals: self.totals(left),
            peak_bytes: event.peak_bytes,
        };
        let due = event.step.is_multiple_of(self.every) || (self.first_too && event.step == 1) || left == 0;
        if due {
            (self.losses, self.loss, self.tokens, self.seconds) = (0, 0.0, 0, 0.0);
        }
        (line, due)
    }

    /// Takes an evaluation, which no step's speed is charged for, and the seconds that the run has lasted.
    pub(crate) fn evaluate(&mut self, event: &EvaluationEvent, elapsed_seconds: f64) -> Totals {
        self.now = elapsed_seconds;
        self.totals(event.total_steps.saturating_sub(event.step))
    }

    fn totals(&self, steps_left: usize) -> Totals {
        let seconds = self.now - self.sitting.began;
        Totals {
            tokens: self.total_tokens,
            tokens_per_second: self.sitting.tokens as f64 / seconds.max(1e-9),
            elapsed_seconds: self.now,
            remaining_seconds: match self.sitting.steps {
                0 => 0.0,
                steps => steps_left as f64 * seconds / steps as f64,
            },
        }
    }
}

/// An exponential mean that begins with the first number and grows steadier with the count.
#[derive(Clone, Copy, Debug, Default)]
struct Smoothed {
    count: usize,
    mean: f64,
}

impl Smoothed {
    fn push(&mut self, number: f64) {
        if number.is_finite() {
            let weight = if self.count == 0 { 0.0 } else { smoothing_weight(self.count) };
            self.mean = weight * self.mean + (1.0 - weight) * number;
            self.count += 1;
        }
    }

    fn mean(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.mean }
    }
}

/// The weight of the past that LLaMA-Factory smooths a curve of so many points with: 0 for none, towards 0.9 for many.
pub(crate) fn smoothing_weight(points: usize) -> f64 {
    1.8 * (1.0 / (1.0 + (-0.05 * points as f64).exp()) - 0.5)
}

#[cfg(test)]
pub(crate) mod tests {
    use luthier_train::Event;

    use super::*;
    use crate::journal::Entry;

    pub(crate) fn event(step: usize, loss: f64) -> StepEvent {
        StepEvent {
            step,
            total_steps: 4,
            epoch: step as f64 / 2.0,
            loss,
            gradient_norm: 1.5,
            learning_rate: 1e-4,
            tokens: 1000,
            trained_tokens: 600,
            weight: None,
            micro_steps: 1,
            peak_bytes: 1_500_000_000,
        }
    }

    pub(crate) fn evaluation(step: usize, loss: f64, accuracy: f64) -> EvaluationEvent {
        let epoch = step as f64 / 2.0;
        EvaluationEvent { step, total_steps: 4, epoch, loss, accuracy, scored_tokens: 300, is_best: true }
    }

    /// A run of four steps of two seconds, with an evaluation of one second after the second step.
    pub(crate) fn journal() -> Vec<Entry> {
        let step = |number, loss, elapsed_seconds| Entry { elapsed_seconds, event: Event::Step(event(number, loss)) };
        let evaluation = Event::Evaluation(evaluation(2, 1.25, 0.625));
        vec![
            step(1, 2.0, 2.0),
            step(2, 1.0, 4.0),
            Entry { elapsed_seconds: 5.0, event: evaluation },
            step(3, 1.5, 7.0),
            step(4, 0.5, 9.0),
        ]
    }

    #[test]
    fn a_line_is_the_mean_since_the_last() {
        let mut window = Window::new(2, false);
        assert!(!window.push(&event(1, 3.0), 2.0).1);
        let (line, due) = window.push(&event(2, 2.0), 4.0);
        assert!(due);
        assert_eq!((line.loss, line.tokens_per_second, line.totals.tokens), (2.5, 500.0, 2000));
        assert_eq!((line.totals.elapsed_seconds, line.totals.remaining_seconds), (4.0, 4.0));
        assert!(!window.push(&event(3, 9.0), 6.0).1);
        assert_eq!(window.push(&event(4, 1.0), 8.0).0.loss, 5.0);
    }

    #[test]
    fn the_last_step_always_and_the_first_on_request() {
        let due = |first_too| {
            let mut window = Window::new(500, first_too);
            (1..=4).map(|step| window.push(&event(step, 3.0), 1.0).1).collect::<Vec<_>>()
        };
        assert_eq!(due(false), [false, false, false, true]);
        assert_eq!(due(true), [true, false, false, true]);
    }

    #[test]
    fn a_step_without_a_loss_is_left_out_of_the_mean() {
        let mut window = Window::new(2, false);
        assert!(window.push(&event(1, f64::NAN), 1.0).0.loss.is_nan());
        let (line, _) = window.push(&event(2, 2.0), 2.0);
        assert_eq!((line.loss, line.smoothed_loss), (2.0, 2.0));
    }

    #[test]
    fn smoothing_grows_steadier() {
        assert_eq!(smoothing_weight(0), 0.0);
        assert!((smoothing_weight(20) - 0.415_905).abs() < 1e-5);
        assert!((smoothing_weight(1000) - 0.9).abs() < 1e-5);
        let mut smoothed = Smoothed::default();
        (0..2000).for_each(|index| smoothed.push(if index % 2 == 0 { 1.0 } else { 3.0 }));
        assert!((smoothed.mean() - 2.0).abs() < 0.1);
    }

    #[test]
    fn steps_are_not_charged_for_evaluations() {
        let mut window = Window::new(4, false);
        window.push(&event(1, 3.0), 2.0);
        let totals = window.evaluate(&evaluation(1, 2.0, 0.5), 12.0);
        assert_eq!((totals.elapsed_seconds, totals.remaining_seconds), (12.0, 36.0));
        assert_eq!(window.push(&event(2, 3.0), 14.0).0.tokens_per_second, 500.0);
    }

    #[test]
    fn speed_is_that_of_the_sitting_and_means_are_those_of_the_run() {
        let mut window = Window::new(4, false);
        window.push(&event(1, 4.0), 100.0);
        window.push(&event(2, 2.0), 200.0);
        window.begin_sitting();
        let (line, _) = window.push(&event(3, 3.0), 202.0);
        assert_eq!((line.loss, line.totals.tokens, line.totals.elapsed_seconds), (3.0, 3000, 202.0));
        assert_eq!((line.tokens_per_second, line.totals.tokens_per_second), (500.0, 500.0));
        assert_eq!(line.totals.remaining_seconds, 2.0);
    }
}
