//! What happens in a run, for whoever wants to show or keep it: the terminal, the log file, a chart, a page. Events can
//! be written and read again: a run that is continued replays those of its past, so that every reader is where it was.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step has ended.
    Step(StepEvent),
    /// The model was evaluated.
    Evaluation(EvaluationEvent),
    /// A gradient was too large for f16, so a step changed nothing; its [`StepEvent`] follows.
    Overflow(OverflowEvent),
    /// Something that the user should know, with what to do about it.
    Warning {
        /// A fixed name, such as `nonfinite`.
        name: Cow<'static, str>,
        /// One sentence.
        message: String,
    },
}

/// The numbers of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Its number, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean negative log-probability of the step's trained tokens, each by its weight.
    #[serde(with = "number")]
    pub loss: f64,
    /// Norm of all gradients together before clipping.
    #[serde(with = "number")]
    pub gradient_norm: f64,
    /// The rate that was used.
    pub learning_rate: f64,
    /// Tokens that were computed.
    pub tokens: usize,
    /// Tokens that were predicted and scored.
    pub trained_tokens: usize,
    /// How much they count together, where that is not their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Parts that the step was computed in.
    pub micro_steps: usize,
    /// Most bytes of tensors so far.
    pub peak_bytes: usize,
}

/// The numbers of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationEvent {
    /// Steps that were done before it.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Passes over the training data so far.
    pub epoch: f64,
    /// Mean negative log-probability of the scored tokens, each by its weight.
    #[serde(with = "number")]
    pub loss: f64,
    /// Share of the scored tokens that were the most likely ones.
    pub accuracy: f64,
    /// Tokens that were scored.
    pub scored_tokens: usize,
    /// Whether none before it was better.
    pub is_best: bool,
}

/// A step that the loss's scale has spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverflowEvent {
    /// Its number, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// The scale that was too large.
    pub loss_scale: f64,
    /// The scale of the next step.
    pub next_loss_scale: f64,
    /// Overflows so far, this one included.
    pub overflows: usize,
}

impl StepEvent {
    /// Whether loss and gradient are numbers; otherwise the step changed nothing.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }

    /// How much its trained tokens count together: the loss is the mean over so much.
    pub fn weight(&self) -> f64 {
        self.weight.unwrap_or(self.trained_tokens as f64)
    }
}

impl EvaluationEvent {
    /// exp(loss): the number of equally likely tokens that would be as uncertain.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// JSON has no number that is not finite: null stands for it.
mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}
