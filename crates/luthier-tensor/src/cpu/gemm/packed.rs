//! The building blocks of kernels that are more than a product, such as attention: pack operands once, multiply packed
//! operands on one thread. Sums are the same chains as in [`super::gemm`].

use super::kernel::{MAX_PANEL, MicroKernel, Side, unit_bytes};
use super::pack::pack;
use super::{Compute, Operand, with_kernel};
use crate::cpu::isa::Isa;

/// A micro-kernel, chosen by instruction set and way to compute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    isa: Isa,
    compute: Compute,
}

impl Kernels {
    /// `isa` is available.
    pub(crate) fn new(isa: Isa, compute: Compute) -> Self {
        Self { isa, compute }
    }

    /// Bytes of A `[m, k]` once packed. Rows are padded to whole panels.
    pub(crate) fn packed_a_bytes(&self, m: usize, k: usize) -> usize {
        with_kernel!(self.isa, self.compute, packed_bytes(Side::A, m, k))
    }

    /// Bytes of B `[n, k]` once packed; as [`packed_a_bytes`](Self::packed_a_bytes).
    pub(crate) fn packed_b_bytes(&self, n: usize, k: usize) -> usize {
        with_kernel!(self.isa, self.compute, packed_bytes(Side::B, n, k))
    }

    /// Packs A `[m, k]`.
    ///
    /// # Safety
    /// The operand is readable; `out` has [`packed_a_bytes`](Self::packed_a_bytes).
    pub(crate) unsafe fn pack_a(&self, a: &Operand, m: usize, k: usize, out: *mut u8) {
        // SAFETY: passed on.
        unsafe { with_kernel!(self.isa, self.compute, pack_whole(Side::A, a, m, k, out)) };
    }

    /// Packs B `[n, k]`.
    ///
    /// # Safety
    /// The operand is readable; `out` has [`packed_b_bytes`](Self::packed_b_bytes).
    pub(crate) unsafe fn pack_b(&self, b: &Operand, n: usize, k: usize, out: *mut u8) {
        // SAFETY: passed on.
        unsafe { with_kernel!(self.isa, self.compute, pack_whole(Side::B, b, n, k, out)) };
    }

    /// `c = A B^T`, or `c += A B^T` when `accumulate`: c is f32 `[m, n]` with `c_stride` numbers from row to row.
    ///
    /// # Safety
    /// Both operands are packed for `m`, `n` and `k`; c is writable, and readable when `accumulate`.
    #[expect(clippy::too_many_arguments, reason = "the whole of a product in one call, as BLAS has it")]
    pub(crate) unsafe fn multiply(
        &self,
        m: usize,
        n: usize,
        k: usize,
        a_packed: *const u8,
        b_packed: *const u8,
        c: *mut f32,
        c_stride: usize,
        accumulate: bool,
    ) {
        let packed = (a_packed, b_packed);
        // SAFETY: passed on.
        unsafe { with_kernel!(self.isa, self.compute, multiply_whole(m, n, k, packed, c, c_stride, accumulate)) };
    }
}

fn packed_bytes<K: MicroKernel>(side: Side, rows: usize, k: usize) -> usize {
    let panel_rows = if side == Side::A { K::ROWS } else { K::COLUMNS };
    rows.div_ceil(panel_rows) * k.div_ceil(K::UNIT) * unit_bytes::<K>(side)
}

/// # Safety
/// As for [`Kernels::pack_a`].
unsafe fn pack_whole<K: MicroKernel>(side: Side, operand: &Operand, rows: usize, k: usize, out: *mut u8) {
    let panel_stride = k.div_ceil(K::UNIT) * unit_bytes::<K>(side);
    // SAFETY: passed on.
    unsafe { pack::<K>(side, operand, 0, rows, 0, k, out, panel_stride) };
}

/// # Safety
/// As for [`Kernels::multiply`].
unsafe fn multiply_whole<K: MicroKernel>(
    m: usize,
    n: usize,
    k: usize,
    (a, b): (*const u8, *const u8),
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
) {
    let units = k.div_ceil(K::UNIT);
    let mut edge = [0.0f32; MAX_PANEL * MAX_PANEL];
    // SAFETY: tiles that are whole are written in place; others by way of `edge`, which holds a whole tile.
    unsafe {
        K::enter();
        for column in (0..n).step_by(K::COLUMNS) {
            let columns = K::COLUMNS.min(n - column);
            let b = b.add(column / K::COLUMNS * units * unit_bytes::<K>(Side::B));
            for row in (0..m).step_by(K::ROWS) {
                let rows = K::ROWS.min(m - row);
                let a = a.add(row / K::ROWS * units * unit_bytes::<K>(Side::A));
                let c = c.add(row * c_stride + column);
                if rows == K::ROWS && columns == K::COLUMNS {
                    K::multiply(rows, columns, units, a, b, c, c_stride, accumulate);
                    continue;
                }
                let edge = edge.as_mut_ptr();
                if accumulate {
                    for i in 0..rows {
                        std::ptr::copy_nonoverlapping(c.add(i * c_stride), edge.add(i * K::COLUMNS), columns);
                    }
                }
                K::multiply(rows, columns, units, a, b, edge, K::COLUMNS, accumulate);
                for i in 0..rows {
                    std::ptr::copy_nonoverlapping(edge.add(i * K::COLUMNS), c.add(i * c_stride), columns);
                }
            }
        }
        K::leave();
    }
}
