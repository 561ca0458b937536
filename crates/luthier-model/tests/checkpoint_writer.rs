//! Written checkpoints are read back as they were, in one file and in shards.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::collections::BTreeMap;

use luthier_model::checkpoint::{Checkpoint, INDEX_FILE, ModelFiles, TensorSpec, index_json, plan_shards, write_shard};
use luthier_tensor::DType;
use support::{model_files, shared};

fn specs(checkpoint: &Checkpoint) -> Vec<TensorSpec> {
    let spec = |(name, tensor): (&String, &luthier_model::checkpoint::StoredTensor)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype(),
        dims: tensor.dims().to_vec(),
    };
    checkpoint.tensors.iter().map(spec).collect()
}

fn check(limit_bytes: u64, files: usize) {
    let original = Checkpoint::from_files(&model_files("granite")).unwrap();
    let shards = plan_shards(specs(&original), limit_bytes).unwrap();
    assert_eq!(shards.len(), files);
    let mut written = ModelFiles { label: "copy".into(), files: BTreeMap::new() };
    written.files.insert("config.json".into(), shared(original.config_json(DType::Bf16)));
    for shard in &shards {
        let mut bytes = Vec::new();
        write_shard(shard, &mut bytes, &mut |spec, writer| writer.write_all(original.tensors[&spec.name].bytes()))
            .unwrap();
        written.files.insert(shard.file.clone(), shared(bytes));
    }
    if let Some(index) = index_json(&shards) {
        written.files.insert(INDEX_FILE.into(), shared(index));
    }
    let copy = Checkpoint::from_files(&written).unwrap();
    assert_eq!(copy.model, original.model);
    for (name, tensor) in &original.tensors {
        assert_eq!(copy.tensors[name].bytes(), tensor.bytes(), "{name}");
        assert_eq!(copy.tensors[name].dims(), tensor.dims(), "{name}");
    }
}

#[test]
fn one_file_and_several() {
    check(u64::MAX, 1);
    // 39 KB of weights; the embedding and the head have 8 KB each.
    check(16_384, 4);
}

#[test]
fn shards_are_named_as_hugging_face_does() {
    let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, dims: vec![10] };
    let shards = plan_shards(vec![spec("a"), spec("b"), spec("c")], 80).unwrap();
    let names: Vec<_> = shards.iter().map(|shard| (shard.file.as_str(), shard.tensors.len())).collect();
    assert_eq!(names, [("model-00001-of-00002.safetensors", 2), ("model-00002-of-00002.safetensors", 1)]);
    let index: serde_json::Value = serde_json::from_slice(&index_json(&shards).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 120);
    assert_eq!(index["weight_map"]["c"], "model-00002-of-00002.safetensors");
    assert_eq!(index_json(&shards[..1]), None);
}

#[test]
fn a_tensor_gets_exactly_its_bytes() {
    let spec = TensorSpec { name: "a".into(), dtype: DType::F32, dims: vec![2] };
    let shards = plan_shards(vec![spec], 100).unwrap();
    let error = write_shard(&shards[0], &mut Vec::new(), &mut |_, writer| writer.write_all(&[0; 4])).unwrap_err();
    assert_eq!(error.to_string(), "tensor `a` has 8 bytes, 4 were written");
    let spec = TensorSpec { name: "q".into(), dtype: DType::Q8_0, dims: vec![32] };
    assert_eq!(
        plan_shards(vec![spec], 100).unwrap_err().to_string(),
        "model.safetensors: tensor `q` is stored as q8_0; supported are F32, BF16 and F16"
    );
}

#[test]
fn the_configuration_says_how_weights_are_stored_now() {
    let checkpoint = Checkpoint::from_files(&model_files("qwen2")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&checkpoint.config_json(DType::F32)).unwrap();
    assert_eq!(config["torch_dtype"], "float32");
    assert_eq!(config["rope_theta"], 10000.0);
    let checkpoint = Checkpoint::from_files(&model_files("qwen3")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&checkpoint.config_json(DType::F16)).unwrap();
    assert_eq!(config["dtype"], "float16");
}
