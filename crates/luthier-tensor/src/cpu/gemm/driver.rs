//! The loops around a micro-kernel, the same for all of them. A task packs B of its column block, then takes rows of A: it
//! packs a panel of them, multiplies it with all of B, and finishes each tile of the output while that is in the
//! first-level cache. While one panel is multiplied, the memory of the next is fetched.
//!
//! Of an operand whose rows lie side by side, a panel is only 64 bytes wide or so; several panels are packed at once, so
//! that each page, once found, is read further.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::epilogue::Destination;
use super::kernel::{GROUP, MicroKernel, Side, unit_bytes};
use super::pack::pack;
use super::plan::{Block, MOST_STRIPS, Plan, most_columns};
use super::{Epilogue, Layout, Output, Product};
use crate::cpu::pool::{GEMM_SLOT, Pool, with_scratch};

const CACHE_LINE: usize = 64;
const PAGE: usize = 4096;

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
    let plan = Plan::new::<K>(pool.threads(), m, n, products);
    let counters: Vec<AtomicUsize> = (0..plan.column_blocks).map(|_| AtomicUsize::new(plan.slots)).collect();
    let work = Work { plan: &plan, m, n, products, out, epilogue };
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
                            self.multiply_strip::<K>(block.units, (a, b, tiles), &place, continues, &mut fetch, lines);
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
        for piece in &self.plan.pieces[block.pieces.clone()] {
            let product = &self.products[piece.product];
            let operand = if side == Side::A { &product.a } else { &product.b };
            // SAFETY: passed on; the piece has its own units in each panel.
            unsafe {
                let out = out.add(piece.first_unit * unit_bytes::<K>(side));
                pack::<K>(side, operand, row, rows, piece.first_k, piece.k, out, panel_stride);
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
        units: usize,
        (a, b, tiles): (*const u8, *const u8, *mut f32),
        place: &Strip,
        (from_earlier, to_later): (bool, bool),
        fetch: &mut Fetch,
        fetch_lines: usize,
    ) {
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
                    K::multiply(place.rows, columns, count, a, b, tile, K::COLUMNS, from_earlier || index > 0);
                    if index + 1 == chunks && !to_later {
                        let to = Destination::new(&self.out, self.epilogue, place.row, place.first_column + column);
                        K::finish(tile, place.rows, columns, &to);
                    }
                }
            }
        }
    }

    /// The memory of the rows of A that are packed from `row` on; of several pieces the first, which is the longest as products are built.
    fn fetch<K: MicroKernel>(&self, block: &Block, row: usize) -> Fetch {
        let Some(piece) = self.plan.pieces[block.pieces.clone()].first() else { return Fetch::NOTHING };
        let operand = &self.products[piece.product].a;
        let rows = (self.plan.strips * K::ROWS).min(self.m - row);
        let stride_bytes = operand.dtype.bytes(operand.stride);
        if operand.layout == Layout::KStrided && stride_bytes.is_multiple_of(PAGE) {
            // All these lines would share a few sets of the cache, and drive each other out.
            return Fetch::NOTHING;
        }
        let (strided, contiguous, runs, length) = match operand.layout {
            Layout::KContiguous => (row, piece.first_k, rows, piece.k),
            Layout::KStrided => (piece.first_k, row, piece.k, rows),
        };
        let block_len = operand.dtype.block_len();
        let offset = contiguous / block_len * operand.dtype.block_bytes();
        let address = operand.address.wrapping_add(strided * stride_bytes + offset);
        let run_bytes = operand.dtype.bytes(length.next_multiple_of(block_len));
        Fetch { address, stride_bytes, run_bytes, runs, offset: 0 }
    }
}

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
