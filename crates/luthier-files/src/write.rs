//! Writing what must survive: a file is complete under its name or not there. Temporary file in the same folder, flush,
//! rename, flush of the folder; on an error nothing is left.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use luthier_model::checkpoint::{Shard, TensorSpec, index_json, write_shard};

use crate::Error;

/// Writes `path` as a whole: `fill` gets the writer, and what it wrote appears under the name when all of it is on the
/// disk. An older file stays until then.
///
/// # Errors
/// When `fill` or the system fails; then nothing has changed.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let temporary = Temporary(beside(path));
    let file = File::create_new(&temporary.0).map_err(Error::io(path, "create it"))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    fill(&mut writer).map_err(Error::io(path, "write it"))?;
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error).map_err(Error::io(path, "write it"))?;
    file.sync_all().map_err(Error::io(path, "write it"))?;
    drop(file);
    fs::rename(&temporary.0, path).map_err(Error::io(path, "put it in place"))?;
    sync_folder(path)
}

/// Makes a folder as a whole: `fill` gets an empty one beside it, which then takes its name and its place.
///
/// # Errors
/// When `fill` or the system fails; then an older folder of that name is still there.
pub fn write_folder_atomically<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = Temporary(beside(path));
    fs::create_dir_all(&temporary.0).map_err(Error::io(path, "create it"))?;
    fill(&temporary.0)?;
    let older = Temporary(beside(path));
    let replaces = path.exists();
    if replaces {
        fs::rename(path, &older.0).map_err(Error::io(path, "move the older one away"))?;
    }
    if let Err(error) = fs::rename(&temporary.0, path) {
        if replaces {
            fs::rename(&older.0, path).map_err(Error::io(path, "put the older one back"))?;
        }
        return Err(Error::io(path, "put it in place")(error).into());
    }
    Ok(sync_folder(path)?)
}

/// Writes a Hugging Face folder: `small` files as they are (with `config.json` among them), the weights by `fill` as
/// [`write_shard`] does, and the index where there are several shards, last.
///
/// # Errors
/// When `fill` or the system fails.
pub fn write_model(
    folder: &Path,
    small: &[(&str, &[u8])],
    shards: &[Shard],
    fill: &mut dyn FnMut(&TensorSpec, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::io(folder, "create it"))?;
    for (name, bytes) in small {
        write_atomically(&folder.join(name), |writer| writer.write_all(bytes))?;
    }
    for shard in shards {
        write_atomically(&folder.join(&shard.file), |writer| write_shard(shard, writer, fill))?;
    }
    match index_json(shards) {
        Some(index) => {
            let name = luthier_model::checkpoint::INDEX_FILE;
            write_atomically(&folder.join(name), |writer| writer.write_all(&index))
        }
        None => Ok(()),
    }
}

/// Writes files that belong together: `fill` puts them into an empty folder beside `folder`, and when it is done each moves
/// into `folder` under its own name, `last` after the others.
///
/// # Errors
/// When `fill` or the system fails; then `folder` is as it was, or `last` is still the older one.
pub fn write_files_atomically<E: From<Error>>(
    folder: &Path,
    last: &str,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = Temporary(beside(&folder.join(last)));
    fs::create_dir_all(&temporary.0).map_err(Error::io(folder, "write into it"))?;
    fill(&temporary.0)?;
    let entries = fs::read_dir(&temporary.0).map_err(Error::io(folder, "write into it"))?;
    let mut names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    if let Ok(names) = &mut names {
        names.sort_by_key(|name| (name == last, name.clone()));
    }
    for name in names.map_err(Error::io(folder, "write into it"))? {
        let path = folder.join(&name);
        fs::rename(temporary.0.join(&name), &path).map_err(Error::io(&path, "put it in place"))?;
    }
    Ok(sync_folder(&folder.join(last))?)
}

/// Takes whatever still has the temporary name away again.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone after a successful rename: then there is nothing to remove, and that is no error.
        if self.0.is_dir() {
            drop(fs::remove_dir_all(&self.0));
        } else {
            drop(fs::remove_file(&self.0));
        }
    }
}

/// A name in the same folder that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{}-{number}{ASIDE}", std::process::id()))
}

/// Whether files can be made in a folder: one is, and removed again.
///
/// # Errors
/// The system's reason.
pub fn check_writable(folder: &Path) -> io::Result<()> {
    let probe = Temporary(beside(&folder.join("probe")));
    File::create_new(&probe.0).map(drop)
}

/// How the names of things end that are not whole yet.
const ASIDE: &str = ".tmp";

/// Whether a name is one that [`beside`] gives: `.NAME.PROCESS-NUMBER.tmp`.
fn is_aside(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(ASIDE));
    let numbers = inner.and_then(|inner| inner.rsplit_once('.')).and_then(|(_, numbers)| numbers.split_once('-'));
    numbers.is_some_and(|(process, number)| digits(process) && digits(number))
}

/// Removes from `folder` what a killed process left half-written, and returns its names.
///
/// # Errors
/// When the system refuses.
pub fn remove_unfinished(folder: &Path) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "list it"))? {
        let path = entry.map_err(Error::io(folder, "list it"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_aside(&name) {
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.map_err(Error::io(&path, "remove it"))?;
            removed.push(name);
        }
    }
    removed.sort();
    Ok(removed)
}

/// Makes a rename durable. Only Unix lets a program flush a folder.
fn sync_folder(path: &Path) -> Result<(), Error> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let opened = File::open(folder).map_err(Error::io(folder, "flush it"))?;
        opened.sync_all().map_err(Error::io(folder, "flush it"))?;
    }
    Ok(())
}
