//! What can be wrong with a path.

use std::path::PathBuf;

/// Why something on the disk cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing at the path.
    #[error("{}: no such file or folder; give a folder with config.json and model.safetensors, or a .gguf file", path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{}: could not {action}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried: `open it`, `write it`, ...
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The only weights are pickled.
    #[error(
        "{}: refused, because a .bin, .pt or .pth file is a Python pickle, which can execute code while it is loaded; convert \
         the model once where you trust it: python -c \"from transformers import AutoModelForCausalLM as M; \
         M.from_pretrained('DIR').save_pretrained('DIR-safetensors')\"",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A folder lacks a file that it must have.
    #[error("{}: {file} is missing; {hint}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: String,
        /// What to do.
        hint: String,
    },
    /// A file is no model.
    #[error("{}: {reason}", path.display())]
    NoModel {
        /// The path.
        path: PathBuf,
        /// Why, and what to give in its place.
        reason: String,
    },
    /// A sealed folder is not as it was written.
    #[error("{}: {reason}", folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is missing, or differs.
        reason: String,
    },
    /// The content of a file is wrong.
    #[error(transparent)]
    Model(#[from] luthier_model::Error),
}

impl Error {
    /// Whether the disk has no room left, or the user none on it: the same works once there is.
    pub fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            std::io::ErrorKind::NotFound if action == "open it" => Self::NotFound { path },
            _ => Self::Io { path, action, source },
        }
    }
}
