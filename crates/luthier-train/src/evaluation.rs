//! Evaluation: loss and accuracy over rows that are not trained. Sums are in the order of the rows and in f64, so that the
//! figures depend neither on the parts nor on threads.

use luthier_model::Decoder;
use luthier_tensor::{Device, Precision};

use crate::{Control, Due, MicroBatch, evaluate};

/// When the model is evaluated, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluating {
    /// Between steps; the end of the run always counts, unless it is never due.
    pub due: Due,
    /// Before the first step too.
    pub at_start: bool,
    /// What makes an evaluation the best.
    pub metric: Metric,
    /// Evaluations without a better one that end the run; `None`: it is never ended so.
    pub patience: Option<usize>,
}

/// What makes one evaluation better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The share of tokens predicted right: the higher the better.
    Accuracy,
    /// The lower the better.
    Loss,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Mean negative log-probability of the scored tokens, each by its weight.
    pub loss: f64,
    /// Share of them that were the most likely ones, whatever their weight.
    pub accuracy: f64,
    /// Their number.
    pub tokens: usize,
}

/// Column of [`luthier_tensor::HeadOutputs`] with the target's log-probability.
const LOG_PROBABILITY: usize = 0;
/// Column that is 1 where the target is the most likely id.
const IS_MOST_LIKELY: usize = 4;

/// Evaluates all parts; `None` when `watch`, which is told after each how many are done, says stop.
pub fn evaluate_all(
    device: &Device,
    decoder: &Decoder,
    precision: Precision,
    parts: &[MicroBatch],
    watch: &mut dyn FnMut(usize) -> Control,
) -> Option<Scores> {
    let (mut loss, mut weight, mut right, mut tokens) = (0.0, 0.0, 0.0, 0);
    for (index, part) in parts.iter().enumerate() {
        for (target, values) in evaluate(device, decoder, precision, part).into_iter().enumerate() {
            loss -= f64::from(values[LOG_PROBABILITY]) * f64::from(part.weight(target));
            weight += f64::from(part.weight(target));
            right += f64::from(values[IS_MOST_LIKELY]);
            tokens += 1;
        }
        if watch(index + 1) == Control::Stop {
            return None;
        }
    }
    let weight = if tokens == 0 { 1.0 } else { weight };
    Some(Scores { loss: loss / weight, accuracy: right / tokens.max(1) as f64, tokens })
}
