//! Adafactor: mean squares of rows and of columns, the size of the update, then the step.

use super::{Cpu, numbers, sum_of_squares};
use crate::Tensor;
use crate::cpu::element::Rows;
use crate::optimisers::{Adafactor, Gate, SquareMeans};

/// Rows, and columns, that one task takes.
const GRAIN: usize = 16;
const COLUMNS: usize = 64;

/// The update before its size is known: the gradient times one factor for the row and one for each column, or over the
/// root of its own mean square.
enum Scaled<'a> {
    Factored { rows: &'a [f32], columns: &'a [f32] },
    Whole(&'a [f32]),
}

impl Scaled<'_> {
    #[inline(always)]
    fn update(&self, row: usize, column: usize, gradient: f32) -> f32 {
        match self {
            Self::Factored { rows, columns } => gradient * (rows[row] * columns[column]),
            Self::Whole(squares) => gradient * (1.0 / squares[column].sqrt()),
        }
    }
}

impl Cpu {
    /// `sums` is f32 `[2, rows]` to work in.
    #[expect(clippy::too_many_arguments, reason = "the whole of a step in one call")]
    pub(crate) fn adafactor(
        &self,
        rule: &Adafactor,
        gate: Gate,
        gradient: &Tensor,
        value: &Tensor,
        squares: &SquareMeans,
        mean: Option<&Tensor>,
        sums: &Tensor,
    ) {
        let Some(clip) = self.clip(gate) else { return };
        let (row_count, width) = (value.rows(), value.columns());
        let gradients = Rows::<f32>::of(gradient);
        let (row_factors, column_factors);
        let scaled = match squares {
            SquareMeans::Factored { rows, columns } => {
                self.mean_squares(rule, clip, gradient, rows, columns);
                // SAFETY: the tasks that wrote them have ended.
                let (rows, columns) = unsafe { (numbers(rows), numbers(columns)) };
                let whole = rows.iter().map(|&row| f64::from(row)).sum::<f64>() / row_count as f64;
                row_factors = rows.iter().map(|row| 1.0 / (row / whole as f32).sqrt()).collect::<Vec<_>>();
                column_factors = columns.iter().map(|column| 1.0 / column.sqrt()).collect::<Vec<_>>();
                Scaled::Factored { rows: &row_factors, columns: &column_factors }
            }
            SquareMeans::Whole(whole) => {
                self.pieces(
                    gradient,
                    [whole],
                    #[inline(always)]
                    |gradient, [whole]| {
                        for (gradient, whole) in gradient.iter().zip(whole) {
                            let g = gradient * clip;
                            *whole = rule.beta_2 * *whole + (1.0 - rule.beta_2) * (g * g + rule.epsilon);
                        }
                    },
                );
                // SAFETY: the tasks that wrote it have ended.
                Scaled::Whole(unsafe { numbers(whole) })
            }
        };
        let out = Rows::<f32>::of_mut(&sums.reshape(1, 2 * row_count));
        let values = Rows::<f32>::of_mut(value);
        self.pool.run_rows(row_count, GRAIN, |range| {
            for row in range {
                // SAFETY: rows are there by the shapes; each task writes its own sums.
                let (gradient, value, out) = unsafe {
                    let out = [out.part_mut(0, row, 1), out.part_mut(0, row_count + row, 1)];
                    (gradients.row(row), values.row(row), out)
                };
                let mut sum = 0.0f64;
                for (column, gradient) in gradient.iter().enumerate() {
                    sum += f64::from(scaled.update(row, column, gradient * clip)).powi(2);
                }
                let [update, own] = out;
                update[0] = sum as f32;
                own[0] = if rule.least_scale.is_some() { sum_of_squares(value) as f32 } else { 0.0 };
            }
        });
        // SAFETY: the tasks that wrote them have ended.
        let (updates, own) = unsafe { numbers(sums) }.split_at(row_count);
        let size = |sums: &[f32]| (sums.iter().map(|&sum| f64::from(sum)).sum::<f64>() / value.len() as f64).sqrt();
        let scale = rule.least_scale.map_or(1.0, |least| size(own).max(least));
        let rate = rule.learning_rate * scale;
        let factor = (rate / (size(updates) / rule.clip_threshold).max(1.0)) as f32 * clip;
        let keep = (1.0 - rate * rule.weight_decay) as f32;
        let means = mean.map(Rows::<f32>::of_mut);
        self.pool.run_rows(row_count, GRAIN, |range| {
            for row in range {
                // SAFETY: each row belongs to one task, and the tensors are different memory.
                let (gradient, value, mean) =
                    unsafe { (gradients.row(row), values.row_mut(row), means.map(|means| means.row_mut(row))) };
                if let Some(mean) = mean {
                    for (column, ((gradient, value), mean)) in gradient.iter().zip(value).zip(mean).enumerate() {
                        let update = scaled.update(row, column, *gradient) * factor;
                        *mean = rule.beta_1 * *mean + (1.0 - rule.beta_1) * update;
                        *value = *value * keep - *mean;
                    }
                } else {
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (column, (gradient, value)) in gradient.iter().zip(value).enumerate().take(width) {
                                *value = *value * keep - scaled.update(row, column, *gradient) * factor;
                            }
                        },
                    );
                }
            }
        });
    }

    /// The mean squares of rows and columns with this gradient.
    fn mean_squares(&self, rule: &Adafactor, clip: f32, gradient: &Tensor, rows: &Tensor, columns: &Tensor) {
        let (row_count, width) = (gradient.rows(), gradient.columns());
        let gradients = Rows::<f32>::of(gradient);
        let square = f64::from(clip) * f64::from(clip);
        let mix = |kept: &mut f32, sum: f64, count: usize| {
            let found = (sum * square / count as f64) as f32 + rule.epsilon;
            *kept = rule.beta_2 * *kept + (1.0 - rule.beta_2) * found;
        };
        let kept = Rows::<f32>::of_mut(&rows.reshape(1, row_count));
        self.pool.run_rows(row_count, GRAIN, |range| {
            for row in range {
                // SAFETY: the row is there; each task writes its own means.
                let (row, kept) = unsafe { (gradients.row(row), kept.part_mut(0, row, 1)) };
                mix(&mut kept[0], sum_of_squares(row), width);
            }
        });
        let kept = Rows::<f32>::of_mut(&columns.reshape(1, width));
        self.pool.run_rows(width, COLUMNS, |range| {
            let mut sums = [0.0f64; COLUMNS];
            for row in 0..row_count {
                // SAFETY: the columns are there.
                let numbers = unsafe { gradients.part(row, range.start, range.len()) };
                for (sum, number) in sums.iter_mut().zip(numbers) {
                    *sum += f64::from(*number) * f64::from(*number);
                }
            }
            // SAFETY: each task writes its own means.
            let kept = unsafe { kept.part_mut(0, range.start, range.len()) };
            for (kept, sum) in kept.iter_mut().zip(sums) {
                mix(kept, sum, row_count);
            }
        });
    }
}
