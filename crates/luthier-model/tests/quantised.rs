//! Every block format of ggml decodes to the very numbers of the `gguf` package: `fixtures/quant.safetensors`, made with gguf
//! and bitsandbytes 0.50 (seed 5), holds codes and what they decode to. Numbers are encoded no worse than by llama.cpp.

use std::path::Path;
use std::sync::Arc;

use luthier_model::checkpoint::encode;
use luthier_tensor::{CpuOptions, DType, Device, Isa, SharedBytes, Tensor};
use safetensors::SafeTensors;

#[test]
fn every_format_of_ggml_decodes_exactly() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/quant.safetensors");
    let file = std::fs::read(path).unwrap();
    let fixture = SafeTensors::deserialize(&file).unwrap();
    for isa in Isa::available() {
        let options = CpuOptions { isa, threads: 2, memory_bytes: 1 << 20, poison: true };
        let device = Device::cpu(options, None).unwrap();
        for dtype in DType::BLOCKS {
            let name = dtype.name().to_uppercase();
            let bytes = fixture.tensor(&format!("ggml.{name}.bytes")).unwrap();
            let expected = fixture.tensor(&format!("ggml.{name}.dequantised")).unwrap();
            let [rows, columns] = expected.shape() else { panic!("a matrix") };
            let shared: SharedBytes = Arc::new(bytes.data().to_vec());
            let tensor = Tensor::from_shared(shared, 0, bytes.data().len(), dtype, *rows, *columns).unwrap();
            let found: Vec<u8> = device.download(&tensor).into_iter().flat_map(f32::to_le_bytes).collect();
            assert!(found == expected.data(), "{name} on {isa:?}");
        }
    }
}

/// `fixtures/encode.safetensors` holds numbers of five kinds (normal, with outliers, of SmolLM2, of SmolLM2 after a training,
/// of the built-in model) and the root mean square errors that llama.cpp's own quantiser leaves on them, without an
/// importance matrix: `tests/external/encoders.py --fixture` with llama-cpp-python 0.3.36, seed 7.
#[test]
fn no_format_loses_more_than_with_llama_cpp() {
    const MOST: f64 = 1.02;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encode.safetensors");
    let file = std::fs::read(path).unwrap();
    let fixture = SafeTensors::deserialize(&file).unwrap();
    let device =
        Device::cpu(CpuOptions { isa: Isa::detect(), threads: 2, memory_bytes: 1 << 20, poison: true }, None).unwrap();
    for kind in ["normal", "outliers", "smollm2", "smollm2_tuned", "builtin"] {
        let values = fixture.tensor(&format!("{kind}.values")).unwrap();
        let [rows, columns] = values.shape() else { panic!("a matrix") };
        let values: Vec<f32> =
            values.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        for dtype in DType::BLOCKS {
            let name = dtype.name().to_uppercase();
            let theirs = fixture.tensor(&format!("{kind}.{name}")).unwrap();
            let theirs = f64::from_le_bytes(theirs.data().try_into().unwrap());
            let bytes = device.encode(&values, dtype);
            assert!(encode(&values, dtype).unwrap() == bytes, "{name}: threads change nothing");
            let length = bytes.len();
            let tensor = Tensor::from_shared(Arc::new(bytes), 0, length, dtype, *rows, *columns).unwrap();
            let found = device.download(&tensor);
            let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
            let ours = (found.iter().zip(&values).map(square).sum::<f64>() / values.len() as f64).sqrt();
            assert!(ours <= MOST * theirs, "{kind} in {name}: {ours:.4e}, llama.cpp {theirs:.4e}");
        }
    }
}
