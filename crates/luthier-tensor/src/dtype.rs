//! The ways in which a tensor's numbers can be stored. Activations use `F32` or `Bf16`; a frozen weight may
//! stay in any of them and is decoded where it is read, so that a base model never grows on its way into memory.
//! The block formats are those of ggml: 32 consecutive numbers of a row share a scale.

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
    /// ggml `Q4_0`: blocks of 32; an f16 scale d and 4-bit codes q; value d * (q - 8).
    Q4_0,
    /// ggml `Q4_1`: blocks of 32; f16 scale d and minimum m, 4-bit codes q; value d * q + m.
    Q4_1,
    /// ggml `Q8_0`: blocks of 32; an f16 scale d and signed 8-bit codes q; value d * q.
    Q8_0,
}

impl DType {
    /// Numbers that are stored together; a row's length must be a multiple of it.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 | Self::U32 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
        }
    }

    /// Bytes of one block of [`block_len`](Self::block_len) numbers.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q8_0 => 34,
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
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q8_0 => "q8_0",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
