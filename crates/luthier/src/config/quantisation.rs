//! `quantization_bit` and what belongs to it: how the base is stored while adapters are trained on it.

use luthier_model::checkpoint::Quantisation;

use super::method::ADAPTERS;
use crate::settings::{Problem, Settings, either};

/// What the settings say of the base's storage.
///
/// # Errors
/// When so many bits are not there, or the base would be trained itself.
pub(crate) fn read(settings: &Settings) -> Result<Option<Quantisation>, Problem> {
    let Some(bits) = settings.whole("quantization_bit") else { return Ok(None) };
    let problem = |sentence: &str| Err(Problem(format!("{}{sentence}", settings.place("quantization_bit"))));
    if !settings.text("finetuning_type").is_some_and(|method| ADAPTERS.contains(&method)) {
        return problem(&format!(
            "quantization_bit needs finetuning_type: {}, since weights that are stored in a few bits cannot take small steps",
            either(&ADAPTERS)
        ));
    }
    let double = settings.switch("double_quantization") == Some(true);
    match (bits, settings.text("quantization_type")) {
        (4, Some("fp4")) => Ok(Some(Quantisation::Fp4 { double })),
        (4, _) => Ok(Some(Quantisation::Nf4 { double })),
        (8, _) => Ok(Some(Quantisation::Int8)),
        _ => problem(&format!(
            "quantization_bit is {bits}; expected 4 or 8, which is what bitsandbytes has; a GGUF file of other widths is \
             trained as it is",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Option<Quantisation>, &str>) {
        let settings = Settings::read("a.yaml", text, &[]).expect("settings");
        let expected = expected.map_err(|sentence| Problem(sentence.to_owned()));
        assert_eq!(read(&settings), expected, "{text}");
    }

    #[test]
    fn widths_and_types() {
        check("seed: 1", Ok(None));
        check("quantization_bit: 4", Ok(Some(Quantisation::Nf4 { double: true })));
        check("quantization_bit: 4\ndouble_quantization: false", Ok(Some(Quantisation::Nf4 { double: false })));
        check("quantization_bit: 4\nquantization_type: fp4", Ok(Some(Quantisation::Fp4 { double: true })));
        check("quantization_bit: 8\nquantization_method: bnb", Ok(Some(Quantisation::Int8)));
        for bits in [2, 3, 5, 6] {
            let sentence = format!(
                "a.yaml, line 1: quantization_bit is {bits}; expected 4 or 8, which is what bitsandbytes has; a GGUF file of other \
                 widths is trained as it is"
            );
            check(&format!("quantization_bit: {bits}"), Err(&sentence));
        }
        check(
            "finetuning_type: full\nquantization_bit: 4",
            Err(
                "a.yaml, line 2: quantization_bit needs finetuning_type: lora, ia3, vera, oft, prefix, prompt, p_tuning or bottleneck, since \
                 weights that are stored in a few bits cannot take small steps",
            ),
        );
    }

    #[test]
    fn what_belongs_to_four_bits_has_no_effect_without_them() {
        let settings =
            Settings::read("a.yaml", "quantization_type: fp4\ndouble_quantization: false", &[]).expect("settings");
        assert_eq!(
            settings.notices,
            ["quantization_type, double_quantization have no effect without quantization_bit: 4"]
        );
        let error =
            Settings::read("a.yaml", "quantization_bit: 4\nquantization_method: hqq", &[]).expect_err("refused");
        assert_eq!(
            error[0].0,
            "a.yaml, line 2: quantization_method is \"hqq\", which Luthier does not have yet; expected bnb"
        );
    }
}
