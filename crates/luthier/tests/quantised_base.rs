//! QLoRA: adapters on a base that is quantised while it is read. It trains, goes on bitwise, evaluates, answers, and says what it
//! cannot do.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const MODEL: &str = r#"{
  "model_type": "llama", "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;

fn luthier(folder: &TempDir, words: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    let output = command.args(words).current_dir(folder.path()).env_remove("LUTHIER_CPU").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn succeeds(folder: &TempDir, words: &[&str]) -> (String, String) {
    let (success, printed, said) = luthier(folder, words);
    assert!(success, "{words:?}: {said}");
    (printed, said)
}

/// A folder with a base of random weights, sentences, and a configuration.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("new")).unwrap();
    write("new/config.json", MODEL.as_bytes());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../builtin/model").join(name);
        write(&format!("new/{name}"), &std::fs::read(path).unwrap());
    }
    let lines: String =
        (0..16).map(|i| format!("{{\"text\": \"The number {i} comes before {}.\"}}\n", i + 1)).collect();
    write("text.jsonl", lines.as_bytes());
    let shared = "stage: pt\ndataset: text.jsonl\npacking: false\nthreads: 1\n";
    let base =
        "finetuning_type: full\nmodel_name_or_path: new\ntrain_from_scratch: true\nmax_steps: 1\noutput_dir: base\n";
    write("base.yaml", format!("{shared}{base}").as_bytes());
    let train = "model_name_or_path: base\nquantization_bit: 4\nper_device_train_batch_size: 4\nmax_steps: 6\n\
                 learning_rate: 1e-2\nval_size: 4\neval_steps: 3\nsave_steps: 3\nlogging_steps: 1\noutput_dir: out\n";
    write("train.yaml", format!("{shared}{train}").as_bytes());
    succeeds(&folder, &["train", "base.yaml"]);
    folder
}

fn adapter(folder: &TempDir, name: &str) -> Vec<u8> {
    std::fs::read(folder.path().join(name).join("adapter_model.safetensors")).unwrap()
}

#[test]
fn a_run_that_goes_on_is_the_same_run() {
    let folder = place();
    for words in [&[][..], &["double_quantization=false", "quantization_type=fp4"], &["quantization_bit=8"]] {
        let run = |more: &[&str]| succeeds(&folder, &[&["train", "train.yaml"], words, more].concat());
        run(&["output_dir=whole", "overwrite_output_dir=true"]);
        run(&["overwrite_output_dir=true"]);
        std::fs::remove_dir_all(folder.path().join("out/checkpoint-6")).unwrap();
        run(&["resume_from_checkpoint=out/checkpoint-3", "overwrite_output_dir=true"]);
        assert!(adapter(&folder, "whole") == adapter(&folder, "out"), "{words:?}");
        std::fs::remove_dir_all(folder.path().join("out")).unwrap();
    }
}

#[test]
fn an_adapter_answers_on_the_base_that_it_was_trained_on() {
    let folder = place();
    let (_, said) = succeeds(&folder, &["train", "train.yaml"]);
    assert!(said.contains("linear layers of the base: nf4_double"), "{said}");
    let record = std::fs::read_to_string(folder.path().join("out/run.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["settings"]["quantization_bit"]["value"], 4);
    let words = ["generate", "--model", "base", "--adapter", "out", "--prompt", "The number", "--max-new-tokens", "8"];
    let (quantised, _) = succeeds(&folder, &[&words[..], &["--quantization-bit", "4"]].concat());
    assert_ne!(quantised.trim(), "");
    // What is exported has the numbers that were trained on, merged.
    let export = ["export", "--model", "base", "--adapter", "out", "--output", "merged", "--outtype", "f32"];
    let (_, said) = succeeds(&folder, &export);
    assert!(said.contains("the adapter was trained on the base in nf4_double (run.json), so it is merged"), "{said}");
    let words =
        ["generate", "--model", "merged", "--prompt", "The number", "--max-new-tokens", "8", "--precision", "fp32"];
    let (merged, _) = succeeds(&folder, &words);
    let words = ["generate", "--model", "base", "--adapter", "out", "--prompt", "The number", "--max-new-tokens", "8"];
    let (unmerged, _) = succeeds(&folder, &[&words[..], &["--quantization-bit", "4", "--precision", "fp32"]].concat());
    assert_eq!(merged, unmerged);
    // A second adapter goes on from the first.
    succeeds(&folder, &["train", "train.yaml", "adapter_name_or_path=out", "output_dir=more", "max_steps=2"]);
    assert!(adapter(&folder, "out") != adapter(&folder, "more"));
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    let folder = place();
    let refused = |words: &[&str], sentence: &str| {
        let (success, _, said) = luthier(&folder, &[&["train", "train.yaml"], words].concat());
        assert!(!success && said.contains(sentence), "{words:?}: {said}");
    };
    refused(
        &["finetuning_type=full"],
        "quantization_bit needs finetuning_type: lora, ia3, vera, oft, prefix, prompt, p_tuning or bottleneck, since weights that \
         are stored in a few bits cannot take small steps",
    );
    refused(&["quantization_bit=3"], "quantization_bit is 3; expected 4 or 8, which is what bitsandbytes has");
    let config = std::fs::read_to_string(folder.path().join("new/config.json")).unwrap();
    let narrow = config.replace("\"intermediate_size\": 128", "\"intermediate_size\": 96");
    std::fs::write(folder.path().join("new/config.json"), narrow).unwrap();
    succeeds(&folder, &["train", "base.yaml", "output_dir=narrow"]);
    refused(
        &["model_name_or_path=narrow"],
        "tensor `model.layers.0.mlp.down_proj.weight` cannot be quantised: its rows have 96 numbers, which is no multiple of the 64 \
         that nf4_double stores together; quantization_bit: 8 takes rows of 32",
    );
    succeeds(&folder, &["train", "train.yaml", "model_name_or_path=narrow", "quantization_bit=8", "max_steps=1"]);
}
