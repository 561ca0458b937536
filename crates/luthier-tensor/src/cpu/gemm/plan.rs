//! How a product is divided: along k into blocks that are packed at once, along n into column blocks whose packed B stays
//! in the second-level cache, along m into parts that threads take in turn. Only speed depends on it, never a number.
//!
//! Each task owns one column block, packs its B itself and streams rows of A past it. Several tasks ("slots") may share a
//! column block; they then take its row parts from a common counter. More slots pack B more often, more column blocks
//! pack A more often; the cheapest division is chosen by counting both.

use super::kernel::{GROUP, MicroKernel};
use super::{Layout, Product};

/// The most columns of a column block; bounds the scratch memory when k is small.
const MAX_COLUMNS: usize = 1024;

/// The most panels of A that are packed at once.
pub(super) const MOST_STRIPS: usize = 4;

/// What a number of the output costs each time it waits in scratch memory for the next block along k.
const WAITING_PRICE: f64 = 0.5;

/// A run of one product's k inside a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) product: usize,
    pub(super) first_k: usize,
    pub(super) k: usize,
    /// Where its units begin in the block's panels.
    pub(super) first_unit: usize,
}

/// What is packed at once.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) pieces: std::ops::Range<usize>,
    pub(super) units: usize,
}

/// The division of one product.
#[derive(Debug)]
pub(super) struct Plan {
    /// An estimate of the time, in units of packing one number: one of a type that is copied; one that is transposed
    /// costs half as much again.
    cost: f64,
    pub(super) pieces: Vec<Piece>,
    pub(super) blocks: Vec<Block>,
    /// Columns of a column block, a whole number of panels; the last block may have fewer.
    pub(super) column_step: usize,
    pub(super) column_blocks: usize,
    /// Tasks that share a column block.
    pub(super) slots: usize,
    /// Panels of A that are packed at once.
    pub(super) strips: usize,
    /// Rows of a part, a whole number of panels; the last part may have fewer.
    pub(super) row_step: usize,
    pub(super) row_parts: usize,
}

/// The most columns of a block of `k` numbers.
pub(super) const fn most_columns<K: MicroKernel>(k: usize) -> usize {
    let columns = K::B_BYTES / (k * K::ELEMENT_BYTES);
    let columns = if columns < MAX_COLUMNS { columns } else { MAX_COLUMNS };
    columns / K::COLUMNS * K::COLUMNS
}

impl Plan {
    pub(super) fn new<K: MicroKernel>(threads: usize, m: usize, n: usize, products: &[Product]) -> Self {
        let mut best = Self::with_block::<K>(threads, m, n, products, K::BLOCK_K);
        if best.depth::<K>() > K::BLOCK_K / 2 {
            let other = Self::with_block::<K>(threads, m, n, products, K::BLOCK_K / 2);
            if other.cost < best.cost {
                best = other;
            }
        }
        best
    }

    /// Numbers along k of the longest block, in whole groups.
    fn depth<K: MicroKernel>(&self) -> usize {
        self.blocks.iter().map(|block| block.units * K::UNIT).max().unwrap_or(0).next_multiple_of(GROUP).max(GROUP)
    }

    /// The cheapest division with blocks of at most `block_k` numbers along k.
    fn with_block<K: MicroKernel>(threads: usize, m: usize, n: usize, products: &[Product], block_k: usize) -> Self {
        let (pieces, blocks) = divide_k::<K>(products, block_k);
        let mut best = Self {
            cost: f64::INFINITY,
            pieces,
            blocks,
            column_step: 0,
            column_blocks: 0,
            slots: 0,
            strips: 0,
            row_step: 0,
            row_parts: 0,
        };
        let (strips, panels) = (m.div_ceil(K::ROWS), n.div_ceil(K::COLUMNS));
        let most_panels = most_columns::<K>(best.depth::<K>()) / K::COLUMNS;
        let k: usize = best.blocks.iter().map(|block| block.units * K::UNIT).sum();
        let block_count = best.blocks.len();
        let is_strided = |operand: fn(&Product) -> Layout| products.first().map(operand) == Some(Layout::KStrided);
        let (a_strided, b_strided) = (is_strided(|product| product.a.layout), is_strided(|product| product.b.layout));
        let at_once = if a_strided { MOST_STRIPS } else { 1 };
        let (a_price, b_price) = (if a_strided { 1.5 } else { 1.0 }, if b_strided { 1.0 } else { 1.5 });

        for slots in 1..=threads.min(strips) {
            let fewest = panels.div_ceil(most_panels).max(threads.div_ceil(slots)).min(panels);
            let even = fewest.next_multiple_of(threads.div_ceil(slots));
            for column_blocks in [fewest, even, 2 * even] {
                let width = panels.div_ceil(column_blocks.min(panels));
                let column_blocks = panels.div_ceil(width);
                let strips_per_slot = strips.div_ceil(slots);
                // With several blocks along k the rows of a part wait, unfinished, in scratch memory.
                let most =
                    if block_count > 1 { K::C_BYTES / (4 * K::ROWS * K::COLUMNS * width) } else { at_once }.max(1);
                let part = strips_per_slot.div_ceil(strips_per_slot.div_ceil(most));
                let times_b = if block_count > 1 { strips_per_slot.div_ceil(part) } else { 1 };
                let (rows, columns) = (strips_per_slot.next_multiple_of(part) * K::ROWS, width * K::COLUMNS);
                let operations = (2 * rows * columns) as f64 / K::OPERATIONS_PER_PACKED as f64;
                let packed = a_price * rows as f64 + b_price * (columns * times_b) as f64;
                let kept = WAITING_PRICE * (rows * columns * (block_count - 1)) as f64;
                let rounds = (column_blocks * slots).div_ceil(threads);
                let cost = ((operations + packed) * k as f64 + kept) * rounds as f64;
                if cost < best.cost {
                    best.cost = cost;
                    best.column_step = columns;
                    best.column_blocks = column_blocks;
                    best.slots = slots;
                    best.strips = at_once.min(part);
                    best.row_step = part * K::ROWS;
                    best.row_parts = strips.div_ceil(part);
                }
            }
        }
        best
    }
}

/// Blocks of about equal length; products follow each other, and each is padded to whole units.
fn divide_k<K: MicroKernel>(products: &[Product], block_k: usize) -> (Vec<Piece>, Vec<Block>) {
    let groups: usize = products.iter().map(|product| product.k.div_ceil(GROUP)).sum();
    let most = groups.div_ceil(groups.div_ceil(block_k / GROUP).max(1));
    let mut pieces = Vec::with_capacity(products.len() + groups / most.max(1));
    let mut blocks = Vec::with_capacity(groups / most.max(1) + 1);
    let (mut first_piece, mut units, mut left) = (0, 0, most);
    for (index, product) in products.iter().enumerate() {
        let mut first_k = 0;
        while first_k < product.k {
            let k = (product.k - first_k).min(left * GROUP);
            pieces.push(Piece { product: index, first_k, k, first_unit: units });
            first_k += k;
            units += k.div_ceil(K::UNIT);
            left -= k.div_ceil(GROUP);
            if left == 0 {
                blocks.push(Block { pieces: first_piece..pieces.len(), units });
                (first_piece, units, left) = (pieces.len(), 0, most);
            }
        }
    }
    if units > 0 || blocks.is_empty() {
        blocks.push(Block { pieces: first_piece..pieces.len(), units });
    }
    (pieces, blocks)
}
