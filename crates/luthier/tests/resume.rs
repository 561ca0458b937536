//! A run that is left and taken up again gives the same bytes as one that never was: after kills at random moments, after
//! a signal, in the middle of an epoch, with a damaged checkpoint. And what must not be continued is refused.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A folder with a small model, 37 rows and a configuration.
fn folder(lines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), model.join(name)).unwrap();
    }
    let mut numbers = Numbers(3);
    let mut rows = String::new();
    for _ in 0..37 {
        let ids: Vec<u64> = (0..4 + numbers.below(20)).map(|_| 1 + numbers.below(127)).collect();
        rows += &format!("{{\"input_ids\": {ids:?}}}\n");
    }
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let text = format!(
        "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nper_device_train_batch_size: 4\n\
         learning_rate: 1.0e-3\nlogging_steps: 10\n{lines}"
    );
    fs::write(folder.path().join("train.yaml"), text).unwrap();
    folder
}

fn command(folder: &TempDir, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["train", "train.yaml"]).args(words).current_dir(folder.path()).stderr(Stdio::piped());
    command
}

fn run(folder: &TempDir, words: &[&str]) -> Output {
    command(folder, words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(folder: &TempDir, words: &[&str]) -> String {
    let output = run(folder, words);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// The result and the log without its times.
fn result(folder: &TempDir, out: &str) -> (Vec<u8>, Vec<Value>) {
    let out = folder.path().join(out);
    let weights = ["adapter_model.safetensors", "model.safetensors"].map(|name| out.join(name));
    let path = weights.iter().find(|path| path.exists()).unwrap();
    (fs::read(path).unwrap(), log(&out))
}

fn log(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("trainer_log.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        for key in ["elapsed_time", "remaining_time", "throughput"] {
            value.as_object_mut().unwrap().remove(key);
        }
        value
    };
    text.lines().map(line).collect()
}

fn checkpoints(folder: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-")).collect();
    found.sort_by_key(|path| path.to_string_lossy().rsplit('-').next().unwrap().parse::<usize>().unwrap());
    found
}

/// Kills a run at random moments, a save among them, until `kills` are done, and lets it end.
fn kill_and_resume(method: &str, threads: &str, kills: usize, seed: u64) {
    let lines = format!("max_steps: 400\nsave_steps: 7\nsave_total_limit: 2\nval_size: 5\neval_steps: 60\n{method}\n");
    let folder = folder(&lines);
    let start = Instant::now();
    succeeds(&folder, &["output_dir=whole", threads]);
    let whole = start.elapsed();
    let mut numbers = Numbers(seed);
    let (mut ended_early, mut share) = (0, 0.7);
    while ended_early < kills {
        let mut child = command(&folder, &["resume_from_checkpoint=true", threads]).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(share * numbers.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It came to its end first: from the beginning, with less patience.
            fs::remove_dir_all(folder.path().join("out")).unwrap();
            (ended_early, share) = (0, share * 0.7);
        } else {
            ended_early += 1;
        }
    }
    succeeds(&folder, &["resume_from_checkpoint=true", threads]);
    let (expected, expected_log) = result(&folder, "whole");
    let (found, found_log) = result(&folder, "out");
    assert!(found == expected, "{method}, {threads}: another result after {ended_early} kills");
    assert_eq!(found_log, expected_log);
    let left: Vec<_> = fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

/// Few in the gate; `LUTHIER_KILLS=10 cargo test --test resume killed` is the proof.
fn kills() -> usize {
    std::env::var("LUTHIER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[test]
fn a_killed_lora_run_ends_as_if_it_had_not_been() {
    kill_and_resume("lora_dropout: 0.1", "threads=1", kills(), 1);
    kill_and_resume("lora_dropout: 0.1", "threads=2", kills(), 2);
}

#[test]
fn a_killed_run_of_packed_rows_ends_as_if_it_had_not_been() {
    let lines = "packing: true\ncutoff_len: 40\ngroup_by_length: true\ngradient_accumulation_steps: 2";
    kill_and_resume(lines, "threads=2", kills(), 5);
}

#[test]
fn weights_are_part_of_what_a_run_is_continued_with() {
    let weighted = |weight: f32| {
        let row = |id: usize| format!("{{\"input_ids\": [{id}, 5, 6, 7], \"weights\": [0, {weight}, 1, 0.5]}}\n");
        (10..20).map(row).collect::<String>()
    };
    let folder = folder("max_steps: 6\nsave_steps: 3\n");
    fs::write(folder.path().join("rows.jsonl"), weighted(0.25)).unwrap();
    succeeds(&folder, &[]);
    let results: Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("out/all_results.json")).unwrap()).unwrap();
    let mean = results["train_loss"].as_f64().unwrap();
    // The same rows with other weights are another run.
    fs::write(folder.path().join("rows.jsonl"), weighted(0.75)).unwrap();
    let other = run(&folder, &["resume_from_checkpoint=true"]);
    assert!(!other.status.success() && said(&other).contains("are not those of the checkpoint"), "{}", said(&other));
    // What is told of the run is the mean by weight: that of the journal's steps, of 4 or 2 rows of 1.75 each.
    let journal = fs::read_to_string(folder.path().join("out/checkpoint-6/journal.jsonl")).unwrap();
    let steps = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<(f64, f64)> =
        steps.filter_map(|entry| Some((entry["loss"].as_f64()?, entry["weight"].as_f64()?))).collect();
    assert_eq!(steps.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [7.0, 7.0, 3.5, 7.0, 7.0, 3.5]);
    let expected = steps.iter().map(|(loss, weight)| loss * weight).sum::<f64>() / 35.0;
    assert!((mean - expected).abs() < 1e-12, "{mean} and {expected}");
}

#[test]
fn a_killed_full_run_ends_as_if_it_had_not_been() {
    kill_and_resume("finetuning_type: full", "threads=1", kills(), 3);
    kill_and_resume("finetuning_type: full", "threads=2", kills(), 4);
}

/// Waits until a file is there.
fn wait_for(path: &Path, child: &mut Child) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} never came", path.display());
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_says_how_to_go_on() {
    for signal in ["-TERM", "-INT"] {
        let folder = folder("max_steps: 1000000\nsave_strategy: no\n");
        let log = folder.path().join("out/trainer_log.jsonl");
        let mut child = command(&folder, &[]).spawn().unwrap();
        wait_for(&log, &mut child);
        std::thread::sleep(Duration::from_millis(200));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(130), "{said}");
        let checkpoint = checkpoints(&folder).pop().unwrap();
        let step: usize = checkpoint.to_string_lossy().rsplit('-').next().unwrap().parse().unwrap();
        let expected = format!(
            "stopped after step {step} of 1000000; the state is kept in out/checkpoint-{step}; to go on: luthier train \
             train.yaml resume_from_checkpoint=true\n"
        );
        assert!(said.ends_with(&expected), "{said}");
        let said = succeeds(&folder, &["resume_from_checkpoint=true", &format!("max_steps={}", step + 2)]);
        let going = format!("note: going on from out/checkpoint-{step} after step {step} of {}\n", step + 2);
        assert!(said.contains(&going), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn two_runs_in_one_folder() {
    let folder = folder("max_steps: 1000000\n");
    let mut child = command(&folder, &[]).spawn().unwrap();
    wait_for(&folder.path().join("out/trainer_log.jsonl"), &mut child);
    let second = run(&folder, &["overwrite_output_dir=true"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let expected = "error: output_dir: another run is writing into out; wait for its end or choose another folder\n";
    assert!(said(&second).ends_with(expected), "{}", said(&second));
    assert_eq!(second.status.code(), Some(1));
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let folder = folder("max_steps: 30\nsave_steps: 10\n");
    succeeds(&folder, &["output_dir=whole"]);
    succeeds(&folder, &[]);
    fs::remove_file(folder.path().join("out/adapter_model.safetensors")).unwrap();
    let newest = folder.path().join("out/checkpoint-30");
    let tensors = newest.join("training_state.safetensors");
    let mut bytes = fs::read(&tensors).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tensors, bytes).unwrap();
    fs::remove_file(folder.path().join("out/checkpoint-20/adapter_config.json")).unwrap();
    let said = succeeds(&folder, &["resume_from_checkpoint=true"]);
    for expected in [
        "warning: this checkpoint is passed over: out/checkpoint-30: training_state.safetensors has another content than was \
         written\n",
        "warning: this checkpoint is passed over: out/checkpoint-20: adapter_config.json is missing\n",
        "note: going on from out/checkpoint-10 after step 10 of 30\n",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(result(&folder, "out") == result(&folder, "whole"));
}

#[test]
fn other_rows_are_another_run() {
    let folder = folder("max_steps: 10\nsave_steps: 5\n");
    succeeds(&folder, &[]);
    let output = run(&folder, &["resume_from_checkpoint=true", "per_device_train_batch_size=3", "max_steps=20"]);
    assert_eq!(
        said(&output).lines().last().unwrap(),
        "error: resume_from_checkpoint: the rows of the steps are not those of the checkpoint: dataset, template, cutoff_len, \
         batch size or seed have changed; set them back, or begin a new run (adapter_name_or_path goes on with an adapter)"
    );
    let output = run(&folder, &["resume_from_checkpoint=out/checkpoint-7"]);
    assert_eq!(
        said(&output),
        "error: resume_from_checkpoint: out/checkpoint-7 is no folder; expected a checkpoint such as checkpoint-100\n"
    );
}

#[test]
fn only_so_many_checkpoints_are_kept_and_the_best() {
    let folder =
        folder("max_steps: 60\nsave_steps: 10\nsave_total_limit: 2\nval_size: 5\neval_steps: 20\nlearning_rate: 0.3\n");
    let said = {
        let text = fs::read_to_string(folder.path().join("train.yaml")).unwrap().replace("learning_rate: 1.0e-3\n", "");
        fs::write(folder.path().join("train.yaml"), text).unwrap();
        succeeds(&folder, &["metric_for_best_model=loss", "eval_on_start=false"])
    };
    let steps: Vec<String> =
        checkpoints(&folder).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let evaluations: Vec<Value> =
        log(&folder.path().join("out")).into_iter().filter(|line| line.get("eval_loss").is_some()).collect();
    let best = evaluations.iter().min_by(|a, b| a["eval_loss"].as_f64().partial_cmp(&b["eval_loss"].as_f64()).unwrap());
    let best = best.unwrap()["current_steps"].as_u64().unwrap();
    let mut expected = vec![format!("checkpoint-{best}"), "checkpoint-50".to_owned(), "checkpoint-60".to_owned()];
    expected.dedup();
    expected.sort();
    expected.dedup();
    let mut found = steps.clone();
    found.sort();
    assert_eq!(found, expected, "{said}");
    if best != 60 {
        let saved = fs::read(folder.path().join("out/adapter_model.safetensors")).unwrap();
        let kept = fs::read(folder.path().join(format!("out/checkpoint-{best}/adapter_model.safetensors"))).unwrap();
        assert!(saved == kept, "the best state is what is saved");
    }
}

#[test]
fn the_best_state_is_found_where_the_run_began() {
    let folder = folder("max_steps: 60\nsave_steps: 10\nval_size: 5\neval_steps: 10\nmetric_for_best_model: loss\n");
    succeeds(&folder, &["learning_rate=0.3"]);
    let said =
        succeeds(&folder, &["learning_rate=0.3", "output_dir=moved", "resume_from_checkpoint=out/checkpoint-50"]);
    let best = said.split("note: the best evaluation was after step ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(best.parse::<usize>().unwrap() < 50, "{said}");
    assert!(!folder.path().join(format!("moved/checkpoint-{best}")).exists());
    let read = |path: &str| fs::read(folder.path().join(path)).unwrap();
    let kept = read(&format!("out/checkpoint-{best}/adapter_model.safetensors"));
    assert!(read("moved/adapter_model.safetensors") == kept, "{said}");
}

#[test]
fn evaluations_without_a_better_one_end_the_run() {
    // A rate of nothing: no evaluation can be better than the first.
    let folder = folder("max_steps: 100\nval_size: 0.2\neval_steps: 10\nearly_stopping_steps: 2\n");
    let said = succeeds(&folder, &["learning_rate=0"]);
    assert!(
        said.contains("note: the run ends early: 2 evaluations were no better than the best (early_stopping_steps)\n"),
        "{said}"
    );
    let log = log(&folder.path().join("out"));
    assert_eq!(log.last().unwrap()["current_steps"], 30, "{log:?}");
}

#[test]
fn a_step_that_is_not_finite_names_its_rows() {
    let folder = folder("max_steps: 40\nfinetuning_type: full\nmax_grad_norm: 0\n");
    let output = run(&folder, &["learning_rate=1e30", "nonfinite=stop", "lr_scheduler_type=constant"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("warning: nonfinite: step 2: the loss is "), "{text}");
    assert!(text.contains("its rows are rows.jsonl record "), "{text}");
    assert!(
        text.ends_with(
            "error: the run has ended after step 2, since the loss or the gradient of 1 step in a row was not finite; \
             nothing was saved\n"
        ),
        "{text}"
    );
    assert!(!folder.path().join("out/model.safetensors").exists());
    let text = said(&run(&folder, &["learning_rate=1e30", "lr_scheduler_type=constant", "overwrite_output_dir=true"]));
    assert!(
        text.contains("the run has ended after step 11, since the loss or the gradient of 10 steps in a row"),
        "{text}"
    );
}

#[test]
fn a_dry_run_leaves_nothing() {
    let folder = folder("max_steps: 40\ndry_run: true\n");
    let said = succeeds(&folder, &[]);
    for label in ["model: ", "method: ", "data: ", "machine: ", "steps: ", "memory: ", "time: ", "disk: "] {
        assert!(said.lines().any(|line| line.starts_with(label)), "{label} is missing: {said}");
    }
    assert!(!folder.path().join("out").exists());
}
