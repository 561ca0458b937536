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
        let (pieces, blocks) = divide_k::<K>(products);
        let depth = blocks.iter().map(|block| block.units * K::UNIT).max().unwrap_or(0).next_multiple_of(GROUP);
        let depth = depth.max(GROUP);
        let (strips, panels) = (m.div_ceil(K::ROWS), n.div_ceil(K::COLUMNS));
        let most_panels = most_columns::<K>(depth) / K::COLUMNS;
        let k: usize = blocks.iter().map(|block| block.units * K::UNIT).sum();

        let strided = products.first().is_some_and(|product| product.a.layout == Layout::KStrided);
        let at_once = if strided { MOST_STRIPS } else { 1 };
        let mut best: Option<(f64, Self)> = None;
        for slots in 1..=threads.min(strips) {
            let fewest = panels.div_ceil(most_panels).max(threads.div_ceil(slots)).min(panels);
            let even = fewest.next_multiple_of(threads.div_ceil(slots));
            for column_blocks in [fewest, even, 2 * even] {
                let width = panels.div_ceil(column_blocks.min(panels));
                let column_blocks = panels.div_ceil(width);
                // With several blocks along k the rows of a part wait, unfinished, in scratch memory.
                let strips_per_slot = strips.div_ceil(slots);
                let part = if blocks.len() > 1 {
                    let most = (K::C_BYTES / (4 * K::ROWS * K::COLUMNS * width)).max(1);
                    strips_per_slot.div_ceil(strips_per_slot.div_ceil(most))
                } else {
                    strips_per_slot.div_ceil(strips_per_slot.div_ceil(at_once))
                };
                let b_packed = if blocks.len() > 1 { strips_per_slot.div_ceil(part) } else { 1 };
                let (rows, columns) = (strips_per_slot.next_multiple_of(part) * K::ROWS, width * K::COLUMNS);
                let operations = (2 * rows * columns) as f64 / K::OPERATIONS_PER_PACKED as f64;
                let rounds = (column_blocks * slots).div_ceil(threads);
                let cost = (operations + (rows + columns * b_packed) as f64) * (k * rounds) as f64;
                if best.as_ref().is_none_or(|(lowest, _)| cost < *lowest) {
                    let plan = Self {
                        pieces: Vec::new(),
                        blocks: Vec::new(),
                        column_step: columns,
                        column_blocks,
                        slots,
                        strips: at_once.min(part),
                        row_step: part * K::ROWS,
                        row_parts: strips.div_ceil(part),
                    };
                    best = Some((cost, plan));
                }
            }
        }
        let plan = best.map(|(_, plan)| plan);
        Self { pieces, blocks, ..plan.unwrap_or_else(|| unreachable!("a product has rows")) }
    }
}

/// Blocks of about equal length; products follow each other, and each is padded to whole units.
fn divide_k<K: MicroKernel>(products: &[Product]) -> (Vec<Piece>, Vec<Block>) {
    let groups: usize = products.iter().map(|product| product.k.div_ceil(GROUP)).sum();
    let most = groups.div_ceil(groups.div_ceil(K::BLOCK_K / GROUP).max(1));
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
