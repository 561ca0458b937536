//! What a user sees when something is wrong: the program is run and its whole output compared.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A folder with `train.yaml` in it. The program runs there, so that messages name relative paths.
fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("train.yaml"), config).expect("written");
    folder
}

#[track_caller]
fn check(folder: &Path, arguments: &[&str], code: i32, stderr: &str) {
    check_with(folder, arguments, &[], code, stderr);
}

#[track_caller]
fn check_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)], code: i32, stderr: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("LUTHIER_CPU")
        .envs(environment.iter().copied())
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(output.status.code(), Some(code));
}

/// Runs `luthier train train.yaml` with the least configuration and these lines.
#[track_caller]
fn train(lines: &str, overrides: &[&str], stderr: &str) {
    let folder = folder(&format!("model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\n{lines}"));
    let arguments: Vec<_> = ["train", "train.yaml"].iter().chain(overrides).copied().collect();
    check(folder.path(), &arguments, 1, stderr);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    train(
        "lora_rnk: 8\n",
        &[],
        "error: train.yaml, line 4: there is no setting \"lora_rnk\"; did you mean \"lora_rank\"? \
         (`luthier train --help` lists all)\n",
    );
    train(
        "",
        &["colour=blue"],
        "error: command line: there is no setting \"colour\" (`luthier train --help` lists all)\n",
    );
}

#[test]
fn a_refused_key_says_why() {
    train(
        "\nfp8: true\nsplit_special_tokens: true\nrope_scaling: {a: [b]}\n",
        &["shift_attn=true"],
        "error: train.yaml, line 5: fp8 is refused: Luthier does not have it yet, and without it the result would differ\n\
         error: train.yaml, line 6: split_special_tokens is refused: Luthier does not have it yet, and without it the result \
         would differ\n\
         error: train.yaml, line 7: rope_scaling is refused: the scaling of the model's own config.json is used; another is \
         not there yet\n\
         error: command line: shift_attn is refused: Luthier does not have it yet, and without it the result would differ\n",
    );
    train(
        "stage: dpo\n",
        &[],
        "error: train.yaml, line 4: stage is \"dpo\", which Luthier does not have yet; expected sft or pt\n",
    );
}

#[test]
fn a_bad_value_says_what_was_expected() {
    train(
        "learning_rate: fast\nlora_rank: 0\nbf16: maybe\nlr_scheduler_type: cosin\n",
        &["max_steps=[1, 2]"],
        "error: train.yaml, line 4: learning_rate is \"fast\"; expected a number of 0 or more\n\
         error: train.yaml, line 5: lora_rank is \"0\"; expected a whole number from 1 to 65536\n\
         error: train.yaml, line 6: bf16 is \"maybe\"; expected true or false\n\
         error: train.yaml, line 7: lr_scheduler_type is \"cosin\"; expected linear, cosine, cosine_with_restarts, \
         polynomial, constant, constant_with_warmup, inverse_sqrt, cosine_with_min_lr, cosine_warmup_with_min_lr or \
         warmup_stable_decay\n\
         error: command line: max_steps is [1, 2]; expected a whole number of -1 or more\n",
    );
    train(
        "",
        &["lora_rank"],
        "error: command line: lora_rank has no value; expected lora_rank=VALUE or --lora_rank VALUE\n",
    );
}

#[test]
fn a_key_is_given_once() {
    train(
        "batch_size: 4\nper_device_train_batch_size: 2\n",
        &[],
        "error: train.yaml, line 5: per_device_train_batch_size was already set on line 4 as batch_size; expected it once\n",
    );
}

#[test]
fn what_must_be_given() {
    let folder = folder("# nothing\n");
    check(
        folder.path(),
        &["train", "train.yaml"],
        1,
        "error: model_name_or_path is missing; expected a Hugging Face folder, a GGUF file, or org/name of the hub\n\
         error: dataset is missing; expected files, or names of datasets in dataset_dir\n",
    );
}

#[test]
fn a_file_that_is_not_settings() {
    let folder = folder("a: 1\n  b: 2\n");
    check(
        folder.path(),
        &["train", "train.yaml"],
        1,
        "error: train.yaml, line 2: this is not valid YAML: mapping values are not allowed in this context\n",
    );
    check(
        folder.path(),
        &["train", "none.yaml"],
        1,
        "error: none.yaml: the settings cannot be read: there is no such file\n",
    );
}

#[test]
fn a_model_that_is_not_there() {
    train(
        "",
        &["adapter_name_or_path=adapter"],
        "error: model_name_or_path: model does not exist; expected a Hugging Face folder, a GGUF file, or org/name of the hub\n\
         error: adapter_name_or_path: adapter does not exist; expected a PEFT adapter folder\n",
    );
    train(
        "",
        &["model_name_or_path=."],
        "error: model_name_or_path: . has no config.json; expected a Hugging Face folder or a GGUF file\n",
    );
    let folder = folder("");
    check(
        folder.path(),
        &["generate", "--model", "model", "--prompt", "Hello"],
        1,
        "error: --model: model does not exist; expected a Hugging Face folder, a GGUF file, or org/name of the hub\n",
    );
}

#[test]
fn an_output_folder_that_holds_a_run() {
    let folder = folder("model_name_or_path: .\ndataset: rows.jsonl\noutput_dir: out\n");
    std::fs::write(folder.path().join("config.json"), "{}").expect("written");
    std::fs::create_dir(folder.path().join("out")).expect("made");
    std::fs::write(folder.path().join("out/trainer_log.jsonl"), "").expect("written");
    check(
        folder.path(),
        &["train", "train.yaml"],
        1,
        "error: output_dir: out already holds trainer_log.jsonl of another run; choose another folder, set \
         overwrite_output_dir: true, or go on with that run with resume_from_checkpoint: true\n",
    );
}

#[test]
fn an_instruction_set_that_there_is_not() {
    let folder = folder("");
    check_with(
        folder.path(),
        &["train", "train.yaml"],
        &[("LUTHIER_CPU", "sse9")],
        1,
        "error: LUTHIER_CPU is \"sse9\"; expected amx, avx512, avx2 or portable\n",
    );
}

#[test]
fn arguments_that_cannot_be_understood() {
    let folder = folder("");
    check(
        folder.path(),
        &["generate", "--model", "m"],
        2,
        "error: the following required arguments were not provided:\n  <--prompt <TEXT>|--message <TEXT>>\n\n\
         Usage: luthier generate --model <MODEL> <--prompt <TEXT>|--message <TEXT>>\n\n\
         For more information, try '--help'.\n",
    );
}
