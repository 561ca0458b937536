//! Muon: the momentum of a matrix is replaced by the orthogonal matrix next to it, by five steps of a quintic
//! Newton-Schulz iteration. The products are f32.

use super::Gate;
use crate::{DType, Device, Tensor};

/// The numbers of one step. From: Jordan et al. 2024, as `torch.optim.Muon` computes them.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    /// This step's rate: of the decay.
    pub learning_rate: f32,
    /// This step's rate with the factor for the matrix's shape: of the orthogonal matrix.
    pub adjusted_rate: f32,
    /// Decay of the mean.
    pub momentum: f32,
    /// Looks ahead by one more step of the mean.
    pub nesterov: bool,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// Steps of the iteration.
    pub iterations: usize,
}

impl Device {
    /// One step of one matrix; `value`, `gradient` and `mean` are f32 of one shape.
    pub fn muon(&self, rule: &Muon, gate: Gate, gradient: &Tensor, value: &Tensor, mean: &Tensor) {
        let (rows, columns) = (value.rows(), value.columns());
        let side = rows.min(columns);
        let empty = |rows, columns| self.empty(DType::F32, rows, columns);
        let (update, next) = (empty(rows, columns), empty(rows, columns));
        let (gram, polynomial) = (empty(side, side), empty(side, side));
        self.run("optimiser", |cpu| {
            cpu.muon(rule, gate, gradient, value, mean, [&update, &next], [&gram, &polynomial]);
        });
    }
}
