//! LLaMA-Factory's `dataset_info.json`: names of datasets, their files, and which column of a record means what.
//!
//! As there (`data/parser.py`), `columns` or `tags`, when present, unset the keys that they leave out. What is kept elsewhere
//! (a hub, a cloud) or made by a script is refused when the entry is used, with what to do. Two values of `formatting` are
//! ours: `trl` (prompt, completion, chosen, rejected as TRL has them) and `tokens`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::layout::{AlpacaLayout, Layout, MessagesLayout, RoleTags, Roles, Verdict};

/// A parsed `dataset_info.json`.
pub(crate) struct DatasetInfo {
    path: PathBuf,
    entries: Map<String, Value>,
}

/// One usable entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DatasetEntry {
    /// The file or folder, relative to the folder of `dataset_info.json`.
    pub(crate) file_name: String,
    /// A folder inside it that the files are in: `folder`, then `subset`.
    pub(crate) inside: Vec<String>,
    /// The part that is meant where a folder has several, and its slice.
    pub(crate) split: Option<String>,
    /// How many records are drawn.
    pub(crate) num_samples: Option<usize>,
    /// What its records look like; `None` where the entry says only that they are TRL's, which has several.
    pub(crate) layout: Option<Layout>,
    /// Columns that must be empty, since models here are text only.
    pub(crate) media: Vec<String>,
}

const ENTRY_KEYS: [&str; 15] = [
    "file_name",
    "formatting",
    "ranking",
    "subset",
    "split",
    "folder",
    "num_samples",
    "columns",
    "tags",
    "hf_hub_url",
    "ms_hub_url",
    "om_hub_url",
    "script_url",
    "cloud_file_name",
    // Checksums that older entries have.
    "file_sha1",
];
const COLUMNS: [&str; 13] = [
    "prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios", "chosen",
    "rejected", "kto_tag",
];
const TAGS: [&str; 7] =
    ["role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"];

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
        match self.entries.get(name) {
            None => Ok(None),
            Some(Value::Object(entry)) => read_entry(entry).map(Some).map_err(|problem| self.problem(name, problem)),
            Some(_) => Err(self.problem(name, "expected an object".to_owned())),
        }
    }

    /// What is wrong with an entry.
    pub(crate) fn problem(&self, name: &str, problem: String) -> Error {
        Error::DatasetInfo { path: self.path.clone(), entry: name.to_owned(), problem }
    }
}

fn read_entry(entry: &Map<String, Value>) -> Result<DatasetEntry, String> {
    known_keys(entry, &ENTRY_KEYS, "key")?;
    // As LLaMA-Factory: an address wins over a file.
    for (key, what) in
        [("hf_hub_url", "the Hugging Face hub"), ("ms_hub_url", "ModelScope"), ("om_hub_url", "openMind")]
    {
        if let Some(address) = text(entry, key)? {
            return Err(format!(
                "it is {address} of {what}, and datasets are not downloaded; download it, and write \"file_name\" with the path \
                 of its folder in place of {key:?}"
            ));
        }
    }
    if let Some(script) = text(entry, "script_url")? {
        return Err(format!(
            "it is made by the script {script}, and no code of a dataset is ever run; run it yourself, save what it gives as \
             JSON lines or Parquet, and name that with \"file_name\""
        ));
    }
    if let Some(address) = text(entry, "cloud_file_name")? {
        return Err(format!("it is kept at {address}; download it, and name the file with \"file_name\""));
    }
    let file_name =
        text(entry, "file_name")?.ok_or("\"file_name\" is missing; expected the path of a file or folder")?;
    let columns = object(entry, "columns", &COLUMNS)?;
    let tags = object(entry, "tags", &TAGS)?;
    let ranking = switch(entry, "ranking")?;
    let layout = match text(entry, "formatting")?.as_deref() {
        None | Some("alpaca") => Some(alpaca(columns, ranking)?),
        Some("sharegpt") => Some(messages(columns, tags, ranking, MessagesLayout::sharegpt())?),
        // LLaMA-Factory's defaults are ShareGPT's here too, with which no OpenAI record can be read.
        Some("openai") => Some(messages(columns, tags, ranking, MessagesLayout::openai())?),
        Some("tokens") => Some(Layout::Tokens),
        Some("trl") => None,
        Some(other) => {
            return Err(format!(
                "\"formatting\" is {other:?}; expected alpaca, sharegpt or openai (or trl, or tokens)"
            ));
        }
    };
    let media = match columns {
        Some(columns) => {
            ["images", "videos", "audios"].map(|key| text(columns, key)).into_iter().collect::<Result<Vec<_>, _>>()?
        }
        None => Vec::new(),
    };
    let num_samples = match entry.get("num_samples") {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0) {
            Some(count) => Some(count),
            None => return Err(format!("\"num_samples\" is {value}; expected a whole number from 1 on")),
        },
    };
    Ok(DatasetEntry {
        file_name,
        inside: [text(entry, "folder")?, text(entry, "subset")?].into_iter().flatten().collect(),
        split: text(entry, "split")?,
        num_samples,
        layout,
        media: media.into_iter().flatten().collect(),
    })
}

fn alpaca(columns: Option<&Map<String, Value>>, ranking: bool) -> Result<Layout, String> {
    let layout = match columns {
        None => AlpacaLayout { history: None, system: None, tools: None, ..AlpacaLayout::default() },
        Some(columns) => AlpacaLayout {
            prompt: text(columns, "prompt")?,
            query: text(columns, "query")?,
            response: text(columns, "response")?,
            history: text(columns, "history")?,
            system: text(columns, "system")?,
            tools: text(columns, "tools")?,
            verdict: Verdict::None,
        },
    };
    let verdict = verdict(columns, ranking)?;
    if layout.prompt.is_none() && layout.query.is_none() {
        return Err("\"columns\" leaves out \"prompt\", which unsets it".to_owned());
    }
    if layout.response.is_none() && !ranking {
        // What LLaMA-Factory trains in stage pt: the prompt of each record.
        return match layout {
            AlpacaLayout { prompt: Some(text), query, history: None, system: None, tools: None, .. }
                if verdict == Verdict::None =>
            {
                Ok(Layout::Text { text, query })
            }
            _ => Err("\"columns\" leaves out \"response\", which unsets it".to_owned()),
        };
    }
    Ok(Layout::Alpaca(AlpacaLayout { verdict, ..layout }))
}

fn messages(
    columns: Option<&Map<String, Value>>,
    tags: Option<&Map<String, Value>>,
    ranking: bool,
    base: MessagesLayout,
) -> Result<Layout, String> {
    let openai = base.role_tag == "role";
    let mut layout = MessagesLayout { system: None, tools: None, ..base };
    if let Some(columns) = columns {
        layout.messages = text(columns, "messages")?.ok_or("\"columns\" leaves out \"messages\", which unsets it")?;
        layout.system = text(columns, "system")?;
        layout.tools = text(columns, "tools")?;
    }
    layout.roles = match tags {
        None if openai => Roles::Usual,
        None => Roles::Tags(RoleTags::default()),
        Some(tags) => {
            let tag =
                |key: &str| text(tags, key)?.ok_or_else(|| format!("\"tags\" leaves out {key:?}, which unsets it"));
            layout.role_tag = tag("role_tag")?;
            layout.content_tag = tag("content_tag")?;
            Roles::Tags(RoleTags {
                user: Some(tag("user_tag")?),
                assistant: Some(tag("assistant_tag")?),
                observation: text(tags, "observation_tag")?,
                function: text(tags, "function_tag")?,
                system: text(tags, "system_tag")?,
            })
        }
    };
    layout.verdict = verdict(columns, ranking)?;
    Ok(Layout::Messages(layout))
}

fn verdict(columns: Option<&Map<String, Value>>, ranking: bool) -> Result<Verdict, String> {
    let column = |key: &str| columns.map_or(Ok(None), |columns| text(columns, key));
    let (chosen, rejected, tag) = (column("chosen")?, column("rejected")?, column("kto_tag")?);
    match (ranking, chosen, rejected, tag) {
        (true, Some(chosen), Some(rejected), None) => Ok(Verdict::Ranking { chosen, rejected }),
        (true, _, _, Some(_)) => {
            Err("\"ranking\" and \"kto_tag\" exclude one another; expected one of them".to_owned())
        }
        (true, _, _, None) => Err("\"ranking\" needs \"chosen\" and \"rejected\" in \"columns\"".to_owned()),
        (false, _, _, Some(tag)) => Ok(Verdict::Tag(tag)),
        (false, _, _, None) => Ok(Verdict::None),
    }
}

fn known_keys(object: &Map<String, Value>, known: &[&str], what: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("the {what} {key:?} is not known; known are {}", known.join(", "))),
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

fn switch(object: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(_) => Err(format!("{key:?} is not true or false")),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key:?} is not text")),
    }
}
