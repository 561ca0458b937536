//! Everything that can be wrong with data, each as a sentence that says what, where, and what to do.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A dataset name is neither in `dataset_info.json` nor a file.
    #[error(
        "dataset {dataset} was not found: {} {known}, and there is no file {dataset} or {}{}",
        info.display(),
        file.display(),
        if file.extension().is_none() { ", with or without .json, .jsonl, .csv, .tsv, .parquet, .arrow or .txt" } else { "" }
    )]
    UnknownDataset {
        /// The name as the user wrote it.
        dataset: String,
        /// The `dataset_info.json` that was looked into.
        info: PathBuf,
        /// What that file holds, as the rest of the sentence.
        known: String,
        /// The file in the dataset folder that was looked for.
        file: PathBuf,
    },
    /// An entry of `dataset_info.json` cannot be used.
    #[error("{}, entry {entry}: {problem}", path.display())]
    DatasetInfo {
        /// The `dataset_info.json`.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// What is wrong, as a clause.
        problem: String,
    },
    /// A dataset as a whole cannot be read.
    #[error("dataset {dataset}: {problem}")]
    Dataset {
        /// The dataset's name.
        dataset: String,
        /// What is wrong, as a clause.
        problem: String,
    },
    /// A file of a dataset is damaged, or not what it should be.
    #[error("{file}: {problem}")]
    DataFile {
        /// The file.
        file: String,
        /// What is wrong, as a clause.
        problem: String,
    },
    /// One record cannot be read.
    #[error("dataset {dataset}, record {record}{}: {problem}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Record {
        /// The dataset's name.
        dataset: String,
        /// The record's number, from 1.
        record: usize,
        /// The line of the file, from 1, for formats of one record a line.
        line: Option<usize>,
        /// What is wrong, as a clause.
        problem: String,
    },
    /// A record was read, but cannot be turned into tokens.
    #[error("dataset {dataset}, record {record}: {problem}")]
    Conversation {
        /// The dataset's name.
        dataset: String,
        /// The record's number, from 1.
        record: usize,
        /// What is wrong. It is told with the place, so it is no source, which would be told again.
        problem: Box<Error>,
    },
    /// A row has more tokens than it may have, and cutting it is not wanted.
    #[error(
        "dataset {dataset}, record {record} has {tokens} tokens, and cutoff_len is {cutoff_len}{}; raise cutoff_len, or set \
         truncation: right, drop or llamafactory",
        match others { 0 => String::new(), 1 => " (another record is too long too)".to_owned(), others => format!(" ({others} others are too long too)") }
    )]
    TooLong {
        /// The dataset's name.
        dataset: String,
        /// The record's number, from 1.
        record: usize,
        /// Its tokens.
        tokens: usize,
        /// The most that it may have.
        cutoff_len: usize,
        /// Further records that are too long.
        others: usize,
    },
    /// The weights of a conversation's messages cannot be brought to its tokens.
    #[error("{problem}")]
    Weights {
        /// The whole sentence.
        problem: String,
    },
    /// The tokenizer's file or metadata cannot be used, or the tokenizer failed.
    #[error("tokenizer: {problem}")]
    Tokenizer {
        /// What is wrong, as a clause.
        problem: String,
    },
    /// The model has no chat template and none was named.
    #[error(
        "{model} has no chat template, so its conversations cannot be written as it expects them; set `template` to the name \
         of one (luthier template list)"
    )]
    TemplateMissing {
        /// The model's name.
        model: String,
    },
    /// A template was named that is not known.
    #[error(
        "template: there is no template {name:?}{}; expected a name of `luthier template list`, or nothing for the model's own",
        nearest.map(|nearest| format!(" (did you mean {nearest}?)")).unwrap_or_default()
    )]
    UnknownTemplate {
        /// The name as the user wrote it.
        name: String,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// A way to write tools was named that is not known.
    #[error("tool_format: there is no format {name:?}; expected one of {known}")]
    UnknownToolFormat {
        /// The name as the user wrote it.
        name: String,
        /// The known names.
        known: String,
    },
    /// The template does not compile, failed, or ran out of fuel or room.
    #[error("the chat template of {name} {problem}")]
    Template {
        /// Whose template it is.
        name: String,
        /// What went wrong, as the rest of the sentence.
        problem: String,
    },
    /// The template does not write this conversation: it raised an exception, or its messages do not stand as it needs them.
    #[error("the chat template of {name} {problem}")]
    Refused {
        /// Whose template it is.
        name: String,
        /// What it says, as the rest of the sentence.
        problem: String,
    },
    /// The template changes text before a reply when the reply is added, so the reply's place is unknown.
    #[error(
        "the chat template of {name} is not prefix-stable, so it is unknown which tokens belong to the reply in \
         message {message}: {first_label} is\n  {first:?}\nand {second_label} is\n  {second:?}\n\
         Use a template with {{% generation %}} blocks, or name another one with `template`"
    )]
    NotPrefixStable {
        /// Whose template it is.
        name: String,
        /// The assistant message's number, from 1.
        message: usize,
        /// What `first` is.
        first_label: &'static str,
        /// The text that should begin the second, from shortly before they part.
        first: String,
        /// What `second` is.
        second_label: &'static str,
        /// The second text, from shortly before they part.
        second: String,
    },
    /// A conversation without anything to learn from.
    #[error("{problem}")]
    NothingToTrain {
        /// The whole sentence.
        problem: String,
    },
}
