//! The cache of Hugging Face's tools: `models--org--name` with `refs/REVISION` (a commit), `snapshots/COMMIT` (the files, as
//! links) and `blobs` (their contents, named by hash).

use std::path::{Path, PathBuf};

use luthier_model::adapter::{CONFIG_FILE as ADAPTER_CONFIG, WEIGHTS_FILE as ADAPTER_WEIGHTS};
use luthier_model::checkpoint::{INDEX_FILE, WEIGHTS_FILE, shard_names};

use super::Wanted;
use super::name::{HubName, list};

/// A cache folder; it need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// What belongs to one model.
    pub(crate) fn folder(&self, id: &str) -> PathBuf {
        self.root.join(folder_name(id))
    }

    /// Where one's own locks are, as Hugging Face's tools have them.
    pub(crate) fn locks(&self, id: &str) -> PathBuf {
        self.root.join(".locks").join(folder_name(id))
    }

    /// The commit that a branch, a tag or a commit's own name stood for when it was last fetched.
    fn commit(&self, id: &str, revision: &str) -> Option<String> {
        let folder = self.folder(id);
        let stored = std::fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = stored.map_or_else(|| revision.to_owned(), |text| text.trim().to_owned());
        let is_name = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_alphanumeric());
        (is_name && folder.join("snapshots").join(&commit).is_dir()).then_some(commit)
    }

    /// The commit of a found snapshot whose companions did not all arrive, as other programs leave it that wanted the weights
    /// only. What is known not to be on the hub lacks nothing.
    pub(crate) fn lacks_companions(&self, id: &str, found: &Path) -> Option<String> {
        let commit = found.file_name()?.to_str()?;
        let has_them = found.join(TOKENIZER).is_file() || self.absent(id, commit).is_file();
        (found.is_dir() && !has_them).then(|| commit.to_owned())
    }

    /// Notes that the hub has no tokenizer for this commit, as Hugging Face's tools do.
    pub(crate) fn note_absent(&self, id: &str, commit: &str) -> Result<(), luthier_files::Error> {
        let path = self.absent(id, commit);
        let folder = path.parent().unwrap_or(&self.root);
        // Not being able to is no harm: the hub is asked again.
        if std::fs::create_dir_all(folder).is_ok() {
            luthier_files::write_atomically(&path, |_| Ok(()))
        } else {
            Ok(())
        }
    }

    fn absent(&self, id: &str, commit: &str) -> PathBuf {
        self.folder(id).join(".no_exist").join(commit).join(TOKENIZER)
    }

    /// The path to open when everything that is needed is there, else what is missing, as a clause.
    pub(crate) fn find(&self, name: &HubName, revision: &str, wanted: Wanted) -> Result<PathBuf, String> {
        let shown = self.root.display();
        let Some(commit) = self.commit(&name.id, revision) else {
            let which = if revision == "main" { String::new() } else { format!(" with revision {revision}") };
            return Err(format!("not in the cache {shown}{which}"));
        };
        let snapshot = self.folder(&name.id).join("snapshots").join(commit);
        let missing = |file: String| Err(format!("in the cache {shown} without {file}"));
        match wanted {
            Wanted::Adapter => {
                match [ADAPTER_CONFIG, ADAPTER_WEIGHTS].iter().find(|name| !snapshot.join(name).is_file()) {
                    Some(file) => missing((*file).to_owned()),
                    None => Ok(snapshot),
                }
            }
            Wanted::Model => {
                let ggufs = files_of(&snapshot, ".gguf");
                let names: Vec<&str> = ggufs.iter().map(String::as_str).collect();
                if let Some(file) = &name.file {
                    // A part of a name may fit better to a file that only the hub has.
                    return match HubName::pick_end(file, &names) {
                        Some(file) => Ok(snapshot.join(file)),
                        None => missing(format!("a file {file} (it has {})", list(&names))),
                    };
                }
                match missing_of_folder(&snapshot) {
                    None => Ok(snapshot),
                    Some(_) if names.len() == 1 && !snapshot.join("config.json").is_file() => {
                        Ok(snapshot.join(names[0]))
                    }
                    Some(file) => missing(file),
                }
            }
        }
    }
}

/// The file without which a model's folder can be opened, but texts cannot be read.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

fn folder_name(id: &str) -> String {
    format!("models--{}", id.replace('/', "--"))
}

/// The first file that a model's folder lacks.
fn missing_of_folder(folder: &Path) -> Option<String> {
    let has = |name: &str| folder.join(name).is_file();
    if !has("config.json") {
        return Some("config.json".to_owned());
    }
    match std::fs::read(folder.join(INDEX_FILE)) {
        Ok(index) => match shard_names(INDEX_FILE, &index) {
            Ok(shards) => shards.into_iter().find(|shard| !has(shard)),
            Err(_) => Some(INDEX_FILE.to_owned()),
        },
        Err(_) => (!has(WEIGHTS_FILE)).then(|| WEIGHTS_FILE.to_owned()),
    }
}

/// Files with this ending in a folder and in those directly below it, by their paths within it.
fn files_of(folder: &Path, ending: &str) -> Vec<String> {
    let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = list(folder).filter(|path| path.is_dir()).flat_map(|inner| list(&inner).collect::<Vec<_>>());
    let all = list(folder).chain(below).filter(|path| path.is_file());
    let names = all.filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_str()?.replace('\\', "/")));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort_unstable();
    names
}
