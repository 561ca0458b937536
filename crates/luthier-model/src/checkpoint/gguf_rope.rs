//! Rotary embeddings in llama.cpp's terms: keys of the metadata, and divisors of the frequencies as tensors.

use std::f64::consts::PI;

use super::gguf_export::{Target, refusal};
use super::gguf_writer::GgufValue;
use crate::config::{Rotary, RotaryScaling};
use crate::error::Error;

/// What a rotary embedding becomes.
#[derive(Default)]
pub(super) struct Rope {
    /// Keys without the architecture's name.
    pub(super) metadata: Vec<(&'static str, GgufValue)>,
    pub(super) tables: Vec<(&'static str, Vec<f32>)>,
    pub(super) notes: Vec<String>,
}

/// # Errors
/// When the architecture has no such scaling.
pub(super) fn rope(label: &str, rotary: &Rotary, target: Target) -> Result<Rope, Error> {
    let mut rope = Rope::default();
    let number = |number: f64| GgufValue::F32(number as f32);
    let kind = |kind: &str| ("rope.scaling.type", GgufValue::Text(kind.into()));
    let refused = |found: &str, reason: String| {
        refusal(label, "rope_type", found, format!("{reason}; export a Hugging Face folder instead"))
    };
    let tables = |found: &str| match target.rotary_tables {
        true => Ok(()),
        false => Err(refused(found, format!("llama.cpp's `{}` reads no divisors of frequencies", target.name))),
    };
    rope.metadata.push(("rope.dimension_count", GgufValue::U32(rotary.dimensions as u32)));
    let mut theta = rotary.theta;
    match &rotary.scaling {
        RotaryScaling::None => {}
        RotaryScaling::Linear { factor } => {
            rope.metadata.extend([kind("linear"), ("rope.scaling.factor", number(*factor))]);
        }
        RotaryScaling::Dynamic { trained_positions, .. } => rope.notes.push(beyond(*trained_positions)),
        RotaryScaling::DynamicAlpha { short_theta, trained_positions, .. } => {
            theta = *short_theta;
            rope.notes.push(beyond(*trained_positions));
        }
        RotaryScaling::Yarn { factor, trained_positions, beta_fast, beta_slow, attention_factor, truncate } => {
            if (*beta_fast, *beta_slow, *truncate) != (32.0, 1.0, true) {
                let reason = "llama.cpp has yarn with beta_fast 32, beta_slow 1 and rounded ends only".to_owned();
                return Err(refused("yarn", reason));
            }
            rope.metadata.extend([
                kind("yarn"),
                ("rope.scaling.factor", number(*factor)),
                ("rope.scaling.original_context_length", GgufValue::U32(*trained_positions as u32)),
            ]);
            // llama.cpp multiplies its own factor with the file's.
            let extra = attention_factor / (0.1 * factor.ln() + 1.0);
            if (extra - 1.0).abs() > 1e-6 {
                rope.metadata.push(("rope.scaling.attn_factor", number(extra)));
            }
        }
        RotaryScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, trained_positions } => {
            tables("llama3")?;
            let (low, high) = (*low_frequency_factor, *high_frequency_factor);
            let divisor = |pair: usize| {
                let wavelength = 2.0 * PI * rotary.theta.powf(2.0 * pair as f64 / rotary.dimensions as f64);
                let turns = *trained_positions as f64 / wavelength;
                if turns > high {
                    return 1.0;
                }
                if turns < low {
                    return *factor as f32;
                }
                let smooth = (turns - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            };
            rope.tables.push(("rope_freqs.weight", (0..rotary.dimensions / 2).map(divisor).collect()));
        }
        RotaryScaling::LongRope { short_factors, long_factors, trained_positions, attention_factor } => {
            tables("longrope")?;
            let table = |factors: &[f64]| factors.iter().map(|factor| *factor as f32).collect::<Vec<f32>>();
            if short_factors == long_factors && *attention_factor == 1.0 && target.name != "phi3" {
                rope.tables.push(("rope_freqs.weight", table(short_factors)));
            } else if target.name == "arcee" {
                return Err(refused("longrope", "llama.cpp's `arcee` has no longrope".to_owned()));
            } else {
                rope.metadata.extend([
                    kind("longrope"),
                    ("rope.scaling.original_context_length", GgufValue::U32(*trained_positions as u32)),
                    ("rope.scaling.attn_factor", number(*attention_factor)),
                ]);
                rope.tables.push(("rope_factors_short.weight", table(short_factors)));
                rope.tables.push(("rope_factors_long.weight", table(long_factors)));
                rope.notes.push(format!(
                    "llama.cpp chooses longrope's divisors by the context that it is started with, not by the text's length: \
                     start it with a context of at most {trained_positions} tokens for the short ones"
                ));
            }
        }
    }
    rope.metadata.push(("rope.freq_base", number(theta)));
    Ok(rope)
}

fn beyond(trained_positions: usize) -> String {
    format!(
        "llama.cpp has no dynamic scaling: texts longer than {trained_positions} tokens are computed differently there"
    )
}
