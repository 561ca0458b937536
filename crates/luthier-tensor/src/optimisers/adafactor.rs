//! Adafactor: the mean square of a matrix is kept as one number for each row and one for each column.

use super::Gate;
use crate::{DType, Device, Tensor};

/// The numbers of one step. From: Shazeer & Stern 2018, algorithms 4 and 5, as `transformers.Adafactor` computes them.
#[derive(Clone, Copy, Debug)]
pub struct Adafactor {
    /// This step's rate, before the parameter's own scale.
    pub learning_rate: f64,
    /// The rate is times the root mean square of the parameter, but at least times this; `None`: it is not.
    pub least_scale: Option<f64>,
    /// Added to each squared gradient.
    pub epsilon: f32,
    /// The root mean square that an update may have.
    pub clip_threshold: f64,
    /// Decay of the mean squares at this step.
    pub beta_2: f32,
    /// Decay of the mean, where one is kept.
    pub beta_1: f32,
    /// Decoupled decay.
    pub weight_decay: f64,
}

/// What is kept of squared gradients.
#[derive(Clone, Debug)]
pub enum SquareMeans {
    /// Of a matrix.
    Factored {
        /// f32 `[rows, 1]`
        rows: Tensor,
        /// f32 `[1, columns]`
        columns: Tensor,
    },
    /// Of a vector: f32 of its shape.
    Whole(Tensor),
}

impl Device {
    /// One step of one parameter; `value`, `gradient` and `mean`, where one is kept, are f32 of one shape.
    pub fn adafactor(
        &self,
        rule: &Adafactor,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        squares: &SquareMeans,
        mean: Option<&Tensor>,
    ) {
        let sums = self.empty(DType::F32, 2, value.rows());
        self.run("optimiser", |cpu| cpu.adafactor(rule, gate, gradient, value, squares, mean, &sums));
    }
}
