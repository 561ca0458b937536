//! The micro-kernel on the matrix unit: 32 x 32 numbers of the output in four tile registers. A step of 32 along k reads
//! two tiles of A and two of B and multiplies each with each.
//!
//! A may also be read from rows where they lie, a unit being 64 bytes of each.
//!
//! A panel is `[k / 32][2 halves][1 KiB tile]`. A tile of A is `[16 rows][32 k]`; a tile of B is `[16 pairs along k][16
//! columns][2]`. Tile registers are unknown to the compiler, which neither uses nor saves them, so their configuration
//! stays from `enter` to `leave`; within one assembly block nothing else depends on them.

use std::arch::asm;
use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512};

use super::Layout;
use super::epilogue::Destination;
use super::kernel::{Group, MicroKernel, Native, Side, Source};
use super::pack_avx512::{SQUARE, finish_bf16, read_pairs, read_wide_pairs, transpose};
use crate::cpu::isa::Isa;

/// Rows and columns of a tile of the output: two tile registers each way.
const TILE: usize = 32;
const REGISTER_BYTES: usize = 1024;

/// Products of bf16.
pub(super) struct Amx;

/// What `ldtilecfg` reads: palette 1, and 16 rows of 64 bytes for each of the eight registers.
#[repr(C, align(64))]
struct TileConfiguration([u8; 64]);

static CONFIGURATION: TileConfiguration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut register = 0;
    while register < 8 {
        bytes[16 + 2 * register] = 64;
        bytes[48 + register] = 16;
        register += 1;
    }
    TileConfiguration(bytes)
};

impl MicroKernel for Amx {
    const ISA: Isa = Isa::Amx;
    const ROWS: usize = TILE;
    const COLUMNS: usize = TILE;
    const UNIT: usize = 32;
    const ELEMENT_BYTES: usize = 2;
    const CHUNK: usize = 640;
    const BLOCK_K: usize = 1600;
    const B_BYTES: usize = 1024 << 10;
    const C_BYTES: usize = 896 << 10;
    const OPERATIONS_PER_PACKED: usize = 400;
    const READS_ROWS: bool = true;

    unsafe fn enter() {
        // SAFETY: `Isa::Amx` exists only where the tile instructions may be used.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, preserves_flags)) };
    }

    unsafe fn leave() {
        // SAFETY: as above; nobody expects anything of the tiles after this.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }

    unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
        // SAFETY: passed on.
        unsafe { pack(side, group, out) };
    }

    unsafe fn multiply(
        rows: usize,
        columns: usize,
        units: usize,
        a: *const u8,
        b: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: passed on.
        unsafe { Self::multiply_sources(rows, columns, &[panel(units, a)], b, c, c_stride, accumulate) };
    }

    unsafe fn multiply_sources(
        rows: usize,
        columns: usize,
        sources: &[Source],
        b: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        // SAFETY: passed on; a half panel that is not multiplied is not read either.
        unsafe {
            match (rows > SQUARE, columns > SQUARE) {
                (true, true) => multiply_2x2(sources, b, c, c_stride, accumulate),
                (true, false) => multiply_2x1(sources, b, c, c_stride, accumulate),
                (false, true) => multiply_1x2(sources, b, c, c_stride, accumulate),
                (false, false) => multiply_1x1(sources, b, c, c_stride, accumulate),
            }
        }
    }

    unsafe fn finish(tile: *const f32, rows: usize, columns: usize, to: &Destination) {
        // SAFETY: passed on.
        unsafe { finish_bf16(tile, TILE, rows, columns, to) };
    }
}

/// Packed units of A.
fn panel(units: usize, address: *const u8) -> Source {
    Source {
        units,
        address,
        row_step: 64,
        second_half: address.wrapping_add(REGISTER_BYTES),
        unit_step: 2 * REGISTER_BYTES,
    }
}

/// # Safety
/// As for [`MicroKernel::pack`].
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack(side: Side, group: &Group, out: *mut u8) {
    // A wants registers that are rows, B registers that are pairs along k.
    let transposed = (side == Side::A) == (group.layout == Layout::KStrided);
    let address = |half: usize, i: usize| out.wrapping_add(half * REGISTER_BYTES + i * 4 * SQUARE).cast::<__m512i>();
    // SAFETY: each half panel with a row in it is one tile register of 16 lines.
    unsafe {
        if group.layout == Layout::KStrided && group.native == Native::Bf16 && group.rows > SQUARE {
            read_wide_pairs(group, |half, i, line| _mm512_storeu_si512(address(half, i), line));
            for half in 0..if transposed { 2 } else { 0 } {
                let mut square = [_mm512_setzero_si512(); SQUARE];
                for (i, line) in square.iter_mut().enumerate() {
                    *line = _mm512_loadu_si512(address(half, i));
                }
                for (i, line) in transpose(square).into_iter().enumerate() {
                    _mm512_storeu_si512(address(half, i), line);
                }
            }
            return;
        }
        for half in 0..group.rows.div_ceil(SQUARE) {
            let store = |i, line| _mm512_storeu_si512(address(half, i), line);
            read_pairs(group, half * SQUARE, transposed, store);
        }
    }
}

/// Defines the product of one or two tiles of A with one or two of B. Registers 0 to 3 hold the output, 4 and 5 are A,
/// 6 and 7 are B. A is read with every panel of B and stays in the first-level cache; B is too large for that and is
/// read with a hint that keeps it from driving out A.
macro_rules! multiply_function {
    ($name:ident, [$($zero:literal),*], [$($load:literal),*], [$($step:literal),*], [$($store:literal),*]) => {
        /// # Safety
        /// The sources and B have their units, the tile is readable and writable, and the tiles are configured.
        unsafe fn $name(sources: &[Source], b: *const u8, c: *mut f32, c_stride: usize, accumulate: bool) {
            // SAFETY: what is read and written is what the caller promises; every register that changes is named.
            unsafe {
                asm!(
                    "test {units}, {units}",
                    "jnz 2f",
                    $($zero,)*
                    "jmp 6f",
                    "2:",
                    $($load,)*
                    "6:",
                    "cmp {source}, {end}",
                    "je 5f",
                    "3:",
                    "mov {units}, [{source}]",
                    "mov {a}, [{source} + 8]",
                    "mov {row}, [{source} + 16]",
                    "mov {half}, [{source} + 24]",
                    "mov {unit}, [{source} + 32]",
                    "add {source}, 40",
                    "test {units}, {units}",
                    "jz 6b",
                    ".p2align 4",
                    "4:",
                    $($step,)*
                    "add {a}, {unit}",
                    "add {half}, {unit}",
                    "add {b}, 2048",
                    "dec {units}",
                    "jnz 4b",
                    "cmp {source}, {end}",
                    "jne 3b",
                    "5:",
                    $($store,)*
                    units = inout(reg) usize::from(accumulate) => _,
                    source = inout(reg) sources.as_ptr() => _,
                    end = in(reg) sources.as_ptr_range().end,
                    a = out(reg) _,
                    row = out(reg) _,
                    half = out(reg) _,
                    unit = out(reg) _,
                    b = inout(reg) b => _,
                    c = in(reg) c,
                    d = in(reg) c.wrapping_add(SQUARE * c_stride),
                    stride = in(reg) 4 * c_stride,
                    line = in(reg) 64usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

multiply_function!(
    multiply_2x2,
    ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
    [
        "tileloadd tmm0, [{c} + {stride}]",
        "tileloadd tmm1, [{c} + {stride} + 64]",
        "tileloadd tmm2, [{d} + {stride}]",
        "tileloadd tmm3, [{d} + {stride} + 64]"
    ],
    [
        "tileloaddt1 tmm6, [{b} + {line}]",
        "tileloadd tmm4, [{a} + {row}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloaddt1 tmm7, [{b} + {line} + 1024]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{half} + {row}]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    [
        "tilestored [{c} + {stride}], tmm0",
        "tilestored [{c} + {stride} + 64], tmm1",
        "tilestored [{d} + {stride}], tmm2",
        "tilestored [{d} + {stride} + 64], tmm3"
    ]
);
multiply_function!(
    multiply_2x1,
    ["tilezero tmm0", "tilezero tmm2"],
    ["tileloadd tmm0, [{c} + {stride}]", "tileloadd tmm2, [{d} + {stride}]"],
    [
        "tileloaddt1 tmm6, [{b} + {line}]",
        "tileloadd tmm4, [{a} + {row}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{half} + {row}]",
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    ["tilestored [{c} + {stride}], tmm0", "tilestored [{d} + {stride}], tmm2"]
);
multiply_function!(
    multiply_1x2,
    ["tilezero tmm0", "tilezero tmm1", "/* {d} */"],
    ["tileloadd tmm0, [{c} + {stride}]", "tileloadd tmm1, [{c} + {stride} + 64]"],
    [
        "tileloadd tmm4, [{a} + {row}]",
        "tileloaddt1 tmm6, [{b} + {line}]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloaddt1 tmm7, [{b} + {line} + 1024]",
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    ["tilestored [{c} + {stride}], tmm0", "tilestored [{c} + {stride} + 64], tmm1"]
);
multiply_function!(
    multiply_1x1,
    ["tilezero tmm0", "/* {d} */"],
    ["tileloadd tmm0, [{c} + {stride}]"],
    ["tileloadd tmm4, [{a} + {row}]", "tileloaddt1 tmm6, [{b} + {line}]", "tdpbf16ps tmm0, tmm4, tmm6"],
    ["tilestored [{c} + {stride}], tmm0"]
);
