//! Adafactor: mean squares of rows and columns instead of one for each number, and no mean unless it is asked for.

use luthier_model::Parameter;
use luthier_tensor::{Adafactor, DType, Device, SquareMeans, Tensor};

use super::{AdafactorSettings, Now, Rule, adamw};

#[derive(Debug)]
pub(super) struct AdafactorState {
    settings: AdafactorSettings,
    squares: SquareMeans,
    mean: Option<Tensor>,
}

impl AdafactorState {
    pub(super) fn new(device: &Device, parameter: &Parameter, settings: AdafactorSettings) -> Self {
        let value = &parameter.value;
        let squares = match parameter.dims.len() {
            0 | 1 => SquareMeans::Whole(adamw::zeros(device, parameter)),
            _ => SquareMeans::Factored {
                rows: device.zeros(DType::F32, value.rows(), 1),
                columns: device.zeros(DType::F32, 1, value.columns()),
            },
        };
        let mean = settings.beta_1.map(|_| adamw::zeros(device, parameter));
        Self { settings, squares, mean }
    }
}

impl Rule for AdafactorState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let mut state = match &self.squares {
            SquareMeans::Factored { rows, columns } => {
                vec![("mean_square_rows", rows), ("mean_square_columns", columns)]
            }
            SquareMeans::Whole(whole) => vec![("mean_square", whole)],
        };
        state.extend(self.mean.iter().map(|mean| ("mean", mean)));
        state
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let (settings, step) = (&self.settings, f64::from(now.step));
        let learning_rate = if settings.relative_step {
            let most = if settings.warmup_init { 1e-6 * step } else { 1e-2 };
            most.min(1.0 / step.sqrt())
        } else {
            now.learning_rate
        };
        let rule = Adafactor {
            learning_rate,
            least_scale: settings.scale_parameter.then_some(settings.least_scale),
            epsilon: settings.epsilon as f32,
            clip_threshold: settings.clip_threshold,
            beta_2: (1.0 - step.powf(settings.decay_rate)) as f32,
            beta_1: settings.beta_1.unwrap_or_default() as f32,
            weight_decay: now.weight_decay,
        };
        let mean = self.mean.as_ref();
        device.adafactor(&rule, now.gate, &parameter.gradient, &parameter.value, &self.squares, mean);
    }
}
