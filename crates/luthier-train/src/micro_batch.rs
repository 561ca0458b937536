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
    /// Tells it from all other rows of the run, for random masks.
    pub number: u64,
}

impl Row<'_> {
    /// Tokens that are scored.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|&&trained| trained).count()
    }
}

/// Rows that are computed together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// All tokens.
    pub ids: Vec<u32>,
    /// One segment a row.
    pub segments: Vec<Segment>,
    /// Where the tokens stand from which a trained token is predicted.
    pub positions: Vec<u32>,
    /// The ids predicted there.
    pub targets: Vec<u32>,
    /// A number for each token that does not depend on the other rows.
    pub token_numbers: Vec<u32>,
}

impl MicroBatch {
    /// Lays rows end to end.
    pub fn of(rows: &[Row]) -> Self {
        let mut batch = Self::default();
        for row in rows {
            let first = batch.ids.len();
            for (index, (&id, &trained)) in row.ids.iter().zip(row.trained).enumerate() {
                if trained && index > 0 {
                    batch.positions.push((first + index - 1) as u32);
                    batch.targets.push(id);
                }
                let number = row.number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
                batch.token_numbers.push((number ^ (number >> 32)) as u32);
            }
            batch.ids.extend_from_slice(row.ids);
            batch.segments.push(Segment::alone(first..batch.ids.len()));
        }
        batch
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
        let first = Row { ids: &[5, 6, 7], trained: &[true, false, true], number: 0 };
        let second = Row { ids: &[8, 9], trained: &[true, true], number: 1 };
        let batch = MicroBatch::of(&[first, second]);
        assert_eq!(batch.ids, [5, 6, 7, 8, 9]);
        assert_eq!((batch.positions, batch.targets), (vec![1, 3], vec![7, 9]));
        assert_eq!(batch.segments.iter().map(|segment| segment.rows.clone()).collect::<Vec<_>>(), [0..3, 3..5]);
        assert_eq!((first.trained_tokens(), second.trained_tokens()), (1, 1));
    }

    #[test]
    fn rows_are_never_split_and_keep_their_order() {
        let ids = [1, 2, 3, 4, 5];
        let trained = [true; 5];
        let row = |length: usize| Row { ids: &ids[..length], trained: &trained[..length], number: 0 };
        let parts = MicroBatch::split(&[row(2), row(2), row(5), row(1)], 4);
        assert_eq!(parts.iter().map(|part| part.segments.len()).collect::<Vec<_>>(), [2, 1, 1]);
        assert!(MicroBatch::split(&[], 4).is_empty());
    }
}
