//! Every block format of ggml decodes to the very numbers of the `gguf` package: `fixtures/quant.safetensors`, made with gguf
//! and bitsandbytes 0.50 (seed 5), holds codes and what they decode to.

use std::path::Path;
use std::sync::Arc;

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
