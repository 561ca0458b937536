//! Every optimiser trains, is left and taken up again with the same bytes, and says what it cannot do.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder with a small model, 30 rows and a configuration of 12 steps.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), model.join(name)).unwrap();
    }
    let row = |row: u32| {
        let ids: Vec<u32> = (0..5 + row % 9).map(|index| 1 + (row * 31 + index * 17) % 126).collect();
        format!("{{\"input_ids\": {ids:?}}}\n")
    };
    fs::write(folder.path().join("rows.jsonl"), (0..30).map(row).collect::<String>()).unwrap();
    let text = "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nper_device_train_batch_size: 4\n\
                learning_rate: 1.0e-3\nmax_steps: 12\nsave_steps: 5\nval_size: 4\neval_steps: 3\nplot_loss: false\n";
    fs::write(folder.path().join("train.yaml"), text).unwrap();
    folder
}

fn run(folder: &TempDir, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["train", "train.yaml"]).args(words).current_dir(folder.path()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(folder: &TempDir, words: &[&str]) -> String {
    let output = run(folder, words);
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    said(&output)
}

fn weights(folder: &TempDir, out: &str) -> Vec<u8> {
    let out = folder.path().join(out);
    let names = ["adapter_model.safetensors", "model.safetensors"].map(|name| out.join(name));
    fs::read(names.iter().find(|path| path.exists()).unwrap()).unwrap()
}

const FULL: &str = "finetuning_type=full";

#[test]
fn a_run_with_any_optimiser_goes_on_as_if_it_had_not_been_left() {
    let cases: [&[&str]; 17] = [
        &["optim=adamw_torch", "layerwise_lr_decay=0.8"],
        &["optim=adamw_8bit", FULL],
        &["optim=adafactor", "optim_args=beta1=0.9,scale_parameter=true", FULL],
        &["optim=lion_32bit"],
        &["optim=sgd", "optim_args=momentum=0.9"],
        &["optim=schedule_free_adamw", "warmup_steps=3", "load_best_model_at_end=true"],
        &["optim=schedule_free_adamw", "optim_args=r=1", FULL],
        &["use_adam_mini=true", FULL],
        &["use_muon=true", FULL, "bf16=true"],
        &["use_muon=true"],
        &["use_galore=true", "galore_rank=4", "galore_update_interval=3", FULL],
        &["use_apollo=true", "apollo_rank=4", "apollo_update_interval=3", FULL],
        &["use_apollo=true", "apollo_proj=svd", "apollo_rank=4", "finetuning_type=freeze", "freeze_trainable_layers=1"],
        &["use_badam=true", "badam_switch_interval=4", "badam_switch_mode=random", FULL],
        &["optimizer_in_bwd=true", "max_grad_norm=0", FULL],
        &["use_galore=true", "galore_layerwise=true", "clip_per_tensor=true", "galore_rank=4", FULL],
        &[
            "optim=apollo_adamw_layerwise",
            "optim_target_modules=all-linear",
            "optim_args=rank=1",
            "max_grad_norm=0",
            FULL,
        ],
    ];
    let folder = folder();
    for case in cases {
        let with = |more: &[&'static str]| [case, more].concat();
        succeeds(&folder, &with(&["output_dir=whole", "overwrite_output_dir=true"]));
        succeeds(
            &folder,
            &with(&["output_dir=again", "resume_from_checkpoint=whole/checkpoint-5", "overwrite_output_dir=true"]),
        );
        assert!(weights(&folder, "again") == weights(&folder, "whole"), "{case:?}: another result");
        let state =
            |out: &str| fs::read(folder.path().join(out).join("checkpoint-10/training_state.safetensors")).unwrap();
        assert!(state("again") == state("whole"), "{case:?}: another state");
        for out in ["whole", "again"] {
            fs::remove_dir_all(folder.path().join(out)).unwrap();
        }
    }
}

#[test]
fn a_run_that_steps_on_the_way_back_ends_where_a_usual_one_does() {
    let folder = folder();
    succeeds(&folder, &[FULL, "max_grad_norm=0"]);
    succeeds(&folder, &[FULL, "max_grad_norm=0", "fused_backward_pass=true", "output_dir=back"]);
    assert!(weights(&folder, "back") == weights(&folder, "out"));
    // A gradient that is not finite ends it, and the last checkpoint is named.
    let words = ["max_grad_norm=0", "optimizer_in_bwd=true", "output_dir=back", "resume_from_checkpoint=true"];
    let output = run(&folder, &[&words[..], &[FULL, "learning_rate=1e30", "max_steps=20"]].concat());
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("weights were stepped on the way back, so some have changed and others have not"), "{text}");
    assert!(text.contains("back/checkpoint-"), "{text}");
    assert!(text.contains("is from before: lower learning_rate and go on from it"), "{text}");
}

#[test]
fn what_an_optimiser_cannot_do_is_said() {
    let folder = folder();
    let refused = |words: &[&str], sentence: &str| {
        let output = run(&folder, words);
        assert!(!output.status.success() && said(&output).contains(sentence), "{words:?}: {}", said(&output));
    };
    refused(&["use_galore=true"], "GaLore needs finetuning_type: full or freeze");
    refused(&["optimizer_in_bwd=true", "max_grad_norm=0"], "needs finetuning_type: full or freeze");
    refused(
        &[FULL, "optimizer_in_bwd=true"],
        "optimizer_in_bwd: true never has all gradients together, so their norm cannot be limited",
    );
    refused(
        &[FULL, "optimizer_in_bwd=true", "max_grad_norm=0", "gradient_accumulation_steps=2"],
        "a step can have one batch only; gradient_accumulation_steps is 2, expected 1",
    );
    refused(
        &[FULL, "optimizer_in_bwd=true", "max_grad_norm=0", "token_budget=10"],
        "token_budget is 10, and a step has up to ",
    );
    refused(&["optim=ademamix"], "which Luthier does not have yet");
}

#[test]
fn a_rate_is_chosen_by_rule_and_said_with_its_source() {
    let folder = folder();
    let text = fs::read_to_string(folder.path().join("train.yaml")).unwrap().replace("learning_rate: 1.0e-3\n", "");
    fs::write(folder.path().join("train.yaml"), text).unwrap();
    let full =
        "rate: 6e-5, by rule: 20 % of the 3e-4 that llama was pre-trained with (Touvron et al. 2023, LLaMA of 7B)";
    for (words, line) in [
        (&["dry_run=true"][..], "rate: 1e-4, by rule: recommended for LoRA are 3e-5 to 1e-4; see luthier lr-find\n"),
        (&["dry_run=true", FULL], full),
        (
            &["dry_run=true", FULL, "use_muon=true"],
            "optimiser: Muon, and AdamW for what is no matrix within the model\n",
        ),
    ] {
        let said = succeeds(&folder, words);
        assert!(said.contains(line), "{said}");
        assert!(!said.contains("rate_outside_recommended_range"), "{said}");
    }
    let said = succeeds(&folder, &["dry_run=true", "learning_rate=1e-3"]);
    assert!(said.contains("rate_outside_recommended_range: learning_rate is 1e-3, so high that"), "{said}");
}

#[test]
fn a_range_test_draws_and_leaves_the_result_alone() {
    let folder = folder();
    fs::create_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("out/model.safetensors"), "kept").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["lr-find", "train.yaml", "max_steps=60", FULL]).current_dir(folder.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let rate: f64 = text.strip_prefix("learning_rate: ").unwrap().trim().parse().unwrap();
    assert!((1e-7..0.1).contains(&rate), "{text}");
    let svg = fs::read_to_string(folder.path().join("out/lr_find.svg")).unwrap();
    assert!(svg.contains("Learning rate range test") && folder.path().join("out/lr_find.png").exists());
    let mut names: Vec<_> = fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lr_find.png", "lr_find.svg", "model.safetensors"]);
    assert_eq!(fs::read(folder.path().join("out/model.safetensors")).unwrap(), b"kept");
}
