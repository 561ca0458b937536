//! The loops of the rules in `crate::optimisers`. A rule first asks [`Cpu::clip`] whether the step counts at all. Threads
//! take pieces of fixed size, so that they never change a number.

mod adafactor;
mod adam_mini;
mod adamw_8bit;
mod low_rank;
mod muon;
mod product;
mod random;
mod simple;
mod singular;

use super::Cpu;
use super::element::Rows;
use crate::Tensor;
use crate::optimisers::Gate;

/// Numbers that one task takes.
const PIECE: usize = 1 << 13;

impl Cpu {
    /// The factor of the gradients; `None` where the norm is not finite.
    pub(crate) fn clip(&self, gate: Gate) -> Option<f32> {
        // SAFETY: the norm is there, and nothing writes it now.
        let norm = unsafe { Rows::<f32>::of(gate.norm).row(0) }[0];
        let clip = gate.max_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0)) * gate.gradient_scale;
        norm.is_finite().then_some(clip)
    }

    /// Calls `body` on pieces of `read` and, at the same place, of each of `written`: all f32, of as many numbers.
    fn pieces<const N: usize>(
        &self,
        read: &Tensor,
        written: [&Tensor; N],
        body: impl Fn(&[f32], [&mut [f32]; N]) + Sync,
    ) {
        let length = read.len();
        let flat = |tensor: &Tensor| tensor.reshape(1, length);
        let numbers = Rows::<f32>::of(&flat(read));
        let rows = written.map(|tensor| Rows::<f32>::of_mut(&flat(tensor)));
        self.pool.run_rows(length, PIECE, |range| {
            // SAFETY: each task has its own range of each tensor, and the tensors are different memory.
            let (numbers, parts) = unsafe {
                let parts = rows.map(|rows| rows.part_mut(0, range.start, range.len()));
                (numbers.part(0, range.start, range.len()), parts)
            };
            self.isa.run(
                #[inline(always)]
                || body(numbers, parts),
            );
        });
    }
}

/// The numbers of a small f32 tensor.
///
/// # Safety
/// Nobody writes it during `'a`.
unsafe fn numbers<'a>(tensor: &Tensor) -> &'a [f32] {
    // SAFETY: all of the tensor's numbers are there; the rest is the caller's promise.
    unsafe { Rows::<f32>::of(&tensor.reshape(1, tensor.len())).row(0) }
}

/// The same, to write.
///
/// # Safety
/// Nobody else reads or writes it during `'a`.
unsafe fn numbers_mut<'a>(tensor: &Tensor) -> &'a mut [f32] {
    // SAFETY: all of the tensor's numbers are there; the rest is the caller's promise.
    unsafe { Rows::<f32>::of_mut(&tensor.reshape(1, tensor.len())).row_mut(0) }
}

/// The sum of squares, in f64 and in order.
fn sum_of_squares(numbers: &[f32]) -> f64 {
    // Eight chains, so that one addition need not wait for the last.
    let mut sums = [0.0f64; 8];
    let (eights, rest) = numbers.as_chunks::<8>();
    for eight in eights {
        for (sum, number) in sums.iter_mut().zip(eight) {
            *sum += f64::from(*number) * f64::from(*number);
        }
    }
    let rest: f64 = rest.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
    sums.iter().sum::<f64>() + rest
}

/// `1 - beta^step`, which corrects a mean that began at zero.
fn correction(beta: f32, step: u32) -> f64 {
    1.0 - f64::from(beta).powi(step as i32)
}
