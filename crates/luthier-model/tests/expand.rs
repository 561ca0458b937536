//! A model with added blocks computes what it computed before, in every family, and each layer keeps what its configuration
//! said of it.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::collections::BTreeMap;

use luthier_model::checkpoint::{
    Checkpoint, ModelFiles, TensorSpec, expanded_layers, needed_tensors, plan_shards, write_shard,
};
use luthier_tensor::{DType, Tensor};
use serde_json::{Value, json};
use support::gguf::{converted, load};
use support::logits::{device, largest_difference, logits};
use support::{changed, fixture, model_files, shared};

/// A model as another program finds it.
fn written(checkpoint: &Checkpoint) -> Checkpoint {
    let specs = checkpoint.tensors.iter().map(|(name, tensor)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype(),
        dims: tensor.dims().to_vec(),
    });
    let shards = plan_shards(specs.collect(), u64::MAX).unwrap();
    let mut bytes = Vec::new();
    write_shard(&shards[0], &mut bytes, &mut |spec, writer| writer.write_all(checkpoint.tensors[&spec.name].bytes()))
        .unwrap();
    let files = [("config.json", checkpoint.config_json(DType::F32)), ("model.safetensors", bytes)];
    let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.to_owned(), shared(bytes))).collect();
    Checkpoint::from_files(&ModelFiles { label: "expanded".into(), files }).unwrap()
}

#[track_caller]
fn check(model: &Checkpoint, blocks: usize) -> Checkpoint {
    let expanded = model.expanded(blocks).unwrap();
    let read = written(&expanded);
    assert_eq!(read.model.decoder.layers, expanded.model.decoder.layers);
    assert_eq!(read.model.decoder.layers.len(), model.model.decoder.layers.len() + blocks);
    let needed: Vec<String> = needed_tensors(&expanded.model).into_iter().map(|(name, _)| name).collect();
    assert_eq!(needed.len(), expanded.tensors.len());
    assert!(needed.iter().all(|name| expanded.tensors.contains_key(name)));
    let before = logits(model, None);
    // MiniCPM's factor of the residual stream is rounded anew.
    let most = if model.model.decoder.model_type == "minicpm" { 1e-5 } else { 0.0 };
    for after in [&expanded, &read] {
        let far = largest_difference(&before, &logits(after, None));
        assert!(far <= most, "{}: {far}", model.model.decoder.model_type);
    }
    read
}

#[test]
fn every_family_computes_the_same_with_added_blocks() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("models")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let model = Checkpoint::from_files(&model_files(&name)).unwrap();
        check(&model, 1);
        check(&model, 2);
        seen += 1;
    }
    assert!(seen > 15);
}

/// A model with random weights, of a changed configuration.
fn drawn(name: &str, changes: Value) -> Checkpoint {
    let config = changed(name, changes).to_string().into_bytes();
    let files = BTreeMap::from([("config.json".to_owned(), shared(config))]);
    Checkpoint::from_scratch(&ModelFiles { label: "model".into(), files }, 1, None).unwrap()
}

#[test]
fn layers_keep_their_windows_and_rotation() {
    let windows = |model: &Checkpoint| model.model.decoder.layers.iter().map(|layer| layer.window).collect::<Vec<_>>();
    let unrotated =
        |model: &Checkpoint| model.model.decoder.layers.iter().map(|layer| layer.unrotated).collect::<Vec<_>>();

    let on = json!({ "num_hidden_layers": 4, "layer_types": "absent", "use_sliding_window": true, "sliding_window": 3,
                     "max_window_layers": 2 });
    let model = drawn("qwen2", on);
    assert_eq!(windows(&model), [None, None, Some(3), Some(3)]);
    assert_eq!(windows(&check(&model, 2)), [None, None, None, Some(3), Some(3), Some(3)]);

    let types = json!({ "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
                        "use_sliding_window": true, "sliding_window": 3 });
    assert_eq!(windows(&check(&drawn("qwen3", types), 2)), [Some(3), Some(3), None, None]);

    // Gemma 2 alternates by the number of the layer where no list says more.
    let model = drawn("gemma2", json!({ "num_hidden_layers": 4, "layer_types": "absent", "sliding_window": 3 }));
    assert_eq!(windows(&model), [Some(3), None, Some(3), None]);
    assert_eq!(windows(&check(&model, 2)), [Some(3), None, None, Some(3), None, None]);

    let interval = json!({ "num_hidden_layers": 4, "no_rope_layers": "absent", "no_rope_layer_interval": 2,
                           "layer_types": "absent", "use_sliding_window": true, "sliding_window": 3 });
    let model = drawn("smollm3", interval);
    assert_eq!(unrotated(&model), [false, true, false, true]);
    let model = check(&model, 2);
    assert_eq!(unrotated(&model), [false, true, true, false, true, true]);
    assert_eq!(windows(&model), [None, Some(3), Some(3), None, Some(3), Some(3)]);
    let list = json!({ "no_rope_layers": [0, 1, 0], "layer_types": "absent" });
    assert_eq!(unrotated(&check(&drawn("smollm3", list), 2)), [true, true, false, false]);
}

#[test]
fn a_gguf_file_is_expanded_too() {
    check(&load(&converted("llama", "llama", true)).unwrap(), 2);
}

/// The zero matrices of an added block are zero bytes in the storage type of the matrices that they are copies of.
#[test]
fn zero_bytes_are_zeros_in_every_block_format() {
    let device = device();
    for dtype in DType::BLOCKS {
        let length = dtype.bytes(256);
        let zeros = Tensor::from_shared(shared(vec![0; length]), 0, length, dtype, 1, 256).unwrap();
        assert_eq!(device.download(&zeros), vec![0.0; 256], "{dtype}");
    }
}

#[test]
fn added_layers_follow_each_group() {
    let shown = |layers, blocks| -> String {
        let layers = expanded_layers("model", layers, blocks).unwrap();
        layers.iter().map(|layer| format!("{}{} ", layer.source, if layer.added { "+" } else { "" })).collect()
    };
    assert_eq!(shown(4, 2), "0 1 1+ 2 3 3+ ");
    assert_eq!(shown(3, 3), "0 0+ 1 1+ 2 2+ ");
    assert_eq!(shown(3, 1), "0 1 2 2+ ");
    for blocks in [0, 2, 4] {
        let error = expanded_layers("model", 3, blocks).unwrap_err().to_string();
        assert_eq!(error, format!("model: `num_expand` is {blocks}; expected a divisor of the 3 layers of the model"));
    }
}
