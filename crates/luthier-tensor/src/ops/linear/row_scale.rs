//! Vectors that scale what a projection gives: IA3's as they are, DoRA's magnitudes over the norms of the rows that the
//! weight and its low-rank term make together. Those norms come from |W|^2, W A^T and A A^T, so that the sum of both is never
//! formed, and the weight may be stored in any type. From: Liu et al. 2024, section 4.3: the norm counts as a constant in
//! backward, as in PEFT.

use super::{Projection, addend, columns_of, part, rows_of};
use crate::cpu::Magnitudes;
use crate::cpu::gemm::{Compute, Epilogue, Product};
use crate::{DType, Device, Tensor, Weight};

/// A vector that scales what a projection and its terms give, before bias and residual: the rows of the merged matrix.
/// From: Liu et al. 2022 (IA3); Liu et al. 2024 (DoRA), where it is magnitude over norm.
#[derive(Clone, Debug)]
pub struct RowScale {
    /// f32 `[1, out]`
    pub vector: Weight,
    /// What becomes of the vector.
    pub kind: RowScaleKind,
    /// The adapter that it belongs to: see [`AdapterRows`](super::AdapterRows).
    pub adapter: u32,
}

/// What a [`RowScale`]'s vector is.
#[derive(Clone, Debug)]
pub enum RowScaleKind {
    /// Factors.
    Factors,
    /// Factors, also of the bias, as IA3 has it.
    BiasToo,
    /// Magnitudes, to be divided by the norms of the rows of W + s B A, with the first term of the same adapter.
    Magnitudes {
        /// f32 `[1, out]`: the sum of squares of each row of the weight.
        squares: Tensor,
    },
}

impl RowScale {
    /// Factors of adapter 0.
    pub fn new(vector: Weight) -> Self {
        Self { vector, kind: RowScaleKind::Factors, adapter: 0 }
    }
}

/// The factors of a projection, and what their vector was divided by.
#[derive(Clone)]
pub(super) struct Factors {
    pub(super) vector: Tensor,
    /// f32 `[1, out]`
    pub(super) inverse_norms: Option<Tensor>,
}

impl Factors {
    pub(super) fn of(device: &Device, projection: &Projection) -> Option<Self> {
        let scale = projection.row_scale.as_ref()?;
        let vector = &scale.vector.value;
        let RowScaleKind::Magnitudes { squares } = &scale.kind else {
            return Some(Self { vector: vector.clone(), inverse_norms: None });
        };
        let out = vector.columns();
        let (factors, inverse_norms) = (device.empty(DType::F32, 1, out), device.empty(DType::F32, 1, out));
        let term = projection.terms.iter().find(|term| term.adapter == scale.adapter);
        let (weight, rank) = (&projection.weight.value, term.map_or(0, |term| term.down.value.rows()));
        // A W^T and A A^T, always in f32: the norm of a row is a sum over all of it.
        let (crossed, gram) = (device.empty(DType::F32, rank.max(1), out), device.empty(DType::F32, rank.max(1), rank));
        device.run("adapter", |cpu| {
            if let Some(term) = term {
                let (down, width) = (&term.down.value, weight.columns());
                let with = |b| [Product { a: rows_of(down, 0), b, k: width }];
                let none = Epilogue::NONE;
                cpu.multiply(Compute::F32, rank, out, &with(rows_of(weight, 0)), part(&crossed, 0), &none);
                cpu.multiply(Compute::F32, rank, rank, &with(rows_of(down, 0)), part(&gram, 0), &none);
            }
            let of = Magnitudes {
                magnitudes: vector,
                squares,
                crossed: &crossed,
                gram: &gram,
                up: term.map(|term| &term.up.value),
                scale: term.map_or(0.0, |term| term.scale),
            };
            cpu.divide_by_norms(&of, &factors, &inverse_norms);
        });
        Some(Self { vector: factors, inverse_norms: Some(inverse_norms) })
    }

    /// Where the gradient of the factors is summed, and whether it is the vector's own.
    pub(super) fn gradient_sums(&self, device: &Device, vector: &Weight) -> Option<Tensor> {
        let gradient = vector.gradient.as_ref()?;
        Some(match &self.inverse_norms {
            None => gradient.clone(),
            Some(_) => device.zeros(DType::F32, 1, gradient.columns()),
        })
    }

    /// Adds to the vector's gradient what [`gradient_sums`](Self::gradient_sums) has collected.
    pub(super) fn finish(&self, device: &Device, sums: &Tensor, vector: &Weight) {
        let (Some(gradient), Some(inverse_norms)) = (&vector.gradient, &self.inverse_norms) else { return };
        device.run("adapter backward", |cpu| {
            cpu.scale_columns(sums, 0, inverse_norms, 1.0);
            cpu.add(gradient, sums);
        });
    }
}

impl Projection {
    /// The factors of its row scale as they are now, f32 `[1, out]`: ones where there is none.
    pub fn row_factors(&self, device: &Device) -> Tensor {
        match Factors::of(device, self) {
            Some(factors) => factors.vector,
            None => device.upload(&vec![1.0; self.weight.value.rows()], 1, self.weight.value.rows()),
        }
    }
}

impl Device {
    /// f32 `[1, rows]`: the sum of squares of each row of `matrix`, in any storage type.
    pub fn row_squares(&self, matrix: &Tensor) -> Tensor {
        let out = self.zeros(DType::F32, 1, matrix.rows());
        self.run("row squares", |cpu| cpu.row_squares(matrix, &out));
        out
    }

    /// The f32 product of two matrices in any storage type: `[a.rows, b.rows]` where each row meets each row (a b^T), or
    /// `[a.rows, b.columns]` with `plain` (a b).
    pub fn product(&self, a: &Tensor, b: &Tensor, plain: bool) -> Tensor {
        let n = if plain { b.columns() } else { b.rows() };
        let out = self.empty(DType::F32, a.rows(), n);
        self.run("product", |cpu| {
            let b = if plain { columns_of(b, 0) } else { rows_of(b, 0) };
            let product = Product { a: rows_of(a, 0), b, k: a.columns() };
            cpu.multiply(Compute::F32, a.rows(), n, &[product], part(&out, 0), &Epilogue::NONE);
        });
        out
    }

    /// f32 `weight - scale * up down`, the weight in any storage type.
    pub fn minus_product(&self, weight: &Tensor, up: &Tensor, down: &Tensor, scale: f32) -> Tensor {
        let out = self.convert(weight, DType::F32);
        self.run("product", |cpu| {
            let product = Product { a: rows_of(up, 0), b: columns_of(down, 0), k: up.columns() };
            let epilogue = Epilogue { scale: -scale, bias: None, addend: Some(addend(&out, 0)) };
            cpu.multiply(Compute::F32, out.rows(), out.columns(), &[product], part(&out, 0), &epilogue);
        });
        out
    }
}
