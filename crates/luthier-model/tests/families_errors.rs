//! What is refused, and the whole sentence that says so.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use serde_json::{Value, json};
use support::{changed, config, refusal};

fn check(fixture: &str, changes: Value, expected: &str) {
    assert_eq!(refusal(&changed(fixture, changes)), format!("config.json: {expected}"));
}

#[test]
fn a_missing_or_wrong_size() {
    check("llama", json!({ "hidden_size": "absent" }), "`hidden_size` is missing; expected a positive whole number");
    check("llama", json!({ "hidden_size": null }), "`hidden_size` is missing; expected a positive whole number");
    let wrong =
        |value: &str| format!("`num_attention_heads` is {value}; expected a positive whole number up to 268435456");
    for value in [json!(0), json!(-3), json!(1.5), json!([4]), json!(1e18)] {
        check("llama", json!({ "num_attention_heads": value }), &wrong(&value.to_string()));
    }
    check("llama", json!({ "num_hidden_layers": 5000 }), "`num_hidden_layers` is 5000; expected at most 4096 layers");
}

#[test]
fn heads_that_do_not_divide() {
    check(
        "llama",
        json!({ "num_key_value_heads": 3 }),
        "`num_key_value_heads` is 3; expected a divisor of the 4 attention heads",
    );
    check(
        "llama",
        json!({ "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": null }),
        "`num_attention_heads` is 6; expected a divisor of `hidden_size` 32",
    );
    check(
        "llama",
        json!({ "head_dim": 7 }),
        "`head_dim` is 7; expected an even number of rotated numbers a head, not 7 of 7",
    );
    check("helium", json!({ "head_dim": 16 }), "`head_dim` is 16; expected `hidden_size` 32 divided by 4 heads");
}

#[test]
fn rotary_parameters_out_of_range() {
    let rope = |rope: Value| json!({ "rope_parameters": rope });
    check(
        "llama",
        rope(json!({ "rope_type": "linear" })),
        "`rope_parameters.factor` is missing; expected a number above 0",
    );
    check(
        "llama",
        rope(json!({ "rope_type": "linear", "factor": 0 })),
        "`rope_parameters.factor` is 0; expected a number above 0",
    );
    check(
        "llama",
        rope(json!({ "rope_type": "proportional" })),
        "`rope_parameters.rope_type` is \"proportional\", which is not supported: known are default, linear, dynamic, yarn, \
         llama3 and longrope",
    );
    check(
        "llama",
        json!({ "rope_scaling": { "type": "mrope" } }),
        "`rope_scaling.type` is \"mrope\", which is not supported: known are default, linear, dynamic, yarn, llama3 and longrope",
    );
    check("llama", rope(json!({ "rope_theta": 1 })), "`rope_parameters.rope_theta` is 1; expected a number above 1");
    check(
        "phi3",
        json!({ "partial_rotary_factor": 0.4 }),
        "`partial_rotary_factor` is 0.4; expected an even number of rotated numbers a head, not 3 of 8",
    );
    check(
        "phi3",
        json!({ "rope_scaling": { "type": "longrope", "short_factor": [1, 2], "long_factor": [1, 1, 1, 1] } }),
        "`rope_scaling.short_factor` is a list of 2; expected a list of 4 numbers above 0",
    );
    check(
        "phi3",
        json!({ "rope_scaling": { "type": "linear", "factor": 2 } }),
        "`rope_scaling.type` is \"linear\", which is not supported: this family has only default and longrope",
    );
    check(
        "llama",
        json!({ "partial_rotary_factor": 0.5, "rope_parameters": { "rope_type": "linear", "factor": 2 } }),
        "`partial_rotary_factor` is 0.5, which is not supported: this family rotates whole heads",
    );
    check(
        "qwen3",
        rope(json!({ "full_attention": { "rope_type": "default" } })),
        "`rope_parameters` is {\"full_attention\":{\"rope_type\":\"default\"}}, which is not supported: rotary parameters that \
         differ by layer type",
    );
}

#[test]
fn what_the_decoder_cannot_do() {
    check(
        "llama",
        json!({ "hidden_act": "xielu" }),
        "`hidden_act` is \"xielu\", which is not supported: known are silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu \
         and relu2",
    );
    check(
        "llama",
        json!({ "quantization_config": { "quant_method": "gptq" } }),
        "`quantization_config` is {\"quant_method\":\"gptq\"}, which is not supported: weights quantised by other programs \
         cannot be read; use the unquantised model, or a GGUF file",
    );
    check(
        "baichuan-7b",
        json!({ "max_position_embeddings": "absent" }),
        "`max_position_embeddings` is absent, which is not supported: a Baichuan model without it is the 13B variant, whose \
         ALiBi positions are not supported yet",
    );
    check(
        "baichuan-7b",
        json!({ "architectures": ["BaichuanForCausalLM"] }),
        "`architectures` is [\"BaichuanForCausalLM\"], which is not supported: this is Baichuan 2, whose normalised head is not \
         supported yet",
    );
    check(
        "qwen2",
        json!({ "layer_types": ["sliding_attention", "full_attention"] }),
        "`layer_types` is [\"sliding_attention\",\"full_attention\"], which is not supported: `layer_types` has sliding layers, \
         but no window is switched on (`use_sliding_window`, `sliding_window`)",
    );
    check(
        "qwen2",
        json!({ "layer_types": ["full_attention"] }),
        "`layer_types` is [\"full_attention\"]; expected a list of 2 names, each `full_attention` or `sliding_attention`",
    );
    check(
        "minicpm",
        json!({ "num_experts": 8 }),
        "`num_experts` is 8, which is not supported: only the dense MiniCPM models are",
    );
}

#[test]
fn an_unknown_family_lists_the_known_ones() {
    check(
        "llama",
        json!({ "model_type": "llamas" }),
        "the model type `llamas` is not supported; supported are arcee, baichuan, gemma2, granite, helium, hunyuan_v1_dense, internlm2, \
         llama, minicpm, mistral, phi3, qwen2, qwen3, seed_oss, smollm3",
    );
    check(
        "llama",
        json!({ "model_type": "absent" }),
        "`model_type` is missing; expected the name of a model family, such as `llama`",
    );
    assert_eq!(refusal(&json!([1])), "config.json is not valid JSON: expected an object in braces");
}

/// Whatever a key is replaced with, reading ends in a value or an error, never in a panic.
#[test]
fn no_value_of_any_key_panics() {
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(1),
        json!(3),
        json!(1e300),
        json!(0.3),
        json!("x"),
        json!([]),
        json!({}),
        json!(true),
    ];
    for name in
        ["llama", "llama3-rope", "phi3", "qwen2-yarn", "smollm3", "hunyuan_v1_dense", "helium", "minicpm", "granite"]
    {
        let original = config(name);
        for key in original.as_object().unwrap().keys() {
            for value in &values {
                let mut changed = original.clone();
                changed[key] = value.clone();
                drop(luthier_model::families::describe("config.json", &changed));
            }
        }
    }
}
