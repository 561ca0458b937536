//! What adapters add to a projection, and which of its rows they apply to.

use std::ops::Range;

use crate::Weight;

/// A low-rank term of a projection: `scale * ((dropout(h) down^T) * rank_scale) up^T * out_scale`.
#[derive(Clone, Debug)]
pub struct AdapterTerm {
    /// `[rank, in]`
    pub down: Weight,
    /// `[out, rank]`
    pub up: Weight,
    /// Its factor.
    pub scale: f32,
    /// f32 `[1, rank]`. From: Kopiczko et al. 2023 (VeRA), where it is called d.
    pub rank_scale: Option<Weight>,
    /// f32 `[1, out]`. From: the same, b.
    pub out_scale: Option<Weight>,
    /// Share of the input's numbers that are dropped in training; 0 for none.
    pub dropout: f32,
    /// Tells this term's random numbers from all others'.
    pub site: u64,
    /// The adapter that it belongs to: see [`AdapterRows`].
    pub adapter: u32,
}

impl AdapterTerm {
    /// A term of adapter 0, without dropout: `scale * (h down^T) up^T`.
    pub fn new(down: Weight, up: Weight, scale: f32) -> Self {
        Self { down, up, scale, rank_scale: None, out_scale: None, dropout: 0.0, site: 0, adapter: 0 }
    }

    /// Its weights.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        [&self.down, &self.up].into_iter().chain(&self.rank_scale).chain(&self.out_scale)
    }
}

/// Rows of a batch, such as a segment's, and the adapters that apply to them. A row that none of these names gets the
/// model alone. Its numbers are, to the byte, those of a projection that has no other adapter's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterRows {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Numbers of adapters, as in [`AdapterTerm::adapter`].
    pub adapters: Vec<u32>,
}

/// The rows among `tokens` to which `adapter` applies: ascending, apart.
///
/// # Panics
/// When a row is not there: kernels write rows unchecked.
pub(super) fn runs_of(selection: Option<&[AdapterRows]>, adapter: u32, tokens: usize) -> Vec<Range<usize>> {
    let Some(selection) = selection else { return std::iter::once(0..tokens).collect() };
    let named = selection.iter().filter(|part| part.adapters.contains(&adapter) && !part.rows.is_empty());
    let mut rows: Vec<Range<usize>> = named.map(|part| part.rows.clone()).collect();
    rows.sort_by_key(|rows| rows.start);
    let mut runs: Vec<Range<usize>> = Vec::with_capacity(rows.len());
    for rows in rows {
        assert!(rows.end <= tokens, "adapter {adapter} applies to rows {rows:?} of {tokens}");
        match runs.last_mut() {
            Some(last) if rows.start <= last.end => last.end = last.end.max(rows.end),
            _ => runs.push(rows),
        }
    }
    runs
}

/// All rows in order: those of `runs` with true, those between with false.
pub(super) fn stretches(runs: &[Range<usize>], tokens: usize) -> Vec<(Range<usize>, bool)> {
    let mut out = Vec::with_capacity(2 * runs.len() + 1);
    let mut next = 0;
    for run in runs {
        out.push((next..run.start, false));
        out.push((run.clone(), true));
        next = run.end;
    }
    out.push((next..tokens, false));
    out.retain(|(rows, _)| !rows.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_and_stretches_cover_all_rows() {
        let part = |rows, adapters: &[u32]| AdapterRows { rows, adapters: adapters.to_vec() };
        let selection = [part(7..9, &[1]), part(0..3, &[1, 2]), part(3..5, &[1]), part(5..5, &[2])];
        let runs = runs_of(Some(&selection), 1, 10);
        assert_eq!(runs, [0..5, 7..9]);
        assert_eq!(stretches(&runs, 10), [(0..5, true), (5..7, false), (7..9, true), (9..10, false)]);
        assert!(runs_of(Some(&selection), 3, 10).is_empty());
        assert_eq!(stretches(&[], 10), [(0..10, false)]);
        assert_eq!(stretches(&runs_of(None, 3, 10), 10), [(0..10, true)]);
    }
}
