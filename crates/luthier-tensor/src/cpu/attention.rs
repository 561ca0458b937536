//! Attention over ranges of keys, tile by tile with an online softmax; scores exist for one tile only. From: Dao 2023
//! (FlashAttention-2), algorithms 1 and 2. Query heads that share a key head are computed together, so that a tile of keys
//! is packed once for all of them. Tiles start at the start of their range: a row's numbers do not depend on what else is
//! in the batch. Tiles that no query of a block may see are skipped.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::gemm::{Compute, Kernels, Layout, Operand};
use super::head::{Cap, tanh_lanes};
use super::lanes::{LaneTask, Lanes, each_vector};
use super::math::{exp, sum_over};
use super::pool::with_scratch;
use crate::{HeadLayout, KeyRange, Segment, Tensor};

/// Queries of one block.
const QUERIES: usize = 64;
/// Keys of one tile.
const KEYS: usize = 128;

/// What attends to what.
pub(crate) struct AttentionShape<'a> {
    pub(crate) layout: HeadLayout,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// A query sees this many positions, its own included.
    pub(crate) window: Option<usize>,
    /// The bound of the scores: `cap * tanh(score / cap)`.
    pub(crate) soft_cap: Option<f32>,
    pub(crate) segments: &'a [Segment],
}

/// Where keys and values are: `[rows, columns]`, head h at column `key_column(h)`.
pub(crate) struct KeySource<'a> {
    pub(crate) keys: &'a Tensor,
    pub(crate) values: &'a Tensor,
    /// f32 tensors of the same shapes that gradients are added to.
    pub(crate) gradients: Option<(&'a Tensor, &'a Tensor)>,
    /// The query-key-value tensor itself; else keys and values are `[rows, key_value_heads * head_dim]`.
    pub(crate) own: bool,
}

impl KeySource<'_> {
    fn columns(&self, layout: &HeadLayout, head: usize) -> (usize, usize) {
        if self.own {
            (layout.key_column(head), layout.value_column(head))
        } else {
            (head * layout.head_dim, head * layout.head_dim)
        }
    }
}

/// Keys of one tile and which of them a query at a position sees.
struct Tile<'a> {
    range: &'a KeyRange,
    first_row: usize,
    first_position: usize,
    count: usize,
    window: Option<usize>,
}

impl Tile<'_> {
    fn all<'a>(segment: &'a Segment, window: Option<usize>) -> impl Iterator<Item = Tile<'a>> {
        segment.keys.iter().flat_map(move |range| {
            range.rows.clone().step_by(KEYS).map(move |first_row| Tile {
                range,
                first_row,
                first_position: range.first_position + (first_row - range.rows.start),
                count: KEYS.min(range.rows.end - first_row),
                window,
            })
        })
    }

    /// The keys of this tile that the query at `position` sees.
    fn visible(&self, position: usize) -> (usize, usize) {
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let end = (position + 1).saturating_sub(self.first_position).min(self.count);
        (first.saturating_sub(self.first_position).min(end), end)
    }

    /// How many of the tile's first keys any query of the block may see.
    fn reach(&self, first_position: usize, queries: usize) -> usize {
        (first_position + queries).saturating_sub(self.first_position).min(self.count)
    }

    /// Whether some query of the block sees some key of the tile.
    fn concerns(&self, first_position: usize, queries: usize) -> bool {
        let last = first_position + queries - 1;
        let reached = self.first_position <= last;
        let near = self.window.is_none_or(|window| self.first_position + self.count + window > first_position + 1);
        reached && near
    }
}

/// Scratch memory cut into buffers.
struct Cutter(*mut u8);

impl Cutter {
    fn take<T>(&mut self, bytes: usize) -> *mut T {
        let address = self.0;
        self.0 = address.wrapping_add(bytes.next_multiple_of(64));
        address.cast()
    }
}

impl Cpu {
    /// output `[tokens, heads * head_dim]`; log_sums f32 `[tokens, heads]`, the logarithm of each softmax's denominator.
    pub(crate) fn attention(
        &self,
        compute: Compute,
        shape: &AttentionShape,
        queries: &Tensor,
        sources: &[KeySource],
        output: &Tensor,
        log_sums: &Tensor,
    ) {
        let blocks: Vec<(&Segment, usize)> = shape
            .segments
            .iter()
            .flat_map(|segment| segment.rows.clone().step_by(QUERIES).map(move |first| (segment, first)))
            .collect();
        let heads = shape.layout.key_value_heads;
        with_element!(queries.dtype(), E, {
            let forward = Forward::<E> {
                kernels: Kernels::new(self.isa, compute),
                cpu: self,
                shape,
                queries: Rows::of(queries),
                sources,
                output: Rows::of_mut(output),
                log_sums: Rows::of_mut(log_sums),
            };
            self.pool.run(blocks.len() * heads, |task| {
                // The last blocks of a segment have the most keys: they come first.
                let (segment, first) = blocks[blocks.len() - 1 - task / heads];
                forward.block(segment, first, task % heads);
            });
        });
    }

    /// Adds to `gradient` f32 `[tokens, layout.columns()]` and to the sources' gradients. delta f32 `[tokens, heads]` is
    /// scratch: the product of output and its gradient, summed over a head.
    #[expect(clippy::too_many_arguments, reason = "what forward had, its two results, and the two gradients")]
    pub(crate) fn attention_backward(
        &self,
        compute: Compute,
        shape: &AttentionShape,
        queries: &Tensor,
        sources: &[KeySource],
        output: &Tensor,
        log_sums: &Tensor,
        output_gradient: &Tensor,
        delta: &Tensor,
        gradient: &Tensor,
    ) {
        let (heads, width) = (shape.layout.heads, shape.layout.head_dim);
        with_element!(queries.dtype(), E, {
            let (out, upstream) = (Rows::<E>::of(output), Rows::<E>::of(output_gradient));
            let sums = Rows::<f32>::of_mut(delta);
            self.pool.run_rows(output.rows(), 16, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (out, upstream, sums) = unsafe { (out.row(row), upstream.row(row), sums.row_mut(row)) };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (head, sum) in sums.iter_mut().enumerate() {
                                let (out, upstream) =
                                    (&out[head * width..][..width], &upstream[head * width..][..width]);
                                *sum = sum_over(width, |i| out[i].load() * upstream[i].load());
                            }
                        },
                    );
                }
            });
            debug_assert_eq!(delta.columns(), heads);
            let backward = Backward::<E> {
                kernels: Kernels::new(self.isa, compute),
                cpu: self,
                shape,
                queries: Rows::of(queries),
                sources,
                upstream,
                log_sums: Rows::of(log_sums),
                delta: sums,
                gradient: Rows::of_mut(gradient),
            };
            let heads = shape.layout.key_value_heads;
            if shares_keys(shape.segments, sources) {
                self.pool.run(heads, |head| shape.segments.iter().for_each(|segment| backward.segment(segment, head)));
            } else {
                self.pool.run(shape.segments.len() * heads, |task| {
                    backward.segment(&shape.segments[task / heads], task % heads);
                });
            }
        });
    }
}

/// Whether two segments add to the same keys' gradient; then segments take turns.
fn shares_keys(segments: &[Segment], sources: &[KeySource]) -> bool {
    let own_only = segments.iter().all(|segment| {
        segment.keys.iter().all(|range| match range.source {
            0 => range.rows.start >= segment.rows.start && range.rows.end <= segment.rows.end,
            source => sources[source].gradients.is_none(),
        })
    });
    !own_only
}

fn operand<E: Element>(rows: Rows<E>, row: usize, column: usize, layout: Layout) -> Operand {
    Operand {
        address: rows.at(row, column).cast_const().cast(),
        coding: E::DTYPE.into(),
        stride: rows.stride(),
        layout,
    }
}

fn scratch_operand(address: *const f32, stride: usize, layout: Layout) -> Operand {
    Operand { address: address.cast(), coding: crate::DType::F32.into(), stride, layout }
}

/// Scratch memory that a task takes at most, forward or backward.
pub(super) fn scratch_bytes(kernels: &Kernels, layout: &HeadLayout) -> usize {
    let (width, group) = (layout.head_dim, layout.group());
    let queries = kernels.packed_a_bytes(QUERIES, width);
    let tile = kernels.packed_b_bytes(KEYS, width) + kernels.packed_b_bytes(width, KEYS);
    let scores = 4 * QUERIES * KEYS + kernels.packed_a_bytes(QUERIES, KEYS);
    let forward = group * (queries + 4 * QUERIES * width) + tile + scores;
    let backward = tile
        + kernels.packed_b_bytes(KEYS, width)
        + 2 * kernels.packed_b_bytes(width, QUERIES)
        + 2 * queries
        + scores
        + 4 * QUERIES * KEYS
        + kernels.packed_a_bytes(KEYS, QUERIES);
    // Each buffer starts on a cache line.
    forward.max(backward) + 64 * (16 + group)
}

struct Forward<'a, E> {
    kernels: Kernels,
    cpu: &'a Cpu,
    shape: &'a AttentionShape<'a>,
    queries: Rows<E>,
    sources: &'a [KeySource<'a>],
    output: Rows<E>,
    log_sums: Rows<f32>,
}

impl<E: Element> Forward<'_, E> {
    /// Bounds scores, and returns the factor that they still need.
    fn bound(&self, row: &mut [f32]) -> f32 {
        let Some(cap) = self.shape.soft_cap else { return self.shape.scale };
        self.cpu.isa.lanes(Cap { row, scale: self.shape.scale, cap });
        1.0
    }

    /// The queries of one block in the heads of one key head.
    fn block(&self, segment: &Segment, first: usize, key_head: usize) {
        let (layout, kernels) = (&self.shape.layout, &self.kernels);
        let (width, group) = (layout.head_dim, layout.group());
        let count = QUERIES.min(segment.rows.end - first);
        let position = segment.first_position + (first - segment.rows.start);
        with_scratch(0, scratch_bytes(kernels, layout), |memory| {
            let mut cutter = Cutter(memory.cast());
            let scores: *mut f32 = cutter.take(4 * QUERIES * KEYS);
            let packed_scores: *mut u8 = cutter.take(kernels.packed_a_bytes(QUERIES, KEYS));
            let packed_keys: *mut u8 = cutter.take(kernels.packed_b_bytes(KEYS, width));
            let packed_values: *mut u8 = cutter.take(kernels.packed_b_bytes(width, KEYS));
            let sums: *mut f32 = cutter.take(4 * group * QUERIES * width);
            let packed_queries: Vec<*mut u8> =
                (0..group).map(|_| cutter.take(kernels.packed_a_bytes(QUERIES, width))).collect();
            // SAFETY: the buffers lie within the scratch memory, which this task alone uses; sources and queries are
            // there by the tensors' shapes; each task writes its own rows and heads of the outputs.
            unsafe {
                let sums = std::slice::from_raw_parts_mut(sums, group * QUERIES * width);
                sums.fill(0.0);
                let mut maxima = vec![f32::NEG_INFINITY; group * QUERIES];
                let mut denominators = vec![0.0f32; group * QUERIES];
                for (member, packed) in packed_queries.iter().enumerate() {
                    let column = layout.query_column(key_head * group + member);
                    kernels.pack_a(&operand(self.queries, first, column, Layout::KContiguous), count, width, *packed);
                }
                let tiles = Tile::all(segment, self.shape.window);
                for tile in tiles.filter(|tile| tile.concerns(position, count)) {
                    let keys_seen = tile.reach(position, count);
                    let source = &self.sources[tile.range.source];
                    let (key_column, value_column) = source.columns(layout, key_head);
                    let keys = operand(Rows::<E>::of(source.keys), tile.first_row, key_column, Layout::KContiguous);
                    let values = operand(Rows::<E>::of(source.values), tile.first_row, value_column, Layout::KStrided);
                    kernels.pack_b(&keys, keys_seen, width, packed_keys);
                    kernels.pack_b(&values, width, keys_seen, packed_values);
                    for (member, packed) in packed_queries.iter().enumerate() {
                        kernels.multiply(count, keys_seen, width, *packed, packed_keys, scores, KEYS, false);
                        let sums = &mut sums[member * QUERIES * width..][..QUERIES * width];
                        for query in 0..count {
                            let row = std::slice::from_raw_parts_mut(scores.add(query * KEYS), keys_seen);
                            let state = member * QUERIES + query;
                            let (maximum, denominator) = (&mut maxima[state], &mut denominators[state]);
                            let (visible, scale) = (tile.visible(position + query), self.bound(row));
                            let factor = self.cpu.isa.lanes(Soften { row, visible, scale, maximum, denominator });
                            if factor != 1.0 {
                                sums[query * width..][..width].iter_mut().for_each(|sum| *sum *= factor);
                            }
                        }
                        let weights = scratch_operand(scores, KEYS, Layout::KContiguous);
                        kernels.pack_a(&weights, count, keys_seen, packed_scores);
                        let sums = sums.as_mut_ptr();
                        kernels.multiply(count, width, keys_seen, packed_scores, packed_values, sums, width, true);
                    }
                }
                for member in 0..group {
                    let head = key_head * group + member;
                    for query in 0..count {
                        let state = member * QUERIES + query;
                        let (maximum, denominator) = (maxima[state], denominators[state]);
                        self.log_sums.at(first + query, head).write(maximum + denominator.ln());
                        let factor = if denominator > 0.0 { 1.0 / denominator } else { 0.0 };
                        let out = self.output.part_mut(first + query, head * width, width);
                        for (out, sum) in out.iter_mut().zip(&sums[state * width..][..width]) {
                            *out = E::store(sum * factor);
                        }
                    }
                }
            }
        });
    }
}

/// Turns scores into weights relative to the running maximum; returns the factor of everything summed before.
struct Soften<'a> {
    row: &'a mut [f32],
    visible: (usize, usize),
    scale: f32,
    maximum: &'a mut f32,
    denominator: &'a mut f32,
}

impl LaneTask for Soften<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f32 {
        let Self { row, visible: (first, end), scale, maximum, denominator } = self;
        if first >= end {
            row.fill(0.0);
            return 1.0;
        }
        row[..first].fill(0.0);
        row[end..].fill(0.0);
        let seen = &mut row[first..end];
        let mut top = L::splat(f32::NEG_INFINITY);
        each_vector!(seen.len(), |i| top = top.max(L::load(&seen[i..])), {
            // What is not there must not count as zero.
            for &score in &seen[i..] {
                top = top.max(L::splat(score));
            }
        });
        let top = top.largest() * scale;
        let new = if top > *maximum { top } else { *maximum };
        let (factor, offset) = (L::splat(scale), L::splat(-new));
        let mut sum = L::splat(0.0);
        let mut rest = 0.0;
        each_vector!(
            seen.len(),
            |i| {
                let weight = L::load(&seen[i..]).mul_add(factor, offset).exp();
                sum = sum.add(weight);
                weight.store(&mut seen[i..]);
            },
            {
                L::load_some(&seen[i..]).mul_add(factor, offset).exp().store_some(&mut seen[i..]);
                rest = seen[i..].iter().sum();
            }
        );
        let factor = exp(*maximum - new);
        *denominator = *denominator * factor + (sum.sum() + rest);
        *maximum = new;
        factor
    }
}

struct Backward<'a, E> {
    kernels: Kernels,
    cpu: &'a Cpu,
    shape: &'a AttentionShape<'a>,
    queries: Rows<E>,
    sources: &'a [KeySource<'a>],
    upstream: Rows<E>,
    log_sums: Rows<f32>,
    delta: Rows<f32>,
    gradient: Rows<f32>,
}

impl<E: Element> Backward<'_, E> {
    /// All queries and keys of one segment in the heads of one key head.
    fn segment(&self, segment: &Segment, key_head: usize) {
        let (layout, kernels) = (&self.shape.layout, &self.kernels);
        let (width, group) = (layout.head_dim, layout.group());
        with_scratch(0, scratch_bytes(kernels, layout), |memory| {
            let mut cutter = Cutter(memory.cast());
            let weights: *mut f32 = cutter.take(4 * QUERIES * KEYS);
            let slopes: *mut f32 = cutter.take(4 * QUERIES * KEYS);
            let keys_by_row: *mut u8 = cutter.take(kernels.packed_b_bytes(KEYS, width));
            let values_by_row: *mut u8 = cutter.take(kernels.packed_b_bytes(KEYS, width));
            let keys_by_column: *mut u8 = cutter.take(kernels.packed_b_bytes(width, KEYS));
            let packed_queries: *mut u8 = cutter.take(kernels.packed_a_bytes(QUERIES, width));
            let packed_upstream: *mut u8 = cutter.take(kernels.packed_a_bytes(QUERIES, width));
            let queries_by_column: *mut u8 = cutter.take(kernels.packed_b_bytes(width, QUERIES));
            let upstream_by_column: *mut u8 = cutter.take(kernels.packed_b_bytes(width, QUERIES));
            let packed_slopes: *mut u8 = cutter.take(kernels.packed_a_bytes(QUERIES, KEYS));
            let transposed: *mut u8 = cutter.take(kernels.packed_a_bytes(KEYS, QUERIES));
            for tile in Tile::all(segment, self.shape.window) {
                let source = &self.sources[tile.range.source];
                let (key_column, value_column) = source.columns(layout, key_head);
                let (keys, values) = (Rows::<E>::of(source.keys), Rows::<E>::of(source.values));
                let add_to = |gradients: Option<(&Tensor, &Tensor)>| {
                    gradients.map(|(keys, values)| {
                        let (keys, values) = (Rows::<f32>::of_mut(keys), Rows::<f32>::of_mut(values));
                        let at = (keys.at(tile.first_row, key_column), values.at(tile.first_row, value_column));
                        (at.0, at.1, keys.stride())
                    })
                };
                let own =
                    (self.gradient.at(tile.first_row, key_column), self.gradient.at(tile.first_row, value_column));
                let key_gradient =
                    if source.own { Some((own.0, own.1, self.gradient.stride())) } else { add_to(source.gradients) };
                // SAFETY: buffers lie within this task's scratch memory; all rows are there by the tensors' shapes; the
                // caller lets no two tasks add to the same queries' or keys' gradient.
                unsafe {
                    let by_row = |rows, column| operand(rows, tile.first_row, column, Layout::KContiguous);
                    kernels.pack_b(&by_row(keys, key_column), tile.count, width, keys_by_row);
                    kernels.pack_b(&by_row(values, value_column), tile.count, width, values_by_row);
                    let by_column = operand(keys, tile.first_row, key_column, Layout::KStrided);
                    kernels.pack_b(&by_column, width, tile.count, keys_by_column);
                    for first in segment.rows.clone().step_by(QUERIES) {
                        let count = QUERIES.min(segment.rows.end - first);
                        let position = segment.first_position + (first - segment.rows.start);
                        if !tile.concerns(position, count) {
                            continue;
                        }
                        let seen = tile.reach(position, count);
                        for head in key_head * group..(key_head + 1) * group {
                            let query_column = layout.query_column(head);
                            let q = |layout| operand(self.queries, first, query_column, layout);
                            let dy = |layout| operand(self.upstream, first, head * width, layout);
                            kernels.pack_a(&q(Layout::KContiguous), count, width, packed_queries);
                            kernels.pack_a(&dy(Layout::KContiguous), count, width, packed_upstream);
                            kernels.multiply(count, seen, width, packed_queries, keys_by_row, weights, KEYS, false);
                            kernels.multiply(count, seen, width, packed_upstream, values_by_row, slopes, KEYS, false);
                            for query in 0..count {
                                let row = std::slice::from_raw_parts_mut(weights.add(query * KEYS), tile.count);
                                let slope = std::slice::from_raw_parts_mut(slopes.add(query * KEYS), tile.count);
                                let log_sum = self.log_sums.at(first + query, head).read();
                                let delta = self.delta.at(first + query, head).read();
                                let (visible, scale) = (tile.visible(position + query), self.shape.scale);
                                let soft_cap = self.shape.soft_cap;
                                self.cpu.isa.lanes(Slope { row, slope, visible, scale, soft_cap, log_sum, delta });
                            }
                            let by_query = |address| scratch_operand(address, KEYS, Layout::KContiguous);
                            let by_key = |address| scratch_operand(address, KEYS, Layout::KStrided);
                            kernels.pack_a(&by_query(slopes), count, tile.count, packed_slopes);
                            let target = self.gradient.at(first, query_column);
                            let stride = self.gradient.stride();
                            let inner = tile.count;
                            kernels.multiply(count, width, inner, packed_slopes, keys_by_column, target, stride, true);
                            if let Some((key_target, value_target, stride)) = key_gradient {
                                kernels.pack_b(&q(Layout::KStrided), width, count, queries_by_column);
                                kernels.pack_b(&dy(Layout::KStrided), width, count, upstream_by_column);
                                kernels.pack_a(&by_key(slopes), seen, count, transposed);
                                kernels.multiply(
                                    seen,
                                    width,
                                    count,
                                    transposed,
                                    queries_by_column,
                                    key_target,
                                    stride,
                                    true,
                                );
                                kernels.pack_a(&by_key(weights), seen, count, transposed);
                                kernels.multiply(
                                    seen,
                                    width,
                                    count,
                                    transposed,
                                    upstream_by_column,
                                    value_target,
                                    stride,
                                    true,
                                );
                            }
                        }
                    }
                }
            }
        });
    }
}

/// Scores become weights, and the weights' gradients become the scores' gradients.
struct Slope<'a> {
    row: &'a mut [f32],
    slope: &'a mut [f32],
    visible: (usize, usize),
    scale: f32,
    soft_cap: Option<f32>,
    log_sum: f32,
    delta: f32,
}

impl LaneTask for Slope<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { row, slope, visible: (first, end), scale, soft_cap, log_sum, delta } = self;
        let end = end.max(first);
        for values in [&mut *row, &mut *slope] {
            values[..first].fill(0.0);
            values[end..].fill(0.0);
        }
        let (row, slope) = (&mut row[first..end], &mut slope[first..end]);
        let (factor, offset, delta) = (L::splat(scale), L::splat(-log_sum), L::splat(delta));
        if let Some(cap) = soft_cap {
            let (one, cap, inverse) = (L::splat(1.0), L::splat(cap), L::splat(scale / cap));
            each_vector!(
                row.len(),
                |i| {
                    let tanh = tanh_lanes(L::load(&row[i..]).mul(inverse));
                    let weight = tanh.mul_add(cap, offset).exp();
                    let bounded = weight.mul(one.sub(tanh.mul(tanh))).mul(factor);
                    bounded.mul(L::load(&slope[i..]).sub(delta)).store(&mut slope[i..]);
                    weight.store(&mut row[i..]);
                },
                {
                    let tanh = tanh_lanes(L::load_some(&row[i..]).mul(inverse));
                    let weight = tanh.mul_add(cap, offset).exp();
                    let bounded = weight.mul(one.sub(tanh.mul(tanh))).mul(factor);
                    bounded.mul(L::load_some(&slope[i..]).sub(delta)).store_some(&mut slope[i..]);
                    weight.store_some(&mut row[i..]);
                }
            );
            return;
        }
        each_vector!(
            row.len(),
            |i| {
                let weight = L::load(&row[i..]).mul_add(factor, offset).exp();
                weight.mul(factor).mul(L::load(&slope[i..]).sub(delta)).store(&mut slope[i..]);
                weight.store(&mut row[i..]);
            },
            {
                let weight = L::load_some(&row[i..]).mul_add(factor, offset).exp();
                weight.mul(factor).mul(L::load_some(&slope[i..]).sub(delta)).store_some(&mut slope[i..]);
                weight.store_some(&mut row[i..]);
            }
        );
    }
}
