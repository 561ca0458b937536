//! Sixteen numbers at a time. A row kernel is written once over [`Lanes`] and compiled for each instruction set: on AVX-512
//! a register with fused multiply-add, elsewhere an array that the compiler makes vectors of. Each function of a register
//! is tested against the array's.

use super::Isa;
use super::element::Element;
use super::math;

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen f32.
pub(crate) trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    /// The first sixteen of `from`, which has as many.
    fn load<E: Element>(from: &[E]) -> Self;
    /// All of `from`, which has fewer, then zeros.
    fn load_some<E: Element>(from: &[E]) -> Self;
    /// To the first sixteen of `to`, which has as many.
    fn store<E: Element>(self, to: &mut [E]);
    /// To all of `to`, which has fewer.
    fn store_some<E: Element>(self, to: &mut [E]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once or twice.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    fn max(self, other: Self) -> Self;
    /// e^self within 2e-7 relative; 0 far below zero. Not for infinities above.
    fn exp(self) -> Self;
    /// 1 / self within 3e-7 relative, for normal numbers.
    fn reciprocal(self) -> Self;
    /// The sum, in a fixed order.
    fn sum(self) -> f32;
    fn largest(self) -> f32;
}

/// Work that is compiled for each kind of vector.
pub(crate) trait LaneTask {
    type Output;
    /// Implementations are `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

impl Isa {
    /// Runs `task` with this set's vectors.
    #[inline]
    pub(crate) fn lanes<T: LaneTask>(self, task: T) -> T::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` other than `Portable` exists only where detection found its features, and a processor with
            // bf16 tiles has bf16 vectors.
            Self::Amx => unsafe { wide::run_bf16(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { wide::run(task) },
            _ => self.run(
                #[inline(always)]
                || task.run::<Plain>(),
            ),
        }
    }
}

/// Vectors of a row: `whole(i)` for each full one that starts at i, then `rest(i)` for what is left, if anything.
macro_rules! each_vector {
    ($count:expr, |$first:ident| $whole:expr, $rest:expr) => {{
        let count = $count;
        let full = count / $crate::cpu::lanes::LANES * $crate::cpu::lanes::LANES;
        let mut $first = 0;
        while $first < full {
            $whole;
            $first += $crate::cpu::lanes::LANES;
        }
        if $first < count {
            $rest;
        }
    }};
}
pub(crate) use each_vector;

/// An array.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) -> Self {
        Self(std::array::from_fn(
            #[inline(always)]
            |lane| function(self.0[lane]),
        ))
    }

    #[inline(always)]
    fn zip(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(
            #[inline(always)]
            |lane| function(self.0[lane], other.0[lane]),
        ))
    }
}

impl Lanes for Plain {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load<E: Element>(from: &[E]) -> Self {
        let from = &from[..LANES];
        Self(std::array::from_fn(
            #[inline(always)]
            |lane| from[lane].load(),
        ))
    }
    #[inline(always)]
    fn load_some<E: Element>(from: &[E]) -> Self {
        let mut lanes = [0.0; LANES];
        lanes.iter_mut().zip(from).for_each(|(lane, number)| *lane = number.load());
        Self(lanes)
    }
    #[inline(always)]
    fn store<E: Element>(self, to: &mut [E]) {
        let to = &mut to[..LANES];
        to.iter_mut().zip(self.0).for_each(|(number, lane)| *number = E::store(lane));
    }
    #[inline(always)]
    fn store_some<E: Element>(self, to: &mut [E]) {
        to.iter_mut().zip(self.0).for_each(|(number, lane)| *number = E::store(lane));
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self.mul(factor).add(addend)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if b > a { b } else { a })
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.map(math::exp)
    }
    #[inline(always)]
    fn reciprocal(self) -> Self {
        self.map(|x| 1.0 / x)
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        math::add_lanes(self.0)
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    use super::{Element, LANES, LaneTask, Lanes};
    use crate::DType;

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
    pub(super) fn run_bf16<T: LaneTask>(task: T) -> T::Output {
        task.run::<Wide<true>>()
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
    pub(super) fn run<T: LaneTask>(task: T) -> T::Output {
        task.run::<Wide<false>>()
    }

    /// A register. `BF16`: the processor converts to bf16. It exists only inside the two functions above, which is what
    /// makes every intrinsic below safe to call; loads and stores stay inside the slices that they are given.
    #[derive(Clone, Copy)]
    pub(super) struct Wide<const BF16: bool>(__m512);

    #[inline(always)]
    fn mask(count: usize) -> u16 {
        debug_assert!(count < LANES);
        (1u16 << count) - 1
    }

    impl<const BF16: bool> Wide<BF16> {
        #[inline(always)]
        fn to_bf16(self) -> __m256i {
            // SAFETY: see the type.
            unsafe {
                if BF16 {
                    return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0));
                }
                let bits = _mm512_castps_si512(self.0);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(nan, rounded, quiet)))
            }
        }

        #[inline(always)]
        fn to_f16(self) -> __m256i {
            // SAFETY: see the type.
            unsafe { _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0) }
        }

        #[inline(always)]
        fn from_bf16(halves: __m256i) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))) }
        }
    }

    impl<const BF16: bool> Lanes for Wide<BF16> {
        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        fn load<E: Element>(from: &[E]) -> Self {
            let from = &from[..LANES];
            // SAFETY: see the type; sixteen numbers of this storage type are there.
            unsafe {
                match E::DTYPE {
                    DType::Bf16 => Self::from_bf16(_mm256_loadu_si256(from.as_ptr().cast())),
                    DType::F16 => Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))),
                    _ => Self(_mm512_loadu_ps(from.as_ptr().cast())),
                }
            }
        }
        #[inline(always)]
        fn load_some<E: Element>(from: &[E]) -> Self {
            // SAFETY: see the type; only the numbers that are there are read.
            unsafe {
                match E::DTYPE {
                    DType::Bf16 => Self::from_bf16(_mm256_maskz_loadu_epi16(mask(from.len()), from.as_ptr().cast())),
                    DType::F16 => {
                        Self(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(from.len()), from.as_ptr().cast())))
                    }
                    _ => Self(_mm512_maskz_loadu_ps(mask(from.len()), from.as_ptr().cast())),
                }
            }
        }
        #[inline(always)]
        fn store<E: Element>(self, to: &mut [E]) {
            let to = &mut to[..LANES];
            // SAFETY: see the type; there is room for sixteen numbers of this storage type.
            unsafe {
                match E::DTYPE {
                    DType::Bf16 => _mm256_storeu_si256(to.as_mut_ptr().cast(), self.to_bf16()),
                    DType::F16 => _mm256_storeu_si256(to.as_mut_ptr().cast(), self.to_f16()),
                    _ => _mm512_storeu_ps(to.as_mut_ptr().cast(), self.0),
                }
            }
        }
        #[inline(always)]
        fn store_some<E: Element>(self, to: &mut [E]) {
            // SAFETY: see the type; only the numbers that are there are written.
            unsafe {
                match E::DTYPE {
                    DType::Bf16 => _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask(to.len()), self.to_bf16()),
                    DType::F16 => _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask(to.len()), self.to_f16()),
                    _ => _mm512_mask_storeu_ps(to.as_mut_ptr().cast(), mask(to.len()), self.0),
                }
            }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn mul_add(self, factor: Self, addend: Self) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)) }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: see the type.
            unsafe { Self(_mm512_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        fn exp(self) -> Self {
            // SAFETY: see the type. The range reduction and polynomial of `math::exp`; a NaN stays one because it is the
            // second operand of the maximum.
            unsafe {
                let x = _mm512_max_ps(_mm512_set1_ps(-104.0), self.0);
                let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
                let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
                let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
                let mut p = _mm512_set1_ps(1.987_569_1e-4);
                for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5f32] {
                    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
                }
                let p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0)));
                Self(_mm512_scalef_ps(p, n))
            }
        }
        #[inline(always)]
        fn reciprocal(self) -> Self {
            // SAFETY: see the type. One step of Newton's method on the processor's fourteen bits; for infinity, whose
            // product with the guess 0 is no number, the guess itself.
            unsafe {
                let guess = _mm512_rcp14_ps(self.0);
                let error = _mm512_fnmadd_ps(self.0, guess, _mm512_set1_ps(1.0));
                let better = _mm512_fmadd_ps(guess, error, guess);
                let undefined = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(better, better);
                Self(_mm512_mask_blend_ps(undefined, better, guess))
            }
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            // SAFETY: see the type.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: see the type.
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::{Bf16, F16};
    use super::*;

    struct Functions<'a>(&'a [f32]);

    impl LaneTask for Functions<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<L: Lanes>(self) -> Vec<f32> {
            let mut out = Vec::new();
            for part in self.0.chunks(LANES) {
                let x = if part.len() == LANES { L::load(part) } else { L::load_some(part) };
                let half = L::splat(0.5);
                let results = [
                    x.exp(),
                    x.add(L::splat(200.0)).reciprocal(),
                    x.mul_add(half, half),
                    x.sub(half).mul(x).max(half).add(x),
                ];
                for result in results {
                    let mut stored = vec![0.0f32; part.len()];
                    let mut rounded = vec![Bf16(0); part.len()];
                    let mut halves = vec![F16(0); part.len()];
                    let again = if part.len() == LANES {
                        result.store(&mut stored);
                        result.store(&mut rounded);
                        result.store(&mut halves);
                        L::load(&halves)
                    } else {
                        result.store_some(&mut stored);
                        result.store_some(&mut rounded);
                        result.store_some(&mut halves);
                        L::load_some(&halves)
                    };
                    out.extend(stored);
                    out.extend(rounded.into_iter().map(Element::load));
                    out.extend(halves.into_iter().map(Element::load));
                    out.push(again.mul_add(L::splat(1e-3), L::splat(0.0)).largest());
                }
                out.extend([x.sum(), x.max(L::splat(-1e9)).largest()]);
            }
            out
        }
    }

    #[test]
    fn registers_compute_what_arrays_do() {
        let inputs: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.17).chain([-200.0, -0.0, 1e-30]).collect();
        let expected = Functions(&inputs).run::<Plain>();
        for isa in Isa::available() {
            let found = isa.lanes(Functions(&inputs));
            for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Two roundings to bf16 may fall on either side.
                let near = found == expected || (found - expected).abs() <= 8e-3 * expected.abs() + 1e-4;
                assert!(near, "{} {index}: {found} {expected}", isa.name());
            }
        }
    }

    #[test]
    fn exp_and_reciprocal_are_precise() {
        struct Both(f32);
        impl LaneTask for Both {
            type Output = (f32, f32);
            #[inline(always)]
            fn run<L: Lanes>(self) -> (f32, f32) {
                let (mut exp, mut reciprocal) = ([0.0; LANES], [0.0; LANES]);
                L::splat(self.0).exp().store(&mut exp);
                L::splat(self.0).reciprocal().store(&mut reciprocal);
                (exp[3], reciprocal[3])
            }
        }
        for isa in Isa::available() {
            for step in -8700..8800 {
                let x = step as f32 * 0.01 + 0.001;
                let (exp, reciprocal) = isa.lanes(Both(x));
                let expected = f64::from(x).exp();
                assert!((f64::from(exp) - expected).abs() <= 3e-7 * expected, "exp {x} on {}", isa.name());
                assert!((f64::from(reciprocal) * f64::from(x) - 1.0).abs() <= 3e-7, "1/{x} on {}", isa.name());
            }
            assert_eq!(isa.lanes(Both(f32::NEG_INFINITY)).0, 0.0);
            assert!(isa.lanes(Both(f32::NAN)).0.is_nan());
            assert_eq!(isa.lanes(Both(f32::INFINITY)).1, 0.0);
        }
    }
}
