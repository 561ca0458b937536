//! Which type each tensor of a GGUF file is stored in: one for all, a mix of llama.cpp's, or for each what the base had. From:
//! llama.cpp, `llama-quant.cpp` (`llama_tensor_get_type`) for the mixes and for what replaces a type whose blocks do not fit.

use luthier_tensor::DType;

use super::Checkpoint;
use super::gguf_target::Target;

/// How a GGUF file's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufStorage {
    /// By a rule for all files.
    Named(GgufFileType),
    /// Each tensor in the type that the base, a GGUF file, has it in.
    AsBase,
}

/// A name for how the numbers of a GGUF file are stored. Vectors are f32 in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgufFileType {
    /// As llama.cpp's tools call it, in lower case.
    pub name: &'static str,
    /// llama.cpp's number, `general.file_type`.
    pub(super) number: u32,
    /// The type of most matrices.
    pub dtype: DType,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Every matrix is of the one type.
    All,
    /// The head is `Q6_K`.
    BetterHead,
    /// As `BetterHead`; values and down projections of some layers are `Q6_K` too, a fused attention one step better.
    Medium { fused: DType },
}

const fn row(name: &'static str, number: u32, dtype: DType, rule: Rule) -> GgufFileType {
    GgufFileType { name, number, dtype, rule }
}

impl GgufFileType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        row("f32", 0, DType::F32, Rule::All),
        row("f16", 1, DType::F16, Rule::All),
        row("bf16", 32, DType::Bf16, Rule::All),
        row("q8_0", 7, DType::Q8_0, Rule::All),
        row("q6_k", 18, DType::Q6K, Rule::All),
        row("q5_k_m", 17, DType::Q5K, Rule::Medium { fused: DType::Q6K }),
        row("q5_1", 9, DType::Q5_1, Rule::BetterHead),
        row("q5_0", 8, DType::Q5_0, Rule::BetterHead),
        row("q4_k_m", 15, DType::Q4K, Rule::Medium { fused: DType::Q5K }),
        row("q4_1", 3, DType::Q4_1, Rule::BetterHead),
        row("q4_0", 2, DType::Q4_0, Rule::BetterHead),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|found| found.name == name)
    }

    /// Whether numbers are stored in blocks.
    pub fn is_quantised(self) -> bool {
        self.dtype.block_len() > 1
    }
}

impl std::fmt::Display for GgufFileType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl From<GgufFileType> for GgufStorage {
    fn from(named: GgufFileType) -> Self {
        Self::Named(named)
    }
}

/// A place in the model, as far as mixes ask for it.
pub(super) struct Place<'a> {
    /// The tensor's name in the file, without `blk.N.` and the suffix.
    pub(super) part: &'a str,
    pub(super) layer: usize,
    /// Its name in the model.
    pub(super) source: &'a str,
    pub(super) dims: &'a [usize],
}

/// Chooses types, and counts those whose blocks do not fit.
pub(super) struct Choice<'a> {
    storage: GgufStorage,
    checkpoint: &'a Checkpoint,
    /// llama.cpp's 70B: its values are few, and get more bits.
    is_large: bool,
    /// Wanted, given, how many.
    replaced: Vec<(DType, DType, usize)>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(storage: GgufStorage, checkpoint: &'a Checkpoint, target: Target) -> Self {
        let decoder = &checkpoint.model.decoder;
        let is_large = decoder.layers.len() == 80 && matches!(target.name, "llama" | "qwen2");
        Self { storage, checkpoint, is_large, replaced: Vec::new() }
    }

    /// The type of a tensor.
    pub(super) fn dtype(&mut self, place: &Place<'_>) -> DType {
        let named = match self.storage {
            GgufStorage::AsBase => return self.checkpoint.tensors[place.source].dtype(),
            GgufStorage::Named(named) => named,
        };
        let [.., columns] = place.dims else { return DType::F32 };
        if place.dims.len() < 2 {
            return DType::F32;
        }
        let wanted = self.wanted(named, place);
        let given = fitting(wanted, *columns);
        if given != wanted {
            match self.replaced.iter_mut().find(|(from, to, _)| (*from, *to) == (wanted, given)) {
                Some((_, _, count)) => *count += 1,
                None => self.replaced.push((wanted, given, 1)),
            }
        }
        given
    }

    fn wanted(&self, named: GgufFileType, place: &Place<'_>) -> DType {
        let decoder = &self.checkpoint.model.decoder;
        let is_head = place.part == "output" || place.part == "token_embd" && decoder.tied_head;
        match (named.rule, place.part) {
            (Rule::All, _) => named.dtype,
            (_, _) if is_head => DType::Q6K,
            (Rule::Medium { .. }, "attn_v" | "ffn_down") if has_more_bits(place.layer, decoder.layers.len()) => {
                DType::Q6K
            }
            (Rule::Medium { .. }, "attn_v") if self.is_large => DType::Q5K,
            (Rule::Medium { fused }, "attn_qkv") => fused,
            _ => named.dtype,
        }
    }

    /// What was replaced, as sentences.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.replaced.iter().map(|(wanted, given, count)| {
            let (matrices, are, rows) =
                if *count == 1 { ("matrix", "is", "its rows are") } else { ("matrices", "are", "their rows are") };
            let length = wanted.block_len();
            format!(
                "{count} {matrices} {are} stored in {given} instead of {wanted}: {rows} no multiple of {length} numbers"
            )
        })
    }
}

/// The first and the last eighth of the layers, and every third between.
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type itself, or what llama.cpp stores rows in that are no whole number of its blocks.
fn fitting(wanted: DType, columns: usize) -> DType {
    let fits = |dtype: DType| columns.is_multiple_of(dtype.block_len());
    let smaller = match wanted {
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        other => other,
    };
    [wanted, smaller].into_iter().find(|dtype| fits(*dtype)).unwrap_or(DType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llama.cpp's own choice for a model of 30 layers, SmolLM2-135M.
    #[test]
    fn layers_with_more_bits() {
        let layers: Vec<usize> = (0..30).filter(|layer| has_more_bits(*layer, 30)).collect();
        assert_eq!(layers, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
        assert_eq!((0..1).filter(|layer| has_more_bits(*layer, 1)).count(), 1);
        assert_eq!((0..2).filter(|layer| has_more_bits(*layer, 2)).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn blocks_that_do_not_fit() {
        assert_eq!(fitting(DType::Q4K, 576), DType::Q5_0);
        assert_eq!(fitting(DType::Q6K, 576), DType::Q8_0);
        assert_eq!(fitting(DType::Q5K, 96), DType::Q5_1);
        assert_eq!(fitting(DType::Q4K, 1536), DType::Q4K);
        for dtype in [DType::Q4K, DType::Q4_0, DType::Q8_0] {
            assert_eq!(fitting(dtype, 100), DType::F16);
        }
    }
}
