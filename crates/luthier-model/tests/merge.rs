//! A merged model computes what the base with its adapter computes, and nothing but the adapted tensors changes.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::collections::BTreeMap;

use luthier_model::checkpoint::{Checkpoint, ModelFiles, TensorSpec, plan_shards, write_shard};
use luthier_model::{Adapter, Merged};
use luthier_tensor::DType;
use serde_json::json;
use support::gguf::{converted, load};
use support::logits::{device, largest_difference, logits};
use support::{fixture, model_files, read, shared};

fn adapter(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> Adapter {
    let folder = fixture("training").join(name);
    let mut config = serde_json::from_slice(&read(&folder.join("adapter_config.json"))).unwrap();
    change(&mut config);
    let weights = shared(read(&folder.join("adapter_model.safetensors")));
    Adapter::read("adapter", config.to_string().as_bytes(), &weights).unwrap()
}

fn merge(base: &Checkpoint, adapter: &Adapter, dtype: DType) -> Checkpoint {
    let device = device();
    let merged = Merged::new(&device, base, Some(adapter)).unwrap();
    let specs = base.tensors.iter().map(|(name, tensor)| TensorSpec {
        name: name.clone(),
        dtype,
        dims: tensor.dims().to_vec(),
    });
    let shards = plan_shards(specs.collect(), u64::MAX).unwrap();
    let mut bytes = Vec::new();
    write_shard(&shards[0], &mut bytes, &mut |spec, writer| merged.write(&spec.name, None, spec.dtype, writer))
        .unwrap();
    let files = [("config.json", base.config_json(dtype)), ("model.safetensors", bytes)];
    let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.to_owned(), shared(bytes))).collect();
    Checkpoint::from_files(&ModelFiles { label: "merged".into(), files }).unwrap()
}

#[track_caller]
fn check(base: &Checkpoint, adapter: &Adapter) {
    let unmerged = logits(base, Some(adapter));
    let far = largest_difference(&unmerged, &logits(&merge(base, adapter, DType::F32), None));
    assert!(far < 1e-5, "merged in f32: {far}");
    let far = largest_difference(&unmerged, &logits(&merge(base, adapter, DType::Bf16), None));
    assert!(far < 0.05, "merged and rounded to bf16: {far}");
    let moved = largest_difference(&unmerged, &logits(base, None));
    assert!(moved > 1e-3, "the adapter does something: {moved}");
}

#[test]
fn merged_is_unmerged() {
    let base = |name: &str| Checkpoint::from_files(&model_files(name)).unwrap();
    check(&base("llama"), &adapter("lora-llama/adapter_final", |_| ()));
    check(&base("llama"), &adapter("lora-embed-llama/adapter_final", |_| ()));
    check(&base("qwen2"), &adapter("lora-qwen2-qv/adapter_final", |_| ()));
    for kind in ["dora", "ia3", "vera", "vera-seed", "oft", "oft-exact", "ranks"] {
        check(&base("llama"), &adapter(&format!("{kind}-llama/adapter_final"), |_| ()));
    }
    check(&base("llama-bias"), &adapter("ia3-bias-llama/adapter_final", |_| ()));
    let patterns = |config: &mut serde_json::Value| {
        config["use_rslora"] = json!(true);
        config["alpha_pattern"] = json!({ "layers.0.mlp.up_proj": 6, ".*q_proj": 3 });
    };
    check(&base("llama"), &adapter("lora-llama/adapter_final", patterns));
}

/// An adapter that was trained on the original fits its GGUF file, whose rows lie in another order.
#[test]
fn a_gguf_base_is_merged_as_well() {
    let base = load(&converted("llama", "llama", true)).unwrap();
    check(&base, &adapter("lora-llama/adapter_final", |_| ()));
}

#[test]
fn what_is_not_adapted_keeps_its_bits() {
    let base = Checkpoint::from_files(&model_files("qwen2")).unwrap();
    let adapter = adapter("lora-qwen2-qv/adapter_final", |_| ());
    let merged = merge(&base, &adapter, DType::Bf16);
    let device = device();
    let judge = Merged::new(&device, &base, Some(&adapter)).unwrap();
    let mut changed = 0;
    for (name, tensor) in &base.tensors {
        assert_eq!(merged.tensors[name].bytes() != tensor.bytes(), judge.changes(name), "{name}");
        changed += usize::from(judge.changes(name));
    }
    assert_eq!(changed, 4);
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let base = Checkpoint::from_files(&model_files("qwen3")).unwrap();
    let adapter = adapter("lora-llama/adapter_final", |_| ());
    let error = Merged::new(&device(), &base, Some(&adapter)).err().unwrap().to_string();
    assert!(error.starts_with("model: the adapter is for another model: the update of `model.layers.0."), "{error}");
}

/// PEFT trains a copy of the embedding, and the head keeps the original.
#[test]
fn a_tied_embedding_is_not_split() {
    let base = Checkpoint::from_files(&model_files("llama-tied")).unwrap();
    let mut lora = adapter("lora-embed-llama/adapter_final", |_| ()).lora().unwrap().clone();
    lora.saved_modules.remove("lm_head.weight");
    lora.modules.clear();
    let adapter = Adapter::Lora(lora);
    let error = Merged::new(&device(), &base, Some(&adapter)).err().unwrap().to_string();
    assert!(error.starts_with("model: the head is the embedding matrix, but the adapter saves "), "{error}");
}

#[test]
fn numbers_beyond_f16_are_an_error() {
    let base = Checkpoint::from_files(&model_files("llama")).unwrap();
    let mut lora = adapter("lora-llama/adapter_final", |_| ()).lora().unwrap().clone();
    lora.config.rslora = false;
    lora.modules.values_mut().for_each(|pair| pair.alpha = 1e9);
    let adapter = Adapter::Lora(lora);
    let device = device();
    let merged = Merged::new(&device, &base, Some(&adapter)).unwrap();
    let error = merged.write("model.layers.0.mlp.down_proj.weight", None, DType::F16, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().starts_with("tensor `model.layers.0.mlp.down_proj.weight`: the number "), "{error}");
    assert!(error.to_string().ends_with("is too large for f16; use bf16 or f32"), "{error}");
}
