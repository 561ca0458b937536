//! The rows of the head: what a block of logits adds to each token's softmax. Logits of a batch never exist; a block of
//! the vocabulary is multiplied, folded into a running maximum and sums, and forgotten. From: Milakov & Gimelshein 2018
//! (online softmax); Wijmans et al. 2024 (cut cross-entropy).

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::gemm::decode::decode_row;
use super::head_choice::IdRows;
use super::lanes::{LaneTask, Lanes, each_vector};
use super::math::exp;
use crate::Tensor;

const GRAIN: usize = 8;

/// Numbers that a row keeps between blocks: maximum, sum of exponentials, sum of logits, sum of exponential times logit,
/// the target's logit, the most likely id.
pub(crate) const STATE: usize = 6;

/// One pass over the vocabulary.
pub(crate) struct HeadRows<'a> {
    /// u32 `[1, tokens]`
    pub(crate) targets: &'a Tensor,
    /// f32 `[tokens, STATE]`
    pub(crate) state: &'a Tensor,
    /// The bound of the logits, which are given bounded.
    pub(crate) soft_cap: Option<f32>,
}

/// The loss's gradient by what the head found.
pub(crate) struct HeadCoefficients<'a> {
    /// f32 `[tokens, 4]`: by the first four outputs.
    pub(crate) values: &'a Tensor,
    /// Ids, and the gradient by their log-probabilities.
    pub(crate) chosen: Option<IdRows<'a>>,
}

impl Cpu {
    /// Sets the state of all rows to that of an empty vocabulary.
    pub(crate) fn head_begin(&self, head: &HeadRows) {
        let state = Rows::<f32>::of_mut(head.state);
        for row in 0..head.state.rows() {
            // SAFETY: the row is there, and nothing else runs.
            let state = unsafe { state.row_mut(row) };
            state.fill(0.0);
            state[0] = f32::NEG_INFINITY;
        }
    }

    /// `logits = cap * tanh(logits / cap)`, f32 of any shape.
    pub(crate) fn cap_softly(&self, logits: &Tensor, cap: f32) {
        let rows = Rows::<f32>::of_mut(logits);
        self.pool.run_rows(logits.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: rows are there by the tensor's shape; each row belongs to one task.
                let row = unsafe { rows.row_mut(row) };
                self.isa.lanes(Cap { row, scale: 1.0, cap });
            }
        });
    }

    /// Folds logits f32 `[tokens, block]` of ids from `first` on into the state. With `sums`, f32 `[tokens, hidden]`, they
    /// become exponentials relative to the row's maximum, each times the slope of its bound, and a row of `sums` is scaled to
    /// the new maximum.
    pub(crate) fn head_fold(&self, head: &HeadRows, logits: &Tensor, first: usize, sums: Option<&Tensor>) {
        let (logits_rows, state) = (Rows::<f32>::of_mut(logits), Rows::<f32>::of_mut(head.state));
        // SAFETY: one u32 for each row.
        let targets = unsafe { std::slice::from_raw_parts(head.targets.address().cast::<u32>(), logits.rows()) };
        let sums = sums.map(Rows::<f32>::of_mut);
        self.pool.run_rows(logits.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                let (logits, state) = unsafe { (logits_rows.row_mut(row), state.row_mut(row)) };
                let (target, keep, soft_cap) = (targets[row] as usize, sums.is_some(), head.soft_cap);
                let factor = self.isa.lanes(Fold { logits, state, target, first, keep, soft_cap });
                if let Some(sums) = sums
                    && factor != 1.0
                {
                    // SAFETY: as above.
                    let sums = unsafe { sums.row_mut(row) };
                    self.isa.run(
                        #[inline(always)]
                        || sums.iter_mut().for_each(|sum| *sum *= factor),
                    );
                }
            }
        });
    }

    /// outputs f32 `[tokens, 5]`: log-probability of the target, logsumexp, mean logit, entropy, 1 where the target is the
    /// most likely id.
    pub(crate) fn head_finish(&self, head: &HeadRows, vocabulary: usize, outputs: &Tensor) {
        let (state, out) = (Rows::<f32>::of(head.state), Rows::<f32>::of_mut(outputs));
        // SAFETY: one u32 for each row.
        let targets = unsafe { std::slice::from_raw_parts(head.targets.address().cast::<u32>(), outputs.rows()) };
        for (row, &target_id) in targets.iter().enumerate() {
            // SAFETY: rows are there by the tensors' shapes, and nothing else runs.
            let (state, out) = unsafe { (state.row(row), out.row_mut(row)) };
            let &[maximum, sum, total, weighted, target, best] = state else { unreachable!("a state row") };
            let log_sum = maximum + sum.ln();
            out[0] = target - log_sum;
            out[1] = log_sum;
            out[2] = total / vocabulary as f32;
            out[3] = log_sum - weighted / sum;
            out[4] = if best == target_id as f32 { 1.0 } else { 0.0 };
        }
    }

    /// `unit[t] = scale * (slope * weight[target] - sums[t] / denominator)`: the gradient of the target's log-probability;
    /// the slope is that of the bound, or 1.
    pub(crate) fn head_unit(&self, head: &HeadRows, weight: &Tensor, sums: &Tensor, scale: f32, unit: &Tensor) {
        let (state, sums_rows) = (Rows::<f32>::of(head.state), Rows::<f32>::of(sums));
        // SAFETY: one u32 for each row.
        let targets = unsafe { std::slice::from_raw_parts(head.targets.address().cast::<u32>(), unit.rows()) };
        let width = weight.dtype().bytes(weight.columns());
        let weights = Rows::<u8>::bytes(weight);
        with_element!(unit.dtype(), E, {
            let out = Rows::<E>::of_mut(unit);
            self.pool.run_rows(unit.rows(), GRAIN, |range| {
                let mut target = vec![0.0; weight.columns()];
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes, the target is an id of the vocabulary; each output
                    // row belongs to one task.
                    let (state, sums, out) = unsafe {
                        let id = (targets[row] as usize).min(weight.rows() - 1);
                        let address = weights.at(0, id * width).cast_const();
                        decode_row(weight.coding(), address, 0, target.len(), target.as_mut_ptr());
                        (state.row(row), sums_rows.row(row), out.row_mut(row))
                    };
                    let (inverse, slope) = (1.0 / state[1], head.soft_cap.map_or(1.0, |cap| slope(state[4], cap)));
                    for ((out, target), sum) in out.iter_mut().zip(&target).zip(sums) {
                        *out = E::store(scale * (slope * target - sum * inverse));
                    }
                }
            });
        });
    }

    /// Overwrites logits f32 `[tokens, block]` of ids from `first` on with the loss's gradient by them. outputs as from
    /// [`head_finish`](Self::head_finish).
    pub(crate) fn head_slope(
        &self,
        head: &HeadRows,
        logits: &Tensor,
        first: usize,
        vocabulary: usize,
        outputs: &Tensor,
        by: &HeadCoefficients,
    ) {
        let (coefficients, chosen) = (by.values, by.chosen.as_ref());
        let (logits_rows, outputs) = (Rows::<f32>::of_mut(logits), Rows::<f32>::of(outputs));
        let coefficients = Rows::<f32>::of(coefficients);
        // SAFETY: one u32 for each row.
        let targets = unsafe { std::slice::from_raw_parts(head.targets.address().cast::<u32>(), logits.rows()) };
        self.pool.run_rows(logits.rows(), GRAIN, |range| {
            // What the slopes of the bound are made of.
            let mut bounded = vec![0.0f32; if head.soft_cap.is_some() { logits.columns() } else { 0 }];
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                let (logits, out, by) = unsafe { (logits_rows.row_mut(row), outputs.row(row), coefficients.row(row)) };
                if head.soft_cap.is_some() {
                    bounded.copy_from_slice(logits);
                }
                let (log_sum, entropy) = (out[1], out[3]);
                // SAFETY: as above.
                let by_chosen = chosen.map_or(0.0, |chosen| unsafe { chosen.sum(row, vocabulary) });
                let (plain, mean) = (by[1] - by[0] - by_chosen, by[2] / vocabulary as f32);
                self.isa.lanes(SlopeRow { logits: &mut *logits, log_sum, plain, mean, entropy, by_entropy: by[3] });
                if let Some(logit) = (targets[row] as usize).checked_sub(first).and_then(|id| logits.get_mut(id)) {
                    *logit += by[0];
                }
                if let Some(chosen) = chosen {
                    // SAFETY: as above.
                    unsafe { chosen.add_to(row, first, logits) };
                }
                if let Some(cap) = head.soft_cap {
                    logits.iter_mut().zip(&bounded).for_each(|(logit, &bounded)| *logit *= slope(bounded, cap));
                }
            }
        });
    }

    /// `output[t] = input[t] * factors[t][column]`, and 0 where the factor is 0.
    pub(crate) fn scale_rows(&self, input: &Tensor, factors: &Tensor, column: usize, output: &Tensor) {
        let factors = Rows::<f32>::of(factors);
        with_element!(input.dtype(), E, {
            let (input, out) = (Rows::<E>::of(input), Rows::<E>::of_mut(output));
            self.pool.run_rows(output.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each output row belongs to one task.
                    let (input, out, factor) = unsafe { (input.row(row), out.row_mut(row), factors.row(row)[column]) };
                    for (out, input) in out.iter_mut().zip(input) {
                        *out = E::store(input.load() * factor);
                    }
                }
            });
        });
    }
}

/// `row = cap * tanh(scale * row / cap)`.
pub(super) struct Cap<'a> {
    pub(super) row: &'a mut [f32],
    pub(super) scale: f32,
    pub(super) cap: f32,
}

impl LaneTask for Cap<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { row, scale, cap } = self;
        let (factor, cap) = (L::splat(scale / cap), L::splat(cap));
        each_vector!(
            row.len(),
            |i| tanh_lanes(L::load(&row[i..]).mul(factor)).mul(cap).store(&mut row[i..]),
            tanh_lanes(L::load_some(&row[i..]).mul(factor)).mul(cap).store_some(&mut row[i..])
        );
    }
}

/// `1 - 2 / (1 + e^2x)`: absolute error below 3e-7.
#[inline(always)]
pub(super) fn tanh_lanes<L: Lanes>(x: L) -> L {
    let (one, two) = (L::splat(1.0), L::splat(2.0));
    one.sub(two.mul(one.add(x.mul(two).exp()).reciprocal()))
}

/// The slope of `cap * tanh(x / cap)` where its value is `bounded`.
#[inline(always)]
fn slope(bounded: f32, cap: f32) -> f32 {
    let tanh = bounded / cap;
    1.0 - tanh * tanh
}

/// Folds one row in; returns the factor that sums relative to the old maximum need.
struct Fold<'a> {
    logits: &'a mut [f32],
    state: &'a mut [f32],
    target: usize,
    first: usize,
    keep: bool,
    soft_cap: Option<f32>,
}

impl LaneTask for Fold<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let Self { logits, state, target, first, keep, soft_cap } = self;
        if let Some(logit) = target.checked_sub(first).and_then(|id| logits.get(id)) {
            state[4] = *logit;
        }
        let mut top = L::splat(f32::NEG_INFINITY);
        let mut total = L::splat(0.0);
        each_vector!(
            logits.len(),
            |i| {
                let logit = L::load(&logits[i..]);
                top = top.max(logit);
                total = total.add(logit);
            },
            {
                for &logit in &logits[i..] {
                    top = top.max(L::splat(logit));
                }
                total = total.add(L::load_some(&logits[i..]));
            }
        );
        let top = top.largest();
        let (old, new) = (state[0], if top > state[0] { top } else { state[0] });
        if top > old {
            let place = logits.iter().position(|&logit| logit == top).unwrap_or(0);
            state[5] = (first + place) as f32;
        }
        let offset = L::splat(-new);
        let (one, inverse_cap) = (L::splat(1.0), soft_cap.map(|cap| L::splat(1.0 / cap)));
        let (mut sum, mut weighted) = (L::splat(0.0), L::splat(0.0));
        let (mut rest, mut weighted_rest) = (0.0, 0.0);
        each_vector!(
            logits.len(),
            |i| {
                let logit = L::load(&logits[i..]);
                let weight = logit.add(offset).exp();
                sum = sum.add(weight);
                weighted = weight.mul_add(logit, weighted);
                if keep {
                    let kept = match inverse_cap {
                        Some(inverse_cap) => {
                            let tanh = logit.mul(inverse_cap);
                            weight.mul(one.sub(tanh.mul(tanh)))
                        }
                        None => weight,
                    };
                    kept.store(&mut logits[i..]);
                }
            },
            {
                for logit in &mut logits[i..] {
                    let weight = exp(*logit - new);
                    rest += weight;
                    weighted_rest += weight * *logit;
                    if keep {
                        *logit = weight * soft_cap.map_or(1.0, |cap| slope(*logit, cap));
                    }
                }
            }
        );
        let factor = exp(old - new);
        state[0] = new;
        state[1] = state[1] * factor + (sum.sum() + rest);
        state[2] += total.sum();
        state[3] = state[3] * factor + (weighted.sum() + weighted_rest);
        factor
    }
}

/// Logits of one row become the loss's gradient by them, save for the target's own.
struct SlopeRow<'a> {
    logits: &'a mut [f32],
    log_sum: f32,
    plain: f32,
    mean: f32,
    entropy: f32,
    by_entropy: f32,
}

impl LaneTask for SlopeRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { logits, log_sum, plain, mean, entropy, by_entropy } = self;
        let (offset, plain_lanes, mean_lanes) = (L::splat(-log_sum), L::splat(plain), L::splat(mean));
        if by_entropy == 0.0 {
            each_vector!(
                logits.len(),
                |i| L::load(&logits[i..]).add(offset).exp().mul_add(plain_lanes, mean_lanes).store(&mut logits[i..]),
                L::load_some(&logits[i..])
                    .add(offset)
                    .exp()
                    .mul_add(plain_lanes, mean_lanes)
                    .store_some(&mut logits[i..])
            );
            return;
        }
        for logit in logits.iter_mut() {
            let log_probability = *logit - log_sum;
            *logit = exp(log_probability) * (plain - by_entropy * (log_probability + entropy)) + mean;
        }
    }
}
