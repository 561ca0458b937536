//! RMS norms: as the linear layer and the head take them, and after a block, before its output joins the residual stream.

use crate::cpu::RowNorm;
use crate::finality::Additions;
use crate::{DType, Device, Tape, Tensor, Var, Weight};

/// An RMS norm of rows: `x / sqrt(mean(x^2) + epsilon) * (weight + offset)`. From: Zhang & Sennrich 2019, equation 4.
#[derive(Clone, Debug)]
pub struct Norm {
    /// f32 `[1, width]`
    pub weight: Weight,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Added to the weight: 1 where a family stores the distance from 1, else 0.
    pub offset: f32,
}

impl Norm {
    /// A norm whose factors are the weight's numbers.
    pub fn new(weight: Weight, epsilon: f32) -> Self {
        Self { weight, epsilon, offset: 0.0 }
    }

    pub(crate) fn live(&self) -> Self {
        Self { weight: self.weight.live(), ..self.clone() }
    }

    pub(crate) fn rows<'t>(&'t self, input: &'t Tensor, inverse_rms: &'t Tensor) -> RowNorm<'t> {
        RowNorm { input, weight: &self.weight.value, inverse_rms, epsilon: self.epsilon, offset: self.offset }
    }

    /// A place for one number of each row of `input`.
    pub(crate) fn inverse_rms(device: &Device, input: &Tensor) -> Tensor {
        device.empty(DType::F32, 1, input.rows())
    }
}

impl<'a> Tape<'a> {
    /// `base + norm(input)`, all `[tokens, width]`.
    pub fn add_normed(&mut self, base: &Var, input: &Var, norm: &Norm) -> Var {
        let device = self.device().clone();
        let inverse_rms = Norm::inverse_rms(&device, input.value());
        let output = device.empty(input.value().dtype(), input.value().rows(), input.value().columns());
        device.run("norm", |cpu| {
            cpu.rms_norm(&norm.rows(input.value(), &inverse_rms), &output);
            cpu.add(&output, base.value());
        });
        let additions = Additions::to([&norm.weight]);
        if !self.wants(&[base, input], &additions) {
            return Var::constant(output);
        }
        let out = self.reached(output);
        let (slot, base_slot, input_slot) = (out.slot(), base.slot(), input.slot());
        let (input, norm) = (input.value().clone(), norm.live());
        self.record(additions, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            let rows = norm.rows(&input, &inverse_rms);
            if let Some(sums) = &norm.weight.gradient {
                device.run("norm backward", |cpu| cpu.rms_norm_weight_gradient(&rows, &upstream, sums));
            }
            if let Some(slot) = input_slot {
                let (target, accumulate) = gradients.target(slot, input.rows(), input.columns());
                device.run("norm backward", |cpu| cpu.rms_norm_backward(&rows, &upstream, &target, accumulate, None));
                gradients.put(slot, target);
            }
            gradients.add(base_slot, upstream);
        });
        out
    }
}
