//! A file as a manifest names it: by its hash where that is cheap, else by its size and time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde_json::{Value, json};

use super::time;

/// Larger files of a model are not read for their hash: that would take longer than a short training.
const HASHED_BYTES: u64 = 64 << 20;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    path: PathBuf,
    bytes: u64,
    /// `None` where the file is too large to be hashed.
    sha256: Option<String>,
    modified: Option<SystemTime>,
}

impl FileRecord {
    /// A file of data, with its hash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn hashed(path: &Path) -> anyhow::Result<Self> {
        Self::read(path, u64::MAX).with_context(|| format!("{} cannot be read", path.display()))
    }

    /// A file of a model, with its hash if it is not larger than 64 MiB.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        Self::read(path, HASHED_BYTES).with_context(|| format!("{} cannot be read", path.display()))
    }

    fn read(path: &Path, hashed_bytes: u64) -> io::Result<Self> {
        let about = std::fs::metadata(path)?;
        let sha256 = (about.len() <= hashed_bytes).then(|| luthier_files::sha256_of_file(path)).transpose()?;
        Ok(Self { path: path.to_owned(), bytes: about.len(), sha256, modified: about.modified().ok() })
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({ "path": self.path.display().to_string(), "bytes": self.bytes });
        match (&self.sha256, self.modified) {
            (Some(sha256), _) => json["sha256"] = json!(sha256),
            (None, Some(modified)) => json["modified"] = json!(time::utc(modified)),
            (None, None) => {}
        }
        if self.sha256.is_none() {
            json["note"] = json!("too large to be hashed");
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_hashed_and_large_ones_dated() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data.json");
        std::fs::write(&path, "abc").expect("written");
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let json = FileRecord::of(&path).expect("read").json();
        assert_eq!(json, json!({"path": path.display().to_string(), "bytes": 3, "sha256": sum}));
        let large = FileRecord::read(&path, 2).expect("read").json();
        assert_eq!((&large["bytes"], &large["note"]), (&json!(3), &json!("too large to be hashed")));
        assert!(large["modified"].as_str().is_some_and(|time| time.ends_with('Z')) && large.get("sha256").is_none());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = FileRecord::hashed(Path::new("nowhere/faq.json")).expect_err("missing");
        assert_eq!(error.to_string(), "nowhere/faq.json cannot be read");
    }
}
