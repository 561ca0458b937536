//! What the driver asks of a micro-kernel: how panels are packed, and how two of them are multiplied.
//!
//! A panel holds `ROWS` rows of A or `COLUMNS` rows of B, padded with zeros, cut along k into units of `UNIT`. The bytes
//! inside a unit are the kernel's own affair; units of a panel follow each other without a gap.

use super::Layout;
use crate::cpu::isa::Isa;

/// Numbers along k that are packed in one step: also the length of a ggml block, so that a block is decoded once.
pub(super) const GROUP: usize = 32;
/// The most rows of a panel that any kernel has.
pub(super) const MAX_PANEL: usize = 32;

/// Which operand a panel belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

/// The types that kernels pack without decoding first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Native {
    F32,
    Bf16,
}

/// A part of an operand, at most a panel's rows and `GROUP` numbers along k.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Of the first number.
    pub(super) address: *const u8,
    pub(super) native: Native,
    pub(super) layout: Layout,
    /// From one row (`KContiguous`) or one k (`KStrided`) to the next.
    pub(super) stride_bytes: usize,
    pub(super) rows: usize,
    pub(super) k: usize,
}

/// A run of units of A for [`MicroKernel::multiply_sources`]: a part of a panel, or rows where they lie in memory. In
/// bytes; the kernel reads it as it lies here.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Source {
    pub(super) units: usize,
    /// Of the first row's first unit.
    pub(super) address: *const u8,
    /// From one row of a unit to the next.
    pub(super) row_step: usize,
    /// Of the first row of the panel's second half.
    pub(super) second_half: *const u8,
    /// From one unit to the next.
    pub(super) unit_step: usize,
}

/// The most sources of one call.
pub(super) const MOST_SOURCES: usize = 8;

/// A micro-kernel and the block sizes that suit it.
pub(super) trait MicroKernel {
    /// The set whose instructions it uses.
    const ISA: Isa;
    /// Rows of a panel of A, and of a tile of the output.
    const ROWS: usize;
    /// Rows of a panel of B, columns of a tile of the output.
    const COLUMNS: usize;
    /// Numbers along k that a panel is padded to; divides `GROUP`.
    const UNIT: usize;
    /// Bytes of a packed number.
    const ELEMENT_BYTES: usize;
    /// Numbers along k of one call of `multiply`: two panels of this length and more fit the first-level cache.
    const CHUNK: usize;
    /// Numbers along k that are packed at once; twice a multiple of `GROUP`.
    const BLOCK_K: usize;
    /// Bytes of packed B, which stays in the second-level cache while A streams.
    const B_BYTES: usize;
    /// Bytes of unfinished output when k takes more than one block.
    const C_BYTES: usize;
    /// Operations that take as long as packing one number; decides how work is divided.
    const OPERATIONS_PER_PACKED: usize;
    /// Whether there is `multiply_sources`.
    const READS_ROWS: bool = false;

    /// Prepares this thread for `multiply`; `leave` ends that.
    ///
    /// # Safety
    /// `ISA` is available.
    unsafe fn enter() {}

    /// # Safety
    /// After `enter` on the same thread.
    unsafe fn leave() {}

    /// Packs one group into a panel: `group.k.div_ceil(UNIT)` units from `out` on, all rows of the panel, absent ones as
    /// zeros. (Amx leaves the upper half of a panel undefined when the group has no row in it.)
    ///
    /// # Safety
    /// The group is readable, the units are writable, `ISA` is available.
    unsafe fn pack(side: Side, group: &Group, out: *mut u8);

    /// A tile: `c[ROWS, COLUMNS] (+)= A B^T` over `units` units of two panels. Of the tile, what is outside `rows` and
    /// `columns` may or may not be computed.
    ///
    /// # Safety
    /// The panels are readable, the whole tile readable and writable; `enter` was called on this thread.
    #[expect(clippy::too_many_arguments, reason = "the innermost call has no use for a struct")]
    unsafe fn multiply(
        rows: usize,
        columns: usize,
        units: usize,
        a: *const u8,
        b: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    );

    /// As `multiply`, with A in sources that follow each other along k: `sources` are at most [`MOST_SOURCES`], and those
    /// that are rows in memory have all rows of a panel and whole units.
    ///
    /// # Safety
    /// As for `multiply`; there is `READS_ROWS`.
    unsafe fn multiply_sources(
        _rows: usize,
        _columns: usize,
        _sources: &[Source],
        _b: *const u8,
        _c: *mut f32,
        _c_stride: usize,
        _accumulate: bool,
    ) {
        unreachable!("this kernel reads panels only");
    }

    /// Writes a finished tile to its place.
    ///
    /// # Safety
    /// As for [`super::epilogue::Destination`]; `ISA` is available.
    unsafe fn finish(tile: *const f32, rows: usize, columns: usize, to: &super::epilogue::Destination) {
        // SAFETY: passed on.
        Self::ISA.run(
            #[inline(always)]
            || unsafe { super::epilogue::finish(tile, Self::COLUMNS, rows, columns, to) },
        );
    }
}

/// Bytes of one unit of a panel.
pub(super) const fn unit_bytes<K: MicroKernel>(side: Side) -> usize {
    let rows = match side {
        Side::A => K::ROWS,
        Side::B => K::COLUMNS,
    };
    rows * K::UNIT * K::ELEMENT_BYTES
}
