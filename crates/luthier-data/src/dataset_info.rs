//! LLaMA-Factory's `dataset_info.json`: names of datasets, their files, and which column of a record means what.
//!
//! As there (`data/parser.py`), `columns` or `tags`, when present, unset the keys that they leave out. What this
//! version cannot honour (hubs, scripts, tools, images, preference pairs) is refused when the entry is used.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::layout::{AlpacaLayout, Layout, MessagesLayout};

/// A parsed `dataset_info.json`.
pub(crate) struct DatasetInfo {
    path: PathBuf,
    entries: Map<String, Value>,
}

/// One usable entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DatasetEntry {
    /// The file, relative to the folder of `dataset_info.json`.
    pub(crate) file_name: String,
    /// What its records look like.
    pub(crate) layout: Layout,
}

const ENTRY_KEYS: [&str; 4] = ["file_name", "formatting", "columns", "tags"];
const COLUMNS: [&str; 6] = ["prompt", "query", "response", "history", "messages", "system"];
const TAGS: [&str; 7] =
    ["role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag", "observation_tag", "function_tag"];

impl DatasetInfo {
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let entries = serde_json::from_slice(bytes).map_err(|error| Error::Dataset {
            dataset: path.display().to_string(),
            problem: format!("expected a JSON object of datasets: {error}"),
        })?;
        Ok(Self { path: path.to_owned(), entries })
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// The entry of that name, if there is one. Errors: it asks for something that cannot be honoured.
    pub(crate) fn entry(&self, name: &str) -> Result<Option<DatasetEntry>, Error> {
        let problem = |problem: String| Error::DatasetInfo { path: self.path.clone(), entry: name.to_owned(), problem };
        match self.entries.get(name) {
            None => Ok(None),
            Some(Value::Object(entry)) => read_entry(entry).map(Some).map_err(problem),
            Some(_) => Err(problem("expected an object".to_owned())),
        }
    }
}

fn read_entry(entry: &Map<String, Value>) -> Result<DatasetEntry, String> {
    known_keys(entry, &ENTRY_KEYS, "key")?;
    let file_name = text(entry, "file_name")?.ok_or("\"file_name\" is missing; only local files can be read")?;
    let columns = object(entry, "columns", &COLUMNS)?;
    let tags = object(entry, "tags", &TAGS)?;
    let layout = match text(entry, "formatting")?.as_deref() {
        None | Some("alpaca") => alpaca(columns)?,
        Some("sharegpt" | "openai") => messages(columns, tags)?,
        Some(other) => return Err(format!("\"formatting\" is {other:?}; expected alpaca, sharegpt or openai")),
    };
    Ok(DatasetEntry { file_name, layout })
}

fn alpaca(columns: Option<&Map<String, Value>>) -> Result<Layout, String> {
    let Some(columns) = columns else {
        return Ok(Layout::Alpaca(AlpacaLayout { history: None, system: None, ..AlpacaLayout::default() }));
    };
    let prompt = text(columns, "prompt")?.ok_or("\"columns\" leaves out \"prompt\"")?;
    let optional = [text(columns, "query")?, text(columns, "history")?, text(columns, "system")?];
    let Some(response) = text(columns, "response")? else {
        if optional.iter().all(Option::is_none) {
            return Ok(Layout::Text { text: prompt });
        }
        return Err("\"columns\" leaves out \"response\"".to_owned());
    };
    let [query, history, system] = optional;
    Ok(Layout::Alpaca(AlpacaLayout { prompt, query, response, history, system }))
}

fn messages(columns: Option<&Map<String, Value>>, tags: Option<&Map<String, Value>>) -> Result<Layout, String> {
    let mut layout = MessagesLayout { system: None, ..MessagesLayout::sharegpt() };
    if let Some(columns) = columns {
        layout.messages = text(columns, "messages")?.ok_or("\"columns\" leaves out \"messages\"")?;
        layout.system = text(columns, "system")?;
    }
    if let Some(tags) = tags {
        let tag = |key: &str| text(tags, key)?.ok_or_else(|| format!("\"tags\" leaves out {key:?}"));
        layout.role_tag = tag("role_tag")?;
        layout.content_tag = tag("content_tag")?;
        layout.user_tag = tag("user_tag")?;
        layout.assistant_tag = tag("assistant_tag")?;
        layout.system_tag = text(tags, "system_tag")?;
    }
    Ok(Layout::Messages(layout))
}

fn known_keys(object: &Map<String, Value>, known: &[&str], what: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("the {what} {key:?} is not supported; supported: {}", known.join(", "))),
        None => Ok(()),
    }
}

fn object<'a>(
    entry: &'a Map<String, Value>,
    key: &str,
    known: &[&str],
) -> Result<Option<&'a Map<String, Value>>, String> {
    match entry.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => known_keys(object, known, &format!("key in {key:?}")).map(|()| Some(object)),
        Some(_) => Err(format!("{key:?} is not an object")),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key:?} is not text")),
    }
}
