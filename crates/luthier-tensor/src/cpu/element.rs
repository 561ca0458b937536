//! Numbers as they are stored and rows as threads see them. Arithmetic is f32 everywhere; a kernel is generic over what
//! it loads and stores, which is f32, bf16 or f16.

use super::gemm::decode::{f16_to_f32, f32_to_f16};
use crate::{DType, Tensor};

/// A stored number that kernels read and write as f32.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    const DTYPE: DType;
    fn load(self) -> f32;
    fn store(value: f32) -> Self;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        value
    }
}

/// bfloat16: the upper half of an f32, rounded to nearest even.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

impl Element for Bf16 {
    const DTYPE: DType = DType::Bf16;
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN must not round to infinity: keep its upper half and make it quiet.
        let quiet = (bits >> 16) | 0x40;
        Self(if value.is_nan() { quiet as u16 } else { rounded as u16 })
    }
}

/// IEEE binary16, rounded to nearest even; infinite from 65520 on.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

impl Element for F16 {
    const DTYPE: DType = DType::F16;
    #[inline(always)]
    fn load(self) -> f32 {
        f16_to_f32(self.0)
    }
    #[inline(always)]
    fn store(value: f32) -> Self {
        Self(f32_to_f16(value))
    }
}

/// The bits of the bf16 nearest to `value`.
pub fn bf16_bits(value: f32) -> u16 {
    Bf16::store(value).0
}

/// The bits of the IEEE binary16 nearest to `value`: rounded to even, infinite from 65520 on.
pub fn f16_bits(value: f32) -> u16 {
    f32_to_f16(value)
}

/// The rows of a tensor by address, to be shared by threads that write different ones.
#[derive(Clone, Copy)]
pub(crate) struct Rows<E> {
    address: *mut E,
    stride: usize,
    width: usize,
}

// SAFETY: an address only; every access goes through the unsafe row functions, whose callers keep rows apart.
unsafe impl<E> Send for Rows<E> {}
// SAFETY: as above.
unsafe impl<E> Sync for Rows<E> {}

impl Rows<u8> {
    /// All bytes of `tensor` as one row.
    pub(crate) fn bytes(tensor: &Tensor) -> Self {
        let width = tensor.bytes();
        Self { address: tensor.address().cast_mut(), stride: width, width }
    }

    /// The same, for writing.
    pub(crate) fn bytes_mut(tensor: &Tensor) -> Self {
        Self { address: tensor.address_mut(), ..Self::bytes(tensor) }
    }
}

impl<E> Rows<E> {
    /// Address of row `row`, column `column`.
    pub(crate) fn at(self, row: usize, column: usize) -> *mut E {
        self.address.wrapping_add(row * self.stride + column)
    }
}

impl<E: Element> Rows<E> {
    /// The rows of `tensor`, for reading.
    ///
    /// # Panics
    /// When it stores something else.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        assert_eq!(tensor.dtype(), E::DTYPE, "storage of {tensor:?}");
        Self { address: tensor.address().cast_mut().cast(), stride: tensor.columns(), width: tensor.columns() }
    }

    /// The rows of `tensor`, for writing too.
    pub(crate) fn of_mut(tensor: &Tensor) -> Self {
        assert_eq!(tensor.dtype(), E::DTYPE, "storage of {tensor:?}");
        Self { address: tensor.address_mut().cast(), stride: tensor.columns(), width: tensor.columns() }
    }
}

impl Rows<u32> {
    /// The rows of a tensor of ids, for reading.
    ///
    /// # Panics
    /// When it stores something else.
    pub(crate) fn ids(tensor: &Tensor) -> Self {
        assert_eq!(tensor.dtype(), DType::U32, "storage of {tensor:?}");
        Self { address: tensor.address().cast_mut().cast(), stride: tensor.columns(), width: tensor.columns() }
    }

    /// The rows of a tensor of ids, for writing too.
    pub(crate) fn ids_mut(tensor: &Tensor) -> Self {
        assert_eq!(tensor.dtype(), DType::U32, "storage of {tensor:?}");
        Self { address: tensor.address_mut().cast(), stride: tensor.columns(), width: tensor.columns() }
    }
}

impl<E: Copy> Rows<E> {
    pub(crate) fn width(self) -> usize {
        self.width
    }

    pub(crate) fn stride(self) -> usize {
        self.stride
    }

    /// Row `row`.
    ///
    /// # Safety
    /// The row exists, its tensor is alive, and nobody writes it during `'a`.
    pub(crate) unsafe fn row<'a>(self, row: usize) -> &'a [E] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts(self.at(row, 0), self.width) }
    }

    /// Row `row`, to write.
    ///
    /// # Safety
    /// The row exists, its tensor is alive, and nobody else reads or writes it during `'a`.
    pub(crate) unsafe fn row_mut<'a>(self, row: usize) -> &'a mut [E] {
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(row, 0), self.width) }
    }

    /// Columns `first .. first + count` of row `row`, to write.
    ///
    /// # Safety
    /// As [`row_mut`](Self::row_mut), for these columns.
    pub(crate) unsafe fn part_mut<'a>(self, row: usize, first: usize, count: usize) -> &'a mut [E] {
        debug_assert!(first + count <= self.width);
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(row, first), count) }
    }

    /// Columns `first .. first + count` of row `row`.
    ///
    /// # Safety
    /// As [`row`](Self::row), for these columns.
    pub(crate) unsafe fn part<'a>(self, row: usize, first: usize, count: usize) -> &'a [E] {
        debug_assert!(first + count <= self.width);
        // SAFETY: promised by the caller.
        unsafe { std::slice::from_raw_parts(self.at(row, first), count) }
    }
}

/// Runs `$body` with `$element` standing for the Rust type that `$dtype` stores.
macro_rules! with_element {
    ($dtype:expr, $element:ident, $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $element = f32;
                $body
            }
            $crate::DType::Bf16 => {
                type $element = $crate::cpu::element::Bf16;
                $body
            }
            $crate::DType::F16 => {
                type $element = $crate::cpu::element::F16;
                $body
            }
            other => unreachable!("activations are f32, bf16 or f16, not {other}"),
        }
    };
}
pub(crate) use with_element;

/// The bytes of plain numbers.
pub(crate) fn bytes_of<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: only called with f32 and u32, whose bytes are all initialised; u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_the_nearest_and_reads_back() {
        for bits in 0..=0x7c00u16 {
            let value = f16_to_f32(bits);
            assert_eq!((f16_bits(value), f16_bits(-value)), (bits, bits | 0x8000), "{value}");
            if bits < 0x7bff {
                let next = f16_to_f32(bits + 1);
                let middle = (value + next) * 0.5;
                assert_eq!(f16_bits(middle), bits + (bits & 1), "between {value} and {next}");
            }
        }
        assert_eq!((f16_bits(65_519.9), f16_bits(65_520.0)), (0x7bff, 0x7c00));
        assert!(f16_to_f32(f16_bits(f32::NAN)).is_nan());
    }

    #[test]
    fn bf16_rounds_to_nearest_even_and_keeps_nan() {
        let check = |value: f32, bits: u16| assert_eq!(Bf16::store(value).0, bits, "{value}");
        check(1.0, 0x3f80);
        check(f32::from_bits(0x3f80_8000), 0x3f80);
        check(f32::from_bits(0x3f81_8000), 0x3f82);
        check(f32::from_bits(0x3f80_8001), 0x3f81);
        check(f32::MAX, 0x7f80);
        check(f32::NEG_INFINITY, 0xff80);
        assert!(Bf16::store(f32::NAN).load().is_nan());
        assert!(Bf16::store(f32::from_bits(0x7f80_0001)).load().is_nan());
    }
}
