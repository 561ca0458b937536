//! The metadata of a GGUF file as a Hugging Face configuration that says the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::gguf::Gguf;
use super::gguf_model::unsupported;
use super::gguf_names::Architecture;
use super::gguf_tokenizer::GgufTokenizer;
use super::stored::StoredTensor;
use crate::error::Error;

/// The metadata under the architecture's name.
pub(super) struct Keys<'a> {
    pub(super) gguf: &'a Gguf<'a>,
    pub(super) architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    fn size(&self, key: &str) -> Result<u64, Error> {
        let key = self.key(key);
        let size = self.gguf.integer(&key)?;
        let expected = "a positive whole number".to_owned();
        size.filter(|size| *size > 0).ok_or(Error::MissingKey { file: self.gguf.file.into(), key, expected })
    }

    fn integer(&self, key: &str) -> Result<Option<u64>, Error> {
        self.gguf.integer(&self.key(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.gguf.number(&self.key(key))
    }

    pub(super) fn head_dim(&self) -> Result<usize, Error> {
        let derived = self.size("embedding_length")? / self.size("attention.head_count")?;
        Ok(self.integer("attention.key_length")?.unwrap_or(derived) as usize)
    }

    pub(super) fn config(
        &self,
        tensors: &BTreeMap<String, StoredTensor>,
        tokenizer: &GgufTokenizer,
    ) -> Result<Value, Error> {
        let mut config = Map::new();
        let has = |name: &str| tensors.contains_key(name);
        let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
        self.refuse_other_variants()?;
        let Some(embedding) = tensors.get("token_embd.weight") else {
            return Err(self.gguf.damaged("it has no tensor `token_embd.weight`; a vocabulary alone is no model"));
        };
        set("model_type", self.architecture.family.into());
        set("architectures", json!([class_name(self.architecture.family)]));
        set("vocab_size", embedding.dims()[0].into());
        set("hidden_size", self.size("embedding_length")?.into());
        set("intermediate_size", self.size("feed_forward_length")?.into());
        set("num_hidden_layers", self.size("block_count")?.into());
        let heads = self.size("attention.head_count")?;
        set("num_attention_heads", heads.into());
        set("num_key_value_heads", self.integer("attention.head_count_kv")?.unwrap_or(heads).into());
        set("head_dim", self.head_dim()?.into());
        set("max_position_embeddings", self.size("context_length")?.into());
        if let Some(epsilon) = self.number("attention.layer_norm_rms_epsilon")? {
            set("rms_norm_eps", shortest(epsilon));
        }
        set("hidden_act", if self.architecture.family == "arcee" { "relu2" } else { "silu" }.into());
        set("tie_word_embeddings", (!has("output.weight")).into());
        set("attention_bias", has("blk.0.attn_q.bias").into());
        set("attention_out_bias", has("blk.0.attn_output.bias").into());
        set("mlp_bias", has("blk.0.ffn_down.bias").into());
        if let Some(window) = self.integer("attention.sliding_window")?.filter(|window| *window > 0) {
            set("sliding_window", window.into());
            set("use_sliding_window", true.into());
        }
        if self.architecture.family == "granite" {
            self.multipliers(&mut set)?;
        }
        let ends: Vec<u32> =
            tokenizer.eos.into_iter().chain(tokenizer.eot.filter(|id| tokenizer.eos != Some(*id))).collect();
        set("bos_token_id", tokenizer.bos.into());
        set("eos_token_id", if let [id] = ends.as_slice() { json!(id) } else { json!(ends) });
        set("pad_token_id", tokenizer.padding.into());
        self.rope(tensors, &mut set)?;
        Ok(Value::Object(config))
    }

    fn refuse_other_variants(&self) -> Result<(), Error> {
        let head_dim = self.head_dim()? as u64;
        if let Some(experts) = self.integer("expert_count")?.filter(|experts| *experts > 0) {
            let key = self.key("expert_count");
            return Err(unsupported(self.gguf.file, &key, &experts.to_string(), "mixtures of experts are not yet"));
        }
        if let Some(length) = self.integer("attention.value_length")?.filter(|length| *length != head_dim) {
            let key = self.key("attention.value_length");
            let reason = "values must be as wide as keys";
            return Err(unsupported(self.gguf.file, &key, &length.to_string(), reason));
        }
        if self.architecture.name == "baichuan" && self.size("block_count")? == 40 {
            let reason =
                "a Baichuan model of 40 layers is the 13B variant, whose ALiBi positions are not supported yet";
            return Err(unsupported(self.gguf.file, "baichuan.block_count", "40", reason));
        }
        Ok(())
    }

    /// `logit_scale` divides, as in Granite. Old MiniCPM files lack all of them; llama.cpp then takes those of MiniCPM 2B.
    fn multipliers(&self, set: &mut impl FnMut(&str, Value)) -> Result<(), Error> {
        let minicpm = self.architecture.name == "minicpm";
        let (hidden, layers) = (self.size("embedding_length")? as f64, self.size("block_count")? as f64);
        let default = |value: f64| if minicpm { value } else { 1.0 };
        let number =
            |key: &str, default: f64| Ok::<_, Error>(self.number(key)?.filter(|n| *n != 0.0).unwrap_or(default));
        set("embedding_multiplier", shortest(number("embedding_scale", default(12.0))?));
        set("residual_multiplier", shortest(number("residual_scale", default(1.4 / layers.sqrt()))?));
        set("logits_scaling", shortest(number("logit_scale", default(hidden / 256.0))?));
        let plain = (self.head_dim()? as f64).powf(-0.5);
        set("attention_multiplier", shortest(number("attention.scale", plain)?));
        Ok(())
    }

    /// Rotary parameters. Per-dimension divisors (`rope_freqs` of Llama 3) are what `longrope` has as factors.
    fn rope(&self, tensors: &BTreeMap<String, StoredTensor>, set: &mut impl FnMut(&str, Value)) -> Result<(), Error> {
        let mut rope = Map::new();
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        rope.insert("rope_theta".into(), shortest(theta));
        let head_dim = self.head_dim()? as u64;
        let rotated = self.integer("rope.dimension_count")?.unwrap_or(head_dim);
        if rotated != head_dim {
            if self.architecture.family != "phi3" {
                let (key, reason) = (self.key("rope.dimension_count"), "this architecture rotates whole heads");
                return Err(unsupported(self.gguf.file, &key, &rotated.to_string(), reason));
            }
            rope.insert("partial_rotary_factor".into(), json!(rotated as f64 / head_dim as f64));
        }
        let kind = self.gguf.text(&self.key("rope.scaling.type"))?.unwrap_or("none");
        let factor = self.number("rope.scaling.factor")?.filter(|factor| *factor != 0.0);
        let attention = self.number("rope.scaling.attn_factor")?;
        let context = self.size("context_length")?;
        let original = self.integer("rope.scaling.original_context_length")?.unwrap_or(context);
        let divisors = |name: &str| tensors.get(name).map(|tensor| tensor.to_f32().unwrap_or_default());
        let (short, long) = (divisors("rope_factors_short.weight"), divisors("rope_factors_long.weight"));
        let mut scaling = |kind: &str| drop(rope.insert("rope_type".into(), kind.into()));
        if let Some(divisors) = divisors("rope_freqs.weight").filter(|divisors| divisors.iter().any(|d| *d != 1.0)) {
            scaling("longrope");
            rope.insert("short_factor".into(), json!(divisors));
            rope.insert("long_factor".into(), json!(divisors));
            rope.insert("attention_factor".into(), json!(1.0));
            rope.insert("original_max_position_embeddings".into(), context.into());
        } else if let (Some(short), Some(long)) = (short, long) {
            scaling("longrope");
            rope.insert("short_factor".into(), json!(short));
            rope.insert("long_factor".into(), json!(long));
            if let Some(attention) = attention {
                rope.insert("attention_factor".into(), shortest(attention));
            }
            rope.insert("original_max_position_embeddings".into(), original.into());
            set("original_max_position_embeddings", original.into());
        } else {
            match (kind, factor) {
                ("none", _) | ("linear", None) => scaling("default"),
                ("linear", Some(factor)) => {
                    scaling("linear");
                    rope.insert("factor".into(), shortest(factor));
                }
                ("yarn", Some(factor)) => {
                    scaling("yarn");
                    rope.insert("factor".into(), shortest(factor));
                    rope.insert("original_max_position_embeddings".into(), original.into());
                    for (ours, theirs) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                        if let Some(beta) = self.number(&format!("rope.scaling.{theirs}"))? {
                            rope.insert(ours.into(), shortest(beta));
                        }
                    }
                    // llama.cpp multiplies its own factor with the file's.
                    if let Some(attention) = attention {
                        rope.insert("attention_factor".into(), json!(attention * (0.1 * factor.ln() + 1.0)));
                    }
                }
                _ => {
                    let reason = "known are none, linear and yarn with a factor, and longrope with its two tables";
                    let key = self.key("rope.scaling.type");
                    return Err(unsupported(self.gguf.file, &key, &format!("`{kind}`"), reason));
                }
            }
        }
        // transformers 4 knows the keys at the top alone; 5 takes `rope_parameters`, and `rope_scaling` before it.
        for key in ["rope_theta", "partial_rotary_factor"] {
            if let Some(value) = rope.get(key) {
                set(key, value.clone());
            }
        }
        if rope.get("rope_type").is_some_and(|kind| kind != "default") {
            let mut scaling = rope.clone();
            scaling.retain(|key, _| key != "rope_theta" && key != "partial_rotary_factor");
            if self.architecture.family == "phi3" {
                as_phi3(&mut scaling, context, original);
            }
            set("rope_scaling", Value::Object(scaling));
        }
        set("rope_parameters", Value::Object(rope));
        Ok(())
    }
}

/// transformers 4 demands exactly three keys of Phi-3; it computes the factor of the attention as most files have it.
fn as_phi3(scaling: &mut Map<String, Value>, context: u64, original: u64) {
    let (context, original) = (context as f64, original as f64);
    let usual = if context > original { (1.0 + (context / original).ln() / original.ln()).sqrt() } else { 1.0 };
    let given = scaling.get("attention_factor").and_then(Value::as_f64).unwrap_or(usual);
    if (given - usual).abs() < 1e-5 {
        scaling.retain(|key, _| key == "short_factor" || key == "long_factor");
        scaling.insert("type".into(), "longrope".into());
    }
}

/// The class that transformers loads such a configuration with.
fn class_name(family: &str) -> &'static str {
    match family {
        "arcee" => "ArceeForCausalLM",
        "granite" => "GraniteForCausalLM",
        "hunyuan_v1_dense" => "HunYuanDenseV1ForCausalLM",
        "phi3" => "Phi3ForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        "seed_oss" => "SeedOssForCausalLM",
        "smollm3" => "SmolLM3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}

/// A number that the file has in f32, by the shortest decimal that means the same there: 1e-6, not 9.99999997e-7.
fn shortest(number: f64) -> Value {
    let narrow = number as f32;
    let exact = if f64::from(narrow) == number { narrow.to_string().parse().unwrap_or(number) } else { number };
    json!(exact)
}
