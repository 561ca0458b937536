//! Numbers as files store them: rounded once, to the nearest, as the programs that read the files would have done it; in
//! blocks, with the scales that leave the least error.

use luthier_tensor::{DType, Device, bf16_bits, encode_blocks, f16_bits};

/// A number that the storage type has no place for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// The number.
    pub number: f32,
    /// The storage type.
    pub dtype: DType,
}

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, dtype } = self;
        match number.is_finite() {
            true => write!(f, "the number {number} is too large for {dtype}; use bf16 or f32"),
            false => write!(f, "{number} has no place in blocks of {dtype}; the model or its adapter is damaged"),
        }
    }
}

impl std::error::Error for OutOfRange {}

/// Little-endian bytes of `values` in `dtype`: f32, bf16, f16, or blocks, of which the values are a whole number.
///
/// # Errors
/// When a finite number would become infinite, or blocks are to hold one that is not finite.
///
/// # Panics
/// When `dtype` is for ids, or blocks are not whole: a caller chooses both, no input does.
pub fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, OutOfRange> {
    encode_with(values, dtype, || {
        let mut bytes = vec![0; dtype.bytes(values.len())];
        encode_blocks(dtype, values, &mut bytes);
        bytes
    })
}

/// As [`encode`], with blocks made by the device's threads: the same bytes.
pub(crate) fn encode_on(device: &Device, values: &[f32], dtype: DType) -> Result<Vec<u8>, OutOfRange> {
    encode_with(values, dtype, || device.encode(values, dtype))
}

fn encode_with(values: &[f32], dtype: DType, blocks: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, OutOfRange> {
    const FIRST_TOO_LARGE: f32 = 65_520.0;
    let refuse = |beyond: &dyn Fn(f32) -> bool| match values.iter().find(|value| beyond(**value)) {
        Some(&number) => Err(OutOfRange { number, dtype }),
        None => Ok(()),
    };
    Ok(match dtype {
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&value| bf16_bits(value).to_le_bytes()).collect(),
        DType::F16 => {
            refuse(&|value| value.is_finite() && value.abs() >= FIRST_TOO_LARGE)?;
            values.iter().flat_map(|&value| f16_bits(value).to_le_bytes()).collect()
        }
        DType::U32 => panic!("{dtype} is never written"),
        _ => {
            // Scales and minima are f16. Of codes around zero the scale is a fraction of the largest number; a limit that
            // holds for all formats but q8_0 is low enough for any of them and far above any weight.
            let most = if dtype == DType::Q8_0 { 127.0 * FIRST_TOO_LARGE } else { FIRST_TOO_LARGE };
            refuse(&|value| !value.is_finite() || value.abs() >= most)?;
            blocks()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_q8_0() {
        let mut block = [0.0f32; 32];
        block[..4].copy_from_slice(&[127.0, -63.5, 0.5, -0.25]);
        let bytes = encode(&block, DType::Q8_0).expect("in range");
        assert_eq!(bytes.len(), 34);
        assert_eq!(&bytes[..2], &f16_bits(1.0).to_le_bytes());
        assert_eq!(bytes[2..6].iter().map(|&code| code as i8).collect::<Vec<_>>(), [127, -64, 1, 0]);
        assert_eq!(encode(&[0.0; 32], DType::Q8_0).expect("in range"), [0; 34]);
    }

    #[test]
    fn what_a_type_cannot_hold_is_an_error() {
        let error = encode(&[1.0, -70_000.0], DType::F16).expect_err("too large");
        assert_eq!(error.to_string(), "the number -70000 is too large for f16; use bf16 or f32");
        assert_eq!(encode(&[f32::INFINITY], DType::F16).expect("it is infinite already"), [0, 0x7c]);
        assert_eq!(encode(&[1.0], DType::Bf16).expect("in range"), [0x80, 0x3f]);
        for dtype in DType::BLOCKS {
            for (number, says) in [(f32::NAN, "NaN has no place in "), (f32::NEG_INFINITY, "-inf has no place in ")] {
                let mut values = [0.5; 512];
                values[300] = number;
                let error = encode(&values, dtype).expect_err("not finite").to_string();
                assert!(error.starts_with(says) && error.contains(dtype.name()), "{error}");
            }
            assert!(encode(&[1e7; 256], dtype).is_err(), "{dtype}");
            assert!(encode(&[6e4; 256], dtype).is_ok(), "{dtype}");
        }
    }
}
