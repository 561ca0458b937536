//! The loops around a micro-kernel, the same for all of them. A task packs B of its column block, then takes rows of A: it
//! packs a panel of them, multiplies it with all of B, and finishes each tile of the output while that is in the
//! first-level cache. While one panel is multiplied, the memory of the next is fetched.
//!
//! Where a kernel can, it reads whole strips of A from where they lie, and nothing is packed.
//!
//! When B has so few rows that it would be one panel and A would have to be packed, the operands change places: the large
//! one is packed the way that costs less, and finished tiles are transposed. Products commute, so the sums are the same.
//!
//! Of an operand whose rows lie side by side, a panel is only 64 bytes wide or so; several panels are packed at once, so
//! that each page, once found, is read further.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::epilogue::Destination;
use super::kernel::{GROUP, MAX_PANEL, MOST_SOURCES, MicroKernel, Side, Source, unit_bytes};
use super::pack::pack;
use super::plan::{Block, MOST_STRIPS, Piece, Plan, most_columns};
use super::{Epilogue, Layout, Output, Product};
use crate::DType;
use crate::cpu::pool::{GEMM_SLOT, Pool, with_scratch};

const CACHE_LINE: usize = 64;
const PAGE: usize = 4096;
/// So many panels of B, or fewer, read rows in place faster than they would be packed, however they lie.
const FEW_PANELS: usize = 2;
/// Rows whose distance is a multiple of this share a few sets of the first-level cache and drive each other out.
const SHARED_SETS: usize = 2048;

const fn a_bytes<K: MicroKernel>() -> usize {
    MOST_STRIPS * K::ROWS * K::BLOCK_K * K::ELEMENT_BYTES
}

/// Of a few panels' rows when k is one block, of a part's rows when it is several.
const fn c_bytes<K: MicroKernel>() -> usize {
    let strips = 4 * K::ROWS * most_columns::<K>(GROUP);
    if strips > K::C_BYTES { strips } else { K::C_BYTES }
}

/// Scratch memory of each thread, whatever the shapes.
pub(super) const fn scratch_bytes<K: MicroKernel>() -> usize {
    K::B_BYTES.next_multiple_of(CACHE_LINE) + a_bytes::<K>().next_multiple_of(CACHE_LINE) + c_bytes::<K>()
}

struct Work<'a> {
    plan: &'a Plan,
    /// Of each piece, whether whole strips of A are read from where they lie.
    in_place: Vec<bool>,
    /// Whether the output is `[n, m]`.
    transposed: bool,
    m: usize,
    n: usize,
    products: &'a [Product],
    out: Output,
    epilogue: &'a Epilogue,
}

/// # Safety
/// As for [`super::gemm`]; `K::ISA` is available.
pub(super) unsafe fn run<K: MicroKernel>(
    pool: &Pool,
    m: usize,
    n: usize,
    products: &[Product],
    out: Output,
    epilogue: &Epilogue,
) {
    let first = products.first().map(|product| product.a.layout);
    let reads_rows = K::READS_ROWS && first == Some(Layout::KContiguous);
    if n <= K::ROWS && n < m && !reads_rows {
        let swapped: Vec<Product> =
            products.iter().map(|product| Product { a: product.b, b: product.a, k: product.k }).collect();
        // SAFETY: passed on.
        unsafe { run_as::<K>(pool, n, m, &swapped, out, epilogue, true) };
    } else {
        // SAFETY: passed on.
        unsafe { run_as::<K>(pool, m, n, products, out, epilogue, false) };
    }
}

/// # Safety
/// As for [`run`]; with `transposed` the output is `[n, m]`.
unsafe fn run_as<K: MicroKernel>(
    pool: &Pool,
    m: usize,
    n: usize,
    products: &[Product],
    out: Output,
    epilogue: &Epilogue,
    transposed: bool,
) {
    let plan = Plan::new::<K>(pool.threads(), m, n, products);
    let panels = n.div_ceil(K::COLUMNS);
    let few = plan.blocks.iter().all(|block| block.pieces.len() <= MOST_SOURCES);
    let in_place = plan
        .pieces
        .iter()
        .map(|piece| few && can_be_read_in_place::<K>(piece, &products[piece.product], panels))
        .collect();
    let counters: Vec<AtomicUsize> = (0..plan.column_blocks).map(|_| AtomicUsize::new(plan.slots)).collect();
    let work = Work { plan: &plan, in_place, transposed, m, n, products, out, epilogue };
    pool.run(plan.column_blocks * plan.slots, |task| {
        with_scratch(GEMM_SLOT, scratch_bytes::<K>(), |scratch| {
            // SAFETY: tasks write disjoint parts of the output; the scratch memory has all three areas.
            unsafe {
                K::enter();
                let column_block = task / plan.slots;
                work.run_task::<K>(column_block, task % plan.slots, &counters[column_block], scratch.cast());
                K::leave();
            }
        });
    });
}

/// Whether a piece of A can be read from where it lies as often as there are panels of B, and that is no slower.
fn can_be_read_in_place<K: MicroKernel>(piece: &Piece, product: &Product, panels: usize) -> bool {
    let a = &product.a;
    if !K::READS_ROWS || a.dtype() != DType::Bf16 || a.layout != Layout::KContiguous || !piece.k.is_multiple_of(K::UNIT)
    {
        return false;
    }
    let stride = a.dtype().bytes(a.stride);
    let on_lines = (a.address.addr() | stride).is_multiple_of(CACHE_LINE);
    let spread = !stride.is_multiple_of(SHARED_SETS);
    panels <= FEW_PANELS || (on_lines && spread)
}

impl Work<'_> {
    /// # Safety
    /// As for [`run`]; `scratch` has [`scratch_bytes`].
    unsafe fn run_task<K: MicroKernel>(
        &self,
        column_block: usize,
        first_part: usize,
        counter: &AtomicUsize,
        scratch: *mut u8,
    ) {
        let plan = self.plan;
        let first_column = column_block * plan.column_step;
        let columns = plan.column_step.min(self.n - first_column);
        let panels = columns.div_ceil(K::COLUMNS);
        let b = scratch;
        let a = b.wrapping_add(K::B_BYTES.next_multiple_of(CACHE_LINE));
        let c = a.wrapping_add(a_bytes::<K>().next_multiple_of(CACHE_LINE)).cast::<f32>();
        let last_block = plan.blocks.len() - 1;

        let mut part = first_part;
        let mut packed = false;
        while part < plan.row_parts {
            // Taken one ahead, so that its first strip can be fetched.
            let next_part = counter.fetch_add(1, Ordering::Relaxed);
            let first_row = part * plan.row_step;
            let rows = plan.row_step.min(self.m - first_row);
            for (index, block) in plan.blocks.iter().enumerate() {
                if !packed || last_block > 0 {
                    // SAFETY: the columns are there, and the plan keeps the block within `K::B_BYTES`.
                    unsafe { self.pack_block::<K>(Side::B, block, first_column, columns, b) };
                    packed = true;
                }
                for offset in (0..rows).step_by(plan.strips * K::ROWS) {
                    let row = first_row + offset;
                    let following = offset + plan.strips * K::ROWS;
                    let packed_rows = (plan.strips * K::ROWS).min(rows - offset);
                    let next = if following < rows {
                        Some((block, first_row + following))
                    } else if index < last_block {
                        Some((&plan.blocks[index + 1], first_row))
                    } else {
                        (next_part < plan.row_parts).then(|| (&plan.blocks[0], next_part * plan.row_step))
                    };
                    let mut fetch = next.map_or(Fetch::NOTHING, |(block, row)| self.fetch::<K>(block, row));
                    // SAFETY: the rows are there, and the plan packs no more of them than there is room for.
                    unsafe { self.pack_block::<K>(Side::A, block, row, packed_rows, a) };
                    let lines = fetch.lines().div_ceil(packed_rows.div_ceil(K::ROWS));
                    for strip in 0..packed_rows.div_ceil(K::ROWS) {
                        let row = row + strip * K::ROWS;
                        let place = Strip { row, rows: K::ROWS.min(self.m - row), first_column, columns };
                        let a = a.wrapping_add(strip * block.units * unit_bytes::<K>(Side::A));
                        // Sums that wait for another block have tiles of their own.
                        let waiting = if last_block > 0 { offset / K::ROWS + strip } else { 0 };
                        let tiles = c.wrapping_add(waiting * panels * K::ROWS * K::COLUMNS);
                        let continues = (index > 0, index < last_block);
                        // SAFETY: the panels are packed, and the tiles of a part fit the scratch memory.
                        unsafe {
                            self.multiply_strip::<K>(block, (a, b, tiles), &place, continues, &mut fetch, lines);
                        }
                    }
                }
            }
            part = next_part;
        }
    }

    /// # Safety
    /// The operands have these rows; the panels are writable; `K::ISA` is available.
    unsafe fn pack_block<K: MicroKernel>(&self, side: Side, block: &Block, row: usize, rows: usize, out: *mut u8) {
        let panel_stride = block.units * unit_bytes::<K>(side);
        for index in block.pieces.clone() {
            let piece = &self.plan.pieces[index];
            let product = &self.products[piece.product];
            let operand = if side == Side::A { &product.a } else { &product.b };
            let ready = if side == Side::A && self.in_place[index] { rows / K::ROWS } else { 0 };
            let (first, left) = (row + ready * K::ROWS, rows - ready * K::ROWS);
            if left == 0 {
                continue;
            }
            // SAFETY: passed on; the piece has its own units in each panel.
            unsafe {
                let out = out.add(ready * panel_stride + piece.first_unit * unit_bytes::<K>(side));
                pack::<K>(side, operand, first, left, piece.first_k, piece.k, out, panel_stride);
            }
        }
    }

    /// Multiplies a packed strip with packed B. `continues` says whether the sums go on from an earlier block, and to a
    /// later one.
    ///
    /// # Safety
    /// The panels are packed, the tiles writable, the place is inside the output.
    unsafe fn multiply_strip<K: MicroKernel>(
        &self,
        block: &Block,
        (a, b, tiles): (*const u8, *const u8, *mut f32),
        place: &Strip,
        (from_earlier, to_later): (bool, bool),
        fetch: &mut Fetch,
        fetch_lines: usize,
    ) {
        let units = block.units;
        let panels = place.columns.div_ceil(K::COLUMNS);
        let chunks = (units * K::UNIT).div_ceil(K::CHUNK).max(1);
        let chunk = units.div_ceil(chunks);
        let tile_size = K::ROWS * K::COLUMNS;
        // A tile that one call begins and finishes needs no place of its own.
        let tile_step = if chunks == 1 && !from_earlier && !to_later { 0 } else { tile_size };
        let lines_per_call = fetch_lines.div_ceil(chunks * panels);
        for index in 0..chunks {
            let first = index * chunk;
            let count = chunk.min(units.saturating_sub(first));
            let mut sources = [NO_SOURCE; MOST_SOURCES];
            let sources =
                if K::READS_ROWS { self.sources::<K>(block, first, count, a, place, &mut sources) } else { &[] };
            for panel in 0..panels {
                fetch.advance(lines_per_call);
                let column = panel * K::COLUMNS;
                let columns = K::COLUMNS.min(place.columns - column);
                // SAFETY: `first` is inside the panels, `panel` inside packed B; the tile is this panel's.
                unsafe {
                    let tile = tiles.add(panel * tile_step);
                    let (a, b) = (
                        a.add(first * unit_bytes::<K>(Side::A)),
                        b.add((panel * units + first) * unit_bytes::<K>(Side::B)),
                    );
                    let accumulate = from_earlier || index > 0;
                    if K::READS_ROWS {
                        K::multiply_sources(place.rows, columns, sources, b, tile, K::COLUMNS, accumulate);
                    } else {
                        K::multiply(place.rows, columns, count, a, b, tile, K::COLUMNS, accumulate);
                    }
                    if index + 1 == chunks && !to_later {
                        self.finish::<K>(tile, place, column, columns);
                    }
                }
            }
        }
    }

    /// # Safety
    /// The tile is readable, and its place inside the output.
    unsafe fn finish<K: MicroKernel>(&self, tile: *const f32, place: &Strip, column: usize, columns: usize) {
        let (row, column) = (place.row, place.first_column + column);
        if !self.transposed {
            let to = Destination::new(&self.out, self.epilogue, row, column);
            // SAFETY: passed on.
            unsafe { K::finish(tile, place.rows, columns, &to) };
            return;
        }
        let mut turned = [0.0f32; MAX_PANEL * MAX_PANEL];
        for i in 0..place.rows {
            for j in 0..columns {
                // SAFETY: the tile has this number.
                turned[j * K::COLUMNS + i] = unsafe { *tile.add(i * K::COLUMNS + j) };
            }
        }
        let to = Destination::new(&self.out, self.epilogue, column, row);
        // SAFETY: rows and columns have changed places everywhere.
        unsafe { K::finish(turned.as_ptr(), columns, place.rows, &to) };
    }

    /// Where `count` units of a strip are, from `first` on: in its panel, or in place.
    fn sources<'s, K: MicroKernel>(
        &self,
        block: &Block,
        first: usize,
        count: usize,
        panel: *const u8,
        place: &Strip,
        sources: &'s mut [Source; MOST_SOURCES],
    ) -> &'s [Source] {
        let whole = place.rows == K::ROWS;
        let mut used = 0;
        let mut was_packed = false;
        for index in block.pieces.clone() {
            let piece = &self.plan.pieces[index];
            let end = (piece.first_unit + piece.k.div_ceil(K::UNIT)).min(first + count);
            let begin = piece.first_unit.max(first);
            if begin >= end {
                continue;
            }
            let is_packed = !(whole && self.in_place[index]);
            if is_packed && was_packed {
                sources[used - 1].units += end - begin;
                continue;
            }
            let (address, row_step, unit_step) = if is_packed {
                let row_step = K::UNIT * K::ELEMENT_BYTES;
                (panel.wrapping_add(begin * unit_bytes::<K>(Side::A)), row_step, unit_bytes::<K>(Side::A))
            } else {
                let a = &self.products[piece.product].a;
                let k = piece.first_k + (begin - piece.first_unit) * K::UNIT;
                (a.at(place.row, k).address, a.dtype().bytes(a.stride), K::UNIT * K::ELEMENT_BYTES)
            };
            let second_half = address.wrapping_add(K::ROWS / 2 * row_step);
            sources[used] = Source { units: end - begin, address, row_step, second_half, unit_step };
            used += 1;
            was_packed = is_packed;
        }
        &sources[..used]
    }

    /// The memory of the rows of A that are packed from `row` on; of several pieces the first, which is the longest as products are built.
    fn fetch<K: MicroKernel>(&self, block: &Block, row: usize) -> Fetch {
        let Some(piece) = self.plan.pieces[block.pieces.clone()].first() else { return Fetch::NOTHING };
        let operand = &self.products[piece.product].a;
        let rows = (self.plan.strips * K::ROWS).min(self.m - row);
        let stride_bytes = operand.dtype().bytes(operand.stride);
        if operand.layout == Layout::KStrided && stride_bytes.is_multiple_of(PAGE) {
            // All these lines would share a few sets of the cache, and drive each other out.
            return Fetch::NOTHING;
        }
        let (strided, contiguous, runs, length) = match operand.layout {
            Layout::KContiguous => (row, piece.first_k, rows, piece.k),
            Layout::KStrided => (piece.first_k, row, piece.k, rows),
        };
        let block_len = operand.dtype().block_len();
        let offset = contiguous / block_len * operand.dtype().block_bytes();
        let address = operand.address.wrapping_add(strided * stride_bytes + offset);
        let run_bytes = operand.dtype().bytes(length.next_multiple_of(block_len));
        Fetch { address, stride_bytes, run_bytes, runs, offset: 0 }
    }
}

const NO_SOURCE: Source =
    Source { units: 0, address: std::ptr::null(), row_step: 0, second_half: std::ptr::null(), unit_step: 0 };

/// A strip's place in the output.
struct Strip {
    row: usize,
    rows: usize,
    first_column: usize,
    columns: usize,
}

/// Memory that will be read soon, fetched into the second-level cache a few lines at a time: `runs` runs of `run_bytes`.
struct Fetch {
    address: *const u8,
    stride_bytes: usize,
    run_bytes: usize,
    runs: usize,
    offset: usize,
}

impl Fetch {
    const NOTHING: Self = Self { address: std::ptr::null(), stride_bytes: 0, run_bytes: 0, runs: 0, offset: 0 };

    fn lines(&self) -> usize {
        self.runs * (self.run_bytes.div_ceil(CACHE_LINE) + 1)
    }

    fn advance(&mut self, lines: usize) {
        for _ in 0..lines {
            if self.runs == 0 {
                return;
            }
            prefetch(self.address.wrapping_add(self.offset.min(self.run_bytes - 1)));
            if self.offset < self.run_bytes {
                self.offset += CACHE_LINE;
            } else {
                self.offset = 0;
                self.runs -= 1;
                self.address = self.address.wrapping_add(self.stride_bytes);
            }
        }
    }
}

#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
