//! What can be wrong with a model's files. Every message is a whole sentence: the file, the key or tensor, what was
//! expected, what was found, and what to do where there is something to do.

/// Why files cannot be read as a model or an adapter, or written as one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that a folder must have is not there.
    #[error("{label}: {file} is missing; {hint}")]
    MissingFile {
        /// The folder, as the user named it.
        label: String,
        /// The file's name.
        file: String,
        /// What to do.
        hint: String,
    },
    /// A file that must be JSON is not.
    #[error("{file} is not valid JSON: {reason}")]
    NotJson {
        /// The file.
        file: String,
        /// Where and why.
        reason: String,
    },
    /// A key that has no default is absent.
    #[error("{file}: `{key}` is missing; expected {expected}")]
    MissingKey {
        /// The file.
        file: String,
        /// The key, with the keys around it.
        key: String,
        /// What belongs there.
        expected: String,
    },
    /// A key holds something else than it may.
    #[error("{file}: `{key}` is {found}; expected {expected}")]
    BadValue {
        /// The file.
        file: String,
        /// The key, with the keys around it.
        key: String,
        /// What the file says, shortened.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// A key asks for something that exists but that Luthier cannot do.
    #[error("{file}: `{key}` is {found}, which is not supported: {reason}")]
    Unsupported {
        /// The file.
        file: String,
        /// The key, with the keys around it.
        key: String,
        /// What the file says, shortened.
        found: String,
        /// Why it is refused, and what to do.
        reason: String,
    },
    /// Nobody has described this family yet.
    #[error("{file}: the model type `{model_type}` is not supported; supported are {supported}")]
    UnknownFamily {
        /// The file.
        file: String,
        /// Its `model_type`.
        model_type: String,
        /// All that are known.
        supported: String,
    },
    /// A file ends before its header says.
    #[error("{file} is cut off: its header promises {expected} bytes, found {found}; copy or download it again")]
    Truncated {
        /// The file.
        file: String,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A file is not what its name says, or is damaged.
    #[error("{file} is not a valid {format} file: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// `safetensors` or `GGUF`.
        format: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// A tensor is stored in a way that cannot be computed with.
    #[error("{file}: tensor `{tensor}` is stored as {found}; supported are {supported}")]
    TensorType {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Its storage type.
        found: String,
        /// What can be read.
        supported: &'static str,
    },
    /// A tensor does not have the shape that the configuration implies.
    #[error("{file}: tensor `{tensor}` has shape {found}; expected {expected}")]
    TensorShape {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        found: String,
        /// The shape that belongs there.
        expected: String,
    },
    /// The configuration demands tensors that the checkpoint does not have.
    #[error("{label}: {count} of the tensors that the model needs {}: {names}; {hint}", is_or_are(*count, "missing"))]
    MissingTensors {
        /// The checkpoint, as the user named it.
        label: String,
        /// How many.
        count: usize,
        /// Up to five of them.
        names: String,
        /// What to check.
        hint: String,
    },
    /// The checkpoint has tensors that nothing would read, so the model would compute something else.
    #[error("{label}: {count} of the tensors {} part of this model: {names}; {hint}", is_or_are(*count, "no"))]
    UnknownTensors {
        /// The checkpoint, as the user named it.
        label: String,
        /// How many.
        count: usize,
        /// Up to five of them.
        names: String,
        /// What to check.
        hint: String,
    },
    /// The same tensor is in two files.
    #[error("{label}: tensor `{tensor}` is in {first} and in {second}; one of the two must go")]
    DuplicateTensor {
        /// The checkpoint, as the user named it.
        label: String,
        /// The tensor's name.
        tensor: String,
        /// A file.
        first: String,
        /// Another file.
        second: String,
    },
    /// A matrix cannot be quantised.
    #[error("{label}: tensor `{tensor}` cannot be quantised: {reason}")]
    Quantise {
        /// The checkpoint, as the user named it.
        label: String,
        /// The tensor's name.
        tensor: String,
        /// Why, and what to do.
        reason: String,
    },
    /// An adapter does something that Luthier does not do yet.
    #[error("{file}: {reason}")]
    Adapter {
        /// The file.
        file: String,
        /// What and why.
        reason: String,
    },
    /// The file could not be written.
    #[error("could not write {file}: {source}")]
    Write {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn is_or_are(count: usize, word: &str) -> String {
    format!("{} {word}", if count == 1 { "is" } else { "are" })
}

/// Up to five names, and how many more there are.
pub(crate) fn up_to_five(names: &[String]) -> String {
    let shown = names.iter().take(5).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}

/// A value for a message: JSON on one line, cut after 60 characters.
pub(crate) fn short(value: &serde_json::Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A shape for a message, such as `[128, 32]`.
pub(crate) fn shape(dims: &[usize]) -> String {
    format!("[{}]", dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
