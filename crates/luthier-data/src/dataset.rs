//! A dataset file into records: a JSON array, JSONL (one object a line) or text (one document a line).
//!
//! A name is looked up in `dataset_info.json` first, then taken as a file. The first broken record is fatal and named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dataset_info::DatasetInfo;
use crate::error::Error;
use crate::layout::Layout;
use crate::records::{Record, kind, read_record};

/// The records of one dataset, in the order of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The name as the user wrote it, for messages.
    pub name: String,
    /// The file that they came from; empty where bytes were given.
    pub file: PathBuf,
    /// The records.
    pub records: Vec<Record>,
    /// Keys that records have and the layout does not read, with the number of records that have them.
    pub ignored_keys: BTreeMap<String, usize>,
}

impl Dataset {
    /// Opens a dataset by its name in `dataset_dir/dataset_info.json`, or by the path of its file (as it is, or inside
    /// `dataset_dir`, there without its extension too); the layout of a file without an entry is found by its keys.
    ///
    /// Errors: the name is unknown, the file cannot be read, a record is broken.
    pub fn open(dataset: &str, dataset_dir: &Path) -> Result<Self, Error> {
        let info_path = dataset_dir.join("dataset_info.json");
        let info = if info_path.exists() { Some(DatasetInfo::parse(&info_path, &read(&info_path)?)?) } else { None };
        if let Some(entry) = info.as_ref().map(|info| info.entry(dataset)).transpose()?.flatten() {
            let path = dataset_dir.join(&entry.file_name);
            return Ok(parse(dataset, is_text(&entry.file_name), &read(&path)?, Some(&entry.layout))?.of(&path));
        }
        let file = dataset_dir.join(dataset);
        for path in [Path::new(dataset), &file] {
            if path.is_file() {
                return Ok(Self::parse(dataset, &read(path)?, None)?.of(path));
            }
        }
        let named = EXTENSIONS.map(|extension| dataset_dir.join(format!("{dataset}.{extension}")));
        let mut named = named.iter().filter(|path| path.is_file());
        match (named.next(), named.next()) {
            (Some(path), None) => {
                let text_lines = path.extension().is_some_and(|extension| extension == "txt");
                return Ok(parse(dataset, text_lines, &read(path)?, None)?.of(path));
            }
            (Some(one), Some(other)) => {
                let (one, other) = (one.display(), other.display());
                let problem = format!("it could be {one} or {other}; give the whole name of the file");
                return Err(Error::Dataset { dataset: dataset.to_owned(), problem });
            }
            (None, _) => {}
        }
        let known = match info {
            Some(info) => format!("has only {}", info.names().join(", ")),
            None => "does not exist".to_owned(),
        };
        Err(Error::UnknownDataset { dataset: dataset.to_owned(), info: info_path, known, file })
    }

    fn of(self, file: &Path) -> Self {
        Self { file: file.to_owned(), ..self }
    }

    /// Reads a dataset from the bytes of its file. `name` stands in messages; a name that ends in `.txt` makes every
    /// line a document. Without a layout, the first record decides.
    ///
    /// Errors: no JSON, no records, an unknown or ambiguous layout, a broken record.
    pub fn parse(name: &str, bytes: &[u8], layout: Option<&Layout>) -> Result<Self, Error> {
        parse(name, is_text(name), bytes, layout)
    }
}

/// What a name may leave out of the name of a file in `dataset_dir`.
const EXTENSIONS: [&str; 3] = ["json", "jsonl", "txt"];

fn is_text(file_name: &str) -> bool {
    Path::new(file_name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn parse(name: &str, text_lines: bool, bytes: &[u8], layout: Option<&Layout>) -> Result<Dataset, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let problem = |problem: String| Error::Dataset { dataset: name.to_owned(), problem };
    let text = std::str::from_utf8(bytes).map_err(|error| problem(format!("it is not UTF-8 text ({error})")))?;
    if text_lines {
        let records = text.lines().map(|line| Record::Text(line.to_owned())).collect();
        return Ok(Dataset { name: name.to_owned(), file: PathBuf::new(), records, ignored_keys: BTreeMap::new() });
    }
    let values = values(name, text)?;
    let Some((_, first)) = values.first() else { return Err(problem("it has no records".to_owned())) };
    let detected;
    let layout = match (layout, first) {
        (Some(layout), _) => layout,
        (None, Value::Object(first)) => {
            detected = Layout::detect(first).map_err(problem)?;
            &detected
        }
        (None, other) => return Err(problem(format!("its first record is {}, not an object", kind(other)))),
    };
    let known = layout.keys();
    let mut ignored_keys = BTreeMap::new();
    let mut records = Vec::with_capacity(values.len());
    for (index, (line, value)) in values.iter().enumerate() {
        let record = read_record(layout, value).map_err(|problem| Error::Record {
            dataset: name.to_owned(),
            record: index + 1,
            line: *line,
            problem,
        })?;
        records.push(record);
        for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
            if !known.contains(&key.as_str()) {
                *ignored_keys.entry(key.clone()).or_insert(0) += 1;
            }
        }
    }
    Ok(Dataset { name: name.to_owned(), file: PathBuf::new(), records, ignored_keys })
}

/// The values of a JSON array, or of JSONL with the line of each. Blank lines are no records.
fn values(name: &str, text: &str) -> Result<Vec<(Option<usize>, Value)>, Error> {
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str(text).map_err(|error| Error::Dataset {
            dataset: name.to_owned(),
            problem: format!("it is not valid JSON: {error}"),
        })?;
        return Ok(values.into_iter().map(|value| (None, value)).collect());
    }
    let mut values = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let value = serde_json::from_str(line).map_err(|error| Error::Record {
            dataset: name.to_owned(),
            record: values.len() + 1,
            line: Some(index + 1),
            problem: format!("it is not valid JSON: {error}"),
        })?;
        values.push((Some(index + 1), value));
    }
    Ok(values)
}
