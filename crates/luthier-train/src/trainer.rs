//! The training loop, on one page.

use luthier_model::Decoder;
use luthier_tensor::{Device, Precision};

use crate::{Event, MicroBatch, Optimiser, OptimiserSettings, Schedule, Step, StepEvent, run_step};

/// How a run is trained.
#[derive(Clone, Copy, Debug)]
pub struct TrainerSettings {
    /// Storage and products of activations.
    pub precision: Precision,
    /// The rate of each step.
    pub schedule: Schedule,
    /// AdamW's numbers.
    pub optimiser: OptimiserSettings,
    /// Layers that run again in backward.
    pub recomputed_layers: usize,
    /// Seed of random masks; `None` where nothing is dropped.
    pub dropout_seed: Option<u64>,
}

/// Where the steps come from.
pub trait Steps {
    /// The parts of step `step`, counted from 0, and the epochs that will have passed after it.
    fn step(&self, step: usize) -> (Vec<MicroBatch>, f64);
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop after this step.
    Stop,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Steps that were done.
    pub steps: usize,
    /// Mean loss over all trained tokens of the run.
    pub mean_loss: f64,
    /// Tokens computed.
    pub tokens: usize,
    /// Tokens scored.
    pub trained_tokens: usize,
    /// Steps whose loss or gradient was not finite; they changed nothing.
    pub skipped_steps: usize,
}

/// A run.
pub struct Trainer<'t> {
    device: &'t Device,
    decoder: &'t Decoder,
    settings: TrainerSettings,
    optimiser: Optimiser,
}

impl<'t> Trainer<'t> {
    /// A run at its beginning.
    pub fn new(device: &'t Device, decoder: &'t Decoder, settings: TrainerSettings) -> Self {
        let optimiser = Optimiser::new(device, decoder.parameters(), settings.optimiser);
        Self { device, decoder, settings, optimiser }
    }

    /// Trains to the end of the schedule, or until `listen` says stop.
    pub fn run(&mut self, steps: &dyn Steps, listen: &mut dyn FnMut(Event) -> Control) -> Summary {
        let mut summary = Summary::default();
        let total_steps = self.settings.schedule.total_steps;
        for index in 0..total_steps {
            let (parts, epoch) = steps.step(index);
            let step = Step {
                precision: self.settings.precision,
                recomputed_layers: self.settings.recomputed_layers,
                dropout_seed: self.settings.dropout_seed.map(|seed| seed.wrapping_add(index as u64)),
                learning_rate: self.settings.schedule.rate(index),
            };
            let result = run_step(self.device, self.decoder, &mut self.optimiser, &parts, &step);
            let numbers = result.read(self.device);
            let tokens: usize = parts.iter().map(|part| part.ids.len()).sum();
            let trained_tokens: usize = parts.iter().map(|part| part.targets.len()).sum();
            summary.steps += 1;
            summary.tokens += tokens;
            if numbers.gradient_norm.is_finite() {
                summary.mean_loss += numbers.loss * trained_tokens as f64;
                summary.trained_tokens += trained_tokens;
            } else {
                summary.skipped_steps += 1;
                let message = format!(
                    "step {}: the loss is {} and the gradient norm {}, so the step was left out; lower learning_rate, \
                     or look for broken records among its rows",
                    index + 1,
                    numbers.loss,
                    numbers.gradient_norm
                );
                listen(Event::Warning { name: "nonfinite".into(), message });
            }
            let event = StepEvent {
                step: index + 1,
                total_steps,
                epoch,
                loss: numbers.loss,
                gradient_norm: numbers.gradient_norm,
                learning_rate: step.learning_rate,
                tokens,
                trained_tokens,
                micro_steps: parts.len(),
                peak_bytes: self.device.usage().peak_bytes,
            };
            if listen(Event::Step(event)) == Control::Stop {
                break;
            }
        }
        summary.mean_loss /= summary.trained_tokens.max(1) as f64;
        summary
    }
}
