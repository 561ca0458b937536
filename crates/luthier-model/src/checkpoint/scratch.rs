//! A model before any training: the tensors that its configuration asks for, with values drawn from a seed.
//!
//! As transformers starts every family here (`PreTrainedModel._init_weights`): matrices are normal with mean 0 and the
//! standard deviation `initializer_range`, the row of the padding token is 0, norms multiply by 1, biases 0. A value is a function
//! of seed, tensor name and index alone. They are not PyTorch's own random numbers, which depend on its version.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use luthier_tensor::DType;

use super::{Checkpoint, ModelFiles, Quantiser, StoredTensor, needed_tensors};
use crate::error::Error;
use crate::families::{describe, raw::Raw};
use crate::tuning::{mix, stream};

/// `initializer_range` where the configuration does not say: transformers' default.
const DEVIATION: f64 = 0.02;

impl Checkpoint {
    /// A model that begins with random weights; weights among `files` are not read. They are stored as `dtype` or
    /// `torch_dtype` of the configuration says, else in f32.
    ///
    /// With a `quantiser` each tensor is quantised before the next is drawn, so that the model never lies in memory as it is drawn.
    ///
    /// # Errors
    /// When `config.json` is missing or wrong, the family is not supported, or a tensor cannot be quantised.
    pub fn from_scratch(files: &ModelFiles, seed: u64, quantiser: Option<&Quantiser>) -> Result<Self, Error> {
        let file = files.path("config.json");
        let Some(config) = files.json("config.json")? else {
            return Err(Error::MissingFile {
                label: files.label.clone(),
                file: "config.json".into(),
                hint: "it describes the model that is to begin with random weights".into(),
            });
        };
        let model = describe(&file, &config)?;
        let raw = Raw::new(&file, &config)?;
        let deviation = raw.number_if_given("initializer_range")?.unwrap_or(DEVIATION);
        if deviation < 0.0 {
            return Err(raw.bad("initializer_range", "a number of 0 or more"));
        }
        let padding = raw.token_ids("pad_token_id")?.into_iter().flatten().next();
        let embedding = format!("{}.weight", model.names.embedding);
        let dtype = match raw.text("dtype")?.or(raw.text("torch_dtype")?) {
            Some("bfloat16") => DType::Bf16,
            Some("float16") => DType::F16,
            _ => DType::F32,
        };
        let threads = quantiser.map_or(1, |quantiser| quantiser.threads);
        let mut tensors = BTreeMap::new();
        for (name, dims) in needed_tensors(&model) {
            let mut values = starting_values(seed, &name, &dims, deviation, threads);
            if dims.len() == 1 && !name.ends_with(".bias") {
                values.fill(1.0 - model.decoder.norm_offset);
            }
            if let Some(padding) = padding.map(|id| id as usize).filter(|id| name == embedding && *id < dims[0]) {
                values[padding * dims[1]..(padding + 1) * dims[1]].fill(0.0);
            }
            let tensor = StoredTensor::from_values(&name, &values, &dims, dtype)?;
            drop(values);
            let quantised = match quantiser {
                Some(quantiser) => quantiser.apply(&model, &files.label, &name, &tensor)?,
                None => None,
            };
            tensors.insert(name, quantised.unwrap_or(tensor));
        }
        let mut checkpoint = Self::settled(files, &file, &file, config, tensors, Vec::new(), None)?;
        let note = format!(
            "{}: the weights are drawn from seed {seed}: normal with standard deviation {deviation}; norms are 1, biases 0",
            files.label
        );
        checkpoint.model.notes.push(note);
        Ok(checkpoint)
    }
}

/// The values of one tensor; what has one dimension is a norm or a bias, which start elsewhere or at 0.
fn starting_values(seed: u64, name: &str, dims: &[usize], deviation: f64, threads: usize) -> Vec<f32> {
    let count = dims.iter().product();
    match dims {
        [_] => vec![0.0; count],
        _ => {
            let name = stream(seed, name);
            let mut values = vec![0.0; count];
            let each = count.div_ceil(threads.max(1)).next_multiple_of(2).max(2);
            std::thread::scope(|scope| {
                for (part, values) in values.chunks_mut(each).enumerate() {
                    scope.spawn(move || {
                        for (pair, values) in (part * each / 2..).zip(values.chunks_mut(2)) {
                            let (one, other) = normal_pair(name, pair as u64);
                            let pair = [(one * deviation) as f32, (other * deviation) as f32];
                            values.copy_from_slice(&pair[..values.len()]);
                        }
                    });
                }
            });
            values
        }
    }
}

/// Two independent standard normal numbers. From: Box and Muller 1958.
fn normal_pair(stream: u64, pair: u64) -> (f64, f64) {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    // Never 0, whose logarithm is infinite.
    let one = ((mix(stream ^ mix(2 * pair)) >> 11) + 1) as f64 * UNIT;
    let other = (mix(stream ^ mix(2 * pair + 1)) >> 11) as f64 * UNIT;
    let (radius, angle) = ((-2.0 * one.ln()).sqrt(), TAU * other);
    (radius * angle.cos(), radius * angle.sin())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn files(change: impl FnOnce(&mut serde_json::Value)) -> ModelFiles {
        let mut config = json!({
            "model_type": "qwen2", "vocab_size": 500, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 3, "initializer_range": 0.05,
            "tie_word_embeddings": true,
        });
        change(&mut config);
        let bytes = config.to_string().into_bytes();
        ModelFiles { label: "new".into(), files: BTreeMap::from([("config.json".into(), Arc::new(bytes) as _)]) }
    }

    #[test]
    fn matrices_are_normal_norms_one_biases_and_padding_zero() {
        let checkpoint = Checkpoint::from_scratch(&files(|_| ()), 42, None).expect("made");
        let values = |name: &str| checkpoint.tensors[name].to_f32().expect("floats");
        assert!(values("model.layers.1.input_layernorm.weight").iter().all(|value| *value == 1.0));
        assert!(values("model.layers.1.self_attn.q_proj.bias").iter().all(|value| *value == 0.0));
        let embedding = values("model.embed_tokens.weight");
        assert!(embedding[3 * 64..4 * 64].iter().all(|value| *value == 0.0));
        assert!(embedding[4 * 64..5 * 64].iter().all(|value| *value != 0.0));

        // Moments of 96 * 64 numbers: mean 0, variance 1, kurtosis 3, each within four standard errors.
        let numbers: Vec<f64> =
            values("model.layers.0.mlp.up_proj.weight").iter().map(|value| f64::from(*value) / 0.05).collect();
        let count = numbers.len() as f64;
        let moment = |power: i32| numbers.iter().map(|number| number.powi(power)).sum::<f64>() / count;
        assert!(moment(1).abs() < 4.0 / count.sqrt(), "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 4.0 * (2.0 / count).sqrt(), "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 4.0 * (96.0 / count).sqrt(), "{}", moment(4));
    }

    #[test]
    fn seeds_and_names_draw_apart() {
        let draw = |seed, name: &str| {
            Checkpoint::from_scratch(&files(|_| ()), seed, None).expect("made").tensors[name].to_f32().expect("floats")
        };
        let name = "model.layers.0.mlp.up_proj.weight";
        assert_eq!(draw(1, name), draw(1, name));
        assert_ne!(draw(1, name), draw(2, name));
        assert_ne!(draw(1, name), draw(1, "model.layers.0.mlp.gate_proj.weight"));
    }

    #[test]
    fn storage_is_what_the_configuration_says() {
        for (key, value, expected) in [
            ("dtype", "bfloat16", DType::Bf16),
            ("torch_dtype", "float16", DType::F16),
            ("dtype", "float32", DType::F32),
        ] {
            let files = files(|config| config[key] = value.into());
            let checkpoint = Checkpoint::from_scratch(&files, 0, None).expect("made");
            assert!(checkpoint.tensors.values().all(|tensor| tensor.dtype() == expected), "{value}");
        }
    }

    #[test]
    fn a_deviation_below_zero_is_refused() {
        let error = Checkpoint::from_scratch(&files(|config| config["initializer_range"] = (-1).into()), 0, None);
        assert_eq!(
            error.err().map(|error| error.to_string()).as_deref(),
            Some("new/config.json: `initializer_range` is -1; expected a number of 0 or more")
        );
    }
}
