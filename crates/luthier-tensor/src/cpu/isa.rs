//! Instruction sets. A kernel's loops are written once in plain Rust; [`Isa::run`] compiles them for each set, and the
//! GEMM micro-kernels alone have versions in intrinsics. Multiplications and additions are never contracted by the
//! compiler, so elementwise kernels give the same bytes on every set.

/// The instructions that a device uses, chosen once when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Everything of `Avx512`, and the matrix unit's tiles for bf16 products.
    Amx,
    /// 512-bit vectors. Where the processor multiplies bf16 pairs as well, bf16 products use that.
    Avx512,
    /// 256-bit vectors with fused multiply-add, and conversion from f16.
    Avx2,
    /// What every processor of the target has.
    Portable,
}

impl Isa {
    /// The best that this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// Every set that this processor has, best first. Asks the operating system for the matrix unit where there is one.
    pub fn available() -> Vec<Self> {
        let mut available = Vec::with_capacity(4);
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::is_x86_feature_detected!("avx2")
                && std::is_x86_feature_detected!("fma")
                && std::is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512dq")
                && std::is_x86_feature_detected!("avx512bw")
                && std::is_x86_feature_detected!("avx512vl");
            if avx512 && std::is_x86_feature_detected!("avx512bf16") && amx::is_granted() {
                available.push(Self::Amx);
            }
            if avx512 {
                available.push(Self::Avx512);
            }
            if avx2 {
                available.push(Self::Avx2);
            }
        }
        available.push(Self::Portable);
        available
    }

    /// The set of this name, when it is one and this processor has it.
    ///
    /// # Errors
    /// A sentence with the names that can be used here.
    pub fn named(name: &str) -> Result<Self, String> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            format!("instruction set {name:?} cannot be used on this processor; it has {}", names.join(", "))
        })
    }

    /// The name that `LUTHIER_CPU` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Whether bf16 operands are multiplied as they are, which is then the fastest way; elsewhere a product of bf16
    /// operands is computed in f32.
    pub fn bf16_multiplies(self) -> bool {
        match self {
            Self::Amx => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => std::is_x86_feature_detected!("avx512bf16"),
            _ => false,
        }
    }

    /// Runs `body`, which should be marked `#[inline(always)]`, compiled for this set.
    #[inline]
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` other than `Portable` exists only where detection found its features.
            Self::Amx | Self::Avx512 => unsafe { run_avx512(body) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { run_avx2(body) },
            _ => body(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
fn run_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// The matrix unit needs three consents: the processor's, the operating system's, and one for this process.
#[cfg(target_arch = "x86_64")]
mod amx {
    pub(super) fn is_granted() -> bool {
        static GRANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *GRANTED.get_or_init(ask)
    }

    #[cfg(not(target_os = "linux"))]
    fn ask() -> bool {
        false
    }

    #[cfg(target_os = "linux")]
    fn ask() -> bool {
        use std::arch::asm;
        use std::arch::x86_64::{__cpuid, __cpuid_count};

        const OSXSAVE: u32 = 1 << 27;
        const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        const TILE_CONFIGURATION_AND_DATA: u32 = 1 << 17 | 1 << 18;
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const TILE_DATA: u64 = 18;

        if __cpuid(0).eax < 7
            || __cpuid(1).ecx & OSXSAVE == 0
            || __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE != AMX_BF16_AND_TILE
        {
            return false;
        }
        let enabled: u32;
        // SAFETY: OSXSAVE says that this register may be read; nothing but the named registers changes.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack)) };
        if enabled & TILE_CONFIGURATION_AND_DATA != TILE_CONFIGURATION_AND_DATA {
            return false;
        }
        let result: i64;
        // SAFETY: this call enlarges what the kernel saves of this process's registers and changes nothing else; a kernel
        // that does not know it returns an error. Threads, present and future, share the permission.
        unsafe {
            asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
                out("rcx") _, out("r11") _, options(nostack));
        }
        result == 0
    }
}

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn names_select_available_sets_only() {
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()), Ok(isa));
        }
        let error = Isa::named("sse9").expect_err("no such set");
        assert!(error.contains("portable"), "{error}");
    }

    #[test]
    fn multiplications_and_additions_are_not_contracted() {
        let (a, b, c) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON, -1.0);
        let (a, b, c) = std::hint::black_box((a, b, c));
        for isa in Isa::available() {
            let result = isa.run(
                #[inline(always)]
                || a * b + c,
            );
            assert_eq!(result, 0.0, "{isa:?}");
        }
    }
}
