//! PEFT's LoRA folders: the fixtures of PEFT 0.18.1 are read, ours have the same keys and names, and what would change the
//! numbers is refused.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::adapter::{LoraAdapter, TargetModules, adapter_config, adapter_shard, matches_target};
use luthier_model::checkpoint::{read_safetensors, write_shard};
use luthier_model::{Adapter, Checkpoint, Decoder, LoraSettings, Tuning};
use serde_json::{Value, json};
use support::logits::device;
use support::{fixture, model_files, read, safetensors, shared};

fn files(name: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = fixture("training").join(name);
    (read(&folder.join("adapter_config.json")), read(&folder.join("adapter_model.safetensors")))
}

fn lora(name: &str) -> LoraAdapter {
    let (config, weights) = files(name);
    Adapter::read("adapter", &config, &shared(weights)).unwrap().lora().unwrap().clone()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn adapters_of_peft() {
    let plain = lora("lora-llama/adapter_init");
    assert_eq!((plain.config.rank, plain.config.alpha, plain.modules.len()), (4, 8.0, 14));
    assert_eq!(plain.config.base_model, "llama");
    let pair = &plain.modules["model.layers.1.mlp.down_proj"];
    assert_eq!((pair.a.rows(), pair.a.columns(), pair.b.rows(), pair.b.columns()), (4, 64, 32, 4));
    assert_eq!(plain.scale_of(pair), 2.0);
    let saved = lora("lora-embed-llama/adapter_final");
    assert_eq!(saved.saved_modules.keys().collect::<Vec<_>>(), ["lm_head.weight", "model.embed_tokens.weight"]);
    assert_eq!(saved.config.modules_to_save, ["embed_tokens", "lm_head"]);
    assert_eq!(lora("lora-qwen2-qv/adapter_init").modules.len(), 4);
}

#[test]
fn what_is_written_is_what_peft_writes() {
    for name in ["lora-llama/adapter_final", "lora-embed-llama/adapter_final", "lora-qwen2-qv/adapter_init"] {
        let (config, weights) = files(name);
        let tensors = read_safetensors("f", &shared(weights.clone()), |_| false).unwrap();
        let our_config = adapter_config(&lora(name).config);
        let shard = adapter_shard(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dims())));
        let mut our_weights = Vec::new();
        write_shard(&shard, &mut our_weights, &mut |spec, writer| {
            let (_, tensor) = tensors.iter().find(|(name, _)| *name == spec.name).unwrap();
            tensor.to_f32().unwrap().iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
        })
        .unwrap();
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
    let adapter = Adapter::read("adapter", config.to_string().as_bytes(), &shared(weights)).unwrap();
    let scale = |module: &str| adapter.lora().unwrap().scale_of(&adapter.lora().unwrap().modules[module]);
    assert_eq!(scale("model.layers.0.mlp.up_proj"), 3.0);
    assert_eq!(scale("model.layers.1.mlp.up_proj"), 4.0);
    assert_eq!(scale("model.layers.1.self_attn.q_proj"), 1.5);
}

fn refused(key: &str, value: Value) -> String {
    let (config, weights) = files("lora-llama/adapter_init");
    let mut config = json_of(&config);
    config[key] = value;
    Adapter::read("adapter", config.to_string().as_bytes(), &shared(weights)).unwrap_err().to_string()
}

#[test]
fn variants_are_refused_with_the_reason() {
    let check = |key: &str, value: Value, expected: &str| {
        assert_eq!(refused(key, value), format!("adapter/adapter_config.json: {expected}"));
    };
    assert_eq!(
        refused("use_dora", json!(true)),
        "adapter/adapter_model.safetensors: module `model.layers.0.mlp.down_proj` has no lora_magnitude_vector, but use_dora is on"
    );
    check(
        "bias",
        json!("all"),
        "`bias` is \"all\", which is not supported: trained biases are not supported yet; train with `bias: none`",
    );
    check(
        "peft_type",
        json!("LOHA"),
        "`peft_type` is \"LOHA\", which is not supported: LORA, IA3, VERA, OFT, PREFIX_TUNING, PROMPT_TUNING, P_TUNING and \
         BOTTLENECK adapters are read",
    );
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
        let error = Adapter::read("adapter", &config, &shared(weights)).unwrap_err().to_string();
        assert_eq!(error, format!("adapter/adapter_model.safetensors: {expected}"));
    };
    check("base_model.model.x.lora_A.weight", "module `x` has only one of lora_A and lora_B");
    check("x.lora_A.weight", "tensor `x.lora_A.weight` does not begin with `base_model.model.`");
    check(
        "base_model.model.x.lora_magnitude_vector",
        "tensor `base_model.model.x.lora_magnitude_vector` belongs to a variant of LoRA that is not supported yet",
    );
}

/// An adapter of two tensors (name, dimensions), each number 0.5.
fn adapter_of(changes: &[(&str, Value)], tensors: &[(&str, &[usize])]) -> Adapter {
    let mut config = json_of(&files("lora-llama/adapter_init").0);
    changes.iter().for_each(|(key, value)| config[key] = value.clone());
    let bytes = |dims: &[usize]| 0.5f32.to_le_bytes().repeat(dims.iter().product());
    let data: Vec<_> =
        tensors.iter().map(|(name, dims)| (format!("base_model.model.{name}"), *dims, bytes(dims))).collect();
    let entries: Vec<_> =
        data.iter().map(|(name, dims, bytes)| (name.as_str(), "F32", *dims, bytes.as_slice())).collect();
    Adapter::read("adapter", config.to_string().as_bytes(), &shared(safetensors(&entries))).unwrap()
}

#[test]
fn adapters_of_another_model() {
    let checkpoint = Checkpoint::from_files(&model_files("llama")).unwrap();
    let check = |tensors: &[(&str, &[usize])], expected: &str| {
        let adapter = adapter_of(&[], tensors);
        let error = Decoder::new(&device(), &checkpoint, &Tuning::Nothing, Some(&adapter)).unwrap_err().to_string();
        assert_eq!(error, format!("model: the adapter is for another model: {expected}"));
    };
    let (a, b) = ("model.layers.0.self_attn.q_proj.lora_A.weight", "model.layers.0.self_attn.q_proj.lora_B.weight");
    check(&[(a, &[4, 40]), (b, &[32, 4])], &format!("its `{a}` has shape [4, 40]; expected [4, 32]"));
    check(&[(a, &[4, 32]), (b, &[40, 4])], &format!("its `{b}` has shape [40, 4]; expected [32, 4]"));
    let (a, b) = ("model.layers.2.self_attn.q_proj.lora_A.weight", "model.layers.2.self_attn.q_proj.lora_B.weight");
    check(&[(a, &[4, 32]), (b, &[32, 4])], "this one has no module `model.layers.2.self_attn.q_proj`");
    check(&[("lm_head.weight", &[130, 32])], "its `lm_head.weight` has shape [130, 32]; expected [128, 32]");
    check(&[("output.weight", &[128, 32])], "this one has no tensor `output.weight`");
}

/// `norm` is every module whose name ends so, and what the adapter saved of them is what training starts from.
#[test]
fn saved_modules_are_found_as_in_peft() {
    let checkpoint = Checkpoint::from_files(&model_files("llama-bias")).unwrap();
    let trained = |saved: &[&str], tensors: &[(&str, &[usize])]| {
        let saved_modules: Vec<String> = saved.iter().map(|&name| name.into()).collect();
        let adapter = adapter_of(&[("modules_to_save", json!(saved))], tensors);
        let settings = &adapter.lora().unwrap().config;
        let tuning = Tuning::Lora(LoraSettings {
            alpha: settings.alpha,
            targets: settings.target_modules.clone(),
            saved_modules,
            ..LoraSettings::of_rank(settings.rank)
        });
        let device = device();
        let decoder = Decoder::new(&device, &checkpoint, &tuning, Some(&adapter)).unwrap();
        let start = |parameter: &luthier_model::Parameter| {
            let all_half = device.download(&parameter.value).iter().all(|&number| number == 0.5);
            (parameter.name.strip_prefix("base_model.model.").unwrap().to_owned(), all_half)
        };
        decoder.parameters().iter().map(start).collect::<Vec<_>>()
    };
    let norms = trained(&["norm"], &[("model.norm.weight", &[32])]);
    let expected = [
        ("model.layers.0.input_layernorm.weight", false),
        ("model.layers.0.post_attention_layernorm.weight", false),
        ("model.layers.1.input_layernorm.weight", false),
        ("model.layers.1.post_attention_layernorm.weight", false),
        ("model.norm.weight", true),
    ];
    assert_eq!(norms, expected.map(|(name, half)| (name.to_owned(), half)));
    let bias = "model.layers.1.mlp.up_proj.bias";
    let up = trained(&["layers.1.mlp.up_proj"], &[(bias, &[64])]);
    let expected = [("model.layers.1.mlp.up_proj.weight", false), (bias, true)];
    assert_eq!(up, expected.map(|(name, half)| (name.to_owned(), half)));
    assert_eq!(trained(&["mlp"], &[]).len(), 12);
    assert_eq!(trained(&["model.norm"], &[]).len(), 1);
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
