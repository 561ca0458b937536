//! `--quantization-bit` of generate and chat: the base stored as QLoRA has it, so that an adapter answers on what it was trained
//! on, in the memory that it was trained in.

use std::path::Path;

use luthier_model::checkpoint::Quantisation;
use serde_json::Value;

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

/// How the base was stored that an adapter was trained on, where the record beside it says so.
pub(crate) fn trained_on(adapter: &Path) -> Option<Quantisation> {
    let record = std::fs::read(adapter.join(crate::manifest::FILE_NAME)).ok()?;
    let record: Value = serde_json::from_slice(&record).ok()?;
    let setting = |name: &str| &record["settings"][name]["value"];
    let double = setting("double_quantization").as_bool().unwrap_or(true);
    match (setting("quantization_bit").as_u64()?, setting("quantization_type").as_str()) {
        (8, _) => Some(Quantisation::Int8),
        (4, Some("fp4")) => Some(Quantisation::Fp4 { double }),
        (4, _) => Some(Quantisation::Nf4 { double }),
        _ => None,
    }
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
    /// What to say where the adapter was trained on another storage of the base.
    pub(crate) fn note(adapter: Option<&Path>, chosen: Option<Quantisation>) -> Option<String> {
        let trained = adapter.and_then(trained_on).filter(|trained| Some(*trained) != chosen)?;
        Some(format!("the adapter was trained on the base in {}; see --quantization-bit", trained.dtype()))
    }

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
