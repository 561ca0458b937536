//! What an adapter does to the input of one projection before the weight meets it: IA3 scales it, OFT rotates it in blocks.
//! Other projections of the same input see it as it was. What a map gave is not kept; backward makes it again where it needs it.

use std::ops::Range;

use super::{add_product, columns_of, cut, part, rows_of};
use crate::cpu::Cayley;
use crate::cpu::gemm::{Compute, Epilogue, Product};
use crate::{DType, Device, Tensor, Weight};

/// A map of a projection's input.
#[derive(Clone, Debug)]
pub struct InputMap {
    /// What it is.
    pub kind: InputMapKind,
    /// The adapter that it belongs to: see [`AdapterRows`](super::AdapterRows).
    pub adapter: u32,
}

/// The kinds of maps.
#[derive(Clone, Debug)]
pub enum InputMapKind {
    /// x * l. From: Liu et al. 2022 (IA3), on feed-forward layers.
    Scale {
        /// f32 `[1, in]`
        vector: Weight,
    },
    /// x R, with an orthogonal matrix for each block of columns. From: Qiu et al. 2023 (OFT).
    Rotation {
        /// f32 `[blocks, block (block - 1) / 2]`: above the diagonals of skew-symmetric matrices, row by row.
        angles: Weight,
        /// Columns of a block.
        block: usize,
        /// How angles become rotations.
        series: RotationSeries,
    },
    /// The same, made already: nothing is trained.
    Made {
        /// f32 `[blocks * block, block]`
        rotations: Tensor,
    },
}

/// How a skew-symmetric Q becomes a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationSeries {
    /// (I - Q)(I + Q)^-1. From: Cayley 1846.
    Exact,
    /// So many terms of its Neumann series in -Q as PEFT 0.18.1 sums them: I + 2 Q + 2 Q^2 + ... + Q^(n - 1).
    Terms(usize),
}

impl InputMap {
    /// Its weights.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        match &self.kind {
            InputMapKind::Scale { vector } => Some(vector),
            InputMapKind::Rotation { angles, .. } => Some(angles),
            InputMapKind::Made { .. } => None,
        }
        .into_iter()
    }

    pub(super) fn is_trained(&self) -> bool {
        self.weights().any(Weight::is_trained)
    }

    fn rotations(&self, device: &Device) -> Option<Tensor> {
        match &self.kind {
            InputMapKind::Scale { .. } => None,
            InputMapKind::Rotation { angles, block, series } => Some(device.rotations(&angles.value, *block, *series)),
            InputMapKind::Made { rotations } => Some(rotations.clone()),
        }
    }

    /// What the weight multiplies in place of `h`; rows outside `runs` stay as they are.
    pub(super) fn apply(&self, device: &Device, h: &Tensor, runs: &[Range<usize>]) -> Tensor {
        let out = device.convert(h, h.dtype());
        let rotations = self.rotations(device);
        for run in runs {
            match (&self.kind, &rotations) {
                (InputMapKind::Scale { vector }, _) => {
                    device.run("adapter", |cpu| cpu.scale_columns(&cut(&out, run), 0, &vector.value, 1.0));
                }
                (_, Some(rotations)) => rotate(device, &cut(h, run), rotations, false, &cut(&out, run)),
                (_, None) => {}
            }
        }
        out
    }

    /// Takes `through`, d loss / d (what [`apply`](Self::apply) gave), adds to the map's gradient, and gives d loss / d h.
    pub(super) fn back(&self, device: &Device, h: &Tensor, through: Tensor, runs: &[Range<usize>]) -> Tensor {
        let rotations = self.rotations(device);
        let out = if rotations.is_some() { device.convert(&through, through.dtype()) } else { through.clone() };
        let sums = match (&self.kind, &rotations) {
            (InputMapKind::Rotation { angles, .. }, Some(rotations)) if angles.is_trained() => {
                Some(device.zeros(DType::F32, rotations.rows(), rotations.columns()))
            }
            _ => None,
        };
        for run in runs {
            let (h, through) = (cut(h, run), cut(&through, run));
            match (&self.kind, &rotations) {
                (InputMapKind::Scale { vector }, _) => device.run("adapter backward", |cpu| {
                    if let Some(gradient) = &vector.gradient {
                        cpu.add_column_dots((&h, 0), (&through, 0), 1.0, gradient);
                    }
                    cpu.scale_columns(&through, 0, &vector.value, 1.0);
                }),
                (_, Some(rotations)) => {
                    if let Some(sums) = &sums {
                        add_outer(device, &h, &through, sums);
                    }
                    rotate(device, &through, rotations, true, &cut(&out, run));
                }
                (_, None) => {}
            }
        }
        if let (InputMapKind::Rotation { angles, block, series }, Some(sums)) = (&self.kind, &sums)
            && let Some(gradient) = &angles.gradient
        {
            let of = Cayley { angles: &angles.value, block: *block, series: *series };
            device.run("adapter backward", |cpu| cpu.add_angle_gradients(&of, sums, gradient));
        }
        out
    }
}

impl Device {
    /// f32 `[blocks * block, block]`: the rotations of [`InputMapKind::Rotation`].
    pub fn rotations(&self, angles: &Tensor, block: usize, series: RotationSeries) -> Tensor {
        let out = self.empty(DType::F32, angles.rows() * block, block);
        self.run("adapter", |cpu| cpu.rotations(&Cayley { angles, block, series }, &out));
        out
    }
}

/// `out = h R` in each block of columns, or `h R^T` with `back`. The products are f32: a rotation that is rounded is none.
fn rotate(device: &Device, h: &Tensor, rotations: &Tensor, back: bool, out: &Tensor) {
    let block = rotations.columns();
    device.run("adapter", |cpu| {
        for first in (0..h.columns()).step_by(block) {
            let rotation = rotations.slice_rows(first, block);
            let b = if back { rows_of(&rotation, 0) } else { columns_of(&rotation, 0) };
            let product = Product { a: rows_of(h, first), b, k: block };
            cpu.multiply(Compute::F32, h.rows(), block, &[product], part(out, first), &Epilogue::NONE);
        }
    });
}

/// `sums += h^T through` in each block of columns.
fn add_outer(device: &Device, h: &Tensor, through: &Tensor, sums: &Tensor) {
    let block = sums.columns();
    device.run("adapter backward", |cpu| {
        for first in (0..h.columns()).step_by(block) {
            let product = Product { a: columns_of(h, first), b: columns_of(through, first), k: h.rows() };
            add_product(cpu, Compute::F32, product, &sums.slice_rows(first, block), 1.0);
        }
    });
}
