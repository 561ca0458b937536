//! `run.json`: what a run was, so that it can be judged and repeated: settings, data, model, versions, machine, times,
//! command line and outcome. It never holds a secret: the value of a setting that is one, and whatever looks like a token
//! of a hub, is written as `(hidden)`.

mod files;
mod machine;
mod secrets;
mod time;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::settings::table::SETTINGS;
use crate::settings::{self, Settings, Status};
pub(crate) use files::FileRecord;
pub(crate) use machine::{MachineRecord, memory_bytes};
pub(crate) use secrets::without_secrets;

/// Name of the file in the output folder.
pub(crate) const FILE_NAME: &str = "run.json";

/// What the file is made of.
pub(crate) struct Manifest<'m> {
    pub(crate) settings: &'m Settings,
    /// The words that the program was called with, itself first.
    pub(crate) command_line: Vec<String>,
    pub(crate) data: DataRecord,
    /// `None` where there is nothing to evaluate on.
    pub(crate) evaluation_data: Option<DataRecord>,
    /// What the user called the model.
    pub(crate) model: String,
    pub(crate) model_files: Vec<FileRecord>,
    pub(crate) machine: MachineRecord,
    /// When the run, not only this sitting, began.
    pub(crate) started: SystemTime,
    pub(crate) ended: Option<SystemTime>,
    /// The checkpoint that this sitting went on from.
    pub(crate) resumed_from: Option<String>,
    pub(crate) outcome: Outcome,
}

/// Data as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct DataRecord {
    pub(crate) files: Vec<FileRecord>,
    pub(crate) rows: usize,
    pub(crate) tokens: usize,
    pub(crate) trained_tokens: usize,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not: a file that says so long after belongs to a run that was killed.
    Running,
    Finished,
    /// By a wish, such as Ctrl-C; it can go on.
    Stopped(String),
    Failed(String),
}

impl Manifest<'_> {
    /// Writes the file into an output folder that exists.
    ///
    /// # Errors
    /// When it cannot be written; then an older one is still there.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), luthier_files::Error> {
        let text = format!("{:#}\n", self.json());
        luthier_files::write_atomically(&folder.join(FILE_NAME), |writer| writer.write_all(text.as_bytes()))
    }

    fn json(&self) -> Value {
        let (outcome, reason) = match &self.outcome {
            Outcome::Running => ("running", None),
            Outcome::Finished => ("finished", None),
            Outcome::Stopped(reason) => ("stopped", Some(reason)),
            Outcome::Failed(reason) => ("failed", Some(reason)),
        };
        json!({
            "outcome": outcome,
            "reason": reason.map(|reason| secrets::without_tokens(reason)),
            "started": time::utc(self.started),
            "ended": self.ended.map(time::utc),
            "resumed_from": self.resumed_from,
            "command_line": secrets::without_secrets(&self.command_line),
            "settings": settings(self.settings),
            "data": self.data.json(),
            "evaluation_data": self.evaluation_data.as_ref().map(DataRecord::json),
            "model": {
                "name": self.model,
                "files": self.model_files.iter().map(FileRecord::json).collect::<Vec<_>>(),
            },
            "machine": self.machine.json(),
            "versions": { "luthier": env!("CARGO_PKG_VERSION"), "rustc": option_env!("LUTHIER_RUSTC") },
        })
    }
}

impl DataRecord {
    fn json(&self) -> Value {
        json!({
            "files": self.files.iter().map(FileRecord::json).collect::<Vec<_>>(),
            "rows": self.rows,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
        })
    }
}

/// Every setting that was given or that does something: its value and where it was given, or `default`.
fn settings(settings: &Settings) -> Value {
    let mut fields = Map::new();
    for setting in SETTINGS {
        let (value, origin) = settings.of(setting.name);
        if origin.is_none() && setting.status != Status::Honoured {
            continue;
        }
        let value = match value {
            settings::Value::Unset => Value::Null,
            _ if secrets::is_secret(setting.name) => json!(secrets::HIDDEN),
            settings::Value::Switch(value) => json!(value),
            settings::Value::Whole(value) => json!(value),
            settings::Value::Number(value) => json!(value),
            settings::Value::Text(value) => json!(secrets::without_tokens(value)),
            settings::Value::Names(values) => {
                json!(values.iter().map(|value| secrets::without_tokens(value)).collect::<Vec<_>>())
            }
            settings::Value::Weights(values) => {
                json!(values.iter().map(|(name, weight)| (*name, *weight)).collect::<BTreeMap<_, _>>())
            }
            settings::Value::Options(values) => json!(values.iter().cloned().collect::<BTreeMap<_, _>>()),
            settings::Value::Nested => json!("(not kept)"),
        };
        let from = origin.map_or_else(|| "default".to_owned(), ToString::to_string);
        fields.insert(setting.name.to_owned(), json!({ "value": value, "from": from }));
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_manifest_says_all_and_hides_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("faq.json");
        std::fs::write(&data, "[]").expect("written");
        let token = "hf_abcdefghijklmnopqrstuvwxyz0123456789";
        let file =
            format!("lora_rank: 4\nhf_hub_token: secret-of-file\nmodel_name_or_path: m\noutput_dir: out-{token}\n");
        let settings = Settings::read("a.yaml", &file, &["seed=7".to_owned()]).expect("valid");
        let words = ["luthier", "train", "a.yaml", "seed=7", "hub_token=on-line", "--ms_hub_token", "after"];
        let manifest = Manifest {
            settings: &settings,
            command_line: words.map(str::to_owned).to_vec(),
            data: DataRecord {
                files: vec![FileRecord::hashed(&data).expect("hashed")],
                rows: 3,
                tokens: 30,
                trained_tokens: 10,
            },
            evaluation_data: None,
            model: "models/small".to_owned(),
            model_files: Vec::new(),
            machine: MachineRecord::of("avx512", 2),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            ended: None,
            resumed_from: None,
            outcome: Outcome::Failed(format!("the hub refused {token}")),
        };
        manifest.write(folder.path()).expect("written");
        let text = std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("a file");
        for secret in [token, "secret-of-file", "on-line", "\"after\""] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let json: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["settings"]["lora_rank"], json!({"value": 4, "from": "a.yaml, line 1"}));
        assert_eq!(json["settings"]["seed"], json!({"value": 7, "from": "command line"}));
        assert_eq!(json["settings"]["learning_rate"]["from"], "default");
        assert_eq!(json["settings"]["hf_hub_token"]["value"], "(hidden)");
        assert_eq!(json["settings"].get("ms_hub_token"), None);
        assert_eq!((&json["started"], &json["ended"]), (&json!("2023-11-14T22:13:20Z"), &Value::Null));
        assert_eq!((&json["outcome"], &json["reason"]), (&json!("failed"), &json!("the hub refused (hidden)")));
        assert_eq!(json["data"]["files"][0]["bytes"], 2);
        assert_eq!(json["machine"]["threads"], 2);
        assert_eq!(json["versions"]["luthier"], env!("CARGO_PKG_VERSION"));
        assert!(json["versions"]["rustc"].as_str().is_some_and(|rustc| rustc.starts_with("rustc 1.")), "{text}");
    }
}
