//! How long a run will take, measured before it starts: some rows of its first step go forward and back once, nothing is
//! changed, and the multiply-adds of all steps are divided by the speed that was found.

use std::time::Instant;

use luthier_tensor::{DType, Tensor};
use luthier_train::{MicroBatch, Step, Steps, accumulate_freeing};

use crate::run::Run;
use crate::work::multiply_adds;

/// Multiply-adds that a trial is cut to: about half a second of a fast processor.
const TRIAL: f64 = 4e11;
/// Steps that are looked at for the work of an average one.
const LOOKED_AT_STEPS: usize = 256;
/// A forward pass alone, of forward and backward together.
const FORWARD_SHARE: f64 = 0.4;
/// Bytes that AdamW moves for each byte of gradient: it reads gradient, master and moments and writes the last three.
const OPTIMISER_TRAFFIC: f64 = 7.0;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// All steps and evaluations that are left.
    pub(crate) seconds: f64,
    /// An average step.
    pub(crate) step_seconds: f64,
    /// Tokens of the trial.
    pub(crate) trial_tokens: usize,
}

/// Measures the run and returns how long it will take from step `first` on, with `evaluations` of them.
pub(crate) fn estimate(run: &Run, first: usize, evaluations: usize) -> Estimate {
    let (parts, _) = run.steps.step(first);
    let trial = shorten(run, parts.into_iter().max_by_key(|part| part.ids.len()).unwrap_or_default());
    let step = Step {
        precision: run.trainer.precision,
        recomputed: run.trainer.recomputed,
        noise: run.trainer.noise,
        dropout_seed: run.trainer.dropout_seed,
        ..Step::default()
    };
    let parts = [trial];
    // The first pass touches weights and memory for the first time; the second is what all others are like.
    let mut seconds = f64::MAX;
    for _ in 0..2 {
        let start = Instant::now();
        // A gradient's memory goes as soon as it is final: a run may be planned with those of a few at a time.
        let loss = accumulate_freeing(&run.device, &run.decoder, &parts, &step, &mut |index, _| {
            if let Some(parameter) = run.decoder.parameters().get(index) {
                run.device.release(&parameter.gradient);
            }
        });
        run.device.download(&loss);
        seconds = start.elapsed().as_secs_f64().min(seconds);
    }
    let loss = run.device.upload(&[0.0], 1, 1);
    let start = Instant::now();
    // Parameters are as large as their gradients, which may have no memory now.
    let values = run.decoder.parameters().iter().map(|parameter| &parameter.value);
    let values: Vec<Tensor> = values.filter(|value| value.dtype() == DType::F32).cloned().collect();
    run.device.download(&run.device.gradient_norm(&values, &loss, 1.0));
    let update = start.elapsed().as_secs_f64() * OPTIMISER_TRAFFIC;

    let seconds_per_work = seconds / multiply_adds(run, &parts).max(1.0);
    let left = run.steps.total.saturating_sub(first);
    let looked_at: Vec<usize> = (first..run.steps.total).take(LOOKED_AT_STEPS.min(run.steps.per_epoch())).collect();
    let work: f64 = looked_at.iter().map(|&step| multiply_adds(run, &run.steps.step(step).0)).sum();
    let step_seconds = work / looked_at.len().max(1) as f64 * seconds_per_work + update;
    let evaluation = multiply_adds(run, &run.steps.evaluation()) * FORWARD_SHARE * seconds_per_work;
    Estimate {
        seconds: left as f64 * step_seconds + evaluations as f64 * evaluation,
        step_seconds,
        trial_tokens: parts[0].ids.len(),
    }
}

/// The first rows of a part, as many as a trial may take; at least one.
fn shorten(run: &Run, part: MicroBatch) -> MicroBatch {
    let mut rows = part.segments.len();
    let mut short = part.clone();
    while rows > 1 && multiply_adds(run, std::slice::from_ref(&short)) > TRIAL {
        rows = rows.div_ceil(2);
        let end = part.segments[rows - 1].rows.end;
        let scored = part.positions.iter().take_while(|&&position| (position as usize) < end).count();
        short = MicroBatch {
            ids: part.ids[..end].to_vec(),
            segments: part.segments[..rows].to_vec(),
            positions: part.positions[..scored].to_vec(),
            targets: part.targets[..scored].to_vec(),
            weights: part.weights.get(..scored).unwrap_or_default().to_vec(),
            token_numbers: part.token_numbers[..end].to_vec(),
        };
    }
    short
}
