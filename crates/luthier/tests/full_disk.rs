//! A disk that fills up while a checkpoint is written: the run waits, what was saved is whole, and when there is room it
//! goes on and ends as if nothing had been. The disk is a small tmpfs in a mount namespace of its own.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]
#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Bytes of a folder's files in whole pages, as a tmpfs counts them.
fn pages(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    files.map(|bytes| bytes.next_multiple_of(4096)).sum()
}

#[test]
fn a_full_disk_makes_the_run_wait() {
    let may_mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this system lets no one mount a tmpfs (unshare -rm)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), model.join(name)).unwrap();
    }
    let rows: String = (0..8).map(|row| format!("{{\"input_ids\": [{}, 5, 6, 7, 8, 9]}}\n", 10 + row)).collect();
    fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    fs::write(
        folder.path().join("train.yaml"),
        "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nmax_steps: 60\nsave_steps: 10\nlogging_steps: 5\n\
         plot_loss: false\nlora_rank: 64\n",
    )
    .unwrap();
    let program = env!("CARGO_BIN_EXE_luthier");
    let whole =
        Command::new(program).args(["train", "train.yaml", "output_dir=whole"]).current_dir(folder.path()).output();
    assert!(whole.unwrap().status.success());
    let checkpoint = pages(&folder.path().join("whole/checkpoint-10"));
    fs::create_dir(folder.path().join("out")).unwrap();
    // Room for two checkpoints and a half, and a file that takes the rest until it is removed. The disk goes with the last
    // process of its namespace, so the result is copied out of it.
    let script = format!(
        "mount -t tmpfs -o size={} tmpfs out && head -c {} /dev/zero > out/filler && {program} train train.yaml && \
         cp out/adapter_model.safetensors out/trainer_log.jsonl .",
        20 * checkpoint,
        20 * checkpoint - checkpoint * 5 / 2,
    );
    let mut child = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .current_dir(folder.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("warning: disk_full") {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the run ended without a full disk: {said}");
        said += &line;
    }
    let out = Path::new("/proc")
        .join(child.id().to_string())
        .join("root")
        .join(folder.path().join("out").strip_prefix("/").unwrap());
    for step in [10, 20] {
        let path = out.join(format!("checkpoint-{step}"));
        assert!(path.join("checkpoint.json").exists(), "{said}");
        let mine = fs::read(path.join("adapter_model.safetensors")).unwrap();
        let undisturbed = fs::read(folder.path().join(format!("whole/checkpoint-{step}/adapter_model.safetensors")));
        assert!(mine == undisturbed.unwrap(), "checkpoint-{step} is not whole");
    }
    assert!(!out.join("checkpoint-30").exists());
    fs::remove_file(out.join("filler")).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("note: checkpoint-30 is written, the run goes on\n"), "{said}");
    let same = fs::read(folder.path().join("adapter_model.safetensors")).unwrap()
        == fs::read(folder.path().join("whole/adapter_model.safetensors")).unwrap();
    assert!(same, "the result differs");
    let log = fs::read_to_string(folder.path().join("trainer_log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 12, "the log is whole: {log}");
}
