//! The training loop, on one page: evaluate, save, step, again. It can be left at any step and taken up there, and the
//! result is the same to the byte: what a step computes is a function of its number and of the [`Progress`], the
//! parameters and the optimiser's state that a checkpoint keeps. Where they are kept is the [`Listener`]'s business.

use luthier_model::{Decoder, Recomputed};
use luthier_tensor::{Device, OutOfMemory, Precision};

use crate::evaluation::{Evaluating, evaluate_all};
use crate::progress::Progress;
use crate::{
    Due, EvaluationEvent, Event, LossScale, LossScaling, MicroBatch, Noise, Nonfinite, Optimiser, OptimiserSettings,
    OverflowEvent, Schedule, Step, StepEvent, StepNumbers, try_step,
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
    /// What runs again in backward.
    pub recomputed: Recomputed,
    /// Strength of the noise on embeddings and the seed of it; `None` for none.
    pub noise: Option<Noise>,
    /// Seed of random masks; `None` where nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// When the model is evaluated and what follows; `None` for never.
    pub evaluating: Option<Evaluating>,
    /// When the state is kept.
    pub saving: Due,
    /// Whether it is kept too where an evaluation was the best so far.
    pub keeps_best: bool,
    /// How the loss is scaled; `None` where it is not.
    pub loss_scaling: Option<LossScaling>,
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
    /// Halves the tokens of a part, for all steps and evaluations that follow; returns the new budget, or `None` when parts
    /// cannot be smaller.
    fn halve_budget(&self) -> Option<usize> {
        None
    }
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
    /// Memory ran out with the smallest parts; nothing of the step is kept.
    OutOfMemory,
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
    /// Memory ran out where it could not be helped.
    is_out_of_memory: bool,
}

impl<'t> Trainer<'t> {
    /// A run at its beginning.
    pub fn new(device: &'t Device, decoder: &'t Decoder, settings: TrainerSettings) -> Self {
        let optimiser = Optimiser::new(device, decoder.parameters(), settings.optimiser.clone());
        let loss_scale = settings.loss_scaling.as_ref().map(LossScale::new);
        let progress = Progress { loss_scale, ..Progress::default() };
        Self { device, decoder, settings, optimiser, progress, is_out_of_memory: false }
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
        self.optimiser.resume(self.device, parameters, progress.optimiser_steps(), |step| schedule.rate(step));
        // A checkpoint of another precision knows no scale; one that is of no use now still counts what it has spoilt.
        let scaling = self.settings.loss_scaling.as_ref();
        let loss_scale = progress.loss_scale.or_else(|| scaling.map(LossScale::new));
        // Whoever goes on has changed something: the steps that were left out do not count against it.
        self.progress = Progress { skipped_in_a_row: 0, loss_scale, ..progress };
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
            if self.is_out_of_memory {
                return Ok(End::OutOfMemory);
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
        let step = Step {
            precision: self.settings.precision,
            recomputed: self.settings.recomputed,
            dropout_seed: self.settings.dropout_seed.map(|seed| seed.wrapping_add(index as u64)),
            learning_rate: self.settings.schedule.rate(index),
            loss_scale: self.loss_scale(),
            noise: self.settings.noise.map(|noise| Noise { seed: noise.seed.wrapping_add(index as u64), ..noise }),
        };
        let (parts, epoch, result) = loop {
            let (parts, epoch) = steps.step(index);
            match try_step(self.device, self.decoder, &mut self.optimiser, &parts, &step) {
                Ok(result) => break (parts, epoch, result),
                Err(lack) if !self.make_smaller(&format!("step {}", index + 1), &lack, steps, listener) => {
                    return Control::Continue;
                }
                Err(_) => {}
            }
        };
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
        let overflow = self.scale_loss(event.step, &numbers);
        self.progress.add(&event, overflow.is_some());
        if let Some(overflow) = overflow {
            self.optimiser.take_back();
            listener.event(&Event::Overflow(overflow));
        } else if !event.is_finite() {
            let is_too_large = self.settings.loss_scaling.is_some() && !event.loss.is_finite();
            let so = match self.settings.optimiser.in_backward {
                true => "and weights were stepped on the way back, so some have changed and others have not",
                false if is_too_large => {
                    "so the step changed nothing (fp16 ends at 65504, which some models exceed: precision: bf16 or fp32)"
                }
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

    /// After memory ran out: smaller parts, where there can be such. The mathematics is the same: a step's loss does not
    /// depend on its parts.
    fn make_smaller<L: Listener>(
        &mut self,
        what: &str,
        lack: &OutOfMemory,
        steps: &dyn Steps,
        listener: &mut L,
    ) -> bool {
        // Where parameters are stepped on the way back some have changed, and each step must be one part.
        let is_whole = self.settings.optimiser.in_backward;
        let budget = if is_whole { None } else { steps.halve_budget() };
        let follows = match budget {
            Some(budget) => {
                format!("it begins anew with parts of at most {budget} tokens, which changes no result but last bits")
            }
            None if is_whole => "weights are stepped on the way back, so each step must be one part".to_owned(),
            None => "its parts cannot be smaller".to_owned(),
        };
        let message = format!(
            "{what}: memory ran out: tensors would have taken {:.2} GB; {follows}",
            lack.needed_bytes as f64 / 1e9
        );
        listener.event(&Event::Warning { name: "out_of_memory".into(), message });
        self.is_out_of_memory = budget.is_none();
        budget.is_some()
    }

    fn loss_scale(&self) -> f32 {
        let scale = self.progress.loss_scale.filter(|_| self.settings.loss_scaling.is_some());
        scale.map_or(1.0, |scale| scale.scale as f32)
    }

    /// Moves the scale of the loss after a step; says so when it was too large.
    fn scale_loss(&mut self, step: usize, numbers: &StepNumbers) -> Option<OverflowEvent> {
        let (scaling, scale) = (self.settings.loss_scaling?, self.progress.loss_scale.as_mut()?);
        let before = scale.scale;
        if scale.is_overflow(&scaling, numbers.loss, numbers.gradient_norm) {
            scale.fall(&scaling);
            return Some(OverflowEvent {
                step,
                total_steps: self.settings.schedule.total_steps,
                loss_scale: before,
                next_loss_scale: scale.scale,
                overflows: scale.overflows,
            });
        }
        if numbers.loss.is_finite() && numbers.gradient_norm.is_finite() {
            scale.rise(&scaling);
        }
        None
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
        self.show();
        let scores = loop {
            let parts = steps.evaluation();
            let mut watch = |done| listener.evaluating(done, parts.len());
            let (device, precision) = (self.device, self.settings.precision);
            match device.attempt(|| evaluate_all(device, self.decoder, precision, &parts, &mut watch)) {
                Ok(Some(scores)) => break scores,
                Ok(None) => return (false, Control::Stop),
                Err(lack) if !self.make_smaller("the evaluation", &lack, steps, listener) => {
                    return (false, Control::Continue);
                }
                Err(_) => {}
            }
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
