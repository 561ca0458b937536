//! Where the numbers of projections and terms lie, which rows each term applies to, and the low-rank side of the terms.

use std::ops::Range;

use super::adapter::{runs_of, stretches};
use super::{AdapterRows, AdapterTerm, Projection, cut, part, rows_of};
use crate::cpu::gemm::{Compute, Epilogue, Product};
use crate::tape::Dropout;
use crate::{DType, Device, Tensor};

/// A projection, with the terms that apply to some row at least.
pub(super) struct Placed {
    pub(super) projection: Projection,
    /// First column of the output.
    pub(super) first: usize,
    /// As many as the projection has terms.
    pub(super) places: Vec<TermPlace>,
    /// Rows to which the row scale applies.
    scaled: Vec<Range<usize>>,
    /// Rows to which the map of the input applies.
    mapped: Vec<Range<usize>>,
}

pub(super) struct TermPlace {
    /// First of the low-rank columns.
    pub(super) column: usize,
    /// Rows to which the term applies.
    pub(super) runs: Vec<Range<usize>>,
}

impl Placed {
    pub(super) fn terms(&self) -> impl Iterator<Item = (&AdapterTerm, &TermPlace)> {
        self.projection.terms.iter().zip(&self.places)
    }

    /// What the weight multiplies: `h`, or what the map makes of it.
    pub(super) fn mapped(&self, device: &Device, h: &Tensor) -> Option<Tensor> {
        self.projection.input_map.as_ref().map(|map| map.apply(device, h, &self.mapped))
    }

    /// As [`InputMap::back`](super::InputMap::back).
    pub(super) fn back_through_map(&self, device: &Device, h: &Tensor, through: Tensor) -> Tensor {
        match &self.projection.input_map {
            Some(map) => map.back(device, h, through, &self.mapped),
            None => through,
        }
    }

    /// All rows in order, and whether the row scale applies to them.
    pub(super) fn stretches(&self, tokens: usize) -> Vec<(Range<usize>, bool)> {
        stretches(&self.scaled, tokens)
    }
}

pub(super) fn place(projections: &[Projection], selection: Option<&[AdapterRows]>, tokens: usize) -> Vec<Placed> {
    let (mut first, mut column) = (0, 0);
    let mut all = Vec::with_capacity(projections.len());
    for projection in projections {
        let mut projection = projection.clone();
        projection.weight = projection.weight.live();
        projection.bias = projection.bias.map(|bias| bias.live());
        let mut places = Vec::with_capacity(projection.terms.len());
        projection.terms.retain(|term| {
            let runs = runs_of(selection, term.adapter, tokens);
            let applies = selection.is_none() || !runs.is_empty();
            if applies {
                places.push(TermPlace { column, runs });
                column += term.down.value.rows();
            }
            applies
        });
        let scaled = projection.row_scale.as_ref().map(|scale| runs_of(selection, scale.adapter, tokens));
        let scaled = scaled.unwrap_or_default();
        if scaled.is_empty() {
            projection.row_scale = None;
        }
        let mapped = projection.input_map.as_ref().map(|map| runs_of(selection, map.adapter, tokens));
        let mapped = mapped.unwrap_or_default();
        if mapped.is_empty() {
            projection.input_map = None;
        }
        let rows = projection.weight.value.rows();
        all.push(Placed { projection, first, places, scaled, mapped });
        first += rows;
    }
    all
}

/// Terms that apply to the same rows and whose `down` matrices lie one below the other: one product serves them all.
pub(super) struct DownGroup<'p> {
    pub(super) down: Tensor,
    pub(super) gradient: Option<Tensor>,
    scale: f32,
    pub(super) dropout: Option<(f32, u64)>,
    pub(super) first_column: usize,
    pub(super) runs: &'p [Range<usize>],
}

pub(super) fn down_groups(placed: &[Placed], dropout: bool) -> Vec<DownGroup<'_>> {
    let mut groups: Vec<DownGroup> = Vec::new();
    for (term, place) in placed.iter().flat_map(Placed::terms) {
        let drops = (dropout && term.dropout > 0.0).then_some((term.dropout, term.site));
        let scale = term.low_scale();
        let joined = groups.last_mut().and_then(|last| {
            if drops.is_some() || last.dropout.is_some() || last.scale != scale || last.runs != place.runs {
                return None;
            }
            let down = last.down.join_below(&term.down.value)?;
            let gradient = match (&last.gradient, &term.down.gradient) {
                (Some(above), Some(below)) => Some(above.join_below(below)?),
                (None, None) => None,
                _ => return None,
            };
            (last.down, last.gradient) = (down, gradient);
            Some(())
        });
        if joined.is_none() {
            groups.push(DownGroup {
                down: term.down.value.clone(),
                gradient: term.down.gradient.clone(),
                scale,
                dropout: drops,
                first_column: place.column,
                runs: &place.runs,
            });
        }
    }
    groups
}

impl AdapterTerm {
    /// The part of its factor that stands before the rank scale.
    pub(super) fn low_scale(&self) -> f32 {
        if self.rank_scale.is_some() { 1.0 } else { self.scale }
    }

    /// `up` with its rows scaled.
    pub(super) fn scaled_up(&self, device: &Device) -> Tensor {
        let Some(vector) = &self.out_scale else { return self.up.value.clone() };
        let out = device.convert(&self.up.value, DType::F32);
        device.run("adapter", |cpu| cpu.scale_matrix_rows(&out, &vector.value));
        out
    }
}

/// `[tokens, ranks of all terms]` for the low-rank columns, which a term leaves at zero in rows it does not apply to.
pub(super) fn low_columns(device: &Device, dtype: DType, tokens: usize, placed: &[Placed]) -> Option<Tensor> {
    let rank: usize = placed.iter().flat_map(Placed::terms).map(|(term, _)| term.down.value.rows()).sum();
    let covers = |place: &TermPlace| matches!(&place.runs[..], [run] if run.len() == tokens);
    let full = placed.iter().flat_map(|placed| &placed.places).all(covers);
    (rank > 0).then(|| if full { device.empty(dtype, tokens, rank) } else { device.zeros(dtype, tokens, rank) })
}

/// Writes `factor * dropout(h) down^T` of all terms, side by side.
pub(super) fn fill_low(
    device: &Device,
    compute: Compute,
    h: &Tensor,
    placed: &[Placed],
    dropout: Option<&Dropout>,
    low: &Tensor,
) {
    for group in down_groups(placed, dropout.is_some()) {
        for run in group.runs {
            let h = cut(h, run);
            let dropped = group.dropout.map(|dropped| drop_out(device, &h, run, dropout, dropped));
            let h = dropped.as_ref().unwrap_or(&h);
            device.run("adapter", |cpu| {
                let product = Product { a: rows_of(h, 0), b: rows_of(&group.down, 0), k: h.columns() };
                let scaled = Epilogue { scale: group.scale, ..Epilogue::NONE };
                let target = part(&cut(low, run), group.first_column);
                cpu.multiply(compute, run.len(), group.down.rows(), &[product], target, &scaled);
            });
        }
    }
}

/// Multiplies the columns of terms that have a rank scale by it and by the term's factor, in place.
pub(super) fn apply_rank_scales(device: &Device, placed: &[Placed], low: &Tensor) {
    for (term, place) in placed.iter().flat_map(Placed::terms) {
        if let Some(vector) = &term.rank_scale {
            device.run("adapter", |cpu| cpu.scale_columns(low, place.column, &vector.value, term.scale));
        }
    }
}

/// `low` with rank scales applied: itself where there are none.
pub(super) fn scaled_low(device: &Device, placed: &[Placed], low: &Tensor) -> Tensor {
    if placed.iter().flat_map(Placed::terms).all(|(term, _)| term.rank_scale.is_none()) {
        return low.clone();
    }
    let out = device.convert(low, low.dtype());
    apply_rank_scales(device, placed, &out);
    out
}

/// Rows `rows` of the batch are those of `input`.
pub(super) fn drop_out(
    device: &Device,
    input: &Tensor,
    rows: &Range<usize>,
    dropout: Option<&Dropout>,
    (share, site): (f32, u64),
) -> Tensor {
    let out = device.empty(input.dtype(), input.rows(), input.columns());
    if let Some(dropout) = dropout {
        let tokens = cut(&dropout.tokens.reshape(dropout.tokens.len(), 1), rows);
        device.run("dropout", |cpu| cpu.drop_out(input, &tokens, dropout.seed ^ site, share, &out));
    }
    out
}
