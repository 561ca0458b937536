//! PEFT's LoRA folders: the fixtures of PEFT 0.18.1 are read, ours have the same keys and names, and what would change the
//! numbers is refused.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::adapter::{AdapterTensor, LoraAdapter, TargetModules, matches_target, write_adapter};
use luthier_model::checkpoint::read_safetensors;
use serde_json::{Value, json};
use support::{fixture, read, safetensors, shared};

fn files(name: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = fixture("training").join(name);
    (read(&folder.join("adapter_config.json")), read(&folder.join("adapter_model.safetensors")))
}

fn adapter(name: &str) -> LoraAdapter {
    let (config, weights) = files(name);
    LoraAdapter::read("adapter", &config, &shared(weights)).unwrap()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn adapters_of_peft() {
    let lora = adapter("lora-llama/adapter_init");
    assert_eq!((lora.settings.rank, lora.settings.alpha, lora.modules.len()), (4, 8.0, 14));
    assert_eq!(lora.settings.base_model, "llama");
    let pair = &lora.modules["model.layers.1.mlp.down_proj"];
    assert_eq!((pair.a.rows(), pair.a.columns(), pair.b.rows(), pair.b.columns()), (4, 64, 32, 4));
    assert_eq!(lora.scale_of(pair), 2.0);
    let saved = adapter("lora-embed-llama/adapter_final");
    assert_eq!(saved.saved_modules.keys().collect::<Vec<_>>(), ["lm_head.weight", "model.embed_tokens.weight"]);
    assert_eq!(saved.settings.modules_to_save, ["embed_tokens", "lm_head"]);
    assert_eq!(adapter("lora-qwen2-qv/adapter_init").modules.len(), 4);
}

#[test]
fn what_is_written_is_what_peft_writes() {
    for name in ["lora-llama/adapter_final", "lora-embed-llama/adapter_final", "lora-qwen2-qv/adapter_init"] {
        let (config, weights) = files(name);
        let tensors = read_safetensors("f", &shared(weights.clone()), |_| false).unwrap();
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| AdapterTensor { name, dims: tensor.dims(), values: tensor.to_f32().unwrap() })
            .collect();
        let (our_config, our_weights) = write_adapter(&adapter(name).settings, &tensors).unwrap();
        assert_eq!(json_of(&our_config), json_of(&config), "{name}");
        let ours = read_safetensors("f", &shared(our_weights), |_| false).unwrap();
        let theirs = read_safetensors("f", &shared(weights), |_| false).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for ((our_name, our), (their_name, their)) in ours.iter().zip(&theirs) {
            assert_eq!((our_name, our.dims(), our.bytes()), (their_name, their.dims(), their.bytes()));
        }
    }
}

#[test]
fn scales_follow_rank_alpha_and_patterns() {
    let (config, weights) = files("lora-llama/adapter_init");
    let mut config = json_of(&config);
    config["use_rslora"] = json!(true);
    config["alpha_pattern"] = json!({ "layers.0.mlp.up_proj": 6, ".*q_proj": 3 });
    let adapter = LoraAdapter::read("adapter", config.to_string().as_bytes(), &shared(weights)).unwrap();
    let scale = |module: &str| adapter.scale_of(&adapter.modules[module]);
    assert_eq!(scale("model.layers.0.mlp.up_proj"), 3.0);
    assert_eq!(scale("model.layers.1.mlp.up_proj"), 4.0);
    assert_eq!(scale("model.layers.1.self_attn.q_proj"), 1.5);
}

fn refused(key: &str, value: Value) -> String {
    let (config, weights) = files("lora-llama/adapter_init");
    let mut config = json_of(&config);
    config[key] = value;
    LoraAdapter::read("adapter", config.to_string().as_bytes(), &shared(weights)).unwrap_err().to_string()
}

#[test]
fn variants_are_refused_with_the_reason() {
    let check = |key: &str, value: Value, expected: &str| {
        assert_eq!(refused(key, value), format!("adapter/adapter_config.json: {expected}"));
    };
    check("use_dora", json!(true), "`use_dora` is true, which is not supported: DoRA is not supported yet");
    check(
        "bias",
        json!("all"),
        "`bias` is \"all\", which is not supported: trained biases are not supported yet; train with `bias: none`",
    );
    check("peft_type", json!("IA3"), "`peft_type` is \"IA3\", which is not supported: only LORA adapters are read yet");
    check("r", json!(0), "`r` is 0; expected a positive whole number up to 268435456");
    check("lora_dropout", json!(1.0), "`lora_dropout` is 1.0; expected a number from 0 up to but not including 1");
    check(
        "init_lora_weights",
        json!("pissa"),
        "`init_lora_weights` is \"pissa\", which is not supported: this initialisation changes the base weights; save the \
         adapter converted to plain LoRA (`path_initial_model_for_weight_conversion`)",
    );
    assert_eq!(
        refused("r", json!(8)),
        "adapter/adapter_model.safetensors: tensor `model.layers.0.mlp.down_proj.lora_A.weight` has shape [4, 64]; expected a \
         matrix of rank 8, as adapter_config.json says"
    );
    assert!(
        refused("target_modules", json!("("))
            .starts_with("adapter/adapter_config.json: `target_modules` is \"(\"; expected a regular expression (")
    );
}

#[test]
fn tensors_that_are_no_plain_lora() {
    let (config, _) = files("lora-llama/adapter_init");
    let check = |name: &str, expected: &str| {
        let weights = safetensors(&[(name, "F32", &[4, 1], &[0; 16])]);
        let error = LoraAdapter::read("adapter", &config, &shared(weights)).unwrap_err().to_string();
        assert_eq!(error, format!("adapter/adapter_model.safetensors: {expected}"));
    };
    check("base_model.model.x.lora_A.weight", "module `x` has only one of lora_A and lora_B");
    check("x.lora_A.weight", "tensor `x.lora_A.weight` does not begin with `base_model.model.`");
    check(
        "base_model.model.x.lora_magnitude_vector",
        "tensor `base_model.model.x.lora_magnitude_vector` belongs to a variant of LoRA that is not supported yet",
    );
}

#[test]
fn targets_match_as_in_peft() {
    let targets = |value: Value| TargetModules::from_json("adapter_config.json", &value).unwrap();
    let module = "model.layers.10.self_attn.q_proj";
    let check =
        |value: Value, expected: bool| assert_eq!(matches_target(module, &targets(value.clone())), expected, "{value}");
    check(json!(["q_proj"]), true);
    check(json!(["_proj"]), false);
    check(json!(["self_attn.q_proj", "x"]), true);
    check(json!([module]), true);
    check(json!(["layers.0.self_attn.q_proj"]), false);
    check(json!([]), false);
    check(json!("all-linear"), true);
    check(json!("All-Linear"), true);
    check(json!("q_proj"), false);
    check(json!(".*q_proj"), true);
    check(json!(r"model\.layers\.(1|10)\..*"), true);
    check(json!(r"model|.*k_proj"), false);
    check(json!("^(?!.*vision).*(?:q_proj|k_proj)$"), true);
}
