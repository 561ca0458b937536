//! From steps to the lines of a log: [`Window`] puts the steps since the last line together, as transformers does, and
//! its readers ([`crate::terminal`], [`crate::trainer_log`]) write what it gives them. The engine reads no clock, so
//! whoever passes a step on says how long the run has lasted.

use luthier_train::StepEvent;

/// What one line of a log says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogLine {
    pub(crate) step: usize,
    pub(crate) total_steps: usize,
    pub(crate) epoch: f64,
    /// Mean over the steps since the last line.
    pub(crate) loss: f64,
    /// Of the last step, before clipping.
    pub(crate) gradient_norm: f64,
    /// Of the last step.
    pub(crate) learning_rate: f64,
    /// Real tokens a second since the last line.
    pub(crate) tokens_per_second: f64,
    /// Real tokens since the start.
    pub(crate) total_tokens: usize,
    pub(crate) elapsed_seconds: f64,
    pub(crate) remaining_seconds: f64,
    pub(crate) peak_bytes: usize,
}

/// The steps since the last line.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    every: usize,
    first_too: bool,
    losses: usize,
    loss: f64,
    tokens: usize,
    /// Seconds of the run when the last line was due.
    since: f64,
    steps_so_far: usize,
    total_tokens: usize,
}

impl Window {
    /// A line after each `every` steps, counted from step 0, and after the first step if wished.
    pub(crate) fn new(every: usize, first_too: bool) -> Self {
        Self {
            every: every.max(1),
            first_too,
            losses: 0,
            loss: 0.0,
            tokens: 0,
            since: 0.0,
            steps_so_far: 0,
            total_tokens: 0,
        }
    }

    /// Takes a step and the seconds that the run has lasted; gives the line that it ends, and whether that line is due.
    /// The last step's always is.
    pub(crate) fn push(&mut self, event: &StepEvent, elapsed_seconds: f64) -> (LogLine, bool) {
        self.steps_so_far += 1;
        // A step that was left out has no loss to average.
        let finite = event.loss.is_finite();
        self.loss += if finite { event.loss } else { 0.0 };
        self.losses += usize::from(finite);
        self.tokens += event.tokens;
        self.total_tokens += event.tokens;
        let left = event.total_steps.saturating_sub(event.step);
        let line = LogLine {
            step: event.step,
            total_steps: event.total_steps,
            epoch: event.epoch,
            loss: self.loss / self.losses.max(1) as f64,
            gradient_norm: event.gradient_norm,
            learning_rate: event.learning_rate,
            tokens_per_second: self.tokens as f64 / (elapsed_seconds - self.since).max(1e-9),
            total_tokens: self.total_tokens,
            elapsed_seconds,
            remaining_seconds: left as f64 * elapsed_seconds / self.steps_so_far as f64,
            peak_bytes: event.peak_bytes,
        };
        let due = event.step.is_multiple_of(self.every) || (self.first_too && event.step == 1) || left == 0;
        if due {
            (self.losses, self.loss, self.tokens, self.since) = (0, 0.0, 0, elapsed_seconds);
        }
        (line, due)
    }
}

/// `0:01:15`, `1 day, 2:03:04`: whole seconds as Python writes them.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours}:{minutes:02}:{:02}", seconds % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
            micro_steps: 1,
            peak_bytes: 1_500_000_000,
        }
    }

    #[test]
    fn a_line_is_the_mean_since_the_last() {
        let mut window = Window::new(2, false);
        assert!(!window.push(&event(1, 3.0), 2.0).1);
        let (line, due) = window.push(&event(2, 2.0), 4.0);
        assert!(due);
        assert_eq!((line.loss, line.tokens_per_second, line.total_tokens), (2.5, 500.0, 2000));
        assert_eq!((line.elapsed_seconds, line.remaining_seconds), (4.0, 4.0));
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
    fn durations_are_pythons() {
        for (seconds, text) in
            [(0.9, "0:00:00"), (75.0, "0:01:15"), (93_784.0, "1 day, 2:03:04"), (172_800.0, "2 days, 0:00:00")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
