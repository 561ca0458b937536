//! What a model computes, for comparing two of them.

use luthier_model::checkpoint::Checkpoint;
use luthier_model::{Adapter, Decoder, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision, Segment, Tape};

/// One thread of the instruction set that `LUTHIER_CPU` names, else of the best one; fresh memory is NaN.
pub fn device() -> Device {
    let isa = std::env::var("LUTHIER_CPU").map_or_else(|_| Isa::detect(), |name| Isa::named(&name).unwrap());
    Device::cpu(CpuOptions { threads: 1, isa, memory_bytes: 1 << 28, poison: true }, None).unwrap()
}

/// The logits of some 24 tokens, in f32.
pub fn logits(checkpoint: &Checkpoint, adapter: Option<&Adapter>) -> Vec<f32> {
    let device = device();
    let decoder = Decoder::new(&device, checkpoint, &Tuning::Nothing, adapter).unwrap();
    let ids: Vec<u32> = (0..24).map(|place| (place * 37 + 5) % 128).collect();
    let mut tape = Tape::without_gradients(&device, Precision::F32);
    let inputs = decoder.inputs(&device, &ids, vec![Segment::alone(0..ids.len())]);
    let hidden = decoder.hidden(&mut tape, &inputs, 0);
    let places: Vec<u32> = (0..ids.len() as u32).collect();
    let logits = tape.logits(&hidden, &decoder.head_options(false), &device.upload_ids(&places));
    device.download(&logits)
}

pub fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
