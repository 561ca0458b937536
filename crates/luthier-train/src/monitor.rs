//! What a run should be warned of while it trains. [`Monitor`] is a function of the events it was given: it reads no clock
//! and no device, so a run that goes on replays its past into it and is warned of nothing twice.
//!
//! The loss of single steps says little, so the monitor looks at the means of windows of steps, and every limit grows with
//! the noise that the steps within the windows have: a small batch jumps, and that is no reason to warn.

use std::collections::VecDeque;

use crate::{EvaluationEvent, Event, OverflowEvent, StepEvent, memory_warning};

/// Least movement of the smoothed loss that counts.
const MOVEMENT: f64 = 0.1;
/// Steps of a window in a long run, and in a short one.
const LARGEST_WINDOW: usize = 20;
const SMALLEST_WINDOW: usize = 5;
/// Windows that a run has at least, where that leaves enough steps to each.
const WINDOWS: usize = 20;
/// Windows over which movements are counted, and for which a warning is not repeated.
const MEMORY: usize = 10;
/// Windows that must lie above the least before the loss is rising.
const RISING: usize = 3;
/// How far the evaluation's loss must rise: by this share, and by this much, for near nothing every share is small.
const OVERFITTING: f64 = 0.005;
const OVERFITTING_RISE: f64 = 0.01;

/// So many falls of the loss's scale within so many steps are a trouble: a run that begins needs a few to find its scale.
const FALLS: usize = 8;
const FALLS_WITHIN: usize = 200;

/// Watches a run.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    window: Vec<f64>,
    /// Means of the last windows.
    means: VecDeque<f64>,
    /// Variances of a step within each of them.
    variances: VecDeque<f64>,
    least: Option<f64>,
    above_least: usize,
    is_rising: bool,
    fluctuation_quiet: usize,
    rising_quiet: usize,
    /// Losses of the steps since the last evaluation: sum and count.
    trained: (f64, usize),
    /// The last evaluations: their loss and the mean training loss before each.
    evaluations: VecDeque<(f64, f64)>,
    is_overfitting: bool,
    was_memory_short: bool,
    /// Steps of the last falls of the loss's scale.
    falls: VecDeque<usize>,
}

impl Monitor {
    /// Takes an event; gives the warnings that it is the reason for.
    pub fn event(&mut self, event: &Event) -> Vec<Event> {
        match event {
            Event::Step(step) => self.step(step),
            Event::Evaluation(evaluation) => self.evaluation(evaluation).into_iter().collect(),
            Event::Overflow(overflow) => self.overflow(overflow).into_iter().collect(),
            Event::Warning { .. } => Vec::new(),
        }
    }

    /// Takes what the process holds of the memory; gives `memory_above_80_percent` the first time that it is too much.
    pub fn memory(&mut self, used_bytes: u64, total_bytes: u64) -> Option<Event> {
        let warning = memory_warning(used_bytes, total_bytes).filter(|_| !self.was_memory_short);
        self.was_memory_short |= warning.is_some();
        warning
    }

    fn step(&mut self, event: &StepEvent) -> Vec<Event> {
        // A step that was left out is warned of where that happens.
        if !event.is_finite() {
            return Vec::new();
        }
        self.trained.0 += event.loss;
        self.trained.1 += 1;
        self.window.push(event.loss);
        if self.window.len() < (event.total_steps / WINDOWS).clamp(SMALLEST_WINDOW, LARGEST_WINDOW) {
            return Vec::new();
        }
        let window = std::mem::take(&mut self.window);
        keep(&mut self.means, mean(&window));
        keep(&mut self.variances, variance(&window));
        self.fluctuation_quiet = self.fluctuation_quiet.saturating_sub(1);
        self.rising_quiet = self.rising_quiet.saturating_sub(1);
        // Standard error of a window's mean.
        let noise = (median(self.variances.make_contiguous()) / window.len() as f64).sqrt();
        [self.fluctuation(event.step, noise), self.rising(event.step, noise)].into_iter().flatten().collect()
    }

    /// The scale of the loss keeps falling. After a warning the count begins anew.
    fn overflow(&mut self, event: &OverflowEvent) -> Option<Event> {
        self.falls.push_back(event.step);
        self.falls.retain(|step| step + FALLS_WITHIN > event.step);
        if self.falls.len() < FALLS {
            return None;
        }
        self.falls.clear();
        Some(warning(
            "loss_scale_falling",
            format!(
                "step {}: the scale of the loss has fallen {FALLS} times within {FALLS_WITHIN} steps, to {}: gradients keep \
                 outgrowing fp16; lower learning_rate or max_grad_norm, or use precision: bf16 or fp32",
                event.step, event.next_loss_scale
            ),
        ))
    }

    /// The loss goes down and up again, or up and down, within the last windows.
    fn fluctuation(&mut self, step: usize, noise: f64) -> Option<Event> {
        // The extremes of ten windows of pure noise are three of its widths apart, and rarely five.
        let limit = MOVEMENT.max(5.0 * noise);
        let swings = swings(self.means.make_contiguous(), limit);
        if swings < 2 || self.fluctuation_quiet > 0 {
            return None;
        }
        self.fluctuation_quiet = MEMORY;
        Some(warning(
            "loss_fluctuation",
            format!(
                "step {step}: the smoothed loss goes up and down by more than {limit:.2}; lower learning_rate, raise \
                 gradient_accumulation_steps or warmup_ratio, or look for records that are unlike the others"
            ),
        ))
    }

    /// The loss stays above the least that it has had.
    fn rising(&mut self, step: usize, noise: f64) -> Option<Event> {
        let mean = *self.means.back()?;
        // Of some windows together: the least of many single ones would be a lucky one.
        let recent = self.means.iter().rev().take(RISING);
        let together = recent.clone().sum::<f64>() / recent.count() as f64;
        let least = self.least.map_or(together, |least| least.min(together));
        self.least = Some(least);
        self.above_least = if mean > least + MOVEMENT.max(4.0 * noise) { self.above_least + 1 } else { 0 };
        let was_rising = std::mem::replace(&mut self.is_rising, self.above_least >= RISING);
        if was_rising || !self.is_rising || self.rising_quiet > 0 {
            return None;
        }
        self.rising_quiet = MEMORY;
        Some(warning(
            "loss_rising",
            format!(
                "step {step}: the smoothed loss is {mean:.3} and was {least:.3} before; lower learning_rate and go on from \
                 an earlier checkpoint (resume_from_checkpoint)"
            ),
        ))
    }

    /// The loss of training falls while that of evaluation rises, twice in a row.
    fn evaluation(&mut self, event: &EvaluationEvent) -> Option<Event> {
        let trained = self.trained.0 / self.trained.1 as f64;
        self.trained = (0.0, 0);
        if !event.loss.is_finite() {
            return None;
        }
        if self.evaluations.len() == 3 {
            self.evaluations.pop_front();
        }
        self.evaluations.push_back((event.loss, trained));
        let [(first, _), (second, trained_second), (third, trained_third)] = *self.evaluations.make_contiguous() else {
            return None;
        };
        if third < second {
            self.is_overfitting = false;
        }
        let rises =
            second > first && third > second && third > (first * (1.0 + OVERFITTING)).max(first + OVERFITTING_RISE);
        // What was trained before the first of them may be nothing, and then its loss is no number.
        let learns = trained_third < trained_second;
        if !rises || !learns || std::mem::replace(&mut self.is_overfitting, true) {
            return None;
        }
        Some(warning(
            "overfitting",
            format!(
                "step {}: the training loss falls while the evaluation loss has risen twice, from {first:.3} to {third:.3}; \
                 stop early (early_stopping_steps), train fewer epochs (num_train_epochs), add records, or lower lora_rank \
                 or learning_rate",
                event.step
            ),
        ))
    }
}

/// How often the series turns: movements by more than `limit` against the last one.
fn swings(means: &[f64], limit: f64) -> usize {
    let Some(&first) = means.first() else { return 0 };
    let (mut low, mut high) = (first, first);
    let (mut direction, mut count) = (0, 0);
    for &mean in means {
        (low, high) = (low.min(mean), high.max(mean));
        let turned = match direction {
            1 => high - mean > limit,
            -1 => mean - low > limit,
            // The first movement is no turn.
            _ => {
                if mean - low > limit {
                    (direction, high) = (1, mean);
                } else if high - mean > limit {
                    (direction, low) = (-1, mean);
                }
                false
            }
        };
        if turned {
            count += 1;
            direction = -direction;
            (low, high) = (mean, mean);
        }
    }
    count
}

fn keep(numbers: &mut VecDeque<f64>, number: f64) {
    if numbers.len() == MEMORY {
        numbers.pop_front();
    }
    numbers.push_back(number);
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The lower of the two in the middle. Unlike a mean it is not raised by the burst that is to be warned of.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Of one step, from the differences of neighbours, so that a steady fall is not taken for noise.
fn variance(numbers: &[f64]) -> f64 {
    let squares: Vec<f64> = numbers.windows(2).map(|pair| (pair[1] - pair[0]).powi(2) / 2.0).collect();
    mean(&squares)
}

pub(crate) fn warning(name: &'static str, message: String) -> Event {
    Event::Warning { name: name.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: usize, total_steps: usize, loss: f64) -> Event {
        Event::Step(StepEvent {
            step: number,
            total_steps,
            epoch: 0.0,
            loss,
            gradient_norm: 1.0,
            learning_rate: 1e-4,
            tokens: 100,
            trained_tokens: 50,
            weight: None,
            micro_steps: 1,
            peak_bytes: 0,
        })
    }

    fn evaluation(loss: f64) -> Event {
        Event::Evaluation(EvaluationEvent {
            step: 10,
            total_steps: 100,
            epoch: 0.0,
            loss,
            accuracy: 0.5,
            scored_tokens: 10,
            is_best: false,
        })
    }

    fn names(events: Vec<Event>) -> Vec<String> {
        let name = |event| match event {
            Event::Warning { name, .. } => Some(name.into_owned()),
            _ => None,
        };
        events.into_iter().filter_map(name).collect()
    }

    /// The warnings of a run with these losses.
    fn check(losses: impl IntoIterator<Item = f64>, expected: &[&str]) {
        let losses: Vec<f64> = losses.into_iter().collect();
        let mut monitor = Monitor::default();
        let step = |(index, loss): (usize, &f64)| monitor.event(&step(index + 1, losses.len(), *loss));
        assert_eq!(names(losses.iter().enumerate().flat_map(step).collect()), expected);
    }

    /// Numbers around 0 with standard deviation 1, the same for each index.
    fn noise(index: usize) -> f64 {
        let mixed = |seed: u64| {
            let mut state =
                (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((state ^ (state >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(mixed).sum::<f64>() - 6.0
    }

    #[test]
    fn a_usual_run_is_quiet() {
        let falls = |index: usize| 1.5 + 4.0 * (-(index as f64) / 40.0).exp();
        for width in [0.0, 0.05, 0.2, 0.8] {
            check((0..2000).map(|index| falls(index) + width * noise(index)), &[]);
            check((0..120).map(|index| falls(index) + width * noise(index)), &[]);
        }
        check((0..400).map(|index| 8.0 - index as f64 * 0.018), &[]);
        check([3.0], &[]);
        // An epoch that begins on a lower level.
        check((0..400).map(|index| if index < 200 { 2.0 } else { 1.2 }), &[]);
    }

    #[test]
    fn a_loss_that_swings_is_said_and_not_at_every_swing() {
        // A swing in 80 steps, for 400 steps: the warning comes, and again after the ten windows of silence.
        let swings =
            |index: usize| 2.0 + 0.3 * (index as f64 / 80.0 * std::f64::consts::TAU).sin() + 0.1 * noise(index);
        check((0..400).map(swings), &["loss_fluctuation", "loss_fluctuation"]);
        // From window to window.
        check(
            (0..160).map(|index| if index / 8 % 2 == 0 { 2.0 } else { 2.2 }),
            &["loss_fluctuation", "loss_fluctuation"],
        );
        // Too little to be of interest.
        check((0..400).map(|index| 2.0 + 0.02 * (index as f64 / 12.0).sin()), &[]);
    }

    #[test]
    fn a_loss_that_rises_is_said_once() {
        let rises = |index: usize| if index < 200 { 2.0 - index as f64 * 0.005 } else { index as f64 * 0.005 };
        check((0..400).map(|index| rises(index) + 0.05 * noise(index)), &["loss_rising"]);
    }

    #[test]
    fn a_loss_that_explodes_is_said_soon() {
        let mut monitor = Monitor::default();
        // As a learning rate that is far too high makes it.
        let losses = |index: usize| match index {
            0..8 => 3.0,
            8..16 => 10.0 + 20.0 * (index % 4) as f64,
            _ => 9.0 + noise(index),
        };
        let first = (0..80).find(|&index| !monitor.event(&step(index + 1, 80, losses(index))).is_empty());
        assert!(first.is_some_and(|index| index < 25), "{first:?}");
    }

    #[test]
    fn steps_that_were_left_out_do_not_count() {
        check((0..400).map(|index| if index % 7 == 0 { f64::NAN } else { 2.0 }), &[]);
        let mut monitor = Monitor::default();
        assert!((0..400).all(|_| monitor.event(&step(1, 400, f64::INFINITY)).is_empty()));
    }

    /// The warnings of evaluations, each after a step with a loss.
    fn check_evaluations(pairs: &[(f64, f64)], expected: &[&str]) {
        let mut monitor = Monitor::default();
        let mut found = Vec::new();
        for (trained, evaluated) in pairs {
            found.extend(monitor.event(&step(1, 1000, *trained)));
            found.extend(monitor.event(&evaluation(*evaluated)));
        }
        assert_eq!(names(found), expected);
    }

    #[test]
    fn overfitting_is_said_once_until_the_evaluation_falls_again() {
        check_evaluations(&[(2.0, 2.0), (1.8, 2.1), (1.6, 2.2)], &["overfitting"]);
        check_evaluations(&[(2.0, 2.0), (1.8, 2.1), (1.6, 2.2), (1.4, 2.3), (1.2, 2.4)], &["overfitting"]);
        let twice = [(2.0, 2.0), (1.8, 2.1), (1.6, 2.2), (1.5, 2.0), (1.4, 2.1), (1.3, 2.2)];
        check_evaluations(&twice, &["overfitting", "overfitting"]);
        // Once is chance, both rising is another trouble, a rise of nothing is none, NaN is no number.
        check_evaluations(&[(2.0, 2.0), (1.8, 2.1), (1.6, 2.05), (1.4, 2.1)], &[]);
        check_evaluations(&[(2.0, 2.0), (2.1, 2.1), (2.2, 2.2)], &[]);
        check_evaluations(&[(2.0, 2.0), (1.8, 2.0001), (1.6, 2.0002)], &[]);
        check_evaluations(&[(2.0, 2.0), (1.8, f64::NAN), (1.6, 2.2)], &[]);
    }

    #[test]
    fn a_scale_that_keeps_falling_is_said() {
        let mut monitor = Monitor::default();
        let fall = |step| {
            let numbers = (2f64.powi(-(step as i32)), 2f64.powi(-(step as i32) - 1));
            let (loss_scale, next_loss_scale) = numbers;
            Event::Overflow(OverflowEvent { step, total_steps: 4000, loss_scale, next_loss_scale, overflows: step })
        };
        let said: Vec<usize> = (1..=16).filter(|&step| !monitor.event(&fall(step)).is_empty()).collect();
        assert_eq!(said, [FALLS, 2 * FALLS]);
        // A scale that grows again now and then falls again now and then.
        let rarely = (1..40).map(|index| 100 + index * 40).filter(|&step| !monitor.event(&fall(step)).is_empty());
        assert_eq!(rarely.count(), 0);
    }

    #[test]
    fn short_memory_is_said_once() {
        let mut monitor = Monitor::default();
        let said: Vec<bool> = [5, 9, 9, 5, 9].map(|used| monitor.memory(used, 10).is_some()).to_vec();
        assert_eq!(said, [false, true, false, false, false]);
    }

    #[test]
    fn a_replay_leaves_the_monitor_where_it_was() {
        let losses: Vec<f64> = (0..400).map(|index| 2.0 + if index / 30 % 2 == 0 { 0.3 } else { 0.0 }).collect();
        let events: Vec<Event> = losses.iter().enumerate().map(|(index, loss)| step(index + 1, 400, *loss)).collect();
        let mut whole = Monitor::default();
        let all: Vec<Vec<Event>> = events.iter().map(|event| whole.event(event)).collect();
        assert!(all.iter().any(|warnings| !warnings.is_empty()));
        for cut in [0, 17, 100, 399] {
            let mut resumed = Monitor::default();
            events[..cut].iter().for_each(|event| drop(resumed.event(event)));
            let rest: Vec<Vec<Event>> = events[cut..].iter().map(|event| resumed.event(event)).collect();
            assert_eq!(rest, all[cut..]);
        }
    }
}
