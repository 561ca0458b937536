//! One optimiser step: its rows go through the model in parts, every part adds to the same gradients, and the loss is the
//! mean over all trained tokens of the step, each by its weight: sum(w * l) / sum(w), whatever the parts. Nothing is read from
//! the device before the step has ended.

use luthier_model::{Decoder, Recomputed};
use luthier_tensor::{DType, Device, Dropout, EmbeddingNoise, OUTPUTS, OutOfMemory, Precision, Tape, Tensor};

use crate::{MicroBatch, Optimiser};

/// Numbers that [`HeadOutputs`](luthier_tensor::HeadOutputs) differentiates.
const COEFFICIENTS: usize = 4;

/// How a step is computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Storage and products of activations.
    pub precision: Precision,
    /// What keeps its input only and runs again in backward.
    pub recomputed: Recomputed,
    /// Mixed from the run's seed and the step; `None` where nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// The rate of this step.
    pub learning_rate: f64,
    /// Factor of the loss in backward, so that small gradients are not lost in f16; the optimiser takes it out again.
    pub loss_scale: f32,
    /// Noise on embeddings; `None` for none.
    pub noise: Option<Noise>,
}

/// Noise on the embeddings of training rows: uniform in `+-alpha / sqrt(L d)` for a row of L tokens and embeddings of d
/// numbers. From: Jain et al. 2023 (NEFTune), algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Its strength.
    pub alpha: f64,
    /// Mixed from the run's seed and the step.
    pub seed: u64,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            precision: Precision::F32,
            recomputed: Recomputed::default(),
            dropout_seed: None,
            learning_rate: 0.0,
            loss_scale: 1.0,
            noise: None,
        }
    }
}

/// What a step has left on the device.
pub struct StepResult {
    /// f32 `[1, 1]`: mean negative log-probability of the trained tokens, each by its weight.
    pub loss: Tensor,
    /// f32 `[1, 1]`: norm of all gradients together before clipping.
    pub gradient_norm: Tensor,
}

/// The same, read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepNumbers {
    /// Mean negative log-probability of the trained tokens, each by its weight.
    pub loss: f64,
    /// Norm of all gradients together before clipping.
    pub gradient_norm: f64,
}

impl StepResult {
    /// Reads both numbers: the only time in a step that the host waits for the device.
    pub fn read(&self, device: &Device) -> StepNumbers {
        let number = |tensor| f64::from(device.download(tensor)[0]);
        StepNumbers { loss: number(&self.loss), gradient_norm: number(&self.gradient_norm) }
    }
}

/// Forward, backward and update over all `parts` of a step.
pub fn run_step(
    device: &Device,
    decoder: &Decoder,
    optimiser: &mut Optimiser,
    parts: &[MicroBatch],
    step: &Step,
) -> StepResult {
    optimiser.prepare(device, decoder.parameters());
    if optimiser.steps_in_backward() {
        return step_in_backward(device, decoder, optimiser, parts, step);
    }
    let loss = accumulate(device, decoder, parts, step);
    finish_step(device, decoder, optimiser, loss, step)
}

/// As [`run_step`].
///
/// # Errors
/// When memory runs out. Then nothing but gradients has changed, and the step can be taken again in smaller parts; but
/// where [parameters are stepped on the way back](Optimiser::steps_in_backward) some are stepped and others are not.
pub fn try_step(
    device: &Device,
    decoder: &Decoder,
    optimiser: &mut Optimiser,
    parts: &[MicroBatch],
    step: &Step,
) -> Result<StepResult, OutOfMemory> {
    optimiser.prepare(device, decoder.parameters());
    if optimiser.steps_in_backward() {
        return device.attempt(|| step_in_backward(device, decoder, optimiser, parts, step));
    }
    let loss = device.attempt(|| accumulate(device, decoder, parts, step))?;
    Ok(finish_step(device, decoder, optimiser, loss, step))
}

fn finish_step(device: &Device, decoder: &Decoder, optimiser: &mut Optimiser, loss: Tensor, step: &Step) -> StepResult {
    let gradient_norm = optimiser.step(device, decoder.parameters(), &loss, step.learning_rate, step.loss_scale);
    StepResult { loss, gradient_norm }
}

fn step_in_backward(
    device: &Device,
    decoder: &Decoder,
    optimiser: &mut Optimiser,
    parts: &[MicroBatch],
    step: &Step,
) -> StepResult {
    let parameters = decoder.parameters();
    let mut norms = Vec::new();
    optimiser.begin(step.learning_rate);
    let loss = accumulate_freeing(device, decoder, parts, step, &mut |index, loss| {
        norms.extend(optimiser.step_final(device, parameters, index, loss, (step.learning_rate, step.loss_scale)));
    });
    // Of the norms of all parameters: not finite where any is not.
    let gradient_norm = device.gradient_norm(&norms, &loss, 1.0);
    StepResult { loss, gradient_norm }
}

fn embedding_noise(device: &Device, decoder: &Decoder, part: &MicroBatch, noise: &Noise) -> EmbeddingNoise {
    let width = decoder.config().hidden_size as f64;
    let mut magnitudes = vec![0.0; part.ids.len()];
    for segment in &part.segments {
        let length = segment.rows.len() as f64;
        magnitudes[segment.rows.clone()].fill((noise.alpha / (length * width).sqrt()) as f32);
    }
    EmbeddingNoise {
        seed: noise.seed,
        tokens: device.upload_ids(&part.token_numbers),
        magnitudes: device.upload(&magnitudes, 1, magnitudes.len()),
    }
}

/// Forward and backward over all parts: sets the parameters' gradients, of the scaled loss, and returns the loss itself,
/// f32 `[1, 1]`.
pub fn accumulate(device: &Device, decoder: &Decoder, parts: &[MicroBatch], step: &Step) -> Tensor {
    accumulate_announcing(device, decoder, parts, step, &mut |_| ())
}

/// As [`accumulate`], and `listen` is told the number of each parameter, in the order of
/// [`Decoder::parameters`], once, as soon as its gradient is the step's. From then on nothing reads the parameter before the
/// next step, so the listener may change it.
pub fn accumulate_announcing(
    device: &Device,
    decoder: &Decoder,
    parts: &[MicroBatch],
    step: &Step,
    listen: &mut dyn FnMut(usize),
) -> Tensor {
    decoder.parameters().zero_gradients(device);
    run_parts(device, decoder, parts, step, &mut |index, _| listen(index))
}

/// As [`accumulate_announcing`], but a gradient has memory only from the first addition on; `listen`, which is told the loss
/// too, may [release](Device::release) it. Where there are several parts the loss is that of all by then.
pub fn accumulate_freeing(
    device: &Device,
    decoder: &Decoder,
    parts: &[MicroBatch],
    step: &Step,
    listen: &mut dyn FnMut(usize, &Tensor),
) -> Tensor {
    run_parts(device, decoder, parts, step, listen)
}

fn run_parts(
    device: &Device,
    decoder: &Decoder,
    parts: &[MicroBatch],
    step: &Step,
    listen: &mut dyn FnMut(usize, &Tensor),
) -> Tensor {
    let all_gradients = decoder.parameters().gradients();
    let loss = device.zeros(DType::F32, 1, 1);
    let all: f64 = parts.iter().map(MicroBatch::weight_sum).sum();
    let mut parts = parts.iter().filter(|part| !part.targets.is_empty()).peekable();
    if parts.peek().is_none() {
        (0..all_gradients.len()).for_each(|index| listen(index, &loss));
    }
    while let Some(part) = parts.next() {
        let mut tape = Tape::new(device, step.precision);
        if let Some(seed) = step.dropout_seed {
            tape.set_dropout(Some(Dropout { seed, tokens: device.upload_ids(&part.token_numbers) }));
        }
        if let Some(noise) = &step.noise {
            tape.set_noise(Some(embedding_noise(device, decoder, part, noise)));
        }
        let count = part.targets.len();
        let inputs = decoder.inputs(device, &part.ids, part.segments.clone());
        let hidden = decoder.hidden(&mut tape, &inputs, step.recomputed);
        let (positions, targets) = (device.upload_ids(&part.positions), device.upload_ids(&part.targets));
        let head = tape.head(&hidden, &decoder.head_options(false), &positions, &targets);
        let shares: Vec<f32> = (0..count).map(|target| -part.weight(target) / all as f32).collect();
        tape.add_weighted(head.values.value(), 0, &device.upload(&shares, 1, count), &loss);
        let mut coefficients = vec![0.0; count * COEFFICIENTS];
        for (by_log_probability, share) in coefficients.iter_mut().step_by(COEFFICIENTS).zip(&shares) {
            *by_log_probability = *share * step.loss_scale;
        }
        let coefficients = device.upload(&coefficients, count, COEFFICIENTS);
        drop(hidden);
        let final_gradients = if parts.peek().is_none() { &all_gradients[..] } else { &[] };
        tape.backward_announcing(vec![(&head.values, coefficients)], &[], final_gradients, &mut |index| {
            listen(index, &loss)
        });
    }
    loss
}

/// The head's outputs, `OUTPUTS` numbers for each trained token of `part`, without gradients.
pub fn evaluate(device: &Device, decoder: &Decoder, precision: Precision, part: &MicroBatch) -> Vec<[f32; OUTPUTS]> {
    if part.targets.is_empty() {
        return Vec::new();
    }
    let mut tape = Tape::without_gradients(device, precision);
    let inputs = decoder.inputs(device, &part.ids, part.segments.clone());
    let hidden = decoder.hidden(&mut tape, &inputs, 0);
    let (positions, targets) = (device.upload_ids(&part.positions), device.upload_ids(&part.targets));
    let head = tape.head(&hidden, &decoder.head_options(false), &positions, &targets);
    device.download(head.values.value()).as_chunks::<OUTPUTS>().0.to_vec()
}
