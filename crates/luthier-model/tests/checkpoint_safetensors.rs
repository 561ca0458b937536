//! Loading Hugging Face checkpoints, and what is wrong with damaged ones, in whole sentences.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::Error;
use luthier_model::checkpoint::{Checkpoint, INDEX_FILE, ModelFiles, read_safetensors};
use luthier_tensor::{DType, SharedBytes};
use serde_json::json;
use std::sync::Arc;
use support::{changed, model_files, read, safetensors, shared};

fn load(files: &ModelFiles) -> Result<Checkpoint, String> {
    Checkpoint::from_files(files).map_err(|error| error.to_string())
}

fn refused(files: &ModelFiles) -> String {
    load(files).expect_err("refused")
}

/// The fixture with its tensors changed.
fn with_tensors(name: &str, change: impl Fn(&mut Vec<(String, String, Vec<usize>, Vec<u8>)>)) -> ModelFiles {
    let mut files = model_files(name);
    let mut tensors: Vec<_> = read_safetensors("model.safetensors", &files.files["model.safetensors"], |_| false)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            let dtype = if tensor.dtype() == DType::F32 { "F32" } else { "BF16" };
            (name, dtype.to_owned(), tensor.dims().to_vec(), tensor.bytes().to_vec())
        })
        .collect();
    change(&mut tensors);
    let view: Vec<_> =
        tensors.iter().map(|(n, t, d, b)| (n.as_str(), t.as_str(), d.as_slice(), b.as_slice())).collect();
    files.files.insert("model.safetensors".into(), shared(safetensors(&view)));
    files
}

fn with_config(name: &str, changes: serde_json::Value) -> ModelFiles {
    let mut files = model_files(name);
    files.files.insert("config.json".into(), shared(changed(name, changes).to_string().into_bytes()));
    files
}

#[test]
fn tensors_keep_their_storage() {
    let checkpoint = load(&model_files("llama-bias")).unwrap();
    assert_eq!(checkpoint.tensors.len(), 2 * (2 + 4 * 2 + 3 * 2) + 3);
    let tensor = &checkpoint.tensors["model.layers.1.mlp.gate_proj.weight"];
    assert_eq!((tensor.dtype(), tensor.dims(), tensor.tensor().rows()), (DType::Bf16, [64, 32].as_slice(), 64));
    let bias = &checkpoint.tensors["model.layers.0.self_attn.k_proj.bias"];
    assert_eq!((bias.dims(), bias.tensor().rows(), bias.tensor().columns()), ([16].as_slice(), 1, 16));
    assert_eq!(bias.file(), "model/model.safetensors");
}

#[test]
fn half_precision_numbers_are_read_exactly() {
    let halves: [(u16, f32); 7] = [
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65504.0),
        (0x0001, 5.960_464_5e-8),
        (0x83ff, -6.097_555e-5),
        (0x3555, 0.333_251_95),
        (0x8000, -0.0),
    ];
    let bytes: Vec<u8> = halves.iter().flat_map(|(half, _)| half.to_le_bytes()).collect();
    let file = shared(safetensors(&[("h", "F16", &[7], &bytes), ("b", "BF16", &[1], &[0x80, 0x3f])]));
    let tensors = read_safetensors("f", &file, |_| false).unwrap();
    assert_eq!(tensors[0].1.to_f32().unwrap(), [1.0]);
    assert_eq!(tensors[1].1.to_f32().unwrap(), halves.map(|(_, value)| value));
}

#[test]
fn numbers_that_lie_badly_are_copied() {
    struct Shifted(Vec<u8>, usize);
    impl AsRef<[u8]> for Shifted {
        fn as_ref(&self) -> &[u8] {
            &self.0[self.1..]
        }
    }
    let file = read(&support::fixture("models/llama/model.safetensors"));
    for shift in 0..4 {
        let bytes: SharedBytes = Arc::new(Shifted([vec![0; shift], file.clone()].concat(), shift));
        for (name, tensor) in read_safetensors("f", &bytes, |_| false).unwrap() {
            assert_eq!(tensor.bytes().as_ptr().addr() % 4, 0, "{name}");
            assert_eq!(tensor.to_f32().unwrap().len(), tensor.tensor().rows() * tensor.tensor().columns());
        }
    }
}

#[test]
fn a_file_that_is_cut_off() {
    let mut files = model_files("llama");
    let whole = (*files.files["model.safetensors"]).as_ref().to_vec();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap());
    let mut check = |length: usize, expected: String| {
        files.files.insert("model.safetensors".into(), shared(whole[..length].to_vec()));
        assert_eq!(refused(&files), expected);
    };
    let cut = |expected: usize, found: usize| {
        format!(
            "model/model.safetensors is cut off: its header promises {expected} bytes, found {found}; copy or download it again"
        )
    };
    check(whole.len() - 1, cut(whole.len(), whole.len() - 1));
    check(100, cut(header as usize + 8, 100));
    check(3, cut(8, 3));
}

#[test]
fn a_file_that_is_something_else() {
    let mut files = model_files("llama");
    files.files.insert(
        "model.safetensors".into(),
        shared(b"version https://git-lfs.github.com/spec/v1\noid sha256:1".to_vec()),
    );
    assert_eq!(
        refused(&files),
        "model/model.safetensors is not a valid safetensors file: it is a Git LFS pointer in place of the file; fetch the file \
         itself with `git lfs pull`"
    );
    let mut longer = read(&support::fixture("models/llama/model.safetensors"));
    longer.extend([0; 5]);
    files.files.insert("model.safetensors".into(), shared(longer));
    assert_eq!(
        refused(&files),
        "model/model.safetensors is not a valid safetensors file: 5 bytes follow its last tensor"
    );
    files.files.insert("config.json".into(), shared(b"{".to_vec()));
    assert_eq!(refused(&files), "model/config.json is not valid JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn a_number_type_that_is_not_computed_with() {
    for (dtype, bytes) in [("F64", 8), ("I64", 8), ("I8", 1), ("F8_E4M3", 1)] {
        let files = with_tensors("llama", |tensors| {
            let name = "model.norm.weight".to_owned();
            tensors.retain(|tensor| tensor.0 != name);
            tensors.push((name, dtype.into(), vec![32], vec![0; 32 * bytes]));
        });
        let expected = format!(
            "model/model.safetensors: tensor `model.norm.weight` is stored as {dtype}; supported are F32, BF16 and F16"
        );
        assert_eq!(refused(&files), expected);
    }
}

#[test]
fn tensors_that_the_configuration_demands() {
    assert_eq!(
        refused(&with_config("llama", json!({ "attention_bias": true }))),
        "model/model.safetensors: 8 of the tensors that the model needs are missing: `model.layers.0.self_attn.k_proj.bias`, \
         `model.layers.0.self_attn.o_proj.bias`, `model.layers.0.self_attn.q_proj.bias`, \
         `model.layers.0.self_attn.v_proj.bias`, `model.layers.1.self_attn.k_proj.bias` and 3 more; the configuration says that \
         these projections have a bias"
    );
    assert_eq!(
        refused(&with_tensors("llama", |tensors| tensors.retain(|tensor| tensor.0 != "lm_head.weight"))),
        "model/model.safetensors: 1 of the tensors that the model needs is missing: `lm_head.weight`; check that the weights \
         belong to this config.json and that no file is missing"
    );
}

#[test]
fn tensors_that_nothing_reads() {
    assert_eq!(
        refused(&with_config("llama-bias", json!({ "mlp_bias": false, "num_hidden_layers": 2 }))),
        "model/model.safetensors: 6 of the tensors are no part of this model: `model.layers.0.mlp.down_proj.bias`, \
         `model.layers.0.mlp.gate_proj.bias`, `model.layers.0.mlp.up_proj.bias`, `model.layers.1.mlp.down_proj.bias`, \
         `model.layers.1.mlp.gate_proj.bias` and 1 more; without them it would compute something else; check `model_type` and \
         the bias switches of config.json"
    );
}

#[test]
fn a_tensor_of_another_shape() {
    assert_eq!(
        refused(&with_config("llama", json!({ "intermediate_size": 48 }))),
        "model/model.safetensors: tensor `model.layers.0.mlp.down_proj.weight` has shape [32, 64]; expected [32, 48], as the \
         configuration implies"
    );
}

#[test]
fn rotary_buffers_and_copies_of_a_tied_head_are_left_out() {
    let files = with_tensors("llama-tied", |tensors| {
        let mut copy = tensors.iter().find(|tensor| tensor.0 == "model.embed_tokens.weight").unwrap().clone();
        copy.0 = "lm_head.weight".into();
        tensors.push(copy);
        tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), "F64".into(), vec![8], vec![0; 64]));
    });
    let checkpoint = load(&files).unwrap();
    assert_eq!(checkpoint.ignored, ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]);
    assert!(!checkpoint.tensors.contains_key("lm_head.weight"));
    assert!(checkpoint.model.decoder.tied_head);
}

/// As transformers 5: the values in the file decide.
#[test]
fn a_tied_head_with_other_values_is_not_tied() {
    let files = with_tensors("llama-tied", |tensors| {
        let mut copy = tensors.iter().find(|tensor| tensor.0 == "model.embed_tokens.weight").unwrap().clone();
        copy.0 = "lm_head.weight".into();
        copy.3[0] ^= 1;
        tensors.push(copy);
    });
    let checkpoint = load(&files).unwrap();
    assert!(!checkpoint.model.decoder.tied_head && checkpoint.tensors.contains_key("lm_head.weight"));
    assert_eq!(
        checkpoint.model.notes,
        ["model/model.safetensors: `tie_word_embeddings` is true, but `lm_head.weight` differs from \
          `model.embed_tokens.weight`: both are used"]
    );
    let files = with_tensors("llama-tied", |tensors| {
        tensors
            .iter_mut()
            .filter(|tensor| tensor.0 == "model.embed_tokens.weight")
            .for_each(|tensor| tensor.0 = "lm_head.weight".into());
    });
    assert!(load(&files).unwrap().tensors.contains_key("model.embed_tokens.weight"), "only the head is in the file");
}

#[test]
fn shards_are_read_by_their_index() {
    let mut files = model_files("llama");
    let whole = files.files.remove("model.safetensors").unwrap();
    let tensors = read_safetensors("f", &whole, |_| false).unwrap();
    let shard = |keep: &dyn Fn(&str) -> bool| {
        let part: Vec<_> = tensors
            .iter()
            .filter(|(name, _)| keep(name))
            .map(|(n, t)| (n.as_str(), "F32", t.dims(), t.bytes()))
            .collect();
        shared(safetensors(&part))
    };
    let first = |name: &str| name.contains("layers.0");
    let map: serde_json::Map<String, serde_json::Value> = tensors
        .iter()
        .map(|(name, _)| (name.clone(), if first(name) { "a.safetensors" } else { "b.safetensors" }.into()))
        .collect();
    files.files.insert(INDEX_FILE.into(), shared(json!({ "weight_map": map }).to_string().into_bytes()));
    files.files.insert("a.safetensors".into(), shard(&first));
    assert_eq!(
        refused(&files),
        "model: b.safetensors is missing; model.safetensors.index.json lists it; copy or download it too"
    );
    files.files.insert("b.safetensors".into(), shard(&|name| !first(name)));
    assert_eq!(load(&files).unwrap().tensors.len(), tensors.len());
    files.files.insert("b.safetensors".into(), shard(&|name| !first(name) || name.contains("layers.0.mlp.up_proj")));
    assert_eq!(
        refused(&files),
        "model: tensor `model.layers.0.mlp.up_proj.weight` is in model/a.safetensors and in model/b.safetensors; one of the two \
         must go"
    );
    files.files.insert(INDEX_FILE.into(), shared(br#"{"weight_map": {"a": "../secret.safetensors"}}"#.to_vec()));
    assert_eq!(
        refused(&files),
        "model/model.safetensors.index.json: `weight_map` is \"../secret.safetensors\"; expected the names of .safetensors files \
         in the same folder"
    );
}

#[test]
fn what_a_folder_must_have() {
    let mut files = model_files("llama");
    files.files.remove("model.safetensors");
    assert_eq!(
        refused(&files),
        "model: model.safetensors is missing; a model's weights are in it, or in what model.safetensors.index.json lists"
    );
    files.files.clear();
    assert_eq!(
        refused(&files),
        "model: config.json is missing; it describes the model; give the folder that has it, or a .gguf file"
    );
}

#[test]
fn generation_config_adds_ids_that_end_a_reply() {
    let mut files = model_files("llama");
    files.files.insert("generation_config.json".into(), shared(br#"{"eos_token_id": [2, 7]}"#.to_vec()));
    assert_eq!(load(&files).unwrap().model.decoder.end_token_ids, [2, 7]);
}

#[test]
fn an_empty_tensor_of_absurd_dimensions() {
    let file = shared(safetensors(&[("a", "F32", &[0, 1 << 62, 4], &[])]));
    assert_eq!(
        read_safetensors("f", &file, |_| false).unwrap_err().to_string(),
        "f is not a valid weight file: tensor `a` has the absurd dimensions [0, 4611686018427387904, 4]"
    );
}

/// Every prefix of a file, and every file with one byte changed, is read or refused.
#[test]
fn damage_anywhere_is_an_error() {
    let whole = read(&support::fixture("models/llama/model.safetensors"));
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    for length in (0..header).step_by(7) {
        let error: Error = read_safetensors("f", &shared(whole[..length].to_vec()), |_| false).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error}");
    }
    for place in (0..header).step_by(5) {
        let mut changed = whole.clone();
        changed[place] ^= 0x15;
        drop(read_safetensors("f", &shared(changed), |_| false));
    }
}
