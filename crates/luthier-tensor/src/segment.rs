//! What attends to what. A batch is one long row of tokens without padding; its segments say which keys each stretch of
//! queries sees. One description covers packed rows, learned prefixes, prompts that several replies share, and the cache
//! of generation: they differ only in where a range of keys lies.

use std::ops::Range;

/// Consecutive keys in one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// 0: the tensor that the queries come from; i: the i-th other source given to the operation.
    pub source: usize,
    /// Rows of that source.
    pub rows: Range<usize>,
    /// Position of the first of them; the others follow.
    pub first_position: usize,
}

/// Consecutive queries and the keys they see. A query sees the keys at its own position and before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the query tensor.
    pub rows: Range<usize>,
    /// Position of the first of them.
    pub first_position: usize,
    /// In the order in which their gradients are added.
    pub keys: Vec<KeyRange>,
}

impl Segment {
    /// Rows that see themselves only, from position 0.
    pub fn alone(rows: Range<usize>) -> Self {
        let keys = vec![KeyRange { source: 0, rows: rows.clone(), first_position: 0 }];
        Self { rows, first_position: 0, keys }
    }
}
