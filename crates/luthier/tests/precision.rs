//! Precisions and what trades memory for time, as a user sees them: each trains, resumes to the same bytes, and says what
//! it does.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a small model, rows and a configuration.
fn folder(lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), model.join(name)).unwrap();
    }
    let rows = (0..40u32).map(|row| {
        let ids: Vec<u32> = (0..8 + row % 9).map(|index| 1 + (row * 31 + index * 17) % 120).collect();
        format!("{{\"input_ids\": {ids:?}}}\n")
    });
    fs::write(folder.path().join("rows.jsonl"), rows.collect::<String>()).unwrap();
    let text = format!(
        "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nlearning_rate: 1.0e-3\nlogging_steps: 1\n\
         save_steps: 5\n{lines}\n"
    );
    let text = if lines.contains("max_steps") { text } else { text + "max_steps: 12\n" };
    fs::write(folder.path().join("train.yaml"), text).unwrap();
    folder
}

fn run(folder: &TempDir, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["train", "train.yaml"]).args(words).current_dir(folder.path()).output().unwrap()
}

#[track_caller]
fn succeeds(folder: &TempDir, words: &[&str]) -> String {
    let output = run(folder, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn result(folder: &TempDir, out: &str) -> Vec<u8> {
    let out = folder.path().join(out);
    let names = ["adapter_model.safetensors", "model.safetensors"].map(|name| out.join(name));
    fs::read(names.iter().find(|path| path.exists()).unwrap()).unwrap()
}

fn log(folder: &TempDir, out: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join(out).join("trainer_log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_of_them_trains_and_goes_on_to_the_same_bytes() {
    for lines in [
        "fp16: true\nloss_scale_growth_steps: 4",
        "precision: fp16\nloss_scale: 1.0e12\nloss_scale_backoff: 0.01\nfinetuning_type: full\nbatch_size: 4",
        "pure_bf16: true\nfinetuning_type: full\nbatch_size: 4",
        "pure_bf16: true\npure_bf16_rounding: kahan\nfinetuning_type: full",
        "pure_bf16: true\nneftune_noise_alpha: 5\nlora_dropout: 0.1",
        "gradient_checkpointing: selective\nfinetuning_type: freeze\nfreeze_trainable_layers: 1",
        "gradient_checkpointing: on\nneftune_noise_alpha: 5\nbatch_size: auto",
        "gradient_checkpointing: selective\nneftune_noise_alpha: 5\nfinetuning_type: prompt\nfp16: true",
        "pure_bf16: true\nfinetuning_type: full\noptimizer_in_bwd: true\nmax_grad_norm: 0",
        "fp16: true\nloss_scale: 1.0e25\nloss_scale_backoff: 0.01\nfinetuning_type: full\nuse_badam: true\n\
         badam_switch_interval: 2",
    ] {
        let folder = folder(lines);
        succeeds(&folder, &[]);
        let again = succeeds(&folder, &["resume_from_checkpoint=out/checkpoint-5", "output_dir=again"]);
        assert!(again.contains("going on from") && !again.contains("the result will differ"), "{again}");
        assert!(result(&folder, "out") == result(&folder, "again"), "{lines}");
        let losses = |out| {
            let lines = log(&folder, out);
            lines.iter().map(|line| line["loss"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(losses("out"), losses("again"), "{lines}");
    }
}

#[test]
fn an_overflow_is_said_and_logged() {
    let folder = folder("fp16: true\nloss_scale: 1.0e25\nmax_steps: 60\nloss_scale_backoff: 0.125");
    let said = succeeds(&folder, &[]);
    assert!(
        said.contains(
            "overflow: step 1 changed nothing, since a gradient outgrew fp16; the scale of the loss falls from"
        ),
        "{said}"
    );
    assert!(said.contains("warning: loss_scale_falling: step 8: "), "{said}");
    assert!(said.contains("fp16: activations take"), "{said}");
    let overflows: Vec<Value> = log(&folder, "out").into_iter().filter(|line| line["loss_scale"].is_number()).collect();
    assert!(overflows.len() >= 8);
    assert_eq!((&overflows[0]["current_steps"], &overflows[0]["next_loss_scale"]), (&1.into(), &1.25e24.into()));
    assert!(said.contains(&format!("{} steps left out", overflows.len())), "{said}");
}

#[test]
fn what_cannot_be_together_is_refused() {
    let folder = folder("");
    for (words, expected) in [
        (&["fp16=true", "bf16=true"][..], "fp16: true and bf16: true exclude one another"),
        (&["pure_bf16=true", "fp16=true"], "pure_bf16: true and precision: fp16 exclude one another"),
        (&["gradient_checkpointing=maybe"], "expected auto, on, off or selective"),
        (&["loss_scale_backoff=1"], "loss_scale_backoff must lie between 0 and 1"),
    ] {
        let output = run(&folder, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}

#[test]
fn a_batch_of_as_many_rows_as_fit_leaves_steps_to_an_epoch() {
    let folder = folder("batch_size: auto\nmax_steps: -1\nnum_train_epochs: 1");
    let said = succeeds(&folder, &[]);
    assert!(said.contains("note: per_device_train_batch_size: auto is 2: the longest rows take"), "{said}");
    assert!(said.contains("steps: 20 of 2 rows"), "{said}");
}
