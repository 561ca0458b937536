//! Schedule-free AdamW: gradients are taken between the last iterate and an average of all; the average is what is
//! evaluated and saved. The parameter holds the point of the gradient while it trains and the average while it is shown.

use luthier_model::{Parameter, Parameters};
use luthier_tensor::{DType, Device, ScheduleFree, Tensor};

use super::{Moments, Now, OptimiserKind, OptimiserSettings, Rule, adamw};

/// Name of the iterate in the state.
pub(super) const ITERATE: &str = "iterate";

#[derive(Debug)]
pub(super) struct ScheduleFreeState {
    moments: Moments,
    iterate: Tensor,
    mean_square: Tensor,
}

impl ScheduleFreeState {
    pub(super) fn new(device: &Device, parameter: &Parameter, moments: Moments) -> Self {
        let value = &parameter.value;
        let iterate = device.empty(DType::F32, value.rows(), value.columns());
        device.copy(value, &iterate);
        Self { moments, iterate, mean_square: adamw::zeros(device, parameter) }
    }
}

impl Rule for ScheduleFreeState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        vec![(ITERATE, &self.iterate), ("mean_square", &self.mean_square)]
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let rule = ScheduleFree {
            learning_rate: now.learning_rate as f32,
            beta_1: self.moments.beta_1 as f32,
            beta_2: self.moments.beta_2 as f32,
            epsilon: self.moments.epsilon as f32,
            weight_decay: now.weight_decay as f32,
            share: now.share as f32,
            step: now.step,
        };
        let (gradient, value) = (&parameter.gradient, &parameter.value);
        device.schedule_free(&rule, now.gate, gradient, value, &self.iterate, &self.mean_square);
    }
}

/// The average over all parameters: what weighs how much, and whether it is shown.
#[derive(Debug, Default)]
pub(super) struct Average {
    /// `None` where no average is kept.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    power: f64,
    rate_power: f64,
    beta_1: f64,
    weight_sum: f64,
    largest_rate: f64,
    share: f64,
    /// The points of the gradient, while the parameters hold the average.
    points: Option<Vec<Tensor>>,
}

impl Average {
    pub(super) fn new(settings: &OptimiserSettings) -> Self {
        let OptimiserKind::ScheduleFree(chosen) = settings.kind else { return Self::default() };
        let (power, rate_power, beta_1) = (chosen.power, chosen.rate_power, settings.moments.beta_1);
        let kept = Kept { power, rate_power, beta_1, weight_sum: 0.0, largest_rate: 0.0, share: 0.0, points: None };
        Self { kept: Some(kept) }
    }

    /// This iterate's share of the average.
    pub(super) fn share(&self) -> f64 {
        self.kept.as_ref().map_or(0.0, |kept| kept.share)
    }

    pub(super) fn begin_step(&mut self, step: u32, rate: f64) {
        if let Some(kept) = &mut self.kept {
            kept.add(f64::from(step), rate);
        }
    }

    /// As after so many steps, with the average shown; the caller writes the state.
    pub(super) fn resume(
        &mut self,
        device: &Device,
        parameters: &Parameters,
        steps: usize,
        rate: impl Fn(usize) -> f64,
    ) {
        let Some(kept) = &mut self.kept else { return };
        (kept.weight_sum, kept.largest_rate) = (0.0, 0.0);
        for step in 0..steps {
            kept.add(step as f64 + 1.0, rate(step));
        }
        kept.points = Some(points(device, parameters));
    }

    pub(super) fn state(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let points = self.kept.iter().filter_map(|kept| kept.points.as_ref()).flatten();
        let names = parameters.iter().map(|parameter| format!("{}.gradient_point", parameter.name));
        names.zip(points.cloned()).collect()
    }

    pub(super) fn show(&mut self, device: &Device, parameters: &Parameters, iterates: &[Option<&Tensor>]) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.points.is_none()) else { return };
        let points = points(device, parameters);
        for ((parameter, point), iterate) in parameters.iter().zip(&points).zip(iterates) {
            device.copy(&parameter.value, point);
            if let Some(iterate) = iterate {
                device.interpolate(&parameter.value, iterate, (1.0 - 1.0 / kept.beta_1) as f32);
            }
        }
        kept.points = Some(points);
    }

    pub(super) fn hide(&mut self, device: &Device, parameters: &Parameters) {
        let Some(points) = self.kept.as_mut().and_then(|kept| kept.points.take()) else { return };
        for (parameter, point) in parameters.iter().zip(&points) {
            device.copy(point, &parameter.value);
        }
    }
}

impl Kept {
    fn add(&mut self, step: f64, rate: f64) {
        self.largest_rate = self.largest_rate.max(rate);
        let weight = step.powf(self.power) * self.largest_rate.powf(self.rate_power);
        self.weight_sum += weight;
        self.share = if self.weight_sum > 0.0 { weight / self.weight_sum } else { 0.0 };
    }
}

fn points(device: &Device, parameters: &Parameters) -> Vec<Tensor> {
    let empty = |parameter: &Parameter| device.empty(DType::F32, parameter.value.rows(), parameter.value.columns());
    parameters.iter().map(empty).collect()
}
