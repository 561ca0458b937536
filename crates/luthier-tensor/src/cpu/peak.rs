//! The processor's peak: a loop of the multiply-add instruction that a precision uses, on registers alone. It says what no
//! kernel can exceed; the caller times it.

use super::gemm::Compute;
use super::{Cpu, Isa};

impl Cpu {
    /// Runs the loop `rounds` times on every thread and returns the multiply-adds that were done.
    pub(crate) fn peak_loop(&self, compute: Compute, threads: usize, rounds: u64) -> u64 {
        let each = one_thread(self.isa, compute, 1);
        // More tasks than threads would be taken by whoever is free; as many as threads are one each, as all take long.
        self.pool.run(threads, |_| {
            std::hint::black_box(one_thread(self.isa, compute, rounds));
        });
        each * rounds * threads as u64
    }
}

/// Multiply-adds of `rounds` rounds, done.
fn one_thread(isa: Isa, compute: Compute, rounds: u64) -> u64 {
    match (isa, compute) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx, Compute::Bf16) => x86::tiles(rounds),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, Compute::Bf16) if isa.bf16_multiplies() => x86::bf16_pairs(rounds),
        #[cfg(target_arch = "x86_64")]
        (Isa::Amx | Isa::Avx512, _) => x86::wide(rounds),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => x86::narrow(rounds),
        _ => portable(rounds),
    }
}

/// Eight chains of eight numbers, multiplied and added apart, as the portable kernel does.
fn portable(rounds: u64) -> u64 {
    let factor = std::hint::black_box([0.999f32; 8]);
    let mut sums = std::hint::black_box([[0.0f32; 8]; 8]);
    for _ in 0..rounds {
        for sum in &mut sums {
            for (sum, factor) in sum.iter_mut().zip(&factor) {
                *sum = *sum * factor + factor;
            }
        }
    }
    std::hint::black_box(sums);
    rounds * 64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    /// One loop of sixteen independent instructions on the registers 0 to 15, factors in 30 and 31.
    macro_rules! sixteen {
        ($rounds:expr, $instruction:literal, $register:literal) => {
            asm!(
                "2:",
                concat!($instruction, " ", $register, "0, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "1, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "2, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "3, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "4, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "5, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "6, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "7, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "8, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "9, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "10, ", $register, "14, ", $register, "15"),
                concat!($instruction, " ", $register, "11, ", $register, "14, ", $register, "15"),
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) $rounds => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                in("xmm14") 0.0f32, in("xmm15") 0.0f32,
                options(nomem, nostack)
            )
        };
    }

    const INSTRUCTIONS: u64 = 12;

    pub(super) fn wide(rounds: u64) -> u64 {
        // SAFETY: called only where the instruction set has AVX-512; the named registers are all that changes.
        unsafe { sixteen!(rounds, "vfmadd231ps", "zmm") };
        rounds * INSTRUCTIONS * 16
    }

    pub(super) fn bf16_pairs(rounds: u64) -> u64 {
        // SAFETY: called only where the processor multiplies bf16; the named registers are all that changes.
        unsafe { sixteen!(rounds, "vdpbf16ps", "zmm") };
        rounds * INSTRUCTIONS * 32
    }

    pub(super) fn narrow(rounds: u64) -> u64 {
        // SAFETY: called only where the instruction set has AVX2 and FMA; the named registers are all that changes.
        unsafe { sixteen!(rounds, "vfmadd231ps", "ymm") };
        rounds * INSTRUCTIONS * 8
    }

    pub(super) fn tiles(rounds: u64) -> u64 {
        crate::cpu::gemm::with_tiles(|| {
            // SAFETY: the tiles are configured; they are all that changes.
            unsafe {
                asm!(
                    "2:",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm5, tmm6",
                    "tdpbf16ps tmm2, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "dec {rounds}",
                    "jnz 2b",
                    rounds = inout(reg) rounds => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nomem, nostack)
                );
            }
        });
        rounds * 4 * 16 * 16 * 32
    }
}
