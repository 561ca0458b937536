//! From the journal to the curves of a chart. Numbers that are not finite leave gaps; where there are more steps than
//! columns of the picture, a column keeps its lowest and its highest.

use luthier_train::Event;

use crate::journal::Entry;
use crate::progress::smoothing_weight;

/// Columns that a curve is thinned to.
const COLUMNS: usize = 800;
/// Points of the smoothed curve: a longer run is averaged in groups first, as a log with fewer lines would.
const SMOOTHED_POINTS: usize = 400;
/// Larger numbers are as good as infinite.
const LARGEST: f64 = 1e30;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) step: usize,
    pub(super) loss: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Curves {
    /// The loss of each step, in pieces without gaps.
    pub(super) raw: Vec<Vec<Point>>,
    /// The same smoothed.
    pub(super) smoothed: Vec<Vec<Point>>,
    pub(super) evaluations: Vec<Point>,
    best: Option<Point>,
    pub(super) last_step: usize,
    /// Lowest loss and the highest that has to be seen.
    seen: Option<(f64, f64)>,
}

impl Curves {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut curves = Self::default();
        let mut steps = Vec::new();
        for entry in entries {
            match &entry.event {
                Event::Step(event) => steps.push(Point { step: event.step, loss: event.loss }),
                Event::Evaluation(event) => {
                    let point = Point { step: event.step, loss: event.loss };
                    curves.last_step = curves.last_step.max(event.step);
                    if is_drawn(&point) {
                        curves.evaluations.push(point);
                        curves.best = if event.is_best { Some(point) } else { curves.best };
                    }
                }
                Event::Overflow(_) | Event::Warning { .. } => {}
            }
        }
        curves.last_step = steps.iter().map(|point| point.step).fold(curves.last_step, usize::max);
        let pieces = pieces(&steps);
        curves.seen = seen(&pieces, &curves.evaluations);
        curves.smoothed = smooth(&steps, steps.len().div_ceil(SMOOTHED_POINTS).max(1));
        let width = curves.last_step.div_ceil(COLUMNS).max(1);
        curves.raw = pieces.iter().map(|piece| thin(piece, width)).collect();
        curves
    }

    /// Lowest and highest loss of the picture, with some air; never empty.
    pub(super) fn range(&self) -> (f64, f64) {
        let (low, high) = self.seen.unwrap_or((0.0, 1.0));
        let air = ((high - low) * 0.06).max((high + low).abs() * 0.005).max(1e-3);
        // A loss is hardly ever below 0: no air there.
        (if low >= 0.0 { (low - air).max(0.0) } else { low - air }, high + air)
    }

    /// The numbers that are asked for first.
    pub(super) fn summary(&self) -> String {
        let mut parts = Vec::new();
        if let Some(last) = self.smoothed.last().and_then(|piece| piece.last()) {
            parts.push(format!("smoothed {:.4} at step {}", last.loss, last.step));
        }
        if let Some(best) = self.best {
            parts.push(format!("best evaluation {:.4} at step {}", best.loss, best.step));
        }
        parts.join(", ")
    }
}

fn is_drawn(point: &Point) -> bool {
    point.loss.abs() < LARGEST
}

fn pieces(points: &[Point]) -> Vec<Vec<Point>> {
    points.split(|point| !is_drawn(point)).filter(|piece| !piece.is_empty()).map(<[Point]>::to_vec).collect()
}

/// A spike in a hundred steps may leave the picture, for the sake of all others; an evaluation may not.
fn seen(pieces: &[Vec<Point>], evaluations: &[Point]) -> Option<(f64, f64)> {
    let mut losses: Vec<f64> = pieces.iter().flatten().map(|point| point.loss).collect();
    losses.sort_by(f64::total_cmp);
    let at = |share: f64| losses.get(((losses.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    let high = at(0.99).zip(at(0.5)).zip(losses.last().copied()).map(|((high, middle), most)| {
        let room = high + 4.0 * (high - middle);
        most.min(room)
    });
    let evaluated = evaluations.iter().map(|point| point.loss);
    let low = losses.first().copied().into_iter().chain(evaluated.clone()).reduce(f64::min);
    low.zip(high.into_iter().chain(evaluated).reduce(f64::max))
}

/// The means of groups of steps, smoothed as LLaMA-Factory smooths.
fn smooth(steps: &[Point], group: usize) -> Vec<Vec<Point>> {
    let means: Vec<Point> = steps
        .chunks(group)
        .map(|group| {
            let losses: Vec<f64> = group.iter().filter(|point| is_drawn(point)).map(|point| point.loss).collect();
            // Without any this is 0 / 0: a gap.
            let loss = losses.iter().sum::<f64>() / losses.len() as f64;
            Point { step: group.last().map_or(0, |point| point.step), loss }
        })
        .collect();
    let weight = smoothing_weight(means.iter().filter(|point| is_drawn(point)).count());
    let mut last = None;
    let mut smoothed = means;
    for point in smoothed.iter_mut().filter(|point| is_drawn(point)) {
        point.loss = weight * last.unwrap_or(point.loss) + (1.0 - weight) * point.loss;
        last = Some(point.loss);
    }
    pieces(&smoothed)
}

/// Of the points of each `width` steps the lowest and the highest, in their order.
fn thin(piece: &[Point], width: usize) -> Vec<Point> {
    let column = |point: &Point| point.step / width;
    let mut kept = Vec::new();
    for points in piece.chunk_by(|one, other| column(one) == column(other)) {
        let by_loss = |one: &&Point, other: &&Point| one.loss.total_cmp(&other.loss);
        let ends = points.iter().min_by(by_loss).zip(points.iter().max_by(by_loss));
        let Some((low, high)) = ends else { continue };
        let (first, second) = if low.step <= high.step { (low, high) } else { (high, low) };
        kept.push(*first);
        if first != second {
            kept.push(*second);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(losses: &[f64]) -> Vec<Point> {
        losses.iter().enumerate().map(|(index, &loss)| Point { step: index + 1, loss }).collect()
    }

    #[test]
    fn smoothing_is_llama_factorys() {
        let smoothed = smooth(&points(&[3.0, 1.0, 2.0]), 1);
        let weight = smoothing_weight(3);
        let second = weight * 3.0 + (1.0 - weight);
        let third = weight * second + (1.0 - weight) * 2.0;
        assert_eq!(smoothed, [points(&[3.0, second, third])]);
    }

    #[test]
    fn a_gap_stays_a_gap_and_smoothing_goes_on_after_it() {
        let smoothed = smooth(&points(&[3.0, f64::NAN, 1.0]), 1);
        assert_eq!(smoothed.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(smoothed[1][0].loss > 1.0);
        // A group with one finite number has no gap.
        assert_eq!(smooth(&points(&[3.0, f64::NAN, 1.0, 1.0]), 2).len(), 1);
    }

    #[test]
    fn thinning_keeps_extremes_in_order() {
        let kept = thin(&points(&[5.0, 1.0, 3.0, 9.0, 2.0, 2.0]), 3);
        let losses: Vec<f64> = kept.iter().map(|point| point.loss).collect();
        assert_eq!(losses, [5.0, 1.0, 9.0, 2.0, 2.0]);
    }

    #[test]
    fn one_spike_does_not_flatten_the_rest() {
        let mut losses = vec![2.0; 500];
        losses[250] = 1e9;
        losses[0] = 3.0;
        let seen = seen(&[points(&losses)], &[]).expect("a range");
        assert!(seen.1 < 10.0, "{seen:?}");
        assert_eq!(super::seen(&[points(&[1.0, 4.0])], &points(&[7.0])), Some((1.0, 7.0)));
    }
}
