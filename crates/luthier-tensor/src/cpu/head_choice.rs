//! What the head finds on request while a block of logits is there: the most likely ids, and the log-probabilities of given
//! ids with their derivative. The logits of a batch do not exist for this either.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::gemm::decode::decode_row;
use super::lanes::{LANES, LaneTask, Lanes};
use crate::Tensor;

const GRAIN: usize = 8;

/// Stands where there is no id.
pub(crate) const NO_ID: u32 = u32::MAX;

/// Ids of each token and a number for each: logits, log-probabilities, or the loss's gradient by them.
pub(crate) struct IdRows<'a> {
    /// u32 `[tokens, n]`
    pub(crate) ids: &'a Tensor,
    /// f32 `[tokens, n]`
    pub(crate) numbers: &'a Tensor,
}

impl IdRows<'_> {
    /// The sum of the numbers of ids that exist.
    ///
    /// # Safety
    /// The row is there, and nobody writes it.
    pub(super) unsafe fn sum(&self, row: usize, vocabulary: usize) -> f32 {
        // SAFETY: promised by the caller.
        let (ids, numbers) = unsafe { (Rows::ids(self.ids).row(row), Rows::<f32>::of(self.numbers).row(row)) };
        let there = ids.iter().zip(numbers).filter(|&(&id, _)| (id as usize) < vocabulary);
        there.map(|(_, number)| number).sum()
    }

    /// Adds the numbers of ids from `first` on to the block's places of them.
    ///
    /// # Safety
    /// The row is there, and nobody writes it.
    pub(super) unsafe fn add_to(&self, row: usize, first: usize, block: &mut [f32]) {
        // SAFETY: promised by the caller.
        let (ids, numbers) = unsafe { (Rows::ids(self.ids).row(row), Rows::<f32>::of(self.numbers).row(row)) };
        for (&id, number) in ids.iter().zip(numbers) {
            if let Some(place) = (id as usize).checked_sub(first).and_then(|index| block.get_mut(index)) {
                *place += number;
            }
        }
    }
}

/// What a gradient of log-probabilities is made of when the head's matrix is frozen.
pub(crate) struct UnitRows<'a> {
    /// `[tokens, hidden]`: gradient of the target's log-probability.
    pub(crate) units: &'a Tensor,
    /// u32 `[1, tokens]`
    pub(crate) targets: &'a Tensor,
    /// `[vocabulary, hidden]`
    pub(crate) weight: &'a Tensor,
    /// Factor of the logits.
    pub(crate) scale: f32,
}

impl Cpu {
    /// No ids yet.
    pub(crate) fn top_begin(&self, top: &IdRows) {
        let ids = Rows::ids_mut(top.ids);
        for row in 0..top.ids.rows() {
            // SAFETY: the row is there, and nothing else runs.
            unsafe { ids.row_mut(row) }.fill(NO_ID);
        }
        self.no_logits(top);
    }

    /// Minus infinity everywhere: the logit of what does not exist.
    pub(crate) fn no_logits(&self, rows: &IdRows) {
        let numbers = Rows::<f32>::of_mut(rows.numbers);
        for row in 0..rows.numbers.rows() {
            // SAFETY: the row is there, and nothing else runs.
            unsafe { numbers.row_mut(row) }.fill(f32::NEG_INFINITY);
        }
    }

    /// Takes from logits f32 `[tokens, block]` of ids from `first` on those that are among the largest so far. Sorted, the
    /// largest first; of equal ones the smaller id.
    pub(crate) fn top_fold(&self, logits: &Tensor, first: usize, top: &IdRows) {
        let (rows, ids, largest) = (Rows::<f32>::of(logits), Rows::ids_mut(top.ids), Rows::<f32>::of_mut(top.numbers));
        self.pool.run_rows(logits.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                let (logits, ids, top) = unsafe { (rows.row(row), ids.row_mut(row), largest.row_mut(row)) };
                self.isa.lanes(TopRow { logits, first, ids, top });
            }
        });
    }

    /// Takes the logits of `chosen` ids that lie in the block of ids from `first` on.
    pub(crate) fn chosen_fold(&self, logits: &Tensor, first: usize, chosen: &IdRows) {
        let (rows, ids, out) = (Rows::<f32>::of(logits), Rows::ids(chosen.ids), Rows::<f32>::of_mut(chosen.numbers));
        self.pool.run_rows(logits.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: rows are there by the tensors' shapes; each output row belongs to one task.
                let (logits, ids, out) = unsafe { (rows.row(row), ids.row(row), out.row_mut(row)) };
                for (&id, out) in ids.iter().zip(out) {
                    if let Some(logit) = (id as usize).checked_sub(first).and_then(|index| logits.get(index)) {
                        *out = *logit;
                    }
                }
            }
        });
    }

    /// Logits become log-probabilities. values as from [`head_finish`](Self::head_finish).
    pub(crate) fn subtract_log_sums(&self, rows: &IdRows, values: &Tensor) {
        let (numbers, values) = (Rows::<f32>::of_mut(rows.numbers), Rows::<f32>::of(values));
        for row in 0..rows.numbers.rows() {
            // SAFETY: rows are there by the tensors' shapes, and nothing else runs.
            let (numbers, values) = unsafe { (numbers.row_mut(row), values.row(row)) };
            numbers.iter_mut().for_each(|number| *number -= values[1]);
        }
    }

    /// `output[t] = c * unit[t] + sum_j c_j * (unit[t] + scale * (weight[id_j] - weight[target]))`: the gradient of the
    /// log-probabilities of the target and of `chosen` ids. c is the first of coefficients f32 `[tokens, 4]`, or 0.
    pub(crate) fn head_units_backward(
        &self,
        head: &UnitRows,
        coefficients: Option<&Tensor>,
        chosen: &IdRows,
        output: &Tensor,
    ) {
        let weight = head.weight;
        let (bytes, width) = (Rows::<u8>::bytes(weight), weight.dtype().bytes(weight.columns()));
        // SAFETY: one u32 for each row.
        let targets = unsafe { std::slice::from_raw_parts(head.targets.address().cast::<u32>(), output.rows()) };
        let coefficients = coefficients.map(Rows::<f32>::of);
        let (all_ids, all_numbers) = (Rows::ids(chosen.ids), Rows::<f32>::of(chosen.numbers));
        with_element!(output.dtype(), E, {
            let (units, out) = (Rows::<E>::of(head.units), Rows::<E>::of_mut(output));
            self.pool.run_rows(output.rows(), GRAIN, |range| {
                let mut sums = vec![0.0f32; weight.columns()];
                let mut numbers = vec![0.0f32; weight.columns()];
                let mut add = |sums: &mut [f32], id: usize, factor: f32| {
                    self.isa.run(
                        #[inline(always)]
                        || {
                            let address = bytes.at(0, id * width).cast_const();
                            // SAFETY: the id is one of the vocabulary.
                            unsafe { decode_row(weight.coding(), address, 0, numbers.len(), numbers.as_mut_ptr()) };
                            sums.iter_mut().zip(&numbers).for_each(|(sum, number)| *sum += factor * number);
                        },
                    );
                };
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each output row belongs to one task.
                    let (unit, out, ids, by_ids, by_target) = unsafe {
                        let by_target = coefficients.map_or(0.0, |coefficients| coefficients.row(row)[0]);
                        (units.row(row), out.row_mut(row), all_ids.row(row), all_numbers.row(row), by_target)
                    };
                    let target = (targets[row] as usize).min(weight.rows() - 1);
                    sums.fill(0.0);
                    let (mut total, mut elsewhere) = (by_target, 0.0);
                    for (&id, &by) in ids.iter().zip(by_ids).filter(|&(&id, _)| (id as usize) < weight.rows()) {
                        total += by;
                        if id as usize != target && by != 0.0 {
                            add(&mut sums, id as usize, head.scale * by);
                            elsewhere += by;
                        }
                    }
                    if elsewhere != 0.0 {
                        add(&mut sums, target, -head.scale * elsewhere);
                    }
                    for ((out, unit), sum) in out.iter_mut().zip(unit).zip(&sums) {
                        *out = E::store(unit.load() * total + sum);
                    }
                }
            });
        });
    }
}

/// One row of a block against the largest of the blocks before.
struct TopRow<'a> {
    logits: &'a [f32],
    first: usize,
    ids: &'a mut [u32],
    top: &'a mut [f32],
}

impl LaneTask for TopRow<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        const PART: usize = 4 * LANES;
        let Self { logits, first, ids, top } = self;
        let last = top.len() - 1;
        let mut least = top[last];
        for (index, part) in logits.chunks(PART).enumerate() {
            if part.len() == PART {
                let mut largest = L::load(part);
                for at in [LANES, 2 * LANES, 3 * LANES] {
                    largest = largest.max(L::load(&part[at..]));
                }
                if largest.largest() <= least {
                    continue;
                }
            }
            for (offset, &logit) in part.iter().enumerate() {
                if logit > least {
                    let place = top.partition_point(|&other| other >= logit);
                    top.copy_within(place..last, place + 1);
                    ids.copy_within(place..last, place + 1);
                    top[place] = logit;
                    ids[place] = (first + index * PART + offset) as u32;
                    least = top[last];
                }
            }
        }
    }
}
