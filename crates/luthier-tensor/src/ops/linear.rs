//! The linear layer with all that belongs to it: y = residual + scale * (h W^T + sum_i s_i (h A_i^T) B_i^T + bias), where h
//! is the input as it is, normalised, or activated. Several projections of one input lie side by side in one output.
//! The normalised or activated input is not kept; backward makes it again.

use crate::cpu::gemm::{Addend, Compute, Epilogue, Layout, Operand, Output, Product};
use crate::cpu::{Activated, Cpu, RowNorm};
use crate::tape::Gradients;
use crate::{Activation, DType, Device, Tape, Tensor, Var, Weight};

/// What the projections multiply.
#[derive(Clone, Copy, Debug)]
pub enum LinearInput<'v> {
    /// `[tokens, in]`
    Plain(&'v Var),
    /// The RMS norm of `[tokens, in]`.
    Normed {
        /// Before the norm.
        input: &'v Var,
        /// f32 `[1, in]`
        weight: &'v Weight,
        /// Added to the mean square.
        epsilon: f32,
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

/// A low-rank term of a projection: `scale * (dropout(h) down^T) up^T`.
#[derive(Clone, Debug)]
pub struct AdapterTerm {
    /// `[rank, in]`
    pub down: Weight,
    /// `[out, rank]`
    pub up: Weight,
    /// Its factor.
    pub scale: f32,
    /// Share of the input's numbers that are dropped in training; 0 for none.
    pub dropout: f32,
    /// Tells this term's random numbers from all others'.
    pub site: u64,
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
}

impl Projection {
    fn is_trained(&self) -> bool {
        let weights = std::iter::once(&self.weight).chain(&self.bias);
        weights.chain(self.terms.iter().flat_map(|term| [&term.down, &term.up])).any(Weight::is_trained)
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
    Normed { input: Tensor, weight: Weight, inverse_rms: Tensor, epsilon: f32 },
    Activated { input: Tensor, how: Activated },
}

impl Kept {
    /// h, `[tokens, in]`.
    fn make(&self, device: &Device, width: usize) -> Tensor {
        match self {
            Self::Plain(input) => input.clone(),
            Self::Normed { input, weight, inverse_rms, epsilon } => {
                let out = device.empty(input.dtype(), input.rows(), width);
                let norm = RowNorm { input, weight: &weight.value, inverse_rms, epsilon: *epsilon };
                device.run("norm", |cpu| cpu.rms_norm(&norm, &out));
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

/// Terms whose `down` matrices lie one below the other: one product serves them all.
struct DownGroup {
    down: Tensor,
    gradient: Option<Tensor>,
    scale: f32,
    dropout: Option<(f32, u64)>,
    first_column: usize,
}

fn down_groups(projections: &[Projection], dropout: bool) -> Vec<DownGroup> {
    let mut groups: Vec<DownGroup> = Vec::new();
    let mut column = 0;
    for term in projections.iter().flat_map(|projection| &projection.terms) {
        let drops = (dropout && term.dropout > 0.0).then_some((term.dropout, term.site));
        let joined = groups.last_mut().and_then(|last| {
            if drops.is_some() || last.dropout.is_some() || last.scale != term.scale {
                return None;
            }
            let down = last.down.join_below(&term.down.value)?;
            let gradient = match (&last.gradient, &term.down.gradient) {
                (Some(above), Some(below)) => Some(above.join_below(below)?),
                (None, None) => None,
                _ => return None,
            };
            (last.down, last.gradient) = (down, gradient);
            Some(())
        });
        if joined.is_none() {
            groups.push(DownGroup {
                down: term.down.value.clone(),
                gradient: term.down.gradient.clone(),
                scale: term.scale,
                dropout: drops,
                first_column: column,
            });
        }
        column += term.down.value.rows();
    }
    groups
}

/// First column of each projection's output and of each of its terms' low-rank columns.
fn columns(projections: &[Projection]) -> Vec<(usize, Vec<usize>)> {
    let (mut out, mut low) = (0, 0);
    projections
        .iter()
        .map(|projection| {
            let first = out;
            out += projection.weight.value.rows();
            let terms = projection.terms.iter().map(|term| {
                let first = low;
                low += term.down.value.rows();
                first
            });
            (first, terms.collect())
        })
        .collect()
}

impl<'a> Tape<'a> {
    /// `[tokens, sum of out]`: all projections of one input.
    pub fn linear(&mut self, input: LinearInput, projections: &[Projection], residual: Option<Residual>) -> Var {
        let (device, precision) = (self.device().clone(), self.precision());
        let (compute, storage) = (precision.compute(), precision.storage());
        let width = projections[0].weight.value.columns();
        let (source, kept, norm_trained) = match input {
            LinearInput::Plain(input) => (input, Kept::Plain(input.value().clone()), false),
            LinearInput::Normed { input, weight, epsilon } => {
                let inverse_rms = device.empty(DType::F32, 1, input.value().rows());
                let weight = weight.clone();
                let trained = weight.is_trained();
                (input, Kept::Normed { input: input.value().clone(), weight, inverse_rms, epsilon }, trained)
            }
            LinearInput::Activated { input, activation, gated } => {
                (input, Kept::Activated { input: input.value().clone(), how: Activated { activation, gated } }, false)
            }
        };
        let h = kept.make(&device, width);
        let tokens = h.rows();
        let columns = columns(projections);
        let rank: usize = projections.iter().flat_map(|p| &p.terms).map(|term| term.down.value.rows()).sum();
        let out_columns = projections.iter().map(|projection| projection.weight.value.rows()).sum();
        let low = (rank > 0).then(|| device.empty(storage, tokens, rank));
        let dropout = self.dropout().cloned();
        let multiply = if self.is_exact() { Cpu::multiply } else { Cpu::multiply_few };
        if let Some(low) = &low {
            for group in down_groups(projections, dropout.is_some()) {
                let dropped = group.dropout.map(|(share, site)| drop_out(&device, &h, &dropout, share, site));
                let h = dropped.as_ref().unwrap_or(&h);
                device.run("adapter", |cpu| {
                    let product = Product { a: rows_of(h, 0), b: rows_of(&group.down, 0), k: width };
                    let scaled = Epilogue { scale: group.scale, ..Epilogue::NONE };
                    cpu.multiply(
                        compute,
                        tokens,
                        group.down.rows(),
                        &[product],
                        part(low, group.first_column),
                        &scaled,
                    );
                });
            }
        }
        let output = device.empty(storage, tokens, out_columns);
        for (projection, (first, low_columns)) in projections.iter().zip(&columns) {
            let scale = residual.map_or(1.0, |residual| residual.scale);
            let bias = projection.bias.as_ref().map(|bias| scaled_vector(&device, &bias.value, scale));
            device.run("linear", |cpu| {
                let weight = &projection.weight.value;
                let mut products = vec![Product { a: rows_of(&h, 0), b: rows_of(weight, 0), k: width }];
                for (term, low_column) in projection.terms.iter().zip(low_columns) {
                    if let Some(low) = &low {
                        let (a, b) = (rows_of(low, *low_column), rows_of(&term.up.value, 0));
                        products.push(Product { a, b, k: term.up.value.columns() });
                    }
                }
                let epilogue = Epilogue {
                    scale,
                    bias: bias.as_ref().map(|bias| bias.address().cast()),
                    addend: residual.map(|residual| addend(residual.base.value(), *first)),
                };
                multiply(cpu, compute, tokens, weight.rows(), &products, part(&output, *first), &epilogue);
            });
        }
        let inputs: Vec<&Var> = std::iter::once(source).chain(residual.map(|residual| residual.base)).collect();
        let trained = norm_trained || projections.iter().any(Projection::is_trained);
        if !self.wants(&inputs, trained) {
            return Var::constant(output);
        }
        let out = self.reached(output);
        let backward = LinearBackward {
            projections: projections.to_vec(),
            columns,
            kept,
            low,
            width,
            scale: residual.map_or(1.0, |residual| residual.scale),
            input_slot: source.slot(),
            residual_slot: residual.and_then(|residual| residual.base.slot()),
            dropout,
        };
        let slot = out.slot();
        self.record("linear", move |gradients| {
            if let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) {
                backward.run(gradients, upstream);
            }
        });
        out
    }
}

struct LinearBackward {
    projections: Vec<Projection>,
    columns: Vec<(usize, Vec<usize>)>,
    kept: Kept,
    low: Option<Tensor>,
    width: usize,
    scale: f32,
    input_slot: Option<usize>,
    residual_slot: Option<usize>,
    dropout: Option<crate::tape::Dropout>,
}

impl LinearBackward {
    fn run(self, gradients: &mut Gradients, upstream: Tensor) {
        let device = gradients.device.clone();
        let compute = gradients.precision.compute();
        let groups = down_groups(&self.projections, self.dropout.is_some());
        let low_gradient = self.low.as_ref().map(|low| self.low_gradient(&device, compute, &upstream, low));
        let weights_trained = self.projections.iter().any(|projection| projection.weight.is_trained());
        let wants_h = weights_trained || groups.iter().any(|group| group.gradient.is_some());
        let norm_trained = matches!(&self.kept, Kept::Normed { weight, .. } if weight.is_trained());
        // The way back through norm or activation makes h again in passing.
        let h = if self.input_slot.is_some() || norm_trained {
            self.input_gradient(gradients, compute, &upstream, &groups, low_gradient.as_ref(), wants_h)
        } else {
            wants_h.then(|| self.kept.make(&device, self.width))
        };
        if let Some(h) = &h {
            self.weight_gradients(&device, compute, &upstream, h);
            for group in &groups {
                let (Some(gradient), Some(low)) = (&group.gradient, &low_gradient) else { continue };
                let dropped = group.dropout.map(|(share, site)| drop_out(&device, h, &self.dropout, share, site));
                let h = dropped.as_ref().unwrap_or(h);
                device.run("adapter backward", |cpu| {
                    let (a, b) = (columns_of(low, group.first_column), columns_of(h, 0));
                    add_product(cpu, compute, Product { a, b, k: upstream.rows() }, gradient, self.scale);
                });
            }
        }
        drop(h);
        self.bias_gradients(&device, &upstream);
        gradients.add(self.residual_slot, upstream);
    }

    /// d loss / d low, without the factor of the residual: s_i * (dY_i B_i). Adds to the gradients of B_i on the way.
    fn low_gradient(&self, device: &Device, compute: Compute, upstream: &Tensor, low: &Tensor) -> Tensor {
        let tokens = upstream.rows();
        let out = device.empty(low.dtype(), tokens, low.columns());
        for (projection, (first, low_columns)) in self.projections.iter().zip(&self.columns) {
            let rows = projection.weight.value.rows();
            for (term, low_column) in projection.terms.iter().zip(low_columns) {
                device.run("adapter backward", |cpu| {
                    let (a, b) = (rows_of(upstream, *first), columns_of(&term.up.value, 0));
                    let scaled = Epilogue { scale: term.scale, ..Epilogue::NONE };
                    let target = part(&out, *low_column);
                    cpu.multiply(
                        compute,
                        tokens,
                        term.up.value.columns(),
                        &[Product { a, b, k: rows }],
                        target,
                        &scaled,
                    );
                    if let Some(gradient) = &term.up.gradient {
                        let (a, b) = (columns_of(upstream, *first), columns_of(low, *low_column));
                        add_product(cpu, compute, Product { a, b, k: tokens }, gradient, self.scale);
                    }
                });
            }
        }
        out
    }

    fn weight_gradients(&self, device: &Device, compute: Compute, upstream: &Tensor, h: &Tensor) {
        for (projection, (first, _)) in self.projections.iter().zip(&self.columns) {
            if let Some(gradient) = &projection.weight.gradient {
                device.run("weight gradient", |cpu| {
                    let product = Product { a: columns_of(upstream, *first), b: columns_of(h, 0), k: upstream.rows() };
                    add_product(cpu, compute, product, gradient, self.scale);
                });
            }
        }
    }

    fn bias_gradients(&self, device: &Device, upstream: &Tensor) {
        for (projection, (first, _)) in self.projections.iter().zip(&self.columns) {
            if let Some(gradient) = projection.bias.as_ref().and_then(|bias| bias.gradient.as_ref()) {
                device.run("bias gradient", |cpu| cpu.add_column_sums(upstream, *first, self.scale, gradient));
            }
        }
    }

    fn input_gradient(
        &self,
        gradients: &mut Gradients,
        compute: Compute,
        upstream: &Tensor,
        groups: &[DownGroup],
        low_gradient: Option<&Tensor>,
        wants_h: bool,
    ) -> Option<Tensor> {
        let device = gradients.device.clone();
        let tokens = upstream.rows();
        let plain = match (&self.kept, self.input_slot) {
            (Kept::Plain(_), Some(slot)) => Some((slot, gradients.target(slot, tokens, self.width))),
            _ => None,
        };
        let (target, sum) = match &plain {
            Some((_, (target, accumulate))) => (target.clone(), *accumulate),
            None => (device.empty(upstream.dtype(), tokens, self.width), false),
        };
        device.run("linear backward", |cpu| {
            let mut products: Vec<Product> = self
                .projections
                .iter()
                .zip(&self.columns)
                .map(|(projection, (first, _))| {
                    let weight = &projection.weight.value;
                    Product { a: rows_of(upstream, *first), b: columns_of(weight, 0), k: weight.rows() }
                })
                .collect();
            for group in groups.iter().filter(|group| group.dropout.is_none()) {
                if let Some(low) = low_gradient {
                    let (a, b) = (rows_of(low, group.first_column), columns_of(&group.down, 0));
                    products.push(Product { a, b, k: group.down.rows() });
                }
            }
            let epilogue = Epilogue { scale: self.scale, bias: None, addend: sum.then(|| addend(&target, 0)) };
            cpu.multiply(compute, tokens, self.width, &products, part(&target, 0), &epilogue);
        });
        for group in groups {
            let (Some((share, site)), Some(low)) = (group.dropout, low_gradient) else { continue };
            let through = device.empty(upstream.dtype(), tokens, self.width);
            device.run("adapter backward", |cpu| {
                let (a, b) = (rows_of(low, group.first_column), columns_of(&group.down, 0));
                let scaled = Epilogue { scale: self.scale, ..Epilogue::NONE };
                cpu.multiply(
                    compute,
                    tokens,
                    self.width,
                    &[Product { a, b, k: group.down.rows() }],
                    part(&through, 0),
                    &scaled,
                );
            });
            let through = drop_out(&device, &through, &self.dropout, share, site);
            device.run("add", |cpu| cpu.add(&target, &through));
        }
        let empty_h = || wants_h.then(|| device.empty(upstream.dtype(), tokens, self.width));
        match &self.kept {
            Kept::Plain(input) => {
                if let Some((slot, _)) = plain {
                    gradients.put(slot, target);
                }
                wants_h.then(|| input.clone())
            }
            Kept::Normed { input, weight, inverse_rms, epsilon } => {
                let norm = RowNorm { input, weight: &weight.value, inverse_rms, epsilon: *epsilon };
                if let Some(gradient) = &weight.gradient {
                    device.run("norm backward", |cpu| cpu.rms_norm_weight_gradient(&norm, &target, gradient));
                }
                let Some(slot) = self.input_slot else { return wants_h.then(|| self.kept.make(&device, self.width)) };
                let (sums, accumulate) = gradients.target(slot, tokens, self.width);
                let h = empty_h();
                device.run("norm backward", |cpu| {
                    cpu.rms_norm_backward(&norm, &target, &sums, accumulate, h.as_ref());
                });
                gradients.put(slot, sums);
                h
            }
            Kept::Activated { input, how } => {
                let h = empty_h();
                device.run("activation backward", |cpu| cpu.activate_backward(*how, input, &target, h.as_ref()));
                gradients.add(self.input_slot, input.clone());
                h
            }
        }
    }
}

fn drop_out(device: &Device, input: &Tensor, dropout: &Option<crate::tape::Dropout>, share: f32, site: u64) -> Tensor {
    let out = device.empty(input.dtype(), input.rows(), input.columns());
    if let Some(dropout) = dropout {
        device.run("dropout", |cpu| cpu.drop_out(input, &dropout.tokens, dropout.seed ^ site, share, &out));
    }
    out
}

fn scaled_vector(device: &Device, vector: &Tensor, scale: f32) -> Tensor {
    if scale == 1.0 {
        return vector.clone();
    }
    let out = device.empty(DType::F32, 1, vector.columns());
    device.run("linear", |cpu| cpu.scale(vector, scale, &out));
    out
}

/// `[rows, k]` whose k runs along the columns of `tensor` from `column` on.
pub(super) fn rows_of(tensor: &Tensor, column: usize) -> Operand {
    let address = tensor.address().wrapping_add(tensor.dtype().bytes(column));
    Operand { address, dtype: tensor.dtype(), stride: tensor.columns(), layout: Layout::KContiguous }
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
