//! Other values of the switches, with the defaults and the precedence of transformers 5.6.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::config::{Activation, Biases, FeedForward, RotaryScaling};
use serde_json::{Value, json};
use support::{changed, described};

fn scaling(fixture: &str, changes: Value) -> RotaryScaling {
    described(&changed(fixture, changes)).decoder.rotary.scaling
}

fn windows(fixture: &str, changes: Value) -> Vec<Option<usize>> {
    described(&changed(fixture, changes)).decoder.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn yarn_takes_its_factor_of_the_attention_from_the_file_or_from_mscale() {
    let yarn = |changes: Value| {
        let mut rope = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64 });
        rope.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        match scaling("llama", json!({ "rope_parameters": rope })) {
            RotaryScaling::Yarn { attention_factor, beta_fast, truncate, factor, .. } => {
                (attention_factor, beta_fast, truncate, factor)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(yarn(json!({ "attention_factor": 1.5 })).0, 1.5);
    assert_eq!(yarn(json!({ "attention_factor": null })).0, 0.1 * 4f64.ln() + 1.0);
    assert_eq!(yarn(json!({ "mscale": 0.7 })).0, 0.1 * 4f64.ln() + 1.0);
    let both = (0.1 * 0.7 * 4f64.ln() + 1.0) / (0.1 * 1.2 * 4f64.ln() + 1.0);
    assert_eq!(yarn(json!({ "mscale": 0.7, "mscale_all_dim": 1.2 })).0, both);
    assert_eq!(yarn(json!({ "beta_fast": 16, "truncate": false })).1, 16.0);
    assert!(!yarn(json!({ "truncate": false })).2);
    // No factor: the ratio of both lengths, 256 / 64.
    assert_eq!(yarn(json!({ "factor": null })).3, 4.0);
}

#[test]
fn the_trained_length_at_the_top_goes_before_the_one_inside() {
    let rope = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64 });
    let length = |changes: Value| match scaling("llama", changes) {
        RotaryScaling::Yarn { trained_positions, .. } => trained_positions,
        other => panic!("{other:?}"),
    };
    assert_eq!(length(json!({ "rope_parameters": rope })), 64);
    assert_eq!(length(json!({ "rope_parameters": rope, "original_max_position_embeddings": 32 })), 32);
    assert_eq!(length(json!({ "rope_parameters": { "rope_type": "yarn", "factor": 2 } })), 256);
}

#[test]
fn phi3_rotates_a_part_of_each_head() {
    let rotary = described(&changed("phi3", json!({ "partial_rotary_factor": 0.5 }))).decoder.rotary;
    assert_eq!(rotary.dimensions, 4);
    let modern = json!({ "rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.75 });
    let changes = json!({ "rope_scaling": "absent", "rope_theta": "absent", "partial_rotary_factor": "absent", "rope_parameters": modern });
    let rotary = described(&changed("phi3", changes)).decoder.rotary;
    assert_eq!((rotary.dimensions, rotary.theta), (6, 5000.0));
}

#[test]
fn longrope_has_a_factor_of_the_attention_that_follows_from_the_lengths() {
    for name in ["longrope", "su", "yarn"] {
        let rope = json!({ "type": name, "short_factor": [1, 1.5, 2, 2.5], "long_factor": [2, 3, 4, 5] });
        let changes = json!({ "rope_scaling": rope, "original_max_position_embeddings": 64 });
        let expected = RotaryScaling::LongRope {
            short_factors: vec![1.0, 1.5, 2.0, 2.5],
            long_factors: vec![2.0, 3.0, 4.0, 5.0],
            trained_positions: 64,
            attention_factor: (1.0 + 4f64.ln() / 64f64.ln()).sqrt(),
        };
        assert_eq!(scaling("phi3", changes), expected, "{name}");
    }
    // Phi-3 has 4096 where the file says nothing, whatever is inside; a shorter model is then not stretched.
    let rope = json!({ "type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2], "original_max_position_embeddings": 64 });
    match scaling("phi3", json!({ "rope_scaling": rope, "original_max_position_embeddings": "absent" })) {
        RotaryScaling::LongRope { trained_positions, attention_factor, .. } => {
            assert_eq!((trained_positions, attention_factor), (4096, 1.0));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hunyuan_has_alpha() {
    let rope = json!({ "type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32, "mscale": 1.0 });
    let changes = json!({ "rope_parameters": "absent", "rope_scaling": rope, "rope_theta": 10000.0 });
    let expected = RotaryScaling::DynamicAlpha {
        short_theta: 10_000.0 * 1000f64.powf(16.0 / 14.0),
        factor: 1.0,
        trained_positions: 256,
    };
    assert_eq!(scaling("hunyuan_v1_dense", changes), expected);
    let plain = json!({ "rope_type": "dynamic", "alpha": 0, "factor": 3.0 });
    let expected = RotaryScaling::Dynamic { factor: 3.0, trained_positions: 256 };
    assert_eq!(scaling("hunyuan_v1_dense", json!({ "rope_parameters": plain })), expected);
}

#[test]
fn llama_ignores_a_part_as_transformers_does() {
    let rotary = described(&changed("llama", json!({ "partial_rotary_factor": 0.5 }))).decoder.rotary;
    assert_eq!(rotary.dimensions, 8);
}

#[test]
fn windows_slide_where_the_family_says() {
    let qwen = |changes: Value| windows("qwen2", changes);
    let sliding =
        json!({ "layer_types": "absent", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1 });
    assert_eq!(qwen(sliding), [None, Some(8)]);
    assert_eq!(qwen(json!({ "layer_types": "absent", "sliding_window": 8, "max_window_layers": 0 })), [None, None]);
    let typed = json!({ "layer_types": ["sliding_attention", "full_attention"], "use_sliding_window": true, "sliding_window": 4 });
    assert_eq!(qwen(typed), [Some(4), None]);
    let default = json!({ "layer_types": "absent", "use_sliding_window": true, "sliding_window": "absent", "max_window_layers": 0 });
    assert_eq!(qwen(default), [Some(4096), Some(4096)]);
    assert_eq!(windows("mistral-window", json!({ "sliding_window": null })), [None, None]);
    assert_eq!(windows("mistral-window", json!({ "sliding_window": "absent" })), [Some(4096), Some(4096)]);
    assert_eq!(windows("phi3", json!({ "sliding_window": 5 })), [Some(5), Some(5)]);
    let smollm3 = json!({ "layer_types": "absent", "use_sliding_window": true, "sliding_window": 6 });
    assert_eq!(windows("smollm3", smollm3), [None, Some(6)]);
}

#[test]
fn smollm3_counts_its_unrotated_layers() {
    let changes = json!({ "no_rope_layers": null, "layer_types": "absent", "num_hidden_layers": 5 });
    let layers = described(&changed("smollm3", changes)).decoder.layers;
    let unrotated: Vec<bool> = layers.iter().map(|layer| layer.unrotated).collect();
    assert_eq!(unrotated, [false, false, false, true, false]);
    let longer = described(&changed("smollm3", json!({ "no_rope_layers": [0, 1, 0, 1] }))).decoder.layers;
    assert_eq!(longer.iter().map(|layer| layer.unrotated).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn heads_and_head_dim_have_defaults() {
    let heads = |fixture: &str, changes: Value| {
        let model = described(&changed(fixture, changes)).decoder;
        (model.key_value_heads, model.head_dim)
    };
    assert_eq!(heads("llama", json!({ "num_key_value_heads": "absent", "head_dim": null })), (4, 8));
    assert_eq!(heads("qwen3", json!({ "head_dim": "absent" })), (2, 128));
    assert_eq!(heads("seed_oss", json!({ "head_dim": null, "num_key_value_heads": null })), (4, 8));
    assert_eq!(heads("qwen2", json!({ "head_dim": 12 })), (2, 12));
}

#[test]
fn biases_follow_the_switches() {
    let biases = |fixture: &str, changes: Value| {
        let biases = described(&changed(fixture, changes)).decoder.biases;
        let Biases { query_key_value, attention_output, feed_forward } = biases;
        [query_key_value, attention_output, feed_forward]
    };
    for family in ["llama", "granite", "smollm3", "arcee"] {
        assert_eq!(biases(family, json!({ "attention_bias": true })), [true, true, false], "{family}");
        assert_eq!(biases(family, json!({ "mlp_bias": true })), [false, false, true], "{family}");
    }
    for family in ["qwen3", "hunyuan_v1_dense", "minicpm"] {
        assert_eq!(
            biases(family, json!({ "attention_bias": true, "mlp_bias": true })),
            [true, true, false],
            "{family}"
        );
    }
    assert_eq!(biases("helium", json!({ "attention_bias": true, "mlp_bias": true })), [true, false, true]);
    assert_eq!(
        biases("seed_oss", json!({ "attention_bias": false, "attention_out_bias": true })),
        [false, true, false]
    );
    assert_eq!(biases("internlm2", json!({ "bias": "absent" })), [true, true, false]);
    assert_eq!(biases("mistral-window", json!({ "attention_bias": true })), [false, false, false]);
}

#[test]
fn activations_have_several_names() {
    let names = [
        ("silu", Activation::Silu),
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("relu2", Activation::ReluSquared),
    ];
    for (name, expected) in names {
        let model = described(&changed("llama", json!({ "hidden_act": name }))).decoder;
        assert_eq!(model.feed_forward, FeedForward::Gated(expected), "{name}");
        let model = described(&changed("arcee", json!({ "hidden_act": name }))).decoder;
        assert_eq!(model.feed_forward, FeedForward::Plain(expected), "{name}");
    }
}

#[test]
fn tokens_that_start_and_end() {
    let ids = |changes: Value| {
        let model = described(&changed("llama", changes)).decoder;
        (model.begin_token_id, model.end_token_ids)
    };
    assert_eq!(ids(json!({ "eos_token_id": [2, 5], "bos_token_id": null })), (None, vec![2, 5]));
    assert_eq!(ids(json!({ "eos_token_id": null, "bos_token_id": 3 })), (Some(3), vec![]));
    assert_eq!(ids(json!({ "eos_token_id": "absent", "bos_token_id": "absent" })), (Some(1), vec![2]));
    assert_eq!(ids(json!({ "bos_token_id": 500 })).0, None, "no row of the embedding");
}

#[test]
fn heads_are_tied_by_the_file_or_by_the_family() {
    let tied = |fixture: &str, value: Value| {
        described(&changed(fixture, json!({ "tie_word_embeddings": value }))).decoder.tied_head
    };
    assert!(tied("llama", json!(true)));
    assert!(!tied("llama-tied", json!(false)));
    assert!(!tied("llama", json!("absent")));
    assert!(tied("smollm3", json!("absent")));
    assert!(tied("minicpm", json!("absent")));
}
