//! `train_from_scratch: true`: a model begins with weights that its configuration and the seed decide.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::path::Path;
use std::process::{Command, Output};

const MODEL: &str = r#"{
  "model_type": "llama", "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
  "num_attention_heads": 2, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;
const SETTINGS: &str = "stage: pt\nfinetuning_type: full\nmodel_name_or_path: new\ntrain_from_scratch: true\n\
                        dataset: text.jsonl\nmax_steps: 1\nlearning_rate: 1e-6\nthreads: 1\noutput_dir: out\n\
                        overwrite_output_dir: true\n";

fn luthier(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(arguments).current_dir(folder).env_remove("LUTHIER_CPU").output().unwrap()
}

/// A folder with a configuration and the built-in tokenizer, but without weights.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("new")).unwrap();
    write("new/config.json", MODEL.as_bytes());
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../builtin/model").join(name);
        write(&format!("new/{name}"), &std::fs::read(path).unwrap());
    }
    write("text.jsonl", b"{\"text\": \"The capital of France is Paris.\"}\n");
    write("train.yaml", SETTINGS.as_bytes());
    folder
}

#[test]
fn the_seed_decides_the_weights() {
    let folder = folder();
    let weights = |seed: &str| {
        let output = luthier(folder.path(), &["train", "train.yaml", seed]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (std::fs::read(folder.path().join("out/model.safetensors")).unwrap(), output.stderr)
    };
    let (one, said) = weights("seed=1");
    let said = String::from_utf8_lossy(&said);
    let note =
        "note: new: the weights are drawn from seed 1: normal with standard deviation 0.02; norms are 1, biases 0";
    assert!(said.contains(note), "{said}");
    // 1024 x 32 of the embedding, two norms and seven matrices of the layer, the last norm; two bytes each.
    let numbers = 1024 * 32 + 2 * 32 + 4 * 32 * 32 + 3 * 32 * 48 + 32;
    assert!((2 * numbers..2 * numbers + 2048).contains(&one.len()), "{}", one.len());
    assert!(one == weights("seed=1").0);
    assert!(one != weights("seed=2").0);
}

#[test]
fn what_stays_random_is_refused() {
    let folder = folder();
    let output = luthier(folder.path(), &["train", "train.yaml", "finetuning_type=lora"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: train.yaml, line 4: train_from_scratch needs finetuning_type: full, since weights that stay random are of no \
         use\n"
    );
    assert_eq!(output.status.code(), Some(1));
}
