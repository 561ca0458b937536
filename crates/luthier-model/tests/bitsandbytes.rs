//! bitsandbytes' formats: `fixtures/quant.safetensors` (bitsandbytes 0.50, seed 5) holds a weight, its codes, its scales, the scales
//! of its scales, and what all of it decodes to; ours are the same bytes.

#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::path::Path;
use std::sync::Arc;

use luthier_tensor::{CpuOptions, DType, Device, Isa, QuantiseError, Tensor, quantise};
use safetensors::SafeTensors;

struct Fixture(Vec<u8>);

impl Fixture {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quant.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

fn device(isa: Isa) -> Device {
    Device::cpu(CpuOptions { isa, threads: 2, memory_bytes: 1 << 20, poison: true }, None).unwrap()
}

/// A matrix of f32.
fn matrix(numbers: &[f32], columns: usize) -> Tensor {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let length = bytes.len();
    Tensor::from_shared(Arc::new(bytes), 0, length, DType::F32, numbers.len() / columns, columns).unwrap()
}

#[test]
fn codes_scales_and_numbers_are_those_of_bitsandbytes() {
    let fixture = Fixture::read();
    let weight = matrix(&fixture.numbers("weight"), 256);
    for (name, dtype) in [("nf4", DType::Nf4), ("fp4", DType::Fp4), ("nf4.nested", DType::Nf4Double)] {
        let bytes = |part: &str| fixture.bytes(&format!("{name}.{part}"));
        let mut made: Vec<_> = (1..4).map(|threads| quantise(&weight, dtype, threads, &|_| ()).unwrap()).collect();
        assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "{name}: threads");
        let made = made.pop().unwrap();
        let blocks = made.blocks.chunks_exact(dtype.block_bytes());
        let head = dtype.block_bytes() - 32;
        let scales: Vec<u8> = blocks.clone().flat_map(|block| block[..head].to_vec()).collect();
        let codes: Vec<u8> = blocks.flat_map(|block| block[head..].to_vec()).collect();
        assert!(codes == bytes("packed"), "{name}: codes");
        let length = made.blocks.len();
        let mut tensor = Tensor::from_shared(Arc::new(made.blocks), 0, length, dtype, 48, 256).unwrap();
        if let Some((offset, nested)) = made.nested {
            assert_eq!(scales, bytes("absmax_codes"));
            assert_eq!(vec![offset], fixture.numbers("nf4.nested.offset"));
            assert_eq!(nested, fixture.numbers("nf4.nested.absmax_absmax"));
            tensor = tensor.with_nested_scales(offset, nested.into());
        } else {
            assert_eq!(scales, bytes("absmax"), "{name}: scales");
        }
        for isa in Isa::available() {
            let found: Vec<u8> = device(isa).download(&tensor).into_iter().flat_map(f32::to_le_bytes).collect();
            assert!(found == bytes("dequantised"), "{name} on {isa:?}");
        }
    }
}

#[test]
fn the_map_of_scales_is_that_of_bitsandbytes() {
    // 256 blocks with a scale code each, codes of 1.0 alone, and scales of scales that change nothing.
    let blocks: Vec<u8> = (0..=255u8).flat_map(|code| [code].into_iter().chain([0xff; 32])).collect();
    let length = blocks.len();
    let tensor = Tensor::from_shared(Arc::new(blocks), 0, length, DType::Nf4Double, 64, 256).unwrap();
    let numbers = device(Isa::Portable).download(&tensor.with_nested_scales(0.0, Arc::from([1.0])));
    let map: Vec<f32> = numbers.chunks_exact(64).map(|block| block[63]).collect();
    assert_eq!(map, Fixture::read().numbers("nf4.nested.absmax_code"));
}

#[test]
fn rows_of_a_doubly_quantised_matrix_keep_their_scales() {
    let numbers: Vec<f32> = (0..700 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) * (1.0 + (i / 64) as f32)).collect();
    let made = quantise(&matrix(&numbers, 64), DType::Nf4Double, 2, &|_| ()).unwrap();
    let (offset, scales) = made.nested.unwrap();
    assert_eq!(scales.len(), 3);
    let length = made.blocks.len();
    let tensor = Tensor::from_shared(Arc::new(made.blocks), 0, length, DType::Nf4Double, 700, 64).unwrap();
    let tensor = tensor.with_nested_scales(offset, scales.into());
    let device = device(Isa::detect());
    let all = device.download(&tensor);
    assert_eq!(device.download(&tensor.slice_rows(513, 100)), &all[513 * 64..613 * 64]);
}

#[test]
fn eight_bits_are_those_of_ggml() {
    let fixture = Fixture::read();
    let made = quantise(&matrix(&fixture.numbers("weight"), 256), DType::Q8_0, 2, &|_| ()).unwrap();
    assert!(made.blocks == fixture.bytes("ggml.Q8_0.bytes"));
}

#[test]
fn what_cannot_be_quantised_is_said() {
    let refusal = |numbers: &[f32], columns, dtype| quantise(&matrix(numbers, columns), dtype, 1, &|_| ()).unwrap_err();
    assert_eq!(
        refusal(&[1.0; 96], 96, DType::Nf4).to_string(),
        "its rows have 96 numbers, which is no multiple of the 64 that nf4 stores together"
    );
    let mut numbers = [1.0; 128];
    numbers[70] = f32::NAN;
    for dtype in DType::BITSANDBYTES.into_iter().chain([DType::Q8_0]) {
        assert_eq!(refusal(&numbers, 64, dtype), QuantiseError::NotFinite { row: 1, dtype });
    }
}
