//! A place where the program runs as a user would run it, and transcripts of what it said.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder with a small model, a few rows of tokens and `train.yaml`.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.model("model", "llama");
        let rows: String = (0..8).map(|row| format!("{{\"input_ids\": [{}, 5, 6, 7, 8, 9]}}\n", 10 + row)).collect();
        place.write("rows.jsonl", &rows);
        place.write(
            "train.yaml",
            "model_name_or_path: model\ndataset: rows.jsonl\nmax_steps: 2\noutput_dir: out\nthreads: 1\nprecision: fp32\n",
        );
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Copies a model of the fixtures.
    pub(crate) fn model(&self, name: &str, fixture: &str) -> &Self {
        self.folder(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(fixture);
        for file in ["config.json", "model.safetensors"] {
            fs::copy(source.join(file), self.path(name).join(file)).expect("copied");
        }
        self
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).expect("written");
        self
    }

    pub(crate) fn folder(&self, name: &str) -> &Self {
        fs::create_dir_all(self.path(name)).expect("made");
        self
    }

    pub(crate) fn remove(&self, name: &str) -> &Self {
        fs::remove_file(self.path(name)).expect("removed");
        self
    }

    /// What a failed run has left in its output folder.
    pub(crate) fn left_behind(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Runs the program here; returns its exit code, and what was typed and said.
    pub(crate) fn luthier(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
            .args(words)
            .current_dir(self.0.path())
            .env("HF_HOME", "no-cache")
            .env("HF_HUB_OFFLINE", "1")
            .env("LUTHIER_CPU", "portable")
            .env("NO_COLOR", "1")
            .env_remove("COLUMNS")
            .output()
            .expect("it runs");
        let mut text = format!("$ luthier {}\n", words.join(" "));
        text += &String::from_utf8_lossy(&output.stdout);
        text += &String::from_utf8_lossy(&output.stderr);
        if let Some(code) = output.status.code().filter(|code| *code != 0) {
            text += &format!("exit code {code}\n");
        }
        (output.status.code(), text)
    }
}

/// Compares a text with `tests/transcripts/NAME.txt`, or writes it there.
#[track_caller]
pub(crate) fn transcript(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(format!("{name}.txt"));
    if std::env::var_os("LUTHIER_UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, text).expect("written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} (LUTHIER_UPDATE=1 writes it anew)", path.display());
}
