//! The linear layer's way back. The gradients of an adapter are sums over the rows that it applies to alone.

use super::place::{DownGroup, Placed, apply_rank_scales, down_groups, drop_out, low_columns, scaled_low};
use super::row_scale::Factors;
use super::{AdapterTerm, InputMap, Kept, add_product, addend, columns_of, cut, part, rows_of};
use crate::cpu::gemm::{Compute, Epilogue, Product};
use crate::tape::{Dropout, Gradients};
use crate::{DType, Device, Tensor};

pub(super) struct LinearBackward {
    pub(super) placed: Vec<Placed>,
    pub(super) kept: Kept,
    /// Before rank scales.
    pub(super) low: Option<Tensor>,
    /// Of each projection: what its row scale scales.
    pub(super) unscaled: Vec<Option<Tensor>>,
    pub(super) factors: Vec<Option<Factors>>,
    pub(super) width: usize,
    pub(super) scale: f32,
    pub(super) input_slot: Option<usize>,
    pub(super) residual_slot: Option<usize>,
    pub(super) dropout: Option<Dropout>,
}

impl LinearBackward {
    pub(super) fn run(self, gradients: &mut Gradients, upstream: Tensor) {
        let device = gradients.device.clone();
        let compute = gradients.precision.compute();
        let groups = down_groups(&self.placed, self.dropout.is_some());
        // The gradient before row scales.
        let inner = self.through_row_scales(&device, &upstream);
        let low_gradient = self.low.as_ref().map(|low| self.low_gradient(&device, compute, &inner, low));
        let weights_trained = self.placed.iter().any(|placed| placed.projection.weight.is_trained());
        let wants_h = weights_trained || groups.iter().any(|group| group.gradient.is_some());
        let norm_trained = matches!(&self.kept, Kept::Normed { norm, .. } if norm.weight.is_trained());
        // The way back through norm or activation makes h again in passing.
        let map_trained =
            self.maps().any(|placed| placed.projection.input_map.as_ref().is_some_and(InputMap::is_trained));
        let h = if self.input_slot.is_some() || norm_trained || map_trained {
            self.input_gradient(gradients, compute, &inner, &groups, low_gradient.as_ref(), wants_h)
        } else {
            wants_h.then(|| self.kept.make(&device, self.width))
        };
        if let Some(h) = &h {
            self.weight_gradients(&device, compute, &inner, h);
            for group in &groups {
                let (Some(gradient), Some(low)) = (&group.gradient, &low_gradient) else { continue };
                for run in group.runs {
                    let h = cut(h, run);
                    let dropped =
                        group.dropout.map(|dropped| drop_out(&device, &h, run, self.dropout.as_ref(), dropped));
                    let h = dropped.as_ref().unwrap_or(&h);
                    device.run("adapter backward", |cpu| {
                        let (a, b) = (columns_of(&cut(low, run), group.first_column), columns_of(h, 0));
                        add_product(cpu, compute, Product { a, b, k: run.len() }, gradient, self.scale);
                    });
                }
            }
        }
        drop(h);
        self.bias_gradients(&device, &upstream, &inner);
        drop(inner);
        gradients.add(self.residual_slot, upstream);
    }

    /// Projections whose input is mapped.
    fn maps(&self) -> impl Iterator<Item = &Placed> {
        self.placed.iter().filter(|placed| placed.projection.input_map.is_some())
    }

    /// The gradient of what the row scales scale, without the factor of the residual: `upstream` itself where there are
    /// none. Adds to the gradients of the row scales.
    fn through_row_scales(&self, device: &Device, upstream: &Tensor) -> Tensor {
        if self.unscaled.iter().all(Option::is_none) {
            return upstream.clone();
        }
        let out = device.convert(upstream, upstream.dtype());
        for ((placed, sums), factors) in self.placed.iter().zip(&self.unscaled).zip(&self.factors) {
            let (Some(row_scale), Some(sums), Some(factors)) = (&placed.projection.row_scale, sums, factors) else {
                continue;
            };
            let gradient_sums = factors.gradient_sums(device, &row_scale.vector);
            for (rows, _) in placed.stretches(upstream.rows()).into_iter().filter(|(_, is_scaled)| *is_scaled) {
                device.run("adapter backward", |cpu| {
                    if let Some(gradient) = &gradient_sums {
                        let (a, b) = (cut(upstream, &rows), cut(sums, &rows));
                        cpu.add_column_dots((&a, placed.first), (&b, 0), self.scale, gradient);
                    }
                    cpu.scale_columns(&cut(&out, &rows), placed.first, &factors.vector, 1.0);
                });
            }
            if let Some(sums) = gradient_sums {
                factors.finish(device, &sums, &row_scale.vector);
            }
        }
        out
    }

    /// d loss / d (dropout(h) A_i^T), without the factor of the residual: s_i * (dY_i (B_i * b_i)) * d_i. Adds to the
    /// gradients of B_i, b_i and d_i on the way.
    fn low_gradient(&self, device: &Device, compute: Compute, upstream: &Tensor, low: &Tensor) -> Tensor {
        let tokens = upstream.rows();
        let out = low_columns(device, low.dtype(), tokens, &self.placed).unwrap_or_else(|| low.clone());
        let scaled = scaled_low(device, &self.placed, low);
        for placed in &self.placed {
            let rows = placed.projection.weight.value.rows();
            for (term, place) in placed.terms() {
                let up = term.scaled_up(device);
                let up_gradient = UpGradient::of(device, term);
                for run in &place.runs {
                    let upstream = cut(upstream, run);
                    device.run("adapter backward", |cpu| {
                        let (a, b) = (rows_of(&upstream, placed.first), columns_of(&up, 0));
                        let factor = Epilogue { scale: term.low_scale(), ..Epilogue::NONE };
                        let target = part(&cut(&out, run), place.column);
                        cpu.multiply(compute, run.len(), up.columns(), &[Product { a, b, k: rows }], target, &factor);
                        if let Some(gradient) = up_gradient.sums() {
                            let (a, b) =
                                (columns_of(&upstream, placed.first), columns_of(&cut(&scaled, run), place.column));
                            add_product(cpu, compute, Product { a, b, k: run.len() }, gradient, self.scale);
                        }
                    });
                }
                up_gradient.finish(device, term);
                if let Some(gradient) = term.rank_scale.as_ref().and_then(|scale| scale.gradient.as_ref()) {
                    let factor = self.scale * term.scale;
                    device.run("adapter backward", |cpu| {
                        cpu.add_column_dots((&out, place.column), (low, place.column), factor, gradient);
                    });
                }
            }
        }
        apply_rank_scales(device, &self.placed, &out);
        out
    }

    fn weight_gradients(&self, device: &Device, compute: Compute, upstream: &Tensor, h: &Tensor) {
        for placed in &self.placed {
            if let Some(gradient) = &placed.projection.weight.gradient {
                let mapped = placed.mapped(device, h);
                let h = mapped.as_ref().unwrap_or(h);
                device.run("weight gradient", |cpu| {
                    let (a, b) = (columns_of(upstream, placed.first), columns_of(h, 0));
                    add_product(cpu, compute, Product { a, b, k: upstream.rows() }, gradient, self.scale);
                });
            }
        }
    }

    fn bias_gradients(&self, device: &Device, upstream: &Tensor, inner: &Tensor) {
        for placed in &self.placed {
            let upstream = if placed.projection.scaled_bias().is_some() { inner } else { upstream };
            if let Some(gradient) = placed.projection.bias.as_ref().and_then(|bias| bias.gradient.as_ref()) {
                device.run("bias gradient", |cpu| cpu.add_column_sums(upstream, placed.first, self.scale, gradient));
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
        let for_maps = self.maps().next().map(|_| self.kept.make(&device, self.width));
        device.run("linear backward", |cpu| {
            let unmapped = self.placed.iter().filter(|placed| placed.projection.input_map.is_none());
            let mut products: Vec<Product> = unmapped
                .map(|placed| {
                    let weight = &placed.projection.weight.value;
                    Product { a: rows_of(upstream, placed.first), b: columns_of(weight, 0), k: weight.rows() }
                })
                .collect();
            for group in groups.iter().filter(|group| group.dropout.is_none()) {
                if let Some(low) = low_gradient {
                    let (a, b) = (rows_of(low, group.first_column), columns_of(&group.down, 0));
                    products.push(Product { a, b, k: group.down.rows() });
                }
            }
            let epilogue = Epilogue { scale: self.scale, bias: None, addend: sum.then(|| addend(&target, 0)) };
            match products.is_empty() {
                false => cpu.multiply(compute, tokens, self.width, &products, part(&target, 0), &epilogue),
                true if sum => {}
                true => cpu.fill_zero(&target),
            }
        });
        for placed in self.maps() {
            let Some(h) = &for_maps else { continue };
            let through = device.empty(upstream.dtype(), tokens, self.width);
            device.run("linear backward", |cpu| {
                let weight = &placed.projection.weight.value;
                let product =
                    Product { a: rows_of(upstream, placed.first), b: columns_of(weight, 0), k: weight.rows() };
                let scaled = Epilogue { scale: self.scale, ..Epilogue::NONE };
                cpu.multiply(compute, tokens, self.width, &[product], part(&through, 0), &scaled);
            });
            let through = placed.back_through_map(&device, h, through);
            device.run("add", |cpu| cpu.add(&target, &through));
        }
        drop(for_maps);
        for group in groups {
            let (Some(dropped), Some(low)) = (group.dropout, low_gradient) else { continue };
            for run in group.runs {
                let through = device.empty(upstream.dtype(), run.len(), self.width);
                device.run("adapter backward", |cpu| {
                    let (a, b) = (rows_of(&cut(low, run), group.first_column), columns_of(&group.down, 0));
                    let scaled = Epilogue { scale: self.scale, ..Epilogue::NONE };
                    let product = Product { a, b, k: group.down.rows() };
                    cpu.multiply(compute, run.len(), self.width, &[product], part(&through, 0), &scaled);
                });
                let through = drop_out(&device, &through, run, self.dropout.as_ref(), dropped);
                device.run("add", |cpu| cpu.add(&cut(&target, run), &through));
            }
        }
        let empty_h = || wants_h.then(|| device.empty(upstream.dtype(), tokens, self.width));
        match &self.kept {
            Kept::Plain(input) => {
                if let Some((slot, _)) = plain {
                    gradients.put(slot, target);
                }
                wants_h.then(|| input.clone())
            }
            Kept::Normed { input, norm, inverse_rms } => {
                let rows = norm.rows(input, inverse_rms);
                if let Some(gradient) = &norm.weight.gradient {
                    device.run("norm backward", |cpu| cpu.rms_norm_weight_gradient(&rows, &target, gradient));
                }
                let Some(slot) = self.input_slot else { return wants_h.then(|| self.kept.make(&device, self.width)) };
                let (sums, accumulate) = gradients.target(slot, tokens, self.width);
                let h = empty_h();
                device.run("norm backward", |cpu| {
                    cpu.rms_norm_backward(&rows, &target, &sums, accumulate, h.as_ref());
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

/// Where the gradient of a term's `up` is summed. With an out scale that is a matrix of its own, the gradient of both
/// together, of which each takes its share: no product over tokens is made for the vector.
enum UpGradient {
    Nowhere,
    Own(Tensor),
    Shared(Tensor),
}

impl UpGradient {
    fn of(device: &Device, term: &AdapterTerm) -> Self {
        match (&term.out_scale, &term.up.gradient) {
            (None, None) => Self::Nowhere,
            (None, Some(gradient)) => Self::Own(gradient.clone()),
            (Some(vector), gradient) if vector.is_trained() || gradient.is_some() => {
                Self::Shared(device.zeros(DType::F32, term.up.value.rows(), term.up.value.columns()))
            }
            (Some(_), _) => Self::Nowhere,
        }
    }

    fn sums(&self) -> Option<&Tensor> {
        match self {
            Self::Nowhere => None,
            Self::Own(sums) | Self::Shared(sums) => Some(sums),
        }
    }

    fn finish(&self, device: &Device, term: &AdapterTerm) {
        let (Self::Shared(sums), Some(vector)) = (self, &term.out_scale) else { return };
        device.run("adapter backward", |cpu| {
            if let Some(gradient) = &vector.gradient {
                cpu.add_row_dots(sums, &term.up.value, gradient);
            }
            if let Some(gradient) = &term.up.gradient {
                cpu.scale_matrix_rows(sums, &vector.value);
                cpu.add(gradient, sums);
            }
        });
    }
}
