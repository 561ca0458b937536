//! Packing in AVX-512. A "number" here is 32 bits: an f32, or two bf16 that follow each other along k. Sixteen rows by
//! sixteen numbers are read into sixteen registers, transposed if the destination wants it, and written.

use std::arch::x86_64::*;

use super::Layout;
use super::kernel::{GROUP, Group, Native};

/// Numbers of 32 bits in a register, and registers of a square.
pub(super) const SQUARE: usize = 16;

/// A square of numbers.
pub(super) type Square = [__m512i; SQUARE];

/// The lowest `count` lanes of 16.
fn lanes16(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

/// The lowest `count` lanes of 32.
fn lanes32(count: usize) -> __mmask32 {
    if count >= 32 { !0 } else { (1 << count) - 1 }
}

/// Hands the registers of a square to `store` one by one, transposed or not. They stay registers throughout.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn arrange(transposed: bool, load: impl Fn(usize) -> __m512i, mut store: impl FnMut(usize, __m512i)) {
    if transposed {
        let mut square = [_mm512_setzero_si512(); SQUARE];
        for (i, register) in square.iter_mut().enumerate() {
            *register = load(i);
        }
        for (i, register) in transpose(square).into_iter().enumerate() {
            store(i, register);
        }
    } else {
        for i in 0..SQUARE {
            store(i, load(i));
        }
    }
}

/// Reads pairs of bf16 from row `row` of the group on and along all of its k, as zeros where nothing is. With
/// `KContiguous` a register is a row and its lanes go along k, with `KStrided` it is one step along k and its lanes are
/// rows; `transposed` exchanges that.
///
/// # Safety
/// The group is readable.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn read_pairs(group: &Group, row: usize, transposed: bool, store: impl FnMut(usize, __m512i)) {
    let rows = group.rows.saturating_sub(row).min(SQUARE);
    let line = |i: usize| group.address.wrapping_add(i * group.stride_bytes);
    let interleave = |first: __m512, second: __m512| {
        // SAFETY: the table has 64 bytes; bf16 vectors and integers have the same bits.
        unsafe {
            let pair = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            _mm512_permutexvar_epi16(_mm512_loadu_si512(INTERLEAVE.as_ptr().cast()), pair)
        }
    };
    // SAFETY: without masks only where rows and k are all there; otherwise masks leave out what is not.
    unsafe {
        match (group.layout, group.native) {
            (Layout::KContiguous, Native::Bf16) if rows == SQUARE && group.k == GROUP => {
                arrange(transposed, |i| _mm512_loadu_si512(line(row + i).cast()), store);
            }
            (Layout::KContiguous, Native::Bf16) => {
                let mask = lanes32(group.k);
                let load = |i| _mm512_maskz_loadu_epi16(if i < rows { mask } else { 0 }, line(row + i).cast());
                arrange(transposed, load, store);
            }
            (Layout::KContiguous, Native::F32) => {
                let (low, high) = (lanes16(group.k), lanes16(group.k.saturating_sub(SQUARE)));
                let load = |i| {
                    let (low, high) = if i < rows { (low, high) } else { (0, 0) };
                    let address = line(row + i).cast::<f32>();
                    let first = _mm512_maskz_loadu_ps(low, address);
                    let second = _mm512_maskz_loadu_ps(high, address.wrapping_add(SQUARE));
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
                };
                arrange(transposed, load, store);
            }
            (Layout::KStrided, Native::Bf16) => {
                let mask = lanes16(rows);
                let half = |k: usize| {
                    let present = if k < group.k { mask } else { 0 };
                    _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(present, line(k).wrapping_add(2 * row).cast()))
                };
                let load = |i| _mm512_or_si512(half(2 * i), _mm512_slli_epi32::<16>(half(2 * i + 1)));
                arrange(transposed, load, store);
            }
            (Layout::KStrided, Native::F32) => {
                let mask = lanes16(rows);
                let single = |k: usize| {
                    let present = if k < group.k { mask } else { 0 };
                    _mm512_maskz_loadu_ps(present, line(k).wrapping_add(4 * row).cast())
                };
                arrange(transposed, |i| interleave(single(2 * i), single(2 * i + 1)), store);
            }
        }
    }
}

/// Reads more than 16 rows of a `KStrided` bf16 group at once, whose lines hold both halves of the rows: each line is read
/// once only. Gives `store` the half (0 or 1), the register's index in it, and the register as [`read_pairs`] does.
///
/// # Safety
/// The group is readable.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn read_wide_pairs(group: &Group, mut store: impl FnMut(usize, usize, __m512i)) {
    let mask = lanes32(group.rows);
    // SAFETY: masks leave out what is beyond the group's rows and k; the tables have 64 bytes.
    unsafe {
        let low = _mm512_loadu_si512(FIRST_HALVES.as_ptr().cast());
        let high = _mm512_loadu_si512(SECOND_HALVES.as_ptr().cast());
        let line = |k: usize| {
            let address = group.address.wrapping_add(k * group.stride_bytes);
            _mm512_maskz_loadu_epi16(if k < group.k { mask } else { 0 }, address.cast())
        };
        for i in 0..SQUARE {
            let (even, odd) = (line(2 * i), line(2 * i + 1));
            store(0, i, _mm512_permutex2var_epi16(even, low, odd));
            store(1, i, _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}

/// For a choice of 16-bit lanes: lane `from + i / 2` of one register, or of the other, which begins at lane `other`.
const fn alternate(from: u16, other: u16) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i as usize] = from + i / 2 + i % 2 * other;
        i += 1;
    }
    index
}

/// Lane i of the first half of a register beside lane i of its second half.
static INTERLEAVE: [u16; 32] = alternate(0, 16);
/// Lane i of one register beside lane i of another, for the first 16 lanes, and for the last.
static FIRST_HALVES: [u16; 32] = alternate(0, 32);
static SECOND_HALVES: [u16; 32] = alternate(16, 32);

/// Reads f32, or bf16 widened to it, from row `row` and step `k` of the group on; the rest as [`read_pairs`].
///
/// # Safety
/// The group is readable.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn read_f32(group: &Group, row: usize, k: usize, transposed: bool, store: impl FnMut(usize, __m512i)) {
    let rows = group.rows.saturating_sub(row).min(SQUARE);
    let steps = group.k.saturating_sub(k).min(SQUARE);
    let (lines, length, first_line, first) = match group.layout {
        Layout::KContiguous => (rows, steps, row, k),
        Layout::KStrided => (steps, rows, k, row),
    };
    let mask = lanes16(length);
    let line = |i: usize| group.address.wrapping_add((first_line + i) * group.stride_bytes);
    let present = |i: usize| if i < lines { mask } else { 0 };
    // SAFETY: masks leave out lines beyond `lines`, and what is beyond `length`.
    unsafe {
        match group.native {
            Native::F32 => {
                let load = |i| _mm512_maskz_loadu_epi32(present(i), line(i).wrapping_add(4 * first).cast());
                arrange(transposed, load, store);
            }
            Native::Bf16 => {
                let load = |i| {
                    let half = _mm256_maskz_loadu_epi16(present(i), line(i).wrapping_add(2 * first).cast());
                    _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half))
                };
                arrange(transposed, load, store);
            }
        }
    }
}

/// Exchanges registers and lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn transpose(mut r: Square) -> Square {
    let mut t = [_mm512_setzero_si512(); SQUARE];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for i in 0..4 {
        t[i] = _mm512_shuffle_i32x4::<0x88>(r[i], r[i + 4]);
        t[i + 4] = _mm512_shuffle_i32x4::<0xdd>(r[i], r[i + 4]);
        t[i + 8] = _mm512_shuffle_i32x4::<0x88>(r[i + 8], r[i + 12]);
        t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(r[i + 8], r[i + 12]);
    }
    for i in 0..4 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
        r[i + 4] = _mm512_shuffle_i32x4::<0x88>(t[i + 4], t[i + 12]);
        r[i + 12] = _mm512_shuffle_i32x4::<0xdd>(t[i + 4], t[i + 12]);
    }
    r
}

/// Packs a group of bf16 pairs as `[pair][lanes of the panel]`, `width` rows wide.
///
/// # Safety
/// The group is readable; `group.k.div_ceil(2)` lines of `4 * width` bytes are writable.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_pairs(group: &Group, width: usize, out: *mut u8) {
    let pairs = group.k.div_ceil(2);
    for row in (0..width).step_by(SQUARE) {
        let mask = lanes16(width - row);
        let store = |i: usize, register| {
            // SAFETY: a line of the panel, and of it the lanes that it has.
            unsafe {
                let address = out.wrapping_add(4 * (i * width + row)).cast();
                _mm512_mask_storeu_epi32(address, if i < pairs { mask } else { 0 }, register);
            }
        };
        // SAFETY: passed on.
        unsafe { read_pairs(group, row, group.layout == Layout::KContiguous, store) };
    }
}

/// Packs a group as f32 `[k][lanes of the panel]`, `width` rows wide.
///
/// # Safety
/// The group is readable; `group.k` lines of `4 * width` bytes are writable.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn pack_f32(group: &Group, width: usize, out: *mut u8) {
    for row in (0..width).step_by(SQUARE) {
        let mask = lanes16(width - row);
        for k in (0..group.k).step_by(SQUARE) {
            let store = |i: usize, register| {
                // SAFETY: a line of the panel, and of it the lanes that it has.
                unsafe {
                    let address = out.wrapping_add(4 * ((k + i) * width + row)).cast();
                    _mm512_mask_storeu_epi32(address, if k + i < group.k { mask } else { 0 }, register);
                }
            };
            // SAFETY: passed on.
            unsafe { read_f32(group, row, k, group.layout == Layout::KContiguous, store) };
        }
    }
}

/// Defines the AVX-512 version of the epilogue, once for each way to round to bf16.
macro_rules! finish_function {
    ($name:ident, $features:literal, $round:expr) => {
        /// [`finish`](super::epilogue::finish) in AVX-512.
        ///
        /// # Safety
        /// As there.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(
            tile: *const f32,
            tile_stride: usize,
            rows: usize,
            columns: usize,
            to: &super::epilogue::Destination,
        ) {
            let scale = _mm512_set1_ps(to.scale);
            for column in (0..columns).step_by(SQUARE) {
                let mask = lanes16(columns - column);
                // SAFETY: masks leave out what is beyond `columns`; the rest is what the caller promises.
                unsafe {
                    let bias = match to.bias {
                        Some(bias) => _mm512_maskz_loadu_ps(mask, bias.add(column)),
                        None => _mm512_setzero_ps(),
                    };
                    for row in 0..rows {
                        let sum = _mm512_maskz_loadu_ps(mask, tile.add(row * tile_stride + column));
                        let mut value = _mm512_mul_ps(scale, sum);
                        if to.bias.is_some() {
                            value = _mm512_add_ps(value, bias);
                        }
                        if let Some((address, dtype, stride)) = to.addend {
                            let offset = row * stride + column;
                            let half = || _mm256_maskz_loadu_epi16(mask, address.add(2 * offset).cast());
                            let addend = match dtype {
                                DType::Bf16 => {
                                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half())))
                                }
                                DType::F16 => _mm512_cvtph_ps(half()),
                                _ => _mm512_maskz_loadu_ps(mask, address.add(4 * offset).cast()),
                            };
                            value = _mm512_add_ps(value, addend);
                        }
                        let offset = row * to.stride + column;
                        let store = |half| _mm256_mask_storeu_epi16(to.address.add(2 * offset).cast(), mask, half);
                        match to.dtype {
                            DType::Bf16 => store($round(value)),
                            DType::F16 => store(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)),
                            _ => _mm512_mask_storeu_ps(to.address.add(4 * offset).cast(), mask, value),
                        }
                    }
                }
            }
        }
    };
}

use crate::DType;

finish_function!(finish_bf16, "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16", |value| std::mem::transmute::<
    __m256bh,
    __m256i,
>(_mm512_cvtneps_pbh(value)));
finish_function!(finish_f32, "avx512f,avx512dq,avx512bw,avx512vl", |value: __m512| {
    let bits = _mm512_castps_si512(value);
    let high = _mm512_srli_epi32::<16>(bits);
    let tie = _mm512_and_si512(high, _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), tie);
    let quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
    _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), nan, quiet))
});
