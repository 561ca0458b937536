//! Rows laid end to end, without padding: what one forward pass computes.

use std::ops::Range;

use luthier_tensor::Segment;

/// One row of token ids.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    /// Its tokens.
    pub ids: &'r [u32],
    /// Whether each token is predicted from those before it; the first never is.
    pub trained: &'r [bool],
    /// How much each trained token counts in the loss; `None` where each counts 1. `[tokens]`
    pub weights: Option<&'r [f32]>,
    /// Tells it from all other rows of the run, for random masks.
    pub number: u64,
}

impl<'r> Row<'r> {
    /// A row whose trained tokens count alike.
    pub fn new(ids: &'r [u32], trained: &'r [bool], number: u64) -> Self {
        Self { ids, trained, weights: None, number }
    }

    /// Tokens that are scored.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|&&trained| trained).count()
    }
}

/// Rows that are computed together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MicroBatch {
    /// All tokens.
    pub ids: Vec<u32>,
    /// One segment a row.
    pub segments: Vec<Segment>,
    /// Where the tokens stand from which a trained token is predicted.
    pub positions: Vec<u32>,
    /// The ids predicted there.
    pub targets: Vec<u32>,
    /// How much each of them counts in the loss; empty where each counts 1.
    pub weights: Vec<f32>,
    /// A number for each token that does not depend on the other rows.
    pub token_numbers: Vec<u32>,
}

impl MicroBatch {
    /// Lays rows end to end.
    pub fn of(rows: &[Row]) -> Self {
        let mut batch = Self::default();
        let weighted = rows.iter().any(|row| row.weights.is_some());
        for row in rows {
            let first = batch.ids.len();
            for (index, (&id, &trained)) in row.ids.iter().zip(row.trained).enumerate() {
                if trained && index > 0 {
                    batch.positions.push((first + index - 1) as u32);
                    batch.targets.push(id);
                    if weighted {
                        batch.weights.push(row.weights.map_or(1.0, |weights| weights[index]));
                    }
                }
                let number = row.number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
                batch.token_numbers.push((number ^ (number >> 32)) as u32);
            }
            batch.ids.extend_from_slice(row.ids);
            batch.segments.push(Segment::alone(first..batch.ids.len()));
        }
        batch
    }

    /// How much target `index` counts in the loss.
    pub fn weight(&self, index: usize) -> f32 {
        self.weights.get(index).copied().unwrap_or(1.0)
    }

    /// How much all targets count together.
    pub fn weight_sum(&self) -> f64 {
        if self.weights.is_empty() {
            return self.targets.len() as f64;
        }
        self.weights.iter().map(|&weight| f64::from(weight)).sum()
    }

    /// Splits rows into parts of at most `budget` tokens, in order. A longer row is a part of its own.
    pub fn split(rows: &[Row], budget: usize) -> Vec<Self> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        Self::cuts(&lengths, budget).into_iter().map(|part| Self::of(&rows[part])).collect()
    }

    /// Which rows [`Self::split`] puts together, from their lengths alone.
    pub fn cuts(lengths: &[usize], budget: usize) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut first, mut tokens) = (0, 0);
        for (index, &length) in lengths.iter().enumerate() {
            if index > first && tokens + length > budget {
                parts.push(first..index);
                (first, tokens) = (index, 0);
            }
            tokens += length;
        }
        if first < lengths.len() {
            parts.push(first..lengths.len());
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trained_token_is_predicted_from_the_one_before_it_in_its_row() {
        let first = Row::new(&[5, 6, 7], &[true, false, true], 0);
        let second = Row::new(&[8, 9], &[true, true], 1);
        let batch = MicroBatch::of(&[first, second]);
        assert_eq!(batch.ids, [5, 6, 7, 8, 9]);
        assert_eq!((&batch.positions, &batch.targets), (&vec![1, 3], &vec![7, 9]));
        assert_eq!((&batch.weights, batch.weight_sum()), (&vec![], 2.0), "weights of 1 are not kept");
        let weighted = MicroBatch::of(&[first, Row { weights: Some(&[0.0, 0.25]), ..second }]);
        assert_eq!((&weighted.weights, weighted.weight_sum()), (&vec![1.0, 0.25], 1.25));
        assert_eq!(batch.segments.iter().map(|segment| segment.rows.clone()).collect::<Vec<_>>(), [0..3, 3..5]);
        assert_eq!((first.trained_tokens(), second.trained_tokens()), (1, 1));
    }

    #[test]
    fn rows_are_never_split_and_keep_their_order() {
        let ids = [1, 2, 3, 4, 5];
        let trained = [true; 5];
        let row = |length: usize| Row::new(&ids[..length], &trained[..length], 0);
        let parts = MicroBatch::split(&[row(2), row(2), row(5), row(1)], 4);
        assert_eq!(parts.iter().map(|part| part.segments.len()).collect::<Vec<_>>(), [2, 1, 1]);
        assert!(MicroBatch::split(&[], 4).is_empty());
    }
}
