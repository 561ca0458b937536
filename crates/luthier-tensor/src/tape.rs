//! The tape: what was computed, and how gradients go back through it. An operation records one closure with the tensors
//! that its derivative needs; backward runs the closures in reverse and frees what each held. Values that no trained
//! parameter influences have no slot: nothing is recorded above them, and backward never goes below the lowest trained
//! parameter.

use std::sync::Arc;

use crate::cpu::gemm::Compute;
use crate::finality::{Additions, Finality};
use crate::{AdapterRows, DType, Device, Tensor};

/// How a run computes and what it keeps between forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Products of bf16 numbers summed in f32; activations and their gradients stored in bf16; reductions, routers,
    /// trained parameters and their gradients in f32.
    Bf16,
    /// Products in f32; activations and their gradients stored in f16, so the loss is scaled up before backward and whoever
    /// reads gradients scales them down; reductions, trained parameters and their gradients in f32.
    F16,
}

impl Precision {
    /// How activations are stored.
    pub fn storage(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::Bf16,
            Self::F16 => DType::F16,
        }
    }

    pub(crate) fn compute(self) -> Compute {
        match self {
            Self::F32 | Self::F16 => Compute::F32,
            Self::Bf16 => Compute::Bf16,
        }
    }
}

/// A matrix of the model. A trained one is f32 and has a gradient of its shape that backward adds to.
#[derive(Clone, Debug)]
pub struct Weight {
    /// The numbers.
    pub value: Tensor,
    /// f32; `None` when the weight is frozen.
    pub gradient: Option<Tensor>,
}

impl Weight {
    /// A weight that is not trained, in any storage type.
    pub fn frozen(value: Tensor) -> Self {
        Self { value, gradient: None }
    }

    /// Whether backward computes its gradient.
    pub fn is_trained(&self) -> bool {
        self.gradient.as_ref().is_some_and(|gradient| !gradient.is_paused())
    }

    /// The weight as an operation sees it: frozen while its gradient is paused.
    pub(crate) fn live(&self) -> Self {
        Self { value: self.value.clone(), gradient: self.gradient.clone().filter(|_| self.is_trained()) }
    }
}

/// A value on the tape.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    slot: Option<usize>,
}

impl Var {
    /// A value that needs no gradient.
    pub fn constant(value: Tensor) -> Self {
        Self { value, slot: None }
    }

    /// What was computed.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Whether backward will reach it.
    pub fn needs_gradient(&self) -> bool {
        self.slot.is_some()
    }

    pub(crate) fn slot(&self) -> Option<usize> {
        self.slot
    }
}

/// The gradients of a backward pass, by slot.
pub(crate) struct Gradients {
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    slots: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Takes the gradient that has been collected; `None` when nothing depended on the value.
    pub(crate) fn take(&mut self, slot: usize) -> Option<Tensor> {
        self.slots[slot].take()
    }

    /// Adds to a slot. The tensor must be the caller's alone: later additions write into it.
    pub(crate) fn add(&mut self, slot: Option<usize>, gradient: Tensor) {
        let Some(slot) = slot else { return };
        match &self.slots[slot] {
            None => self.slots[slot] = Some(gradient),
            Some(sum) => self.device.run("add", |cpu| cpu.add(sum, &gradient)),
        }
    }

    /// The tensor to write a slot's gradient into, and whether it already holds a sum to add to.
    pub(crate) fn target(&mut self, slot: usize, rows: usize, columns: usize) -> (Tensor, bool) {
        match self.slots[slot].take() {
            Some(sum) => (sum, true),
            None => (self.device.empty(self.precision.storage(), rows, columns), false),
        }
    }

    /// Puts back what [`target`](Self::target) gave.
    pub(crate) fn put(&mut self, slot: usize, gradient: Tensor) {
        self.slots[slot] = Some(gradient);
    }
}

type Backward<'a> = Box<dyn FnOnce(&mut Gradients) + 'a>;

struct Record<'a> {
    additions: Additions,
    backward: Backward<'a>,
}

/// A forward pass in progress.
pub struct Tape<'a> {
    device: Device,
    precision: Precision,
    records: Vec<Record<'a>>,
    slots: usize,
    recording: bool,
    /// Computes as a recording tape does, to the last bit: a layer that will run again.
    exact: bool,
    /// What all operations so far would add to: of a layer that will run again.
    noted: Option<Additions>,
    dropout: Option<Dropout>,
    noise: Option<EmbeddingNoise>,
    adapters: Option<Arc<[AdapterRows]>>,
    /// A layer that runs again: what its last operation gives is known to nobody but the tape.
    again: bool,
}

/// What random masks are a function of, so that recomputation, threads and resuming do not change them.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Mixed from the run's seed and the step.
    pub seed: u64,
    /// u32 `[1, tokens]`: a number for each token that does not depend on what else is in the batch.
    pub tokens: Tensor,
}

/// Noise on the embeddings of training rows, uniform in `+-magnitude`. From: Jain et al. 2023 (NEFTune), algorithm 1.
#[derive(Clone, Debug)]
pub struct EmbeddingNoise {
    /// Mixed from the run's seed and the step.
    pub seed: u64,
    /// u32 `[1, tokens]`: as [`Dropout::tokens`].
    pub tokens: Tensor,
    /// f32 `[1, tokens]`: the largest noise of each token, before the embedding's scale.
    pub magnitudes: Tensor,
}

impl<'a> Tape<'a> {
    /// A tape that records.
    pub fn new(device: &Device, precision: Precision) -> Self {
        Self {
            device: device.clone(),
            precision,
            records: Vec::new(),
            slots: 0,
            recording: true,
            exact: true,
            noted: None,
            dropout: None,
            noise: None,
            adapters: None,
            again: false,
        }
    }

    /// A tape that computes only, and as one that records: for evaluation.
    pub fn without_gradients(device: &Device, precision: Precision) -> Self {
        Self { recording: false, ..Self::new(device, precision) }
    }

    /// A tape that computes only: for generation. Kernels for few rows may give other last bits.
    pub fn for_generation(device: &Device, precision: Precision) -> Self {
        Self { recording: false, exact: false, ..Self::new(device, precision) }
    }

    /// Turns dropout on for what follows.
    pub fn set_dropout(&mut self, dropout: Option<Dropout>) {
        self.dropout = dropout;
    }

    /// Turns noise on embeddings on for what follows.
    pub fn set_noise(&mut self, noise: Option<EmbeddingNoise>) {
        self.noise = noise;
    }

    pub(crate) fn noise(&self) -> Option<&EmbeddingNoise> {
        self.noise.as_ref()
    }

    /// Whether the last operation of a layer need not be computed: backward reads what went in, never what came out.
    pub(crate) fn runs_again(&self) -> bool {
        self.again
    }

    /// Chooses, for what follows, which adapters apply to which rows; `None`: all to all.
    pub fn set_adapters(&mut self, adapters: Option<Arc<[AdapterRows]>>) {
        self.adapters = adapters;
    }

    pub(crate) fn adapters(&self) -> Option<&[AdapterRows]> {
        self.adapters.as_deref()
    }

    /// Whether numbers must be those of a training step, to the last bit.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    pub(crate) fn dropout(&self) -> Option<&Dropout> {
        self.dropout.as_ref()
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How it computes.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether a gradient will be wanted of something that depends on these inputs, or that adds to gradients of weights.
    /// Each operation asks once.
    pub(crate) fn wants(&mut self, inputs: &[&Var], additions: &Additions) -> bool {
        if let Some(noted) = &mut self.noted {
            noted.extend(additions);
        }
        self.recording && (!additions.is_empty() || inputs.iter().any(|input| input.slot.is_some()))
    }

    /// A fresh value that backward reaches.
    pub(crate) fn reached(&mut self, value: Tensor) -> Var {
        let slot = Some(self.slots);
        self.slots += 1;
        Var { value, slot }
    }

    /// A value to differentiate with respect to: its gradient is returned by [`backward`](Self::backward).
    pub fn input(&mut self, value: Tensor) -> Var {
        self.reached(value)
    }

    /// `additions` are all the gradients of weights that `backward` adds to; it reads the values of no other trained weight.
    pub(crate) fn record(&mut self, additions: Additions, backward: impl FnOnce(&mut Gradients) + 'a) {
        self.records.push(Record { additions, backward: Box::new(backward) });
    }

    /// How many operations stand on the tape.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Runs the tape backwards from `seeds`, pairs of a value and the loss's gradient with respect to it, and returns the
    /// gradients of `wanted`. Gradients of weights are added to the weights' own.
    pub fn backward(self, seeds: Vec<(&Var, Tensor)>, wanted: &[&Var]) -> Vec<Option<Tensor>> {
        self.backward_announcing(seeds, wanted, &[], &mut |_| ())
    }

    /// As [`backward`](Self::backward), for the last tape that adds to `final_gradients`, gradients of weights: `listen` is
    /// told the number of each in that list, once, as soon as no later record adds to it. None reads the weight's value
    /// either, so the listener may change it. What the tape never adds to comes first; a recomputed layer is one record.
    pub fn backward_announcing(
        self,
        seeds: Vec<(&Var, Tensor)>,
        wanted: &[&Var],
        final_gradients: &[Tensor],
        listen: &mut dyn FnMut(usize),
    ) -> Vec<Option<Tensor>> {
        let finality = Finality::new(final_gradients, self.records.iter().map(|record| &record.additions));
        let mut gradients = Gradients { device: self.device, precision: self.precision, slots: vec![None; self.slots] };
        for (var, gradient) in seeds {
            gradients.add(var.slot, gradient);
        }
        finality.before.into_iter().for_each(&mut *listen);
        for (record, final_now) in self.records.into_iter().zip(finality.after).rev() {
            record.additions.allocate(&gradients.device);
            (record.backward)(&mut gradients);
            final_now.into_iter().for_each(&mut *listen);
        }
        wanted.iter().map(|var| var.slot.and_then(|slot| gradients.take(slot))).collect()
    }

    /// Runs `layer` on `input` and keeps only the input: backward runs it a second time. Its last operation may be a
    /// [`last_linear`](Self::last_linear). From: Chen et al. 2016.
    pub fn checkpoint(&mut self, input: &Var, layer: impl Fn(&mut Tape<'a>, &Var) -> Var + 'a) -> Var {
        self.checkpoint_all(&[input], move |tape, inputs| layer(tape, &inputs[0]))
    }

    /// As [`checkpoint`](Self::checkpoint), of several inputs: each gets its gradient.
    pub fn checkpoint_all(&mut self, inputs: &[&Var], layer: impl Fn(&mut Tape<'a>, &[Var]) -> Var + 'a) -> Var {
        let mut inner = Tape::without_gradients(&self.device, self.precision);
        inner.noted = Some(Additions::default());
        inner.dropout.clone_from(&self.dropout);
        inner.adapters.clone_from(&self.adapters);
        let values: Vec<Var> = inputs.iter().map(|input| Var::constant(input.value.clone())).collect();
        let output = layer(&mut inner, &values).value;
        drop(values);
        let additions = inner.noted.take().unwrap_or_default();
        drop(inner);
        if !self.wants(inputs, &additions) {
            return Var::constant(output);
        }
        let out = self.reached(output);
        let slot = out.slot.unwrap_or(0);
        let inputs: Vec<Var> = inputs.iter().map(|&input| input.clone()).collect();
        let (device, precision) = (self.device.clone(), self.precision);
        let (dropout, adapters) = (self.dropout.clone(), self.adapters.clone());
        self.record(additions, move |gradients| {
            let Some(gradient) = gradients.take(slot) else { return };
            let mut inner = Tape::new(&device, precision);
            (inner.dropout, inner.adapters, inner.again) = (dropout, adapters, true);
            let slots: Vec<Option<usize>> = inputs.iter().map(|input| input.slot).collect();
            let start = |input: Var| match input.slot {
                Some(_) => inner.input(input.value),
                None => Var::constant(input.value),
            };
            let starts: Vec<Var> = inputs.into_iter().map(start).collect();
            let end = layer(&mut inner, &starts);
            let found = inner.backward(vec![(&end, gradient)], &starts.iter().collect::<Vec<_>>());
            for (slot, gradient) in slots.into_iter().zip(found) {
                if let Some(gradient) = gradient {
                    gradients.add(slot, gradient);
                }
            }
        });
        out
    }

    /// Computes `work` in f32 whatever the tape's precision, as small networks that make a prompt want it, and returns its
    /// result in the tape's storage. `work` starts from weights: no value of this tape gets a gradient from it.
    pub fn in_f32(&mut self, work: impl FnOnce(&mut Tape<'a>) -> Var) -> Var {
        let mut inner = Tape::new(&self.device, Precision::F32);
        (inner.recording, inner.noted) = (self.recording, Some(Additions::default()));
        let end = work(&mut inner);
        let additions = inner.noted.take().unwrap_or_default();
        let storage = self.precision.storage();
        let value = if storage == DType::F32 { end.value.clone() } else { self.device.convert(&end.value, storage) };
        if !self.wants(&[], &additions) {
            return Var::constant(value);
        }
        let out = self.reached(value);
        let slot = out.slot.unwrap_or(0);
        self.record(additions, move |gradients| {
            let Some(gradient) = gradients.take(slot) else { return };
            let device = gradients.device.clone();
            let is_f32 = gradient.dtype() == DType::F32;
            let gradient = if is_f32 { gradient } else { device.convert(&gradient, DType::F32) };
            inner.backward(vec![(&end, gradient)], &[]);
        });
        out
    }
}
