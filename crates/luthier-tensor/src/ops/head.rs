//! The head: from the residual stream to what objectives and metrics are written on, for the tokens that are trained.
//! Logits exist for one block of the vocabulary at a time. When the head's matrix is frozen and only log-probabilities are
//! differentiated, forward also forms each token's unit gradient W_y - sum_v p_v W_v, so that backward only scales it and
//! the vocabulary is walked once. From: Wijmans et al. 2024 (cut cross-entropy).

use super::Norm;
use super::linear::{add_product, columns_of, part, rows_of};
use crate::cpu::gemm::{Compute, Epilogue, Product};
use crate::cpu::{HeadCoefficients, HeadRows, IdRows, RowNorm, STATE, UnitRows};
use crate::finality::Additions;
use crate::tape::Gradients;
use crate::{DType, Device, Tape, Tensor, Var, Weight};

/// Ids of one block of logits. Fixed, because sums over the vocabulary are added block by block.
const BLOCK: usize = 4096;
/// Tokens that are computed together.
const TOKENS: usize = 1024;

/// Columns of [`HeadOutputs::values`].
pub const OUTPUTS: usize = 5;
/// Those that can be differentiated: the first ones.
const DIFFERENTIABLE: usize = 4;

/// What the head is made of and asked for.
#[derive(Clone, Debug)]
pub struct HeadOptions {
    /// The norm before the head.
    pub norm: Norm,
    /// `[vocabulary, hidden]`, in any storage type.
    pub weight: Weight,
    /// Factor of the logits.
    pub scale: f32,
    /// Logits are bounded: `cap * tanh(logit / cap)`. From: Gemma Team 2024 (Gemma 2), section 2.
    pub soft_cap: Option<f32>,
    /// Whether backward may get coefficients for more than the log-probability.
    pub differentiate_all: bool,
}

/// What is wanted of each token besides [`HeadOutputs::values`]. What is not asked for costs nothing.
#[derive(Clone, Debug, Default)]
pub struct HeadRequest {
    /// So many of the most likely ids; 0 for none.
    pub top_k: usize,
    /// u32 `[tokens, n]`: log-probabilities of these ids. `u32::MAX` fills up where a token has fewer: its log-probability
    /// is minus infinity, and backward ignores its coefficient.
    pub ids: Option<Tensor>,
}

/// The most likely ids of each token, the most likely first; of equal ones the smaller id. Not differentiable. Where the
/// vocabulary has fewer, `u32::MAX` and minus infinity.
#[derive(Clone, Debug)]
pub struct TopK {
    /// u32 `[tokens, k]`
    pub ids: Tensor,
    /// f32 `[tokens, k]`
    pub log_probabilities: Tensor,
}

/// What the head found, per token.
#[derive(Clone, Debug)]
pub struct HeadOutputs {
    /// f32 `[tokens, OUTPUTS]`: the target's log-probability, logsumexp, mean logit, entropy (these four differentiable),
    /// and 1 where the target is the most likely id. Backward takes coefficients f32 `[tokens, 4]` for it.
    pub values: Var,
    /// When asked for.
    pub top: Option<TopK>,
    /// f32 `[tokens, n]`: log-probabilities of the ids that were asked for, differentiable whatever the options say. Backward
    /// takes coefficients f32 `[tokens, n]` for it.
    pub chosen: Option<Var>,
}

impl<'a> Tape<'a> {
    /// Scores `targets` at the rows `positions` of `hidden` `[tokens, hidden]`. Both u32 `[1, trained tokens]`.
    pub fn head(&mut self, hidden: &Var, options: &HeadOptions, positions: &Tensor, targets: &Tensor) -> HeadOutputs {
        self.head_with(hidden, options, positions, targets, &HeadRequest::default())
    }

    /// As [`head`](Self::head), with more of each token.
    ///
    /// # Panics
    /// When the ids are not u32 `[trained tokens, n]`.
    pub fn head_with(
        &mut self,
        hidden: &Var,
        options: &HeadOptions,
        positions: &Tensor,
        targets: &Tensor,
        request: &HeadRequest,
    ) -> HeadOutputs {
        let device = self.device().clone();
        let (count, width) = (positions.len(), hidden.value().columns());
        assert_eq!(targets.len(), count, "a target for each position");
        let dtype = hidden.value().dtype();
        let input = device.empty(dtype, count, width);
        device.run("head", |cpu| cpu.gather(hidden.value(), positions, &input));
        let inverse_rms = device.empty(DType::F32, 1, count);
        let frozen = !options.weight.is_trained();
        let additions = Additions::to([&options.norm.weight, &options.weight]);
        let wanted = self.wants(&[hidden], &additions);
        // The unit gradient of other ids would need their logits where these are capped.
        let simple = options.soft_cap.is_none() || request.ids.is_none();
        let unit = wanted && frozen && simple && !options.differentiate_all;
        let options = HeadOptions { norm: options.norm.live(), weight: options.weight.live(), ..options.clone() };
        let head = Head { options, compute: self.precision().compute(), input, inverse_rms };
        let values = device.empty(DType::F32, count, OUTPUTS);
        let top = (request.top_k > 0).then(|| TopK {
            ids: device.empty(DType::U32, count, request.top_k),
            log_probabilities: device.empty(DType::F32, count, request.top_k),
        });
        let chosen = request.ids.as_ref().map(|ids| {
            assert_eq!((ids.dtype(), ids.rows()), (DType::U32, count), "ids for each position");
            (ids.clone(), device.empty(DType::F32, count, ids.columns()))
        });
        let units = unit.then(|| device.empty(dtype, count, width));
        let normed = head.normalise(&device);
        for first in (0..count).step_by(TOKENS) {
            let tokens = TOKENS.min(count - first);
            let cut = |tensor: &Tensor| tensor.slice_rows(first, tokens);
            let found = Found {
                targets: part_of_vector(targets, first, tokens),
                values: cut(&values),
                unit: units.as_ref().map(cut),
                top: top.as_ref().map(|top| (cut(&top.ids), cut(&top.log_probabilities))),
                chosen: chosen.as_ref().map(|(ids, numbers)| (cut(ids), cut(numbers))),
            };
            head.forward(&device, &cut(&normed), &found);
        }
        drop(normed);
        if !wanted {
            let chosen = chosen.map(|(_, numbers)| Var::constant(numbers));
            return HeadOutputs { values: Var::constant(values), top, chosen };
        }
        let out = self.reached(values.clone());
        let (ids, chosen) = match chosen {
            Some((ids, numbers)) => (Some(ids), Some(self.reached(numbers))),
            None => (None, None),
        };
        let (slot, chosen_slot) = (out.slot(), chosen.as_ref().and_then(Var::slot));
        let (hidden_slot, rows) = (hidden.slot(), hidden.value().rows());
        let (positions, targets) = (positions.clone(), targets.clone());
        self.record(additions, move |gradients| {
            let by_values = slot.and_then(|slot| gradients.take(slot));
            let by_chosen = ids.zip(chosen_slot.and_then(|slot| gradients.take(slot)));
            if by_values.is_none() && by_chosen.is_none() {
                return;
            }
            let device = gradients.device.clone();
            let gradient = match units {
                Some(units) => {
                    let out = device.empty(dtype, count, width);
                    device.run("head backward", |cpu| match (&by_values, &by_chosen) {
                        (Some(by_values), None) => cpu.scale_rows(&units, by_values, 0, &out),
                        (by_values, Some((ids, by_ids))) => {
                            let (weight, scale) = (&head.options.weight.value, head.options.scale);
                            let rows = UnitRows { units: &units, targets: &targets, weight, scale };
                            let chosen = IdRows { ids, numbers: by_ids };
                            cpu.head_units_backward(&rows, by_values.as_ref(), &chosen, &out);
                        }
                        (None, None) => {}
                    });
                    out
                }
                None => {
                    let coefficients = by_values.unwrap_or_else(|| device.zeros(DType::F32, count, DIFFERENTIABLE));
                    let wanted = hidden_slot.is_some() || head.options.norm.weight.is_trained();
                    let by = HeadUpstream { coefficients: &coefficients, chosen: by_chosen.as_ref(), wanted };
                    let Some(gradient) = head.backward(gradients, &targets, &values, &by) else { return };
                    gradient
                }
            };
            head.finish_backward(gradients, &gradient, &positions, hidden_slot, rows);
        });
        HeadOutputs { values: out, top, chosen }
    }

    /// The logits themselves of rows `positions`: f32 `[positions, vocabulary]`. For generation, not for training.
    pub fn logits(&mut self, hidden: &Var, options: &HeadOptions, positions: &Tensor) -> Tensor {
        let device = self.device().clone();
        let (count, width) = (positions.len(), hidden.value().columns());
        let input = device.empty(hidden.value().dtype(), count, width);
        device.run("head", |cpu| cpu.gather(hidden.value(), positions, &input));
        let inverse_rms = device.empty(DType::F32, 1, count);
        let head = Head { options: options.clone(), compute: self.precision().compute(), input, inverse_rms };
        let normed = head.normalise(&device);
        let logits = device.empty(DType::F32, count, options.weight.value.rows());
        device.run("head", |cpu| {
            let product = Product { a: rows_of(&normed, 0), b: rows_of(&options.weight.value, 0), k: width };
            let scaled = Epilogue { scale: options.scale, ..Epilogue::NONE };
            cpu.multiply_few(head.compute, count, logits.columns(), &[product], part(&logits, 0), &scaled);
            options.soft_cap.iter().for_each(|&cap| cpu.cap_softly(&logits, cap));
        });
        logits
    }

    /// `sums[0] += sum over tokens of values[t][column] * weights[t]`. sums f32 `[1, 1]`, weights f32 `[1, tokens]`.
    pub fn add_weighted(&mut self, values: &Tensor, column: usize, weights: &Tensor, sums: &Tensor) {
        self.device().run("loss", |cpu| cpu.weighted_sum(values, column, weights, sums));
    }
}

/// Elements `first .. first + count` of a `[1, n]` tensor.
fn part_of_vector(vector: &Tensor, first: usize, count: usize) -> Tensor {
    vector.reshape(vector.len(), 1).slice_rows(first, count).reshape(1, count)
}

/// Where forward writes, for some tokens.
struct Found {
    /// u32 `[1, tokens]`
    targets: Tensor,
    values: Tensor,
    unit: Option<Tensor>,
    /// Ids and, until the walk has ended, logits.
    top: Option<(Tensor, Tensor)>,
    /// Likewise.
    chosen: Option<(Tensor, Tensor)>,
}

/// The loss's gradient with respect to what the head gave.
struct HeadUpstream<'t> {
    /// f32 `[tokens, 4]`, of the values.
    coefficients: &'t Tensor,
    /// Ids, and coefficients of their log-probabilities.
    chosen: Option<&'t (Tensor, Tensor)>,
    /// Whether anything below the matrix is trained.
    wanted: bool,
}

struct Head {
    options: HeadOptions,
    compute: Compute,
    input: Tensor,
    inverse_rms: Tensor,
}

impl Head {
    fn norm(&self) -> RowNorm<'_> {
        self.options.norm.rows(&self.input, &self.inverse_rms)
    }

    fn normalise(&self, device: &Device) -> Tensor {
        let out = device.empty(self.input.dtype(), self.input.rows(), self.input.columns());
        device.run("head", |cpu| cpu.rms_norm(&self.norm(), &out));
        out
    }

    /// The blocks of the vocabulary: first id and rows of the matrix.
    fn blocks(&self) -> impl Iterator<Item = (usize, Tensor)> + '_ {
        let weight = &self.options.weight.value;
        (0..weight.rows()).step_by(BLOCK).map(move |first| {
            let count = BLOCK.min(weight.rows() - first);
            (first, weight.slice_rows(first, count))
        })
    }

    fn logits_of(&self, device: &Device, h: &Tensor, block: &Tensor, buffer: &Tensor) -> Tensor {
        let logits = buffer.prefix(h.rows(), block.rows());
        device.run("head", |cpu| {
            let product = Product { a: rows_of(h, 0), b: rows_of(block, 0), k: h.columns() };
            let scaled = Epilogue { scale: self.options.scale, ..Epilogue::NONE };
            cpu.multiply(self.compute, h.rows(), block.rows(), &[product], part(&logits, 0), &scaled);
            self.options.soft_cap.iter().for_each(|&cap| cpu.cap_softly(&logits, cap));
        });
        logits
    }

    fn buffer(&self, device: &Device, tokens: usize) -> Tensor {
        device.empty(DType::F32, tokens, BLOCK.min(self.options.weight.value.rows()))
    }

    fn forward(&self, device: &Device, h: &Tensor, found: &Found) {
        let tokens = h.rows();
        let weight = &self.options.weight.value;
        let state = device.empty(DType::F32, tokens, STATE);
        let rows = HeadRows { targets: &found.targets, state: &state, soft_cap: self.options.soft_cap };
        let sums = found.unit.as_ref().map(|_| device.zeros(DType::F32, tokens, h.columns()));
        let buffer = self.buffer(device, tokens);
        let top = found.top.as_ref().map(|(ids, numbers)| IdRows { ids, numbers });
        let chosen = found.chosen.as_ref().map(|(ids, numbers)| IdRows { ids, numbers });
        device.run("head", |cpu| {
            cpu.head_begin(&rows);
            top.iter().for_each(|top| cpu.top_begin(top));
            chosen.iter().for_each(|chosen| cpu.no_logits(chosen));
        });
        for (first, block) in self.blocks() {
            let logits = self.logits_of(device, h, &block, &buffer);
            device.run("head softmax", |cpu| {
                top.iter().for_each(|top| cpu.top_fold(&logits, first, top));
                chosen.iter().for_each(|chosen| cpu.chosen_fold(&logits, first, chosen));
                cpu.head_fold(&rows, &logits, first, sums.as_ref());
            });
            if let Some(sums) = &sums {
                device.run("head", |cpu| {
                    let product = Product { a: rows_of(&logits, 0), b: columns_of(&block, 0), k: block.rows() };
                    add_product(cpu, self.compute, product, sums, 1.0);
                });
            }
        }
        device.run("head", |cpu| {
            cpu.head_finish(&rows, weight.rows(), &found.values);
            top.iter().chain(&chosen).for_each(|rows| cpu.subtract_log_sums(rows, &found.values));
            if let (Some(sums), Some(unit)) = (&sums, &found.unit) {
                cpu.head_unit(&rows, weight, sums, self.options.scale, unit);
            }
        });
    }

    /// The gradient with respect to the normalised rows, where it is wanted; adds to the matrix's own.
    fn backward(
        &self,
        gradients: &Gradients,
        targets: &Tensor,
        values: &Tensor,
        by: &HeadUpstream<'_>,
    ) -> Option<Tensor> {
        let device = &gradients.device;
        let weight = &self.options.weight;
        let (count, width) = (self.input.rows(), self.input.columns());
        debug_assert_eq!(by.coefficients.columns(), DIFFERENTIABLE);
        let normed = self.normalise(device);
        let out = by.wanted.then(|| device.empty(self.input.dtype(), count, width));
        for start in (0..count).step_by(TOKENS) {
            let tokens = TOKENS.min(count - start);
            let cut = |tensor: &Tensor| tensor.slice_rows(start, tokens);
            let (h, values, coefficients) = (cut(&normed), cut(values), cut(by.coefficients));
            let chosen = by.chosen.map(|(ids, numbers)| (cut(ids), cut(numbers)));
            let chosen = chosen.as_ref().map(|(ids, numbers)| IdRows { ids, numbers });
            let by = HeadCoefficients { values: &coefficients, chosen };
            let targets = part_of_vector(targets, start, tokens);
            let rows = HeadRows { targets: &targets, state: &values, soft_cap: self.options.soft_cap };
            let sums = out.as_ref().map(|_| device.zeros(DType::F32, tokens, width));
            let buffer = self.buffer(device, tokens);
            for (first, block) in self.blocks() {
                let logits = self.logits_of(device, &h, &block, &buffer);
                device.run("head softmax", |cpu| {
                    let vocabulary = weight.value.rows();
                    cpu.head_slope(&rows, &logits, first, vocabulary, &values, &by);
                });
                device.run("head backward", |cpu| {
                    if let Some(sums) = &sums {
                        let product = Product { a: rows_of(&logits, 0), b: columns_of(&block, 0), k: block.rows() };
                        add_product(cpu, self.compute, product, sums, self.options.scale);
                    }
                    if let Some(gradient) = &weight.gradient {
                        let gradient = gradient.slice_rows(first, block.rows());
                        let product = Product { a: columns_of(&logits, 0), b: columns_of(&h, 0), k: tokens };
                        add_product(cpu, self.compute, product, &gradient, self.options.scale);
                    }
                });
            }
            if let (Some(sums), Some(out)) = (&sums, &out) {
                device.run("convert", |cpu| cpu.convert(sums, &cut(out)));
            }
        }
        out
    }

    /// Through the norm and back to the rows that the tokens came from.
    fn finish_backward(
        &self,
        gradients: &mut Gradients,
        gradient: &Tensor,
        positions: &Tensor,
        hidden_slot: Option<usize>,
        rows: usize,
    ) {
        let device = gradients.device.clone();
        if let Some(sums) = &self.options.norm.weight.gradient {
            device.run("head backward", |cpu| cpu.rms_norm_weight_gradient(&self.norm(), gradient, sums));
        }
        if hidden_slot.is_some() {
            let before = device.empty(gradient.dtype(), gradient.rows(), gradient.columns());
            let hidden = device.empty(gradient.dtype(), rows, gradient.columns());
            device.run("head backward", |cpu| {
                cpu.rms_norm_backward(&self.norm(), gradient, &before, false, None);
                cpu.scatter(&before, positions, &hidden);
            });
            gradients.add(hidden_slot, hidden);
        }
    }
}
