//! Rotary parameters in both styles: `rope_theta` and `rope_scaling` at the top (older files), or all of it in
//! `rope_parameters`. Defaults and precedence are those of transformers 5.6, `modeling_rope_utils.py`.

use super::raw::Raw;
use crate::config::{Rotary, RotaryScaling};
use crate::error::Error;

/// What a family adds to the common rules.
#[derive(Clone, Copy)]
pub(super) struct RopeRules {
    /// theta where the file says nothing.
    pub(super) theta: f64,
    /// The family's code rotates a part of each head when `partial_rotary_factor` says so.
    pub(super) partial: bool,
    /// Neighbouring numbers form pairs.
    pub(super) interleaved: bool,
    /// Length of pre-training when neither level of the file has `original_max_position_embeddings`.
    pub(super) original_positions: Option<usize>,
    /// `su` and `yarn` are old names of `longrope` (Phi-3).
    pub(super) phi3_names: bool,
}

impl RopeRules {
    /// theta 10000, whole heads, halves.
    pub(super) const PLAIN: Self =
        Self { theta: 10_000.0, partial: false, interleaved: false, original_positions: None, phi3_names: false };
}

/// The scaling of a model with heads of `head_dim` numbers, made for `max_positions`.
pub(super) fn rotary(
    config: &Raw<'_>,
    rules: RopeRules,
    head_dim: usize,
    max_positions: usize,
) -> Result<Rotary, Error> {
    let (section, rope) = section(config)?;
    if let Some(rope) = &rope
        && rope.keys().any(|key| key.ends_with("_attention"))
    {
        return Err(config.unsupported(section, "rotary parameters that differ by layer type"));
    }
    let theta = match rope.map(|rope| rope.positive_if_given("rope_theta")).transpose()?.flatten() {
        Some(theta) => theta,
        None => config.positive_or("rope_theta", rules.theta)?,
    };
    if theta <= 1.0 {
        let holder = rope.filter(|rope| rope.value("rope_theta").is_some()).unwrap_or(*config);
        return Err(holder.bad("rope_theta", "a number above 1"));
    }
    let (kind_key, kind) = kind(rope.as_ref(), rules)?;

    let dimensions = dimensions(config, rope.as_ref(), rules, head_dim, kind)?;
    let Some(rope) = rope else {
        return Ok(Rotary { theta, dimensions, interleaved: rules.interleaved, scaling: RotaryScaling::None });
    };
    let scaling = match kind {
        "default" => RotaryScaling::None,
        "linear" => RotaryScaling::Linear { factor: rope.positive("factor")? },
        "dynamic" => dynamic(&rope, dimensions, max_positions)?,
        "yarn" => yarn(config, &rope, rules, max_positions)?,
        "llama3" => llama3(config, &rope, rules, max_positions)?,
        "longrope" => long_rope(config, &rope, rules, dimensions, max_positions)?,
        _ => return Err(rope.unsupported(kind_key, "known are default, linear, dynamic, yarn, llama3 and longrope")),
    };
    Ok(Rotary { theta, dimensions, interleaved: rules.interleaved, scaling })
}

/// The object that holds the scaling, and its key: `rope_scaling` when it says something, else `rope_parameters`.
pub(super) fn section<'a>(config: &Raw<'a>) -> Result<(&'static str, Option<Raw<'a>>), Error> {
    Ok(match config.child("rope_scaling")?.filter(|scaling| scaling.keys().next().is_some()) {
        Some(scaling) => ("rope_scaling", Some(scaling)),
        None => ("rope_parameters", config.child("rope_parameters")?),
    })
}

/// The key that names the scaling, and its name.
fn kind<'a>(rope: Option<&Raw<'a>>, rules: RopeRules) -> Result<(&'static str, &'a str), Error> {
    let Some(rope) = rope else { return Ok(("rope_type", "default")) };
    let (key, kind) = match (rope.text("rope_type")?, rope.text("type")?) {
        (Some(kind), _) => ("rope_type", kind),
        (None, Some(kind)) => ("type", kind),
        (None, None) => ("rope_type", "default"),
    };
    match kind {
        "su" | "yarn" if rules.phi3_names => Ok((key, "longrope")),
        "linear" | "dynamic" | "llama3" if rules.phi3_names => {
            Err(rope.unsupported(key, "this family has only default and longrope"))
        }
        kind => Ok((key, kind)),
    }
}

/// Numbers of a head that turn. The default type of most families ignores `partial_rotary_factor`, as transformers does.
fn dimensions(
    config: &Raw<'_>,
    rope: Option<&Raw<'_>>,
    rules: RopeRules,
    head_dim: usize,
    kind: &str,
) -> Result<usize, Error> {
    const KEY: &str = "partial_rotary_factor";
    let inner = rope.filter(|rope| rope.value(KEY).is_some()).copied();
    let outer = Some(*config).filter(|config| config.value(KEY).is_some());
    let holder = if kind == "default" { inner.or(outer) } else { outer.or(inner) };
    let factor = holder.map(|holder| holder.positive_or(KEY, 1.0)).transpose()?.unwrap_or(1.0);
    if !rules.partial && kind == "default" {
        return even(config, head_dim, head_dim);
    }
    match holder {
        Some(holder) if factor > 1.0 => Err(holder.bad(KEY, "a number above 0 and up to 1")),
        Some(holder) if !rules.partial && factor != 1.0 => {
            Err(holder.unsupported(KEY, "this family rotates whole heads"))
        }
        Some(holder) => even(&holder, head_dim, (head_dim as f64 * factor) as usize),
        None => even(config, head_dim, head_dim),
    }
}

fn even(holder: &Raw<'_>, head_dim: usize, dimensions: usize) -> Result<usize, Error> {
    if dimensions == 0 || !dimensions.is_multiple_of(2) {
        let key = if dimensions == head_dim { "head_dim" } else { "partial_rotary_factor" };
        let expected = format!("an even number of rotated numbers a head, not {dimensions} of {head_dim}");
        return Err(holder.bad(key, expected));
    }
    Ok(dimensions)
}

fn dynamic(rope: &Raw<'_>, dimensions: usize, max_positions: usize) -> Result<RotaryScaling, Error> {
    let factor = rope.positive("factor")?;
    if dimensions <= 2 {
        return Err(rope.unsupported("factor", "dynamic scaling needs heads of more than 2 rotated numbers"));
    }
    Ok(RotaryScaling::Dynamic { factor, trained_positions: max_positions })
}

/// `original_max_position_embeddings`: at the top before inside, then the family's, then `max_position_embeddings`.
fn original(config: &Raw<'_>, rope: &Raw<'_>, rules: RopeRules, max_positions: usize) -> Result<usize, Error> {
    const KEY: &str = "original_max_position_embeddings";
    if let Some(positions) = config.size_if_given(KEY)? {
        return Ok(positions);
    }
    if let Some(positions) = rules.original_positions {
        return Ok(positions);
    }
    rope.size_or(KEY, max_positions)
}

/// The stretching: `factor`, or else the ratio of both lengths.
fn factor(rope: &Raw<'_>, max_positions: usize, original: usize) -> Result<f64, Error> {
    rope.positive_or("factor", max_positions as f64 / original as f64)
}

fn yarn(config: &Raw<'_>, rope: &Raw<'_>, rules: RopeRules, max_positions: usize) -> Result<RotaryScaling, Error> {
    let trained_positions = original(config, rope, rules, max_positions)?;
    let factor = factor(rope, max_positions, trained_positions)?;
    let magnitude = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let mscale = rope.number_if_given("mscale")?.filter(|scale| *scale != 0.0);
    let mscale_all_dim = rope.number_if_given("mscale_all_dim")?.filter(|scale| *scale != 0.0);
    let attention_factor = match (rope.number_if_given("attention_factor")?, mscale, mscale_all_dim) {
        (Some(factor), _, _) => factor,
        (None, Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
        (None, _, _) => magnitude(1.0),
    };
    // In Python `0 or 32` is 32.
    let beta = |key: &str, default: f64| -> Result<f64, Error> {
        match rope.number_if_given(key)? {
            None => Ok(default),
            Some(0.0) => Ok(default),
            Some(_) => rope.positive(key),
        }
    };
    Ok(RotaryScaling::Yarn {
        factor,
        trained_positions,
        beta_fast: beta("beta_fast", 32.0)?,
        beta_slow: beta("beta_slow", 1.0)?,
        attention_factor,
        truncate: rope.flag_or("truncate", true)?,
    })
}

fn llama3(config: &Raw<'_>, rope: &Raw<'_>, rules: RopeRules, max_positions: usize) -> Result<RotaryScaling, Error> {
    let low_frequency_factor = rope.positive("low_freq_factor")?;
    let high_frequency_factor = rope.positive("high_freq_factor")?;
    if high_frequency_factor == low_frequency_factor {
        return Err(rope.bad("high_freq_factor", "another number than `low_freq_factor`"));
    }
    Ok(RotaryScaling::Llama3 {
        factor: rope.positive("factor")?,
        low_frequency_factor,
        high_frequency_factor,
        trained_positions: original(config, rope, rules, max_positions)?,
    })
}

fn long_rope(
    config: &Raw<'_>,
    rope: &Raw<'_>,
    rules: RopeRules,
    dimensions: usize,
    max_positions: usize,
) -> Result<RotaryScaling, Error> {
    let trained_positions = original(config, rope, rules, max_positions)?;
    let factor = factor(rope, max_positions, trained_positions)?;
    let attention_factor = match rope.number_if_given("attention_factor")? {
        Some(factor) => factor,
        None if factor <= 1.0 => 1.0,
        None if trained_positions == 1 => {
            return Err(rope.missing("attention_factor", "a number, since the trained length is 1"));
        }
        None => (1.0 + factor.ln() / (trained_positions as f64).ln()).sqrt(),
    };
    Ok(RotaryScaling::LongRope {
        short_factors: rope.positive_list("short_factor", dimensions / 2)?,
        long_factors: rope.positive_list("long_factor", dimensions / 2)?,
        trained_positions,
        attention_factor,
    })
}
