//! AdamW over the registry of parameters, with its moments.

use luthier_model::Parameters;
use luthier_tensor::{AdamW, DType, Device, Tensor};

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
}

/// The state of AdamW.
#[derive(Debug)]
pub struct Optimiser {
    settings: OptimiserSettings,
    moments: Vec<[Tensor; 2]>,
    steps: u32,
}

impl Optimiser {
    /// Moments of zero for each parameter.
    pub fn new(device: &Device, parameters: &Parameters, settings: OptimiserSettings) -> Self {
        let zeros = |value: &Tensor| device.zeros(DType::F32, value.rows(), value.columns());
        let moments = parameters.iter().map(|parameter| [zeros(&parameter.value), zeros(&parameter.value)]).collect();
        Self { settings, moments, steps: 0 }
    }

    /// The moments of each parameter, in the order of the registry: `[mean, mean square]`, f32, of the parameter's shape.
    pub fn moments(&self) -> &[[Tensor; 2]] {
        &self.moments
    }

    /// Goes on after so many steps; the caller has written the moments.
    pub fn resume(&mut self, steps: usize) {
        self.steps = steps as u32;
    }

    /// One step; returns the norm of all gradients together before clipping, f32 `[1, 1]`, which is not finite when `loss`
    /// is not. Then no parameter and no moment changes; the step counts all the same.
    pub fn step(&mut self, device: &Device, parameters: &Parameters, loss: &Tensor, learning_rate: f64) -> Tensor {
        self.steps += 1;
        let norm = device.gradient_norm(&parameters.gradients(), loss);
        for (parameter, [first, second]) in parameters.iter().zip(&self.moments) {
            let rule = AdamW {
                learning_rate: (learning_rate * parameter.rate) as f32,
                beta_1: self.settings.beta_1 as f32,
                beta_2: self.settings.beta_2 as f32,
                epsilon: self.settings.epsilon as f32,
                weight_decay: if parameter.decays { self.settings.weight_decay as f32 } else { 0.0 },
                max_gradient_norm: self.settings.max_gradient_norm.map(|limit| limit as f32),
                step: self.steps,
            };
            device.adamw(&rule, &norm, &parameter.gradient, &parameter.value, [first, second]);
        }
        norm
    }
}
