//! Rules that go once over the numbers of a parameter and look at nothing else: Lion, SGD, schedule-free AdamW.

use super::Gate;
use crate::{Device, Tensor};

/// The numbers of one step of Lion. From: Chen et al. 2023, algorithm 2.
#[derive(Clone, Copy, Debug)]
pub struct Lion {
    /// This step's rate.
    pub learning_rate: f32,
    /// Share of the mean in the direction.
    pub beta_1: f32,
    /// Decay of the mean.
    pub beta_2: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
}

/// The numbers of one step of gradient descent, as `torch.optim.SGD` has them: the decay is added to the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// This step's rate.
    pub learning_rate: f32,
    /// Decay of the sum of gradients; 0 for none.
    pub momentum: f32,
    /// Share of a gradient that does not reach the sum.
    pub dampening: f32,
    /// Looks ahead by one more step of the sum. From: Sutskever et al. 2013.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f32,
    /// Whether the sum begins with this gradient.
    pub is_first: bool,
}

/// The numbers of one step of schedule-free AdamW. From: Defazio et al. 2024, and their `AdamWScheduleFree`.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFree {
    /// This step's rate.
    pub learning_rate: f32,
    /// How far the point of the gradient lies from the last iterate towards the average.
    pub beta_1: f32,
    /// Decay of the squared gradient.
    pub beta_2: f32,
    /// Added to the root of the squared gradient.
    pub epsilon: f32,
    /// Decay, at the point of the gradient.
    pub weight_decay: f32,
    /// This iterate's share of the average.
    pub share: f32,
    /// The step's number, from 1.
    pub step: u32,
}

impl Device {
    /// One step of one parameter; all tensors are f32 of one shape.
    pub fn lion(&self, rule: &Lion, gate: Gate, gradient: &Tensor, value: &Tensor, mean: &Tensor) {
        self.run("optimiser", |cpu| cpu.lion(rule, gate, gradient, value, mean));
    }

    /// One step of one parameter; all tensors are f32 of one shape. `sum` where there is momentum.
    pub fn sgd(&self, rule: &Sgd, gate: Gate, gradient: &Tensor, value: &Tensor, sum: Option<&Tensor>) {
        self.run("optimiser", |cpu| cpu.sgd(rule, gate, gradient, value, sum));
    }

    /// One step of one parameter; all tensors are f32 of one shape. `value` is where the gradient was taken, `iterate`
    /// the point that the steps move.
    pub fn schedule_free(
        &self,
        rule: &ScheduleFree,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        iterate: &Tensor,
        mean_square: &Tensor,
    ) {
        self.run("optimiser", |cpu| cpu.schedule_free(rule, gate, gradient, value, iterate, mean_square));
    }

    /// `value += weight * (end - value)`; both f32 of one shape.
    pub fn interpolate(&self, value: &Tensor, end: &Tensor, weight: f32) {
        self.run("optimiser", |cpu| cpu.interpolate(value, end, weight));
    }
}
