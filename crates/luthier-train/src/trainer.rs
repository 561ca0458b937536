//! The training loop, on one page: evaluate, save, step, again. It can be left at any step and taken up there, and the
//! result is the same to the byte: what a step computes is a function of its number and of the [`Progress`], the
//! parameters and the optimiser's state that a checkpoint keeps. Where they are kept is the [`Listener`]'s business.

use luthier_model::Decoder;
use luthier_tensor::{Device, Precision};

use crate::evaluation::{Evaluating, evaluate_all};
use crate::progress::Progress;
use crate::{
    Due, EvaluationEvent, Event, MicroBatch, Nonfinite, Optimiser, OptimiserSettings, Schedule, Step, StepEvent,
    run_step,
};

/// How a run is trained.
#[derive(Clone, Debug)]
pub struct TrainerSettings {
    /// Storage and products of activations.
    pub precision: Precision,
    /// The rate of each step.
    pub schedule: Schedule,
    /// The optimiser and its numbers.
    pub optimiser: OptimiserSettings,
    /// Layers that run again in backward.
    pub recomputed_layers: usize,
    /// Seed of random masks; `None` where nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// When the model is evaluated and what follows; `None` for never.
    pub evaluating: Option<Evaluating>,
    /// When the state is kept.
    pub saving: Due,
    /// Whether it is kept too where an evaluation was the best so far.
    pub keeps_best: bool,
    /// What follows a step whose loss or gradient is not finite.
    pub nonfinite: Nonfinite,
}

/// Where the steps come from.
pub trait Steps {
    /// The parts of step `step`, counted from 0, and the epochs that will have passed after it.
    fn step(&self, step: usize) -> (Vec<MicroBatch>, f64);
    /// Steps of one epoch.
    fn per_epoch(&self) -> usize;
    /// The parts that are evaluated on.
    fn evaluation(&self) -> Vec<MicroBatch>;
    /// The records of step `step`, for messages.
    fn names(&self, step: usize) -> String;
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop as soon as the state can be kept.
    Stop,
}

/// Whoever watches a run and keeps its state.
pub trait Listener {
    /// What keeping the state can fail with.
    type Error;
    /// Something happened.
    fn event(&mut self, event: &Event) -> Control;
    /// `done` of `total` parts of an evaluation are computed.
    fn evaluating(&mut self, _done: usize, _total: usize) -> Control {
        Control::Continue
    }
    /// Keeps the state: `progress`, the parameters and `optimiser`'s own.
    ///
    /// # Errors
    /// Ends the run.
    fn save(&mut self, progress: &Progress, optimiser: &Optimiser) -> Result<(), Self::Error>;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Finished,
    /// The listener said stop; the state is kept.
    Stopped,
    /// So many evaluations were no better than the best.
    EarlyStopped,
    /// Steps were not finite, and the settings or their number say stop.
    Nonfinite,
}

/// Steps in a row that may be left out: after more of them the model itself is broken.
const MOST_SKIPPED_IN_A_ROW: usize = 10;

/// A run.
pub struct Trainer<'t> {
    device: &'t Device,
    decoder: &'t Decoder,
    settings: TrainerSettings,
    optimiser: Optimiser,
    progress: Progress,
}

impl<'t> Trainer<'t> {
    /// A run at its beginning.
    pub fn new(device: &'t Device, decoder: &'t Decoder, settings: TrainerSettings) -> Self {
        let optimiser = Optimiser::new(device, decoder.parameters(), settings.optimiser.clone());
        Self { device, decoder, settings, optimiser, progress: Progress::default() }
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The optimiser and its state.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// Takes a run up where `progress` was kept; the caller then writes the parameters and the optimiser's state.
    pub fn resume(&mut self, progress: Progress) {
        let schedule = self.settings.schedule;
        let parameters = self.decoder.parameters();
        self.optimiser.resume(self.device, parameters, progress.step, |step| schedule.rate(step));
        // Whoever goes on has changed something: the steps that were left out do not count against it.
        self.progress = Progress { skipped_in_a_row: 0, ..progress };
    }

    /// Trains until the schedule, the evaluations or the listener say that it is enough.
    ///
    /// # Errors
    /// What the listener's [`save`](Listener::save) fails with.
    pub fn run<L: Listener>(&mut self, steps: &dyn Steps, listener: &mut L) -> Result<End, L::Error> {
        let total = self.settings.schedule.total_steps;
        let mut kept = self.progress.step;
        let mut control = Control::Continue;
        loop {
            let done = self.progress.step;
            let mut better = false;
            if control == Control::Continue && self.evaluation_is_due(steps) {
                (better, control) = self.evaluate(steps, listener);
            }
            // A state that only leads to broken steps is not worth a checkpoint.
            if self.is_broken() {
                return Ok(End::Nonfinite);
            }
            let due = self.settings.saving.is_due(done, steps.per_epoch()) && done > 0;
            if done != kept && (due || better && self.settings.keeps_best || control == Control::Stop) {
                self.show();
                listener.save(&self.progress, &self.optimiser)?;
                kept = done;
            }
            let patience = self.settings.evaluating.and_then(|evaluating| evaluating.patience);
            match control {
                // What is still to be evaluated may decide what is saved.
                Control::Stop if done < total || self.evaluation_is_due(steps) => return Ok(End::Stopped),
                _ if done >= total => return Ok(self.ended(End::Finished)),
                _ if patience.is_some_and(|most| self.progress.evaluations_without_better >= most) => {
                    return Ok(self.ended(End::EarlyStopped));
                }
                _ => control = self.step(steps, listener),
            }
        }
    }

    /// The parameters are from here on what is evaluated and saved.
    fn show(&mut self) {
        self.optimiser.show(self.device, self.decoder.parameters());
    }

    fn ended(&mut self, end: End) -> End {
        self.show();
        end
    }

    fn is_broken(&self) -> bool {
        match self.settings.nonfinite {
            Nonfinite::Stop => self.progress.skipped_in_a_row > 0,
            // A part of the weights may be stepped already.
            Nonfinite::Skip if self.settings.optimiser.in_backward => self.progress.skipped_in_a_row > 0,
            Nonfinite::Skip => self.progress.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW,
        }
    }

    fn step<L: Listener>(&mut self, steps: &dyn Steps, listener: &mut L) -> Control {
        let index = self.progress.step;
        let (parts, epoch) = steps.step(index);
        let step = Step {
            precision: self.settings.precision,
            recomputed_layers: self.settings.recomputed_layers,
            dropout_seed: self.settings.dropout_seed.map(|seed| seed.wrapping_add(index as u64)),
            learning_rate: self.settings.schedule.rate(index),
        };
        let result = run_step(self.device, self.decoder, &mut self.optimiser, &parts, &step);
        let numbers = result.read(self.device);
        let event = StepEvent {
            step: index + 1,
            total_steps: self.settings.schedule.total_steps,
            epoch,
            loss: numbers.loss,
            gradient_norm: numbers.gradient_norm,
            learning_rate: step.learning_rate,
            tokens: parts.iter().map(|part| part.ids.len()).sum(),
            trained_tokens: parts.iter().map(|part| part.targets.len()).sum(),
            weight: (parts.iter().any(|part| !part.weights.is_empty()))
                .then(|| parts.iter().map(MicroBatch::weight_sum).sum()),
            micro_steps: parts.len(),
            peak_bytes: self.device.usage().peak_bytes,
        };
        self.progress.add(&event);
        if !event.is_finite() {
            let so = match self.settings.optimiser.in_backward {
                true => "and weights were stepped on the way back, so some have changed and others have not",
                false => "so the step changed nothing",
            };
            let message = format!(
                "step {}: the loss is {} and the gradient norm {}, {so}; its rows are {}; look for broken records among \
                 them, or lower learning_rate",
                event.step,
                event.loss,
                event.gradient_norm,
                steps.names(index)
            );
            listener.event(&Event::Warning { name: "nonfinite".into(), message });
        }
        listener.event(&Event::Step(event))
    }

    fn evaluation_is_due(&self, steps: &dyn Steps) -> bool {
        let Some(evaluating) = &self.settings.evaluating else { return false };
        let done = self.progress.step;
        if self.progress.evaluated_step == Some(done) {
            return false;
        }
        match done {
            0 => evaluating.at_start,
            _ => evaluating.due.is_due(done, steps.per_epoch()) || self.is_last(done) && evaluating.due != Due::Never,
        }
    }

    fn is_last(&self, done: usize) -> bool {
        done == self.settings.schedule.total_steps
    }

    /// Evaluates; returns whether it is the best so far. One that is interrupted is forgotten.
    fn evaluate<L: Listener>(&mut self, steps: &dyn Steps, listener: &mut L) -> (bool, Control) {
        let Some(evaluating) = self.settings.evaluating else { return (false, Control::Continue) };
        let parts = steps.evaluation();
        self.show();
        let mut watch = |done| listener.evaluating(done, parts.len());
        let Some(scores) = evaluate_all(self.device, self.decoder, self.settings.precision, &parts, &mut watch) else {
            return (false, Control::Stop);
        };
        let is_best = self.progress.add_evaluation(evaluating.metric, &scores);
        let event = EvaluationEvent {
            step: self.progress.step,
            total_steps: self.settings.schedule.total_steps,
            epoch: self.progress.epoch,
            loss: scores.loss,
            accuracy: scores.accuracy,
            scored_tokens: scores.tokens,
            is_best,
        };
        (is_best, listener.event(&Event::Evaluation(event)))
    }
}
