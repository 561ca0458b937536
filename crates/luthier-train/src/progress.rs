//! How far a run is: with the parameters and the optimiser's moments, all that its next step depends on.

use serde::{Deserialize, Serialize};

use crate::{LossScale, Metric, Scores, StepEvent};

/// What a checkpoint keeps besides tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps that are done. The position in the data and every random number follow from it.
    pub step: usize,
    /// Epochs that have passed.
    pub epoch: f64,
    /// Tokens computed.
    pub tokens: usize,
    /// Tokens scored in steps that counted.
    pub trained_tokens: usize,
    /// Sum of their negative log-probabilities, each by its weight.
    pub loss_sum: f64,
    /// How much more than their number they count together; less is below 0.
    #[serde(default)]
    pub weight_beyond: f64,
    /// Steps whose loss or gradient was not finite; they changed nothing.
    pub skipped_steps: usize,
    /// Those among them that nothing finite has followed, but for those that the loss's scale has spoilt.
    pub skipped_in_a_row: usize,
    /// The scale of the loss; `None` where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The step after which the model was last evaluated.
    pub evaluated_step: Option<usize>,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub evaluations_without_better: usize,
}

/// The best evaluation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps before it.
    pub step: usize,
    /// Its loss.
    pub loss: f64,
    /// Its accuracy.
    pub accuracy: f64,
}

impl Progress {
    /// Mean loss over all trained tokens of the run, each by its weight.
    pub fn mean_loss(&self) -> f64 {
        if self.trained_tokens == 0 {
            return 0.0;
        }
        self.loss_sum / (self.trained_tokens as f64 + self.weight_beyond)
    }

    /// Steps that the optimiser has counted: all but those that the loss's scale has spoilt.
    pub fn optimiser_steps(&self) -> usize {
        self.step - self.loss_scale.map_or(0, |scale| scale.overflows)
    }

    /// Takes a step; `is_overflow` when the loss's scale has spoilt it.
    pub(crate) fn add(&mut self, event: &StepEvent, is_overflow: bool) {
        self.step = event.step;
        self.epoch = event.epoch;
        self.tokens += event.tokens;
        if event.is_finite() {
            self.trained_tokens += event.trained_tokens;
            self.loss_sum += event.loss * event.weight();
            self.weight_beyond += event.weight() - event.trained_tokens as f64;
            self.skipped_in_a_row = 0;
        } else {
            self.skipped_steps += 1;
            self.skipped_in_a_row += usize::from(!is_overflow);
        }
    }

    /// Takes an evaluation of the current state and says whether it is the best. What is not a number never is.
    pub(crate) fn add_evaluation(&mut self, metric: Metric, scores: &Scores) -> bool {
        self.evaluated_step = Some(self.step);
        let is_better = scores.loss.is_finite()
            && self.best.is_none_or(|best| match metric {
                Metric::Accuracy => scores.accuracy > best.accuracy,
                Metric::Loss => scores.loss < best.loss,
            });
        if is_better {
            self.best = Some(Best { step: self.step, loss: scores.loss, accuracy: scores.accuracy });
            self.evaluations_without_better = 0;
        } else {
            self.evaluations_without_better += 1;
        }
        is_better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(loss: f64, accuracy: f64) -> Scores {
        Scores { loss, accuracy, tokens: 10 }
    }

    #[test]
    fn the_first_finite_evaluation_is_best_until_a_better_one() {
        let mut progress = Progress::default();
        assert!(!progress.add_evaluation(Metric::Loss, &scores(f64::NAN, 0.0)));
        assert!(progress.add_evaluation(Metric::Loss, &scores(2.0, 0.5)));
        assert!(!progress.add_evaluation(Metric::Loss, &scores(2.0, 0.9)), "an equal one is not better");
        assert!(!progress.add_evaluation(Metric::Loss, &scores(f64::INFINITY, 0.9)));
        assert_eq!(progress.evaluations_without_better, 2);
        assert!(progress.add_evaluation(Metric::Loss, &scores(1.0, 0.1)));
        assert!(progress.add_evaluation(Metric::Accuracy, &scores(3.0, 0.2)));
        assert_eq!(progress.evaluations_without_better, 0);
    }
}
