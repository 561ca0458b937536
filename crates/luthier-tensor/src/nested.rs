//! The second level of double quantisation, as bitsandbytes has it: the scales of blocks, less their mean, are 8-bit codes
//! of a "dynamic map", and 256 of them share an f32 scale. The codes lie in the blocks; what they are decoded with lies here,
//! beside the tensor. From: Dettmers et al. 2023, section 3 (double quantisation); Dettmers 2015 (the map).

use std::sync::{Arc, LazyLock};

/// Blocks that share a scale of their scales.
pub(crate) const GROUP: usize = 256;

/// What decodes the scales of a doubly quantised matrix.
#[derive(Debug)]
pub struct NestedScales {
    /// Address of the matrix's first block: a block's group follows from its distance to it.
    first_block: usize,
    block_bytes: usize,
    offset: f32,
    scales: Arc<[f32]>,
    map: &'static [f32; 256],
}

impl NestedScales {
    /// `scales` has one number for each 256 blocks of the matrix that begins at `first_block`.
    pub(crate) fn new(first_block: *const u8, block_bytes: usize, offset: f32, scales: Arc<[f32]>) -> Self {
        Self { first_block: first_block.addr(), block_bytes, offset, scales, map: &DYNAMIC_MAP }
    }

    /// What is added to each scale.
    pub fn offset(&self) -> f32 {
        self.offset
    }

    /// One scale for each 256 blocks, row by row.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The scale of the block at `block`, whose code is `code`.
    #[inline(always)]
    pub(crate) fn scale(&self, block: *const u8, code: u8) -> f32 {
        let number = (block.addr() - self.first_block) / self.block_bytes;
        // Rounded twice, as bitsandbytes has it.
        self.map[usize::from(code)] * self.scales[number / GROUP] + self.offset
    }
}

/// The values of 8-bit codes: 128 powers of ten and fractions on either side of 0, denser near it. From: bitsandbytes,
/// `create_dynamic_map`, whose numbers these are to the bit.
pub(crate) static DYNAMIC_MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut values = Vec::with_capacity(256);
    for exponent in 0..7 {
        let steps = 1usize << exponent;
        let step = (1.0 - 0.1) / steps as f32;
        // From the nearer end and rounded once, as PyTorch's `linspace` counts.
        let boundary = |i: usize| match i < steps.div_ceil(2) {
            true => step.mul_add(i as f32, 0.1),
            false => (-step).mul_add((steps - i) as f32, 1.0),
        };
        let power = 10f64.powi(exponent - 6) as f32;
        for i in 0..steps {
            let value = power * ((boundary(i) + boundary(i + 1)) / 2.0);
            values.extend([value, -value]);
        }
    }
    values.extend([0.0, 1.0]);
    values.sort_by(f32::total_cmp);
    let mut map = [0.0; 256];
    map.copy_from_slice(&values);
    map
});
