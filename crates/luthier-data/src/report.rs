//! What happened to the rows on their way to tokens: counted, and told before training starts.

use crate::dataset::Dataset;
use crate::error::Error;
use crate::example::Example;
use crate::truncate::Truncation;

/// What happened to the rows, to be told before training starts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Rows that will be trained.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Their labels.
    pub trained_tokens: usize,
    /// Labels whose weight in the loss is not 1.
    pub weighted_tokens: usize,
    /// Sum of the weights of all labels.
    pub weight: f64,
    /// Rows that `cutoff_len` shortened.
    pub rows_truncated: usize,
    /// Rows that were left out whole, because they are longer than `cutoff_len` and [`Truncation::Drop`] says so.
    pub rows_too_long: usize,
    /// Of the rows that were shortened or too long, those that lost most tokens; at most [`WORST`].
    pub worst: Vec<CutRow>,
    /// Replies whose end token was cut off, or that were cut off whole: the model does not learn to end them.
    pub replies_without_end: usize,
    /// Rows that had no label left, and empty documents.
    pub rows_dropped: usize,
    /// Replies that the template did not end, to which the tokenizer's end token was added.
    pub end_tokens_added: usize,
    /// Rows whose calls of tools got ids, without which the template refuses them.
    pub rows_with_made_ids: usize,
}

/// Rows that [`Report::worst`] names.
pub const WORST: usize = 10;

/// Where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The dataset's place among those that were given.
    pub dataset: usize,
    /// The record's place in it, from 0.
    pub record: usize,
}

/// A row that lost tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutRow {
    /// Where it came from.
    pub origin: Origin,
    /// Its tokens before.
    pub before: usize,
    /// Those that it kept; 0 where it was left out.
    pub after: usize,
}

impl CutRow {
    fn lost(&self) -> usize {
        self.before - self.after
    }
}

impl Report {
    /// Counts a row that will be trained.
    pub fn count(&mut self, example: &Example) {
        let trained = example.trained_count();
        self.rows += 1;
        self.tokens += example.ids.len();
        self.trained_tokens += trained;
        match &example.weights {
            None => self.weight += trained as f64,
            Some(weights) => {
                self.weighted_tokens += weights.iter().filter(|weight| **weight != 0.0 && **weight != 1.0).count();
                self.weight += weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
            }
        }
    }

    /// Keeps the row where it is among the worst; of equal ones the first.
    fn note(&mut self, row: CutRow) {
        let place = self.worst.partition_point(|other| other.lost() >= row.lost());
        if place < WORST {
            self.worst.truncate(WORST - 1);
            self.worst.insert(place, row);
        }
    }
}

/// Judges the rows that are longer than `cutoff_len`, as [`Truncation`] says.
pub(crate) struct LongRows {
    cutoff_len: usize,
    truncation: Truncation,
    /// Dataset, record from 1, and tokens of the first that stops everything.
    first: Option<(String, usize, usize)>,
    count: usize,
}

impl LongRows {
    pub(crate) fn new(cutoff_len: usize, truncation: Truncation) -> Self {
        Self { cutoff_len, truncation, first: None, count: 0 }
    }

    /// Whether a row of `before` tokens, of which cutting would leave `after`, is kept.
    pub(crate) fn keeps(
        &mut self,
        report: &mut Report,
        dataset: &Dataset,
        origin: Origin,
        before: usize,
        after: usize,
    ) -> bool {
        if before <= self.cutoff_len {
            return true;
        }
        match self.truncation {
            Truncation::LlamaFactory | Truncation::Right => {
                report.rows_truncated += 1;
                report.note(CutRow { origin, before, after });
                true
            }
            Truncation::Drop => {
                report.rows_too_long += 1;
                report.note(CutRow { origin, before, after: 0 });
                false
            }
            Truncation::Error => {
                self.count += 1;
                let (name, record) = dataset.place(origin.record);
                self.first.get_or_insert_with(|| (name.to_owned(), record, before));
                false
            }
        }
    }

    /// Errors: a row was too long, and that is an error.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some((dataset, record, tokens)) = self.first else { return Ok(()) };
        Err(Error::TooLong { dataset, record, tokens, cutoff_len: self.cutoff_len, others: self.count - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_rows_are_kept_and_of_equal_ones_the_first() {
        let mut report = Report::default();
        for record in 0..30 {
            let origin = Origin { dataset: 0, record };
            report.note(CutRow { origin, before: 100 + record % 12, after: 100 });
        }
        let found: Vec<_> = report.worst.iter().map(|row| (row.lost(), row.origin.record)).collect();
        let expected = [(11, 11), (11, 23), (10, 10), (10, 22), (9, 9), (9, 21), (8, 8), (8, 20), (7, 7), (7, 19)];
        assert_eq!(found, expected);
    }
}
