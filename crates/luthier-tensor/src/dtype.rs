//! The ways in which a tensor's numbers can be stored. Activations use `F32` or `Bf16`; a frozen weight may
//! stay in any of them and is decoded where it is read, so that a base model never grows on its way into memory.
//! The block formats are those of ggml: 32 consecutive numbers of a row share a scale, or 256 share one whose parts have
//! small scales of their own.

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
}

impl DType {
    /// The formats of quantised weights.
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
        }
    }

    /// Bytes of `len` consecutive numbers; `len` is a multiple of the block length.
    pub const fn bytes(self, len: usize) -> usize {
        len / self.block_len() * self.block_bytes()
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
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
