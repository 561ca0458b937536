//! Every fixture's configuration becomes the switches that its family has in transformers 5.6.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::checkpoint::Checkpoint;
use luthier_model::config::{
    Activation, Biases, DecoderConfig, FeedForward, HeadOrder, LayerConfig, ModuleNames, QueryKeyNorm, Rotary,
    RotaryScaling,
};
use support::{config, described, model_files};

/// The switches that most fixtures share: generator's `BASE`.
fn base(model_type: &str) -> DecoderConfig {
    DecoderConfig {
        model_type: model_type.into(),
        vocabulary_size: 128,
        hidden_size: 32,
        intermediate_size: 64,
        heads: 4,
        key_value_heads: 2,
        head_dim: 8,
        attention_scale: 8f32.powf(-0.5),
        attention_soft_cap: None,
        norm_epsilon: 1e-6,
        norm_offset: 0.0,
        query_key_norm: QueryKeyNorm::None,
        rotary: Rotary { theta: 10_000.0, dimensions: 8, interleaved: false, scaling: RotaryScaling::None },
        feed_forward: FeedForward::Gated(Activation::Silu),
        embedding_scale: 1.0,
        prompt_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_soft_cap: None,
        tied_head: false,
        biases: Biases::default(),
        layers: vec![LayerConfig::default(); 2],
        max_positions: Some(256),
        end_token_ids: vec![2],
        begin_token_id: Some(1),
    }
}

fn wide(model: DecoderConfig) -> DecoderConfig {
    let rotary = Rotary { dimensions: 16, ..model.rotary };
    DecoderConfig { head_dim: 16, attention_scale: 0.25, rotary, ..model }
}

fn scaled(model: DecoderConfig, scaling: RotaryScaling) -> DecoderConfig {
    DecoderConfig { rotary: Rotary { scaling, ..model.rotary.clone() }, ..model }
}

fn check(fixture: &str, expected: DecoderConfig) -> ModuleNames {
    let model = described(&config(fixture));
    assert_eq!(model.decoder, expected, "{fixture}");
    // The tensors of the checkpoint are exactly those that the description needs, in the shapes that it implies.
    let checkpoint = Checkpoint::from_files(&model_files(fixture)).unwrap_or_else(|error| panic!("{fixture}: {error}"));
    assert_eq!(checkpoint.model.decoder, expected, "{fixture}");
    model.names
}

const ALL: Biases = Biases { query_key_value: true, attention_output: true, feed_forward: true };
const QUERIES: Biases = Biases { query_key_value: true, attention_output: false, feed_forward: false };

#[test]
fn llama() {
    let names = check("llama", base("llama"));
    assert_eq!(names.query_key_value[1].replace("{}", "7"), "model.layers.7.self_attn.k_proj");
    check("llama-tied", DecoderConfig { tied_head: true, ..wide(base("llama")) });
    check("llama-bias", DecoderConfig { biases: ALL, ..base("llama") });
}

#[test]
fn llama_with_stretched_positions() {
    check("llama-linear-rope", scaled(base("llama"), RotaryScaling::Linear { factor: 2.0 }));
    let dynamic = RotaryScaling::Dynamic { factor: 2.0, trained_positions: 16 };
    check("llama-dynamic-rope", DecoderConfig { max_positions: Some(16), ..scaled(base("llama"), dynamic) });
    let llama3 = RotaryScaling::Llama3 {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        trained_positions: 16,
    };
    check("llama3-rope", scaled(base("llama"), llama3));
}

#[test]
fn mistral() {
    let layers = vec![LayerConfig { window: Some(8), ..LayerConfig::default() }; 2];
    check("mistral-window", DecoderConfig { layers, ..base("mistral") });
}

#[test]
fn qwen() {
    check("qwen2", DecoderConfig { biases: QUERIES, ..base("qwen2") });
    let yarn = RotaryScaling::Yarn {
        factor: 4.0,
        trained_positions: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 0.1 * 4f64.ln() + 1.0,
        truncate: true,
    };
    check("qwen2-yarn", scaled(DecoderConfig { biases: QUERIES, tied_head: true, ..base("qwen2") }, yarn));
    let names = check("qwen3", DecoderConfig { query_key_norm: QueryKeyNorm::BeforeRotary, ..wide(base("qwen3")) });
    assert_eq!(names.query_norm, "model.layers.{}.self_attn.q_norm");
}

#[test]
fn phi3() {
    let names = check("phi3", DecoderConfig { norm_epsilon: 1e-5, ..base("phi3") });
    assert_eq!(names.query_key_value, ["model.layers.{}.self_attn.qkv_proj"]);
    assert_eq!(names.gate_up, ["model.layers.{}.mlp.gate_up_proj"]);
}

#[test]
fn granite_multiplies_and_divides() {
    let expected = DecoderConfig {
        embedding_scale: 6.0,
        prompt_scale: 6.0,
        residual_scale: 0.3,
        logit_scale: 0.25,
        attention_scale: 0.2,
        ..base("granite")
    };
    check("granite", expected);
}

#[test]
fn smollm3_leaves_layers_unrotated() {
    let layers = [false, true].map(|unrotated| LayerConfig { unrotated, ..LayerConfig::default() }).to_vec();
    let mut expected = DecoderConfig { layers, tied_head: true, ..base("smollm3") };
    expected.rotary.theta = 2_000_000.0;
    check("smollm3", expected);
}

#[test]
fn seed_oss() {
    check("seed_oss", DecoderConfig { biases: QUERIES, ..wide(base("seed_oss")) });
    let notes = described(&config("seed_oss")).notes;
    let expected = ["attention_dropout", "residual_dropout"]
        .map(|key| format!("config.json: `{key}` 0.1 is not applied: the base model runs without dropout"));
    assert_eq!(notes, expected);
}

#[test]
fn hunyuan_normalises_after_rotation() {
    let expected = DecoderConfig { norm_epsilon: 1e-5, ..wide(base("hunyuan_v1_dense")) };
    let names = check("hunyuan_v1_dense", DecoderConfig { query_key_norm: QueryKeyNorm::AfterRotary, ..expected });
    assert_eq!(names.key_norm, "model.layers.{}.self_attn.key_layernorm");
}

#[test]
fn arcee_has_no_gate() {
    let feed_forward = FeedForward::Plain(Activation::ReluSquared);
    let names = check("arcee", DecoderConfig { feed_forward, norm_epsilon: 1e-5, ..base("arcee") });
    assert_eq!(names.gate_up, ["model.layers.{}.mlp.up_proj"]);
}

#[test]
fn helium_interleaves() {
    let mut expected = DecoderConfig { norm_epsilon: 1e-8, ..base("helium") };
    expected.rotary = Rotary { theta: 100_000.0, interleaved: true, ..expected.rotary };
    check("helium", expected);
}

#[test]
fn internlm2_groups_its_heads() {
    let names = check("internlm2", base("internlm2"));
    assert_eq!(names.head_order, HeadOrder::Groups);
    assert_eq!(names.gate_up, ["model.layers.{}.feed_forward.w1", "model.layers.{}.feed_forward.w3"]);
}

#[test]
fn baichuan() {
    let names = check("baichuan-7b", DecoderConfig { key_value_heads: 4, ..base("baichuan") });
    assert_eq!(names.query_key_value, ["model.layers.{}.self_attn.W_pack"]);
}

/// The generator wrote a Granite with embedding_multiplier 12, residual_multiplier 1.4 / sqrt(2), logits_scaling 2.
#[test]
fn minicpm_scales_like_granite() {
    let expected = DecoderConfig {
        embedding_scale: 12.0,
        prompt_scale: 12.0,
        residual_scale: (1.4 / 2f64.sqrt()) as f32,
        logit_scale: 0.5,
        tied_head: true,
        ..base("minicpm")
    };
    check("minicpm", expected);
}

#[test]
fn gemma2() {
    let expected = DecoderConfig {
        feed_forward: FeedForward::Gated(Activation::GeluTanh),
        norm_offset: 1.0,
        embedding_scale: 32f32.sqrt(),
        attention_soft_cap: Some(5.0),
        logit_soft_cap: Some(3.0),
        tied_head: true,
        layers: vec![LayerConfig { window: Some(8), ..LayerConfig::default() }, LayerConfig::default()],
        ..wide(base("gemma2"))
    };
    let names = check("gemma2", expected);
    assert_eq!(names.down_norm, Some("model.layers.{}.post_feedforward_layernorm"));
}
