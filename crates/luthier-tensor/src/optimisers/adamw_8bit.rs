//! AdamW with moments of eight bits: each block of 256 numbers has its largest magnitude in f32 and for each number a code
//! of the dynamic map. Masters stay f32. From: Dettmers et al. 2021, and bitsandbytes' `AdamW` with `optim_bits=8`.

use super::Gate;
use crate::{AdamW, DType, Device, Tensor};

/// Numbers that share a largest magnitude.
pub const BLOCK: usize = 256;

/// A moment pair in eight bits.
#[derive(Clone, Debug)]
pub struct EightBitMoments {
    /// u8 `[1, numbers]`: codes of the mean, of the signed map.
    pub mean: Tensor,
    /// f32 `[1, blocks]`: the largest magnitude of each block.
    pub mean_largest: Tensor,
    /// u8 `[1, numbers]`: codes of the mean square, of the unsigned map.
    pub mean_square: Tensor,
    /// f32 `[1, blocks]`
    pub mean_square_largest: Tensor,
}

/// The 256 values of the dynamic map, in order: a sign if `signed`, a power of ten in unary, and the rest as a fraction.
/// From: Dettmers 2015, as `bitsandbytes.functional.create_dynamic_map` computes it.
pub fn dynamic_map(signed: bool) -> [f32; 256] {
    const EXPONENTS: usize = 7;
    let mut found = Vec::with_capacity(256);
    for exponent in 0..EXPONENTS {
        let fractions: usize = if signed { 1 << exponent } else { 2 << exponent };
        let power = 10f64.powi(exponent as i32 - (EXPONENTS as i32 - 1)) as f32;
        let step = (1.0f32 - 0.1) / fractions as f32;
        // As torch.linspace: from both ends.
        let boundary = |index: usize| {
            if index < fractions.div_ceil(2) {
                0.1 + step * index as f32
            } else {
                1.0 - step * (fractions - index) as f32
            }
        };
        for index in 0..fractions {
            let middle = power * ((boundary(index) + boundary(index + 1)) / 2.0);
            found.push(middle);
            if signed {
                found.push(-middle);
            }
        }
    }
    found.extend([0.0, 1.0]);
    found.sort_by(f32::total_cmp);
    let mut map = [0.0; 256];
    map.copy_from_slice(&found);
    map
}

impl EightBitMoments {
    /// Moments of zero for so many numbers.
    pub fn new(device: &Device, numbers: usize) -> Self {
        let zero = |signed: bool| dynamic_map(signed).iter().position(|&value| value == 0.0).unwrap_or(0) as u8;
        let codes = |signed: bool| {
            let codes = device.empty(DType::U8, 1, numbers);
            device.fill_byte(&codes, zero(signed));
            codes
        };
        let blocks = numbers.div_ceil(BLOCK);
        Self {
            mean: codes(true),
            mean_largest: device.zeros(DType::F32, 1, blocks),
            mean_square: codes(false),
            mean_square_largest: device.zeros(DType::F32, 1, blocks),
        }
    }
}

impl Device {
    /// One step of one parameter; `value` and `gradient` are f32 of one shape.
    pub fn adamw_8bit(&self, rule: &AdamW, gate: Gate, gradient: &Tensor, value: &Tensor, moments: &EightBitMoments) {
        self.run("optimiser", |cpu| cpu.adamw_8bit(rule, gate, gradient, value, moments));
    }
}
