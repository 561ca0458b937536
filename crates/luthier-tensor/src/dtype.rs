//! The ways in which a tensor's numbers can be stored. Activations use `F32`, `Bf16` or `F16`; a frozen weight may
//! stay in any of them and is decoded where it is read, so that a base model never grows on its way into memory.
//! The block formats are those of ggml, where 32 consecutive numbers of a row share a scale, or 256 share one whose parts
//! have small scales of their own; and those of bitsandbytes, where 64 numbers share a scale. What bitsandbytes keeps in two
//! lists lies here block by block, the scale before its codes.

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of binary32: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// IEEE 754 binary16.
    F16,
    /// Unsigned 32-bit integers: token ids and positions.
    U32,
    /// Unsigned 8-bit integers: codes of an optimiser's state.
    U8,
    /// ggml `Q4_0`: blocks of 32; an f16 scale d and 4-bit codes q; value d * (q - 8).
    Q4_0,
    /// ggml `Q4_1`: blocks of 32; f16 scale d and minimum m, 4-bit codes q; value d * q + m.
    Q4_1,
    /// ggml `Q5_0`: blocks of 32; an f16 scale d and 5-bit codes q; value d * (q - 16).
    Q5_0,
    /// ggml `Q5_1`: blocks of 32; f16 scale d and minimum m, 5-bit codes q; value d * q + m.
    Q5_1,
    /// ggml `Q8_0`: blocks of 32; an f16 scale d and signed 8-bit codes q; value d * q.
    Q8_0,
    /// ggml `Q2_K`: blocks of 256, parts of 16 with 4-bit scale s and minimum m; 2-bit codes q; value d s q - e m.
    Q2K,
    /// ggml `Q3_K`: blocks of 256, parts of 16 with 6-bit scale s; 3-bit codes q; value d (s - 32) (q - 4).
    Q3K,
    /// ggml `Q4_K`: blocks of 256, parts of 32 with 6-bit scale s and minimum m; 4-bit codes q; value d s q - e m.
    Q4K,
    /// ggml `Q5_K`: blocks of 256, parts of 32 with 6-bit scale s and minimum m; 5-bit codes q; value d s q - e m.
    Q5K,
    /// ggml `Q6_K`: blocks of 256, parts of 16 with signed 8-bit scale s; 6-bit codes q; value d s (q - 32).
    Q6K,
    /// ggml `MXFP4`: blocks of 32; a power of two and 4-bit floating-point codes (OCP microscaling formats, E2M1).
    Mxfp4,
    /// bitsandbytes' `nf4`: blocks of 64; an f32 scale s and 4-bit codes of 16 quantiles of the normal distribution v; value v s.
    Nf4,
    /// bitsandbytes' `fp4`: as `Nf4`, with the values of a 4-bit floating-point number.
    Fp4,
    /// `Nf4` with double quantisation: the scale is an 8-bit code whose own scale, one for 256 blocks, and offset, one for the
    /// matrix, are in the tensor's [`NestedScales`](crate::NestedScales).
    Nf4Double,
    /// `Fp4` with double quantisation.
    Fp4Double,
}

impl DType {
    /// The formats of bitsandbytes.
    pub const BITSANDBYTES: [Self; 4] = [Self::Nf4, Self::Fp4, Self::Nf4Double, Self::Fp4Double];

    /// The formats of ggml's quantised weights.
    pub const BLOCKS: [Self; 11] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Mxfp4,
    ];

    /// Numbers that are stored together; a row's length must be a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 | Self::U32 | Self::U8 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Mxfp4 => 32,
            Self::Nf4 | Self::Fp4 | Self::Nf4Double | Self::Fp4Double => 64,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block of [`block_len`](Self::block_len) numbers.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Mxfp4 => 17,
            Self::Nf4 | Self::Fp4 => 36,
            Self::Nf4Double | Self::Fp4Double => 33,
        }
    }

    /// Bytes of `len` consecutive numbers; `len` is a multiple of the block length.
    pub const fn bytes(self, len: usize) -> usize {
        len / self.block_len() * self.block_bytes()
    }

    /// Whether the scales of its blocks are codes themselves, decoded with a tensor's [`NestedScales`](crate::NestedScales).
    pub const fn has_nested_scales(self) -> bool {
        matches!(self, Self::Nf4Double | Self::Fp4Double)
    }

    /// The name that messages and files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::U32 => "u32",
            Self::U8 => "u8",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Mxfp4 => "mxfp4",
            Self::Nf4 => "nf4",
            Self::Fp4 => "fp4",
            Self::Nf4Double => "nf4_double",
            Self::Fp4Double => "fp4_double",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
