//! Folders that prove that they are whole: a checkpoint is written aside, every file flushed, a manifest with the size and
//! the SHA-256 of each file last, and then the folder takes its name at once. What a kill or a full disk leaves is either
//! a folder that passes [`check_sealed`] or none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{Error, sha256_of_file, write_atomically, write_folder_atomically};

/// The manifest's name.
pub const SEAL_FILE: &str = "checkpoint.json";

/// Makes the folder `path` as a whole, as [`write_folder_atomically`] does, and seals it. `fill` gets an empty folder and
/// writes files into it, none below another folder, each through [`write_atomically`].
///
/// # Errors
/// When `fill` or the system fails; then nothing has changed.
pub fn write_sealed<E: From<Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    write_folder_atomically(path, |folder| {
        fill(folder)?;
        let mut files = serde_json::Map::new();
        for (name, bytes, sha256) in measure(folder)? {
            files.insert(name, json!({ "bytes": bytes, "sha256": sha256 }));
        }
        let manifest = format!("{:#}\n", json!({ "files": files }));
        write_atomically(&folder.join(SEAL_FILE), |writer| writer.write_all(manifest.as_bytes()))?;
        Ok(())
    })
}

/// Whether every file of a sealed folder is there and as it was written.
///
/// # Errors
/// What is missing, or differs.
pub fn check_sealed(path: &Path) -> Result<(), Error> {
    let damaged = |reason: String| Error::Damaged { folder: path.to_owned(), reason };
    let manifest = path.join(SEAL_FILE);
    let text = match fs::read(&manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(damaged(format!(
                "it has no {SEAL_FILE}, so it is no checkpoint of Luthier, or not a whole one"
            )));
        }
        Err(error) => return Err(Error::io(&manifest, "read it")(error)),
    };
    let value: Value = serde_json::from_slice(&text).map_err(|_| damaged(format!("its {SEAL_FILE} is no JSON")))?;
    let Some(listed) = value["files"].as_object() else {
        return Err(damaged(format!("its {SEAL_FILE} lists no files")));
    };
    let mut found: BTreeMap<String, (u64, String)> =
        measure(path)?.into_iter().map(|(name, bytes, sha256)| (name, (bytes, sha256))).collect();
    for (name, expected) in listed {
        match found.remove(name) {
            None => return Err(damaged(format!("{name} is missing"))),
            Some((bytes, _)) if Some(bytes) != expected["bytes"].as_u64() => {
                return Err(damaged(format!("{name} has {bytes} bytes, expected {}", expected["bytes"])));
            }
            Some((_, sha256)) if Some(sha256.as_str()) != expected["sha256"].as_str() => {
                return Err(damaged(format!("{name} has another content than was written")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Name, size and SHA-256 of each file but the manifest, in order.
fn measure(folder: &Path) -> Result<Vec<(String, u64, String)>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "list it"))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder, "list it"))?.path();
        if path.is_file() && path.file_name().is_some_and(|name| name != SEAL_FILE) {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| hash_file(&path)).collect()
}

fn hash_file(path: &Path) -> Result<(String, u64, String), Error> {
    let bytes = fs::metadata(path).map_err(Error::io(path, "read it"))?.len();
    let sha256 = sha256_of_file(path).map_err(Error::io(path, "read it"))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((name, bytes, sha256))
}
