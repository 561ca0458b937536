//! Rules whose moments live in a space of low rank. GaLore projects the gradient on its own leading singular vectors and
//! the step back; APOLLO projects it on random vectors and takes from there only how much each channel is scaled.

use super::Gate;
use crate::{DType, Device, Tensor};

/// Which side of a matrix `[rows, columns]` is projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The rows: what remains is `[rank, columns]`.
    Left,
    /// The columns: what remains is `[rows, rank]`.
    Right,
}

impl Side {
    /// The shape of a projection of `value` to `rank`.
    pub fn projection(self, value: &Tensor, rank: usize) -> (usize, usize) {
        (rank, if self == Self::Left { value.rows() } else { value.columns() })
    }

    /// The shape of what remains of `value`.
    pub fn remains(self, value: &Tensor, rank: usize) -> (usize, usize) {
        if self == Self::Left { (rank, value.columns()) } else { (value.rows(), rank) }
    }
}

/// AdamW's numbers in the low rank.
#[derive(Clone, Copy, Debug)]
pub struct LowMoments {
    /// This step's rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment, before its correction.
    pub epsilon: f32,
    /// Decoupled decay, after the step.
    pub weight_decay: f32,
    /// The step's number, from 1.
    pub step: u32,
}

/// Where a projection comes from.
#[derive(Clone, Copy, Debug)]
pub enum ProjectionSource<'a> {
    /// The leading singular vectors of the gradient, f32 `[rank, side]`: computed anew when `due`, or when it is zero
    /// still. What else is random in it is of `stream`.
    Singular {
        /// Kept from step to step.
        kept: &'a Tensor,
        /// Whether to compute it anew.
        due: bool,
        /// Of the vectors that the search begins with.
        stream: u64,
    },
    /// Normal numbers that are a function of `stream` and their index.
    Random {
        /// Of these numbers.
        stream: u64,
    },
}

/// GaLore. From: Zhao et al. 2024, algorithm 2, as `galore_torch.GaLoreAdamW` computes it.
#[derive(Clone, Copy, Debug)]
pub struct Galore {
    /// Of the moments.
    pub moments: LowMoments,
    /// Factor of what is projected back.
    pub scale: f32,
}

/// APOLLO. From: Zhu et al. 2024, algorithm 1, as `apollo_torch.APOLLOAdamW` computes it.
#[derive(Clone, Copy, Debug)]
pub struct Apollo {
    /// Of the moments.
    pub moments: LowMoments,
    /// The factor of the step is the root of this.
    pub scale: f32,
    /// One factor for each channel; otherwise one for the whole matrix.
    pub by_channel: bool,
    /// Scale before the norm's growth is limited, not after.
    pub scale_front: bool,
}

/// How many vectors the search for `rank` singular vectors of `side` numbers carries along.
pub(crate) fn carried(rank: usize, side: usize) -> usize {
    side.min((2 * rank).max(rank + 32))
}

struct Scratch {
    projection: Tensor,
    remains: Tensor,
    /// Carried vectors and their images, where singular vectors are searched.
    search: Option<[Tensor; 2]>,
}

impl Device {
    fn low_rank_scratch(
        &self,
        source: ProjectionSource,
        side: Side,
        value: &Tensor,
        remains: (usize, usize),
    ) -> Scratch {
        let empty = |(rows, columns)| self.empty(DType::F32, rows, columns);
        let rank = if side == Side::Left { remains.0 } else { remains.1 };
        let (_, length) = side.projection(value, rank);
        let (projection, search) = match source {
            ProjectionSource::Singular { kept, .. } => {
                let vectors = carried(rank, length);
                let images = value.len() / length;
                (kept.clone(), Some([empty((vectors, length)), empty((images, vectors))]))
            }
            ProjectionSource::Random { .. } => (empty((rank, length)), None),
        };
        Scratch { projection, remains: empty(remains), search }
    }

    /// One step of one matrix; `value` and `gradient` are f32 of one shape, `moments` of [`Side::remains`]'.
    pub fn galore(
        &self,
        rule: &Galore,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        (side, source): (Side, ProjectionSource),
        moments: [&Tensor; 2],
    ) {
        let shape = (moments[0].rows(), moments[0].columns());
        let Scratch { projection, remains, search } = self.low_rank_scratch(source, side, value, shape);
        self.run("optimiser", |cpu| {
            let Some(clip) = cpu.clip(gate) else { return };
            cpu.projection(gradient, side, source, &projection, search.as_ref());
            cpu.project(gradient, side, &projection, clip, &remains);
            cpu.galore(rule, value, side, &projection, &remains, moments);
        });
    }

    /// One step of one matrix; `value` and `gradient` are f32 of one shape, `moments` of [`Side::remains`]', `norm` f32
    /// `[1, 1]`: the norm of the last step before its rate, 0 before the first.
    pub fn apollo(
        &self,
        rule: &Apollo,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        (side, source): (Side, ProjectionSource),
        (moments, norm): ([&Tensor; 2], &Tensor),
    ) {
        let shape = (moments[0].rows(), moments[0].columns());
        let Scratch { projection, remains, search } = self.low_rank_scratch(source, side, value, shape);
        let channels = if side == Side::Left { value.columns() } else { value.rows() };
        let factors = self.empty(DType::F32, 1, channels);
        let sums = self.empty(DType::F32, 1, value.rows());
        self.run("optimiser", |cpu| {
            let Some(clip) = cpu.clip(gate) else { return };
            cpu.projection(gradient, side, source, &projection, search.as_ref());
            cpu.project(gradient, side, &projection, clip, &remains);
            cpu.apollo(rule, clip, gradient, value, side, &remains, moments, norm, [&factors, &sums]);
        });
    }
}
