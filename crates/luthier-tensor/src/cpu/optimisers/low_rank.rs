//! GaLore and APOLLO: projecting, moments in the low rank, and what becomes of them.

use super::product::Factor::{Columns, Rows as Across};
use super::{Cpu, correction, numbers, numbers_mut, sum_of_squares};
use crate::Tensor;
use crate::cpu::element::Rows;
use crate::optimisers::{Apollo, Galore, LowMoments, ProjectionSource, Side};

/// Rows that one task takes.
const GRAIN: usize = 16;
/// A step's norm may be at most so many times that of the last. From: Chen et al. 2024 ("Fira"), section 4.
const MOST_GROWTH: f64 = 1.01;
const EPSILON: f64 = 1e-8;

impl Cpu {
    /// Makes the projection ready: computes it where that is due, draws it where it is random.
    pub(crate) fn projection(
        &self,
        gradient: &Tensor,
        side: Side,
        source: ProjectionSource,
        projection: &Tensor,
        search: Option<&[Tensor; 2]>,
    ) {
        match (source, search) {
            (ProjectionSource::Random { stream }, _) => {
                self.normal(stream, 1.0 / (projection.rows() as f64).sqrt(), projection);
            }
            (ProjectionSource::Singular { due, stream, .. }, Some([carried, images])) => {
                // SAFETY: nothing writes it now.
                let is_empty = unsafe { numbers(projection) }.iter().all(|&number| number == 0.0);
                if due || is_empty {
                    self.singular_vectors(gradient, side, stream, projection, [carried, images]);
                }
            }
            (ProjectionSource::Singular { .. }, None) => {}
        }
    }

    /// What remains of the gradient, times `clip`.
    pub(crate) fn project(&self, gradient: &Tensor, side: Side, projection: &Tensor, clip: f32, remains: &Tensor) {
        match side {
            Side::Right => self.product(Across(gradient), Across(projection), clip, remains, false),
            Side::Left => self.product(Across(projection), Columns(gradient), clip, remains, false),
        }
    }

    /// Takes `low` into the moments and writes the direction, first over the root of the second, into `out`; which may
    /// be `low`. Returns the rate with both corrections.
    fn low_moments(&self, rule: &LowMoments, low: &Tensor, [first, second]: [&Tensor; 2]) -> f32 {
        let (beta_1, beta_2) = (rule.beta_1, rule.beta_2);
        self.pieces(
            low,
            [first, second],
            #[inline(always)]
            |low, [first, second]| {
                for ((g, first), second) in low.iter().zip(first).zip(second) {
                    *first = beta_1 * *first + (1.0 - beta_1) * g;
                    *second = beta_2 * *second + (1.0 - beta_2) * g * g;
                }
            },
        );
        let root_2 = correction(beta_2, rule.step).sqrt();
        (f64::from(rule.learning_rate) * root_2 / correction(beta_1, rule.step)) as f32
    }

    pub(crate) fn galore(
        &self,
        rule: &Galore,
        value: &Tensor,
        side: Side,
        projection: &Tensor,
        remains: &Tensor,
        moments: [&Tensor; 2],
    ) {
        let rate = self.low_moments(&rule.moments, remains, moments);
        let epsilon = rule.moments.epsilon;
        // The direction takes the place of what remained.
        self.pieces(
            moments[0],
            [moments[1], remains],
            #[inline(always)]
            |first, [second, direction]| {
                for ((first, second), direction) in first.iter().zip(second).zip(direction) {
                    *direction = first / (second.sqrt() + epsilon);
                }
            },
        );
        match side {
            Side::Right => self.product(Across(remains), Columns(projection), -rate * rule.scale, value, true),
            Side::Left => self.product(Columns(projection), Columns(remains), -rate * rule.scale, value, true),
        }
        self.shrink(value, 1.0 - rule.moments.learning_rate * rule.moments.weight_decay);
    }

    #[expect(clippy::too_many_arguments, reason = "the whole of a step in one call")]
    pub(crate) fn apollo(
        &self,
        rule: &Apollo,
        clip: f32,
        gradient: &Tensor,
        value: &Tensor,
        side: Side,
        remains: &Tensor,
        moments: [&Tensor; 2],
        last_norm: &Tensor,
        [factors, sums]: [&Tensor; 2],
    ) {
        let rate = self.low_moments(&rule.moments, remains, moments);
        self.apollo_factors(rule, side, remains, moments, factors);
        // SAFETY: nothing else uses them now.
        let (factors, last) = unsafe { (numbers(factors), &mut numbers_mut(last_norm)[0]) };
        let factor = move |row: usize, column: usize| if side == Side::Left { factors[column] } else { factors[row] };
        let front = if rule.scale_front { rule.scale.sqrt() } else { 1.0 };
        let gradients = Rows::<f32>::of(gradient);
        let out = Rows::<f32>::of_mut(&sums.reshape(1, sums.len()));
        self.pool.run_rows(value.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: the row is there; each task writes its own sums.
                let (gradient, out) = unsafe { (gradients.row(row), out.part_mut(0, row, 1)) };
                let squares = gradient.iter().enumerate().map(|(column, g)| f64::from(g * factor(row, column)).powi(2));
                out[0] = squares.sum::<f64>() as f32;
            }
        });
        // SAFETY: the tasks that wrote them have ended.
        let sums = unsafe { numbers(sums) };
        let norm = sums.iter().map(|&sum| f64::from(sum)).sum::<f64>().sqrt() * f64::from(clip * front);
        let limit = match f64::from(*last) {
            // There was no step before.
            0.0 => 1.0,
            last => (norm / (last + EPSILON)).max(MOST_GROWTH) / MOST_GROWTH,
        };
        *last = (norm / limit) as f32;
        // In front or behind, the root of the scale comes in once.
        let step = (f64::from(rate * clip * rule.scale.sqrt()) / limit) as f32;
        let keep = 1.0 - rule.moments.learning_rate * rule.moments.weight_decay;
        let values = Rows::<f32>::of_mut(value);
        self.pool.run_rows(value.rows(), GRAIN, |range| {
            for row in range {
                // SAFETY: each row belongs to one task, and the tensors are different memory.
                let (gradient, value) = unsafe { (gradients.row(row), values.row_mut(row)) };
                for (column, (value, gradient)) in value.iter_mut().zip(gradient).enumerate() {
                    *value = (*value - step * (gradient * factor(row, column))) * keep;
                }
            }
        });
    }

    /// How much each channel is scaled: the norm of its direction over that of what remains of its gradient.
    fn apollo_factors(&self, rule: &Apollo, side: Side, remains: &Tensor, [first, second]: [&Tensor; 2], out: &Tensor) {
        let (rows, columns) = (remains.rows(), remains.columns());
        let channels = out.len();
        // SAFETY: the tasks that wrote them have ended, and these are different memory.
        let (low, first, second, out) =
            unsafe { (numbers(remains), numbers(first), numbers(second), numbers_mut(out)) };
        let direction = |index: usize| first[index] / (second[index].sqrt() + rule.moments.epsilon);
        let ratio = |direction: f64, gradient: f64| (direction.sqrt() / (gradient.sqrt() + EPSILON)) as f32;
        if !rule.by_channel {
            let whole: f64 = (0..low.len()).map(|index| f64::from(direction(index)).powi(2)).sum();
            out.fill(ratio(whole, sum_of_squares(low)));
            return;
        }
        debug_assert_eq!(channels, if side == Side::Left { columns } else { rows }, "channels");
        let (mut of_direction, mut of_gradient) = (vec![0.0f64; channels], vec![0.0f64; channels]);
        for row in 0..rows {
            for column in 0..columns {
                let channel = if side == Side::Left { column } else { row };
                let index = row * columns + column;
                of_direction[channel] += f64::from(direction(index)).powi(2);
                of_gradient[channel] += f64::from(low[index]).powi(2);
            }
        }
        for (out, (direction, gradient)) in out.iter_mut().zip(of_direction.into_iter().zip(of_gradient)) {
            *out = ratio(direction, gradient);
        }
    }
}
