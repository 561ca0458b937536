//! AdamW over the registry of parameters, with its moments.

use luthier_model::Parameters;
use luthier_tensor::{AdamW, Bf16State, DType, Device, Rounding, Tensor};

/// What does not change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiserSettings {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay; norms and biases are left alone.
    pub weight_decay: f64,
    /// Limit of the norm of all gradients together; `None` for none.
    pub max_gradient_norm: Option<f64>,
    /// Trained matrices and their moments are kept in bf16; `None`: everything in f32.
    pub pure_bf16: Option<PureBf16>,
}

/// How a state in bf16 is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PureBf16 {
    /// How it is rounded.
    pub rounding: Rounding,
    /// Where the random numbers of rounding come from.
    pub seed: u64,
}

impl OptimiserSettings {
    /// What trained matrices are kept in; vectors are f32 always.
    pub fn storage(&self) -> DType {
        if self.pure_bf16.is_some() { DType::Bf16 } else { DType::F32 }
    }
}

/// The state of AdamW.
#[derive(Debug)]
pub struct Optimiser {
    settings: OptimiserSettings,
    moments: Vec<[Tensor; 2]>,
    /// What rounding to bf16 has lost, where that is kept.
    lost: Vec<Option<Tensor>>,
    steps: u32,
}

impl Optimiser {
    /// Moments of zero for each parameter.
    pub fn new(device: &Device, parameters: &Parameters, settings: OptimiserSettings) -> Self {
        let zeros = |value: &Tensor| device.zeros(value.dtype(), value.rows(), value.columns());
        let moments = parameters.iter().map(|parameter| [zeros(&parameter.value), zeros(&parameter.value)]).collect();
        let keeps_lost = settings.pure_bf16.is_some_and(|bf16| bf16.rounding == Rounding::Kahan);
        let lost = |value: &Tensor| (keeps_lost && value.dtype() == DType::Bf16).then(|| zeros(value));
        let lost = parameters.iter().map(|parameter| lost(&parameter.value)).collect();
        Self { settings, moments, lost, steps: 0 }
    }

    /// The moments of each parameter, in the order of the registry: `[mean, mean square]`, stored as the parameter is, of
    /// its shape.
    pub fn moments(&self) -> &[[Tensor; 2]] {
        &self.moments
    }

    /// What rounding has lost of each parameter, with [`Rounding::Kahan`], in the order of the registry.
    pub fn lost(&self) -> &[Option<Tensor>] {
        &self.lost
    }

    /// Goes on after so many steps; the caller has written the moments.
    pub fn resume(&mut self, steps: usize) {
        self.steps = steps as u32;
    }

    /// One step; returns the norm of all gradients together before clipping, f32 `[1, 1]`, which is not finite when `loss`
    /// is not. Then no parameter and no moment changes; the step counts all the same. Gradients are those of `loss_scale`
    /// times the loss, and are scaled down in passing.
    pub fn step(
        &mut self,
        device: &Device,
        parameters: &Parameters,
        loss: &Tensor,
        learning_rate: f64,
        loss_scale: f32,
    ) -> Tensor {
        self.steps += 1;
        let gradient_scale = 1.0 / loss_scale;
        let norm = device.gradient_norm(&parameters.gradients(), loss, gradient_scale);
        for (index, (parameter, [first, second])) in parameters.iter().zip(&self.moments).enumerate() {
            let rule = AdamW {
                learning_rate: learning_rate as f32,
                beta_1: self.settings.beta_1 as f32,
                beta_2: self.settings.beta_2 as f32,
                epsilon: self.settings.epsilon as f32,
                weight_decay: if parameter.decays { self.settings.weight_decay as f32 } else { 0.0 },
                max_gradient_norm: self.settings.max_gradient_norm.map(|limit| limit as f32),
                gradient_scale,
                step: self.steps,
            };
            let (gradient, value) = (&parameter.gradient, &parameter.value);
            match self.settings.pure_bf16.filter(|_| value.dtype() == DType::Bf16) {
                None => device.adamw(&rule, &norm, gradient, value, [first, second]),
                Some(bf16) => {
                    let stream = mix(mix(bf16.seed ^ u64::from(self.steps)) ^ index as u64);
                    let state = Bf16State { stream, lost: self.lost[index].as_ref() };
                    device.adamw_bf16(&rule, &norm, gradient, value, [first, second], &state);
                }
            }
        }
        norm
    }
}

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
