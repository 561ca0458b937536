//! The linear layer with all that belongs to it: y = residual + scale * (r * (m(h) W^T + sum_i s_i ((h A_i^T) * d_i) B_i^T *
//! b_i) + bias), where h is the input as it is, normalised, or activated, and m a map of it. Several projections of one input lie side by side
//! in one output. The normalised or activated input is not kept; backward makes it again. Parts that are not there cost
//! nothing.

mod adapter;
mod backward;
mod input_map;
mod place;
mod row_scale;

use std::ops::Range;

pub use adapter::{AdapterRows, AdapterTerm};
pub use input_map::{InputMap, InputMapKind, RotationSeries};
pub use row_scale::{RowScale, RowScaleKind};

use super::Norm;
use crate::cpu::gemm::{Addend, Compute, Epilogue, Layout, Operand, Output, Product};
use crate::cpu::{Activated, Cpu, ScaledRows};
use crate::finality::Additions;
use crate::{Activation, DType, Device, Tape, Tensor, Var, Weight};
use backward::LinearBackward;
use place::{fill_low, low_columns, place, scaled_low};
use row_scale::Factors;

/// What the projections multiply.
#[derive(Clone, Copy, Debug)]
pub enum LinearInput<'v> {
    /// `[tokens, in]`
    Plain(&'v Var),
    /// The RMS norm of `[tokens, in]`.
    Normed {
        /// Before the norm.
        input: &'v Var,
        /// The norm.
        norm: &'v Norm,
    },
    /// `activation(gate) * up` of `[tokens, 2 * in]`, or `activation(up)` of `[tokens, in]`. Backward overwrites the
    /// input, so it must have no other reader.
    Activated {
        /// Gate and up side by side, or up.
        input: &'v Var,
        /// The function.
        activation: Activation,
        /// Whether there is a gate.
        gated: bool,
    },
}

/// One projection.
#[derive(Clone, Debug)]
pub struct Projection {
    /// `[out, in]`, in any storage type.
    pub weight: Weight,
    /// f32 `[1, out]`
    pub bias: Option<Weight>,
    /// What adapters add.
    pub terms: Vec<AdapterTerm>,
    /// Scales weight and terms together.
    pub row_scale: Option<RowScale>,
    /// What the weight multiplies in place of the input. Terms see the input as it is.
    pub input_map: Option<InputMap>,
}

impl Projection {
    /// A matrix and nothing else.
    pub fn new(weight: Weight) -> Self {
        Self { weight, bias: None, terms: Vec::new(), row_scale: None, input_map: None }
    }

    /// The bias, where the row scale scales it too.
    fn scaled_bias(&self) -> Option<&Weight> {
        let scales = self.row_scale.as_ref().is_some_and(|scale| matches!(scale.kind, RowScaleKind::BiasToo));
        self.bias.as_ref().filter(|_| scales)
    }

    /// Its weights.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        let scale = self.row_scale.iter().map(|scale| &scale.vector);
        let terms = self.terms.iter().flat_map(AdapterTerm::weights);
        let map = self.input_map.iter().flat_map(InputMap::weights);
        std::iter::once(&self.weight).chain(&self.bias).chain(scale).chain(map).chain(terms)
    }
}

/// What the projection is added to.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'v> {
    /// `[tokens, out]`
    pub base: &'v Var,
    /// Factor of the projection, bias and adapters included.
    pub scale: f32,
}

/// The input as backward finds it.
#[derive(Clone)]
enum Kept {
    Plain(Tensor),
    Normed { input: Tensor, norm: Norm, inverse_rms: Tensor },
    Activated { input: Tensor, how: Activated },
}

impl Kept {
    /// The weight of the norm.
    fn weight(&self) -> Option<&Weight> {
        match self {
            Self::Normed { norm, .. } => Some(&norm.weight),
            Self::Plain(_) | Self::Activated { .. } => None,
        }
    }

    /// h, `[tokens, in]`.
    fn make(&self, device: &Device, width: usize) -> Tensor {
        match self {
            Self::Plain(input) => input.clone(),
            Self::Normed { input, norm, inverse_rms } => {
                let out = device.empty(input.dtype(), input.rows(), width);
                device.run("norm", |cpu| cpu.rms_norm(&norm.rows(input, inverse_rms), &out));
                out
            }
            Self::Activated { input, how } => {
                let out = device.empty(input.dtype(), input.rows(), width);
                device.run("activation", |cpu| cpu.activate(*how, input, &out));
                out
            }
        }
    }
}

impl<'a> Tape<'a> {
    /// `[tokens, sum of out]`: all projections of one input.
    pub fn linear(&mut self, input: LinearInput, projections: &[Projection], residual: Option<Residual>) -> Var {
        self.linear_or_shape(input, projections, residual, true)
    }

    /// As [`linear`](Self::linear), for what ends a layer: when the layer runs again in backward, the product is left out,
    /// since nobody reads it, and the numbers are undefined.
    pub fn last_linear(&mut self, input: LinearInput, projections: &[Projection], residual: Option<Residual>) -> Var {
        let computed = !self.runs_again();
        self.linear_or_shape(input, projections, residual, computed)
    }

    fn linear_or_shape(
        &mut self,
        input: LinearInput,
        projections: &[Projection],
        residual: Option<Residual>,
        computed: bool,
    ) -> Var {
        let (device, precision) = (self.device().clone(), self.precision());
        let (compute, storage) = (precision.compute(), precision.storage());
        let width = projections[0].weight.value.columns();
        let (source, kept) = match input {
            LinearInput::Plain(input) => (input, Kept::Plain(input.value().clone())),
            LinearInput::Normed { input, norm } => {
                let inverse_rms = Norm::inverse_rms(&device, input.value());
                (input, Kept::Normed { input: input.value().clone(), norm: norm.live(), inverse_rms })
            }
            LinearInput::Activated { input, activation, gated } => {
                (input, Kept::Activated { input: input.value().clone(), how: Activated { activation, gated } })
            }
        };
        let tokens = source.value().rows();
        let placed = place(projections, self.adapters(), tokens);
        // A norm's factors, the low-rank side and unscaled sums are kept; else nobody needs h where nothing is computed.
        let reads = |projection: &Projection| projection.row_scale.is_some() || projection.input_map.is_some();
        let is_read = computed
            || kept.weight().is_some()
            || placed.iter().any(|placed| placed.terms().next().is_some() || reads(&placed.projection));
        let h = if is_read { kept.make(&device, width) } else { source.value().clone() };
        let out_columns = projections.iter().map(|projection| projection.weight.value.rows()).sum();
        let dropout = self.dropout().cloned();
        let multiply = if self.is_exact() { Cpu::multiply } else { Cpu::multiply_few };
        let low = low_columns(&device, storage, tokens, &placed);
        if let Some(low) = &low {
            fill_low(&device, compute, &h, &placed, dropout.as_ref(), low);
        }
        let scaled = low.as_ref().map(|low| scaled_low(&device, &placed, low));
        let output = device.empty(storage, tokens, out_columns);
        let scale = residual.map_or(1.0, |residual| residual.scale);
        let base = residual.map(|residual| residual.base.value());
        let factors: Vec<Option<Factors>> =
            placed.iter().map(|placed| Factors::of(&device, &placed.projection)).collect();
        let mut unscaled = Vec::with_capacity(placed.len());
        for (placed, factors) in placed.iter().zip(&factors) {
            let (weight, first) = (&placed.projection.weight.value, placed.first);
            let bias = placed.projection.bias.as_ref().map(|bias| scaled_vector(&device, &bias.value, scale));
            let ups: Vec<Tensor> = placed.terms().map(|(term, _)| term.scaled_up(&device)).collect();
            let mapped = placed.mapped(&device, &h);
            let h = mapped.as_ref().unwrap_or(&h);
            let inner_bias = placed.projection.scaled_bias().map(|bias| &bias.value);
            let sums = factors.as_ref().map(|_| device.empty(storage, tokens, weight.rows()));
            // Backward of a row scale needs the unscaled sums.
            let stretches = if computed || sums.is_some() { placed.stretches(tokens) } else { Vec::new() };
            for (rows, is_scaled) in stretches {
                // To the sums where a row scale follows, else to the output.
                let sums = sums.as_ref().filter(|_| is_scaled).map(|sums| cut(sums, &rows));
                let (output, base) = (cut(&output, &rows), base.map(|base| cut(base, &rows)));
                device.run("linear", |cpu| {
                    let mut products = vec![Product { a: rows_of(&cut(h, &rows), 0), b: rows_of(weight, 0), k: width }];
                    for ((_, place), up) in placed.terms().zip(&ups) {
                        if let Some(low) = &scaled {
                            let (a, b) = (rows_of(&cut(low, &rows), place.column), rows_of(up, 0));
                            products.push(Product { a, b, k: up.columns() });
                        }
                    }
                    let finished = Epilogue {
                        scale,
                        bias: bias.as_ref().map(|bias| bias.address().cast()),
                        addend: base.as_ref().map(|base| addend(base, first)),
                    };
                    let (target, epilogue) = match &sums {
                        Some(sums) => {
                            let bias = inner_bias.map(|bias| bias.address().cast());
                            (part(sums, 0), Epilogue { bias, ..Epilogue::NONE })
                        }
                        None => (part(&output, first), finished),
                    };
                    multiply(cpu, compute, rows.len(), weight.rows(), &products, target, &epilogue);
                });
                if let (Some(sums), Some(factors)) = (&sums, factors) {
                    let bias = bias.as_ref().filter(|_| inner_bias.is_none());
                    let (vector, addend) = (&factors.vector, base.as_ref());
                    let scaled = ScaledRows { sums, vector, scale, bias, addend };
                    device.run("linear", |cpu| cpu.write_scaled(&scaled, &output, first));
                }
            }
            unscaled.push(sums);
        }
        let inputs: Vec<&Var> = std::iter::once(source).chain(residual.map(|residual| residual.base)).collect();
        let weights = placed.iter().flat_map(|placed| placed.projection.weights());
        let additions = Additions::to(kept.weight().into_iter().chain(weights));
        if !self.wants(&inputs, &additions) {
            return Var::constant(output);
        }
        let out = self.reached(output);
        let backward = LinearBackward {
            placed,
            kept,
            low,
            unscaled,
            factors,
            width,
            scale,
            input_slot: source.slot(),
            residual_slot: residual.and_then(|residual| residual.base.slot()),
            dropout,
        };
        let slot = out.slot();
        self.record(additions, move |gradients| {
            if let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) {
                backward.run(gradients, upstream);
            }
        });
        out
    }
}

fn scaled_vector(device: &Device, vector: &Tensor, scale: f32) -> Tensor {
    if scale == 1.0 {
        return vector.clone();
    }
    let out = device.empty(DType::F32, 1, vector.columns());
    device.run("linear", |cpu| cpu.scale(vector, scale, &out));
    out
}

/// Some rows of `tensor`.
fn cut(tensor: &Tensor, rows: &Range<usize>) -> Tensor {
    tensor.slice_rows(rows.start, rows.len())
}

/// `[rows, k]` whose k runs along the columns of `tensor` from `column` on.
pub(super) fn rows_of(tensor: &Tensor, column: usize) -> Operand {
    let address = tensor.address().wrapping_add(tensor.dtype().bytes(column));
    Operand { address, coding: tensor.coding(), stride: tensor.columns(), layout: Layout::KContiguous }
}

/// The columns of `tensor` from `column` on, each as a row whose k runs down.
pub(super) fn columns_of(tensor: &Tensor, column: usize) -> Operand {
    Operand { layout: Layout::KStrided, ..rows_of(tensor, column) }
}

/// The columns of `tensor` from `column` on, to write.
pub(super) fn part(tensor: &Tensor, column: usize) -> Output {
    let address = tensor.address_mut().wrapping_add(tensor.dtype().bytes(column));
    Output { address, dtype: tensor.dtype(), stride: tensor.columns() }
}

/// The columns of `tensor` from `column` on, to add.
pub(super) fn addend(tensor: &Tensor, column: usize) -> Addend {
    let address = tensor.address().wrapping_add(tensor.dtype().bytes(column));
    Addend { address, dtype: tensor.dtype(), stride: tensor.columns() }
}

/// `sums += scale * product`, over all of `sums`.
pub(super) fn add_product(cpu: &Cpu, compute: Compute, product: Product, sums: &Tensor, scale: f32) {
    let epilogue = Epilogue { scale, bias: None, addend: Some(addend(sums, 0)) };
    cpu.multiply(compute, sums.rows(), sums.columns(), &[product], part(sums, 0), &epilogue);
}
