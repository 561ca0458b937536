//! Folders and files as a user gives them, and the whole sentence when they are no model.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::fs;
use std::path::{Path, PathBuf};

use luthier_files::{map, read_adapter, read_model};
use luthier_model::Checkpoint;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn check(files: &[(&str, &str)], expected: &str) {
    let folder = folder(files);
    let error = read_model(folder.path()).expect_err("refused").to_string();
    assert_eq!(error.replace(&folder.path().display().to_string(), "DIR"), expected);
}

#[test]
fn a_hugging_face_folder() {
    let files = read_model(&fixture("models/llama")).unwrap();
    assert_eq!(files.files.keys().collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
    let checkpoint = Checkpoint::from_files(&files).unwrap();
    assert_eq!(checkpoint.model.decoder.hidden_size, 32);
}

#[test]
fn companions_are_taken_along() {
    let names = ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "model.safetensors"];
    let folder = folder(&names.map(|name| (name, "{}")));
    fs::write(folder.path().join("notes.txt"), "x").unwrap();
    let files = read_model(folder.path()).unwrap();
    let companions: Vec<&str> = files.companions().map(|(name, _)| name).collect();
    assert_eq!(companions, ["chat_template.jinja", "generation_config.json", "tokenizer.json"]);
}

#[test]
fn a_gguf_file_alone_or_in_its_folder() {
    let folder = folder(&[("m.gguf", "GGUF"), ("README.md", "")]);
    let path = folder.path().join("m.gguf");
    for given in [folder.path(), &path] {
        let files = read_model(given).unwrap();
        assert_eq!((files.gguf_name(), files.label.as_str()), (Some("m.gguf"), path.display().to_string().as_str()));
        assert_eq!(files.path("m.gguf"), path.display().to_string());
    }
    let folder = self::folder(&[("M.GGUF", "GGUF")]);
    for given in [folder.path().join("M.GGUF"), folder.path().to_owned()] {
        assert_eq!(read_model(&given).unwrap().gguf_name(), Some("M.GGUF"));
    }
    check(&[("a.gguf", ""), ("b.gguf", "")], "DIR: it has several .gguf files (a.gguf, b.gguf); give one of them");
}

#[test]
fn pickles_are_refused_with_the_reason_and_the_way_out() {
    for name in ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "weights.pt", "weights.pth"] {
        check(
            &[("config.json", "{}"), (name, "")],
            &format!(
                "DIR/{name}: refused, because a .bin, .pt or .pth file is a Python pickle, which can execute code while it is \
                 loaded; convert the model once where you trust it: python -c \"from transformers import AutoModelForCausalLM \
                 as M; M.from_pretrained('DIR').save_pretrained('DIR-safetensors')\""
            ),
        );
    }
    let folder = folder(&[("pytorch_model.bin", "")]);
    let error = read_model(&folder.path().join("pytorch_model.bin")).expect_err("refused").to_string();
    assert!(error.contains("is a Python pickle"), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    check(
        &[("model.safetensors", "")],
        "DIR: config.json is missing; it describes the model; give the folder that has it, or a .gguf file",
    );
    check(
        &[("config.json", "{}")],
        "DIR: model.safetensors is missing; a model's weights are in it, or in the shards that model.safetensors.index.json lists",
    );
    check(
        &[("config.json", "{}"), ("m.gguf", "")],
        "DIR: model.safetensors is missing; the folder has m.gguf: give that file to use it",
    );
    check(
        &[("config.json", "{}"), ("model.safetensors.index.json", r#"{"weight_map": {"a": "x.safetensors"}}"#)],
        "DIR: x.safetensors is missing; model.safetensors.index.json lists it; copy or download it too",
    );
    check(
        &[("adapter_config.json", "{}"), ("adapter_model.safetensors", "")],
        "DIR: it is an adapter, not a model; give the base model, and this folder as its adapter",
    );
    assert_eq!(
        read_model(Path::new("/no/such/model")).expect_err("refused").to_string(),
        "/no/such/model: no such file or folder; give a folder with config.json and model.safetensors, or a .gguf file"
    );
    let weights = fixture("models/llama/model.safetensors");
    assert_eq!(
        read_model(&weights).expect_err("refused").to_string(),
        format!("{}: weights alone are no model; give the folder that also has config.json", weights.display())
    );
}

#[test]
fn an_adapter_folder() {
    assert_eq!(read_adapter(&fixture("training/lora-llama/adapter_init")).unwrap().modules().count(), 14);
    let folder = folder(&[("adapter_config.json", "{}")]);
    assert_eq!(
        read_adapter(folder.path()).expect_err("refused").to_string(),
        format!(
            "{}: adapter_model.safetensors is missing; an adapter is a folder with adapter_config.json and \
             adapter_model.safetensors",
            folder.path().display()
        )
    );
}

#[test]
fn an_empty_file_is_mapped() {
    let folder = folder(&[("empty", ""), ("three", "abc")]);
    assert_eq!((*map(&folder.path().join("empty")).unwrap()).as_ref(), b"");
    assert_eq!((*map(&folder.path().join("three")).unwrap()).as_ref(), b"abc");
    assert_eq!(map(folder.path()).err().unwrap().to_string(), format!("{}: it is not a file", folder.path().display()));
}
