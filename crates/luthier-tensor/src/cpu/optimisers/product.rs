//! Products of f32 tensors, for rules that step a matrix as a whole.

use super::Cpu;
use crate::Tensor;
use crate::cpu::gemm::{Addend, Compute, Epilogue, Layout, Operand, Output, Product};

/// A factor of a product: its rows, or its columns, are what is multiplied with those of the other.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a> {
    Rows(&'a Tensor),
    Columns(&'a Tensor),
}

impl Factor<'_> {
    fn operand(self) -> Operand {
        let (tensor, layout) = match self {
            Self::Rows(tensor) => (tensor, Layout::KContiguous),
            Self::Columns(tensor) => (tensor, Layout::KStrided),
        };
        Operand { address: tensor.address(), coding: tensor.coding(), stride: tensor.columns(), layout }
    }

    fn length(self) -> usize {
        match self {
            Self::Rows(tensor) => tensor.columns(),
            Self::Columns(tensor) => tensor.rows(),
        }
    }
}

impl Cpu {
    /// `out[i][j] = scale * (a_i . b_j)`, with what `out` holds added when it `adds`.
    pub(super) fn product(&self, a: Factor, b: Factor, scale: f32, out: &Tensor, adds: bool) {
        debug_assert_eq!(a.length(), b.length(), "factors of a product");
        let stride = out.columns();
        let addend = Addend { address: out.address(), dtype: out.dtype(), stride };
        let epilogue = Epilogue { scale, bias: None, addend: adds.then_some(addend) };
        let target = Output { address: out.address_mut(), dtype: out.dtype(), stride };
        let product = Product { a: a.operand(), b: b.operand(), k: a.length() };
        self.multiply(Compute::F32, out.rows(), out.columns(), &[product], target, &epilogue);
    }
}
