//! Partial training as a user sees it: what `luthier expand` says and writes, what the page before the start says of each
//! form, what is refused, and that nothing but what was chosen changes.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use luthier_model::checkpoint::{StoredTensor, read_safetensors};
use luthier_tensor::SharedBytes;
use serde_json::Value;
use support::{Place, transcript};

fn tensors(place: &Place, name: &str) -> Vec<(String, StoredTensor)> {
    let bytes: SharedBytes = Arc::new(fs::read(place.path(name)).unwrap());
    read_safetensors(name, &bytes, |_| false).unwrap()
}

/// The tensors of two files that do not have the same bytes.
fn changed(place: &Place, one: &str, other: &str) -> BTreeSet<String> {
    let others = tensors(place, other);
    let differs = |name: &str, tensor: &StoredTensor| {
        let (_, found) = others.iter().find(|(found, _)| found == name).unwrap();
        found.bytes() != tensor.bytes()
    };
    tensors(place, one).iter().filter(|(name, tensor)| differs(name, tensor)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn expanding() {
    let place = Place::new();
    let expand = ["expand", "--model", "model", "--threads", "1"];
    let mut text = String::new();
    for words in [
        &["--num-expand", "1", "--output", "one"][..],
        &["--num-expand", "2", "--output", "two", "--max-shard-size", "60kB"],
        &["--num-expand", "3", "--output", "three"],
        &["--num-expand", "2", "--output", "two"],
    ] {
        text += &place.luthier(&[&expand[..], words].concat()).1;
    }
    transcript("partial/expand", &text);
    let config: Value = serde_json::from_slice(&fs::read(place.path("two/config.json")).unwrap()).unwrap();
    assert_eq!(config["num_hidden_layers"], 4);
    assert!(place.path("two/model.safetensors.index.json").exists());
    assert!(!place.path("three").exists());

    // Only the added layers change, and only where they did not begin at zero or got a gradient.
    let train = [
        "train",
        "train.yaml",
        "model_name_or_path=one",
        "finetuning_type=freeze",
        "freeze_trainable_layers=1",
        "use_llama_pro=true",
    ];
    let (code, said) = place.luthier(&train);
    assert_eq!(code, Some(0), "{said}");
    let changed = changed(&place, "one/model.safetensors", "out/model.safetensors");
    assert!(changed.contains("model.layers.2.mlp.down_proj.weight"), "{changed:?}");
    assert!(changed.iter().all(|name| name.starts_with("model.layers.2.")), "{changed:?}");
}

#[test]
fn an_adapter_on_added_layers_names_them_by_their_paths() {
    let place = Place::new();
    let (code, said) = place.luthier(&["expand", "--model", "model", "--num-expand", "2", "--output", "two"]);
    assert_eq!(code, Some(0), "{said}");
    let train = [
        "train",
        "train.yaml",
        "model_name_or_path=two",
        "freeze_trainable_layers=2",
        "use_llama_pro=true",
        "lora_target=q_proj",
    ];
    let (code, said) = place.luthier(&train);
    assert_eq!(code, Some(0), "{said}");
    let config: Value = serde_json::from_slice(&fs::read(place.path("out/adapter_config.json")).unwrap()).unwrap();
    let paths = ["model.layers.1.self_attn.q_proj", "model.layers.3.self_attn.q_proj"];
    assert_eq!(config["target_modules"], serde_json::json!(paths));
    let names: BTreeSet<String> =
        tensors(&place, "out/adapter_model.safetensors").into_iter().map(|(name, _)| name).collect();
    let half = |path: &str, half: &str| format!("base_model.model.{path}.lora_{half}.weight");
    assert_eq!(names, paths.iter().flat_map(|path| [half(path, "A"), half(path, "B")]).collect());
}

/// What is trained, and what is refused, in the words of the program.
#[test]
fn parts_of_a_model() {
    let place = Place::new();
    place.model("biased", "qwen2").model("tied", "llama-tied");
    let mut text = String::new();
    for words in [
        "freeze freeze_trainable_layers=1",
        "freeze freeze_trainable_layers=-2 freeze_trainable_modules=mlp,self_attn.o_proj",
        "freeze freeze_layer_interval=2 freeze_extra_modules=norm",
        "freeze freeze_trainable_layers=0 freeze_extra_modules=embed_tokens,lm_head",
        "freeze freeze_trainable_layers=0 freeze_extra_modules=lm_head model_name_or_path=tied",
        "bitfit model_name_or_path=biased",
        "bitfit",
        "freeze freeze_trainable_layers=0",
        "freeze freeze_trainable_modules=attention",
        "freeze freeze_extra_modules=head",
        "freeze freeze_layer_interval=3",
        "freeze freeze_layer_interval=2 freeze_trainable_layers=1",
        "freeze freeze_trainable_layers=3 use_llama_pro=true",
        "freeze freeze_trainable_layers=-1 use_llama_pro=true",
        "lora freeze_trainable_layers=2 use_llama_pro=true lora_target=wqkv",
        "full use_llama_pro=true",
        "lora freeze_trainable_layers=1",
    ] {
        let words: Vec<String> =
            format!("finetuning_type={words} dry_run=true").split(' ').map(str::to_owned).collect();
        let words: Vec<&str> = ["train", "train.yaml"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let (_, said) = place.luthier(&words);
        let shown = |line: &&str| {
            let beginnings = ["$ ", "error: ", "method: ", "note: freeze"];
            beginnings.iter().any(|beginning| line.starts_with(beginning))
        };
        said.lines().filter(shown).for_each(|line| text += &format!("{line}\n"));
    }
    transcript("partial/parts", &text);
}

/// What is not chosen keeps its bytes.
#[test]
fn nothing_else_changes() {
    let place = Place::new();
    place.model("biased", "llama-bias");
    for (settings, model, part) in [
        ("finetuning_type=bitfit", "biased", ".bias"),
        ("finetuning_type=freeze freeze_trainable_layers=0 freeze_extra_modules=lm_head", "model", "lm_head.weight"),
        ("finetuning_type=freeze freeze_layer_interval=2 freeze_trainable_modules=mlp", "model", "model.layers.1.mlp."),
    ] {
        let model_setting = format!("model_name_or_path={model}");
        let words = ["train", "train.yaml", "overwrite_output_dir=true", "learning_rate=1e-2", &model_setting];
        let (code, said) = place.luthier(&words.into_iter().chain(settings.split(' ')).collect::<Vec<_>>());
        assert_eq!(code, Some(0), "{said}");
        let changed = changed(&place, &format!("{model}/model.safetensors"), "out/model.safetensors");
        assert!(!changed.is_empty() && changed.iter().all(|name| name.contains(part)), "{settings}: {changed:?}");
        if part == ".bias" {
            assert_eq!(changed.len(), 14, "{changed:?}");
        }
    }
}
