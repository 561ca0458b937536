//! `--quantization-bit` of generate and chat: the base stored as QLoRA has it, so that an adapter answers on what it was trained
//! on, in the memory that it was trained in.

use luthier_model::checkpoint::Quantisation;

/// How the base is stored.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct QuantisationArguments {
    /// Store the linear layers in so many bits, as QLoRA trains on them [default: as in the files]
    #[arg(long, alias = "quantization_bit", value_name = "BITS")]
    quantization_bit: Option<Bits>,
    /// Which four bits they are [default: nf4]
    #[arg(long, alias = "quantization_type", value_name = "TYPE", requires = "quantization_bit")]
    quantization_type: Option<FourBits>,
    /// Whether the scales of four bits are quantised too [default: true]
    #[arg(long, alias = "double_quantization", value_name = "SWITCH", requires = "quantization_bit")]
    double_quantization: Option<bool>,
}

/// How many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    #[value(name = "4")]
    Four,
    #[value(name = "8")]
    Eight,
}

/// Which four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FourBits {
    Nf4,
    Fp4,
}

impl QuantisationArguments {
    /// What they say together.
    pub(crate) fn quantisation(self) -> Option<Quantisation> {
        let double = self.double_quantization.unwrap_or(true);
        Some(match (self.quantization_bit?, self.quantization_type) {
            (Bits::Eight, _) => Quantisation::Int8,
            (Bits::Four, Some(FourBits::Fp4)) => Quantisation::Fp4 { double },
            (Bits::Four, _) => Quantisation::Nf4 { double },
        })
    }
}
