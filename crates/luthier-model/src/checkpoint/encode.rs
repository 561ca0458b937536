//! Numbers as files store them: rounded once, to the nearest, as the programs that read the files would have done it.

use luthier_tensor::{DType, bf16_bits, f16_bits};

/// A number that the storage type has no place for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the number {number} is too large for {dtype}; use bf16 or f32")]
pub struct OutOfRange {
    /// The number.
    pub number: f32,
    /// The storage type.
    pub dtype: DType,
}

/// Little-endian bytes of `values` in `dtype`: f32, bf16, f16 or q8_0. For q8_0 their count is a multiple of 32.
///
/// # Errors
/// When a finite number would become infinite, or a block of q8_0 is not finite.
///
/// # Panics
/// When `dtype` is none of the four, or blocks are not whole: a caller chooses both, no input does.
pub fn encode(values: &[f32], dtype: DType) -> Result<Vec<u8>, OutOfRange> {
    Ok(match dtype {
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|&value| bf16_bits(value).to_le_bytes()).collect(),
        DType::F16 => {
            const FIRST_TOO_LARGE: f32 = 65_520.0;
            let beyond = |value: &&f32| value.is_finite() && value.abs() >= FIRST_TOO_LARGE;
            if let Some(&number) = values.iter().find(beyond) {
                return Err(OutOfRange { number, dtype });
            }
            values.iter().flat_map(|&value| f16_bits(value).to_le_bytes()).collect()
        }
        DType::Q8_0 => {
            let (blocks, rest) = values.as_chunks::<32>();
            assert!(rest.is_empty(), "{} numbers are no whole number of blocks", values.len());
            let mut bytes = Vec::with_capacity(blocks.len() * dtype.block_bytes());
            for block in blocks {
                q8_0_block(block, &mut bytes)?;
            }
            bytes
        }
        other => panic!("{other} is never written"),
    })
}

/// A scale in f16 and 32 codes; the codes follow from the scale before it is rounded, as in ggml's
/// `quantize_row_q8_0_ref`.
fn q8_0_block(block: &[f32; 32], bytes: &mut Vec<u8>) -> Result<(), OutOfRange> {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    if let Some(&number) = block.iter().find(|value| !value.is_finite() || scale >= 65_520.0) {
        return Err(OutOfRange { number, dtype: DType::Q8_0 });
    }
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    bytes.extend(f16_bits(scale).to_le_bytes());
    // `round` goes away from zero at halves, as C's does.
    bytes.extend(block.iter().map(|value| (value * inverse).round() as i8 as u8));
    Ok(())
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
        assert!(encode(&[f32::NAN; 32], DType::Q8_0).is_err());
        assert_eq!(encode(&[1.0], DType::Bf16).expect("in range"), [0x80, 0x3f]);
    }
}
