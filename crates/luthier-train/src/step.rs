//! One optimiser step: its rows go through the model in parts, every part adds to the same gradients, and the loss is the
//! mean over all trained tokens of the step, each by its weight: sum(w * l) / sum(w), whatever the parts. Nothing is read from
//! the device before the step has ended.

use luthier_model::Decoder;
use luthier_tensor::{DType, Device, Dropout, OUTPUTS, Precision, Tape, Tensor};

use crate::{MicroBatch, Optimiser};

/// Numbers that [`HeadOutputs`](luthier_tensor::HeadOutputs) differentiates.
const COEFFICIENTS: usize = 4;

/// How a step is computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Storage and products of activations.
    pub precision: Precision,
    /// Layers, from the first, that keep their input only and run again in backward.
    pub recomputed_layers: usize,
    /// Mixed from the run's seed and the step; `None` where nothing is dropped.
    pub dropout_seed: Option<u64>,
    /// The rate of this step.
    pub learning_rate: f64,
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
    let parameters = decoder.parameters();
    optimiser.prepare(device, parameters);
    if !optimiser.steps_in_backward() {
        let loss = accumulate(device, decoder, parts, step);
        let gradient_norm = optimiser.step(device, parameters, &loss, step.learning_rate);
        return StepResult { loss, gradient_norm };
    }
    let mut norms = Vec::new();
    optimiser.begin(step.learning_rate);
    let loss = accumulate_freeing(device, decoder, parts, step, &mut |index, loss| {
        norms.extend(optimiser.step_final(device, parameters, index, loss, step.learning_rate));
    });
    // Of the norms of all parameters: not finite where any is not.
    let gradient_norm = device.gradient_norm(&norms, &loss);
    StepResult { loss, gradient_norm }
}

/// Forward and backward over all parts: sets the parameters' gradients and returns the loss, f32 `[1, 1]`.
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
        let count = part.targets.len();
        let inputs = decoder.inputs(device, &part.ids, part.segments.clone());
        let hidden = decoder.hidden(&mut tape, &inputs, step.recomputed_layers);
        let (positions, targets) = (device.upload_ids(&part.positions), device.upload_ids(&part.targets));
        let head = tape.head(&hidden, &decoder.head_options(false), &positions, &targets);
        let shares: Vec<f32> = (0..count).map(|target| -part.weight(target) / all as f32).collect();
        tape.add_weighted(head.values.value(), 0, &device.upload(&shares, 1, count), &loss);
        let mut coefficients = vec![0.0; count * COEFFICIENTS];
        for (by_log_probability, share) in coefficients.iter_mut().step_by(COEFFICIENTS).zip(&shares) {
            *by_log_probability = *share;
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
