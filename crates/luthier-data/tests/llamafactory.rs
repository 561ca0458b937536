//! LLaMA-Factory's own datasets, by its own `dataset_info.json`, against what its own code makes of them
//! (`llamafactory_datasets.json`, written by `tests/external/llamafactory_datasets.py`; the page is `docs/datasets.md`). The
//! files come with `cargo xtask assets`; those that are not there are named and passed over.

#![expect(clippy::print_stderr, reason = "what is passed over is said")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use luthier_data::{Conversation, Dataset, Message, ReadOptions, Record, Role};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/data")
}

fn open(name: &str) -> Result<Dataset, String> {
    let folder = folder();
    let options = ReadOptions { folder: &folder, strict: false, max_samples: None, seed: 0 };
    Dataset::open(name, &options).map_err(|error| error.to_string())
}

/// What a dataset holds, in the terms of the script.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    records: usize,
    kept: usize,
    shape: &'static str,
    messages: usize,
    replies: usize,
    calls: usize,
    letters: usize,
}

impl Facts {
    fn of(dataset: &Dataset) -> Self {
        let mut facts = Self { kept: dataset.records.len(), shape: "documents", ..Self::default() };
        facts.records = facts.kept + dataset.broken.len();
        for record in &dataset.records {
            match record {
                Record::Text(text) => facts.say(&Message::new(Role::User, text)),
                Record::Conversation(conversation) => facts.talk("conversations", conversation),
                Record::Judged(judged) => facts.talk("verdicts", &judged.conversation),
                Record::Preference(pair) => {
                    facts.talk("pairs", &pair.prompt);
                    facts.say(&pair.chosen);
                    facts.say(&pair.rejected);
                }
                Record::Tokens(_) => facts.shape = "tokens",
            }
        }
        facts
    }

    fn talk(&mut self, shape: &'static str, conversation: &Conversation) {
        self.shape = shape;
        conversation.messages.iter().for_each(|message| self.say(message));
    }

    fn say(&mut self, message: &Message) {
        self.messages += 1;
        self.replies += usize::from(message.role == Role::Assistant);
        self.calls += usize::from(!message.tool_calls.is_empty());
        self.letters += message.content.chars().count();
    }
}

#[test]
fn datasets_are_read_as_llamafactory_reads_them() {
    let expected: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("llamafactory_datasets.json")).expect("the list");
    let mut compared = 0;
    for (name, expected) in &expected {
        let file = expected["file"].as_str().expect("a file");
        if !folder().join(file).is_file() {
            eprintln!("passed over: {file} is not in assets/data (cargo xtask assets)");
            continue;
        }
        let found = open(name);
        if expected.get("media").is_some() {
            assert!(found.expect_err("refused").contains("models here are text only"), "{name}");
            continue;
        }
        let found = Facts::of(&found.expect("it is read"));
        let number =
            |key: &str| expected[key].as_u64().and_then(|number| usize::try_from(number).ok()).expect("a number");
        let (found, theirs) = if file == "identity.json" {
            // The names that it leaves open are filled in by the chore, so its letters are others.
            (Facts { letters: 0, ..found }, 0)
        } else {
            (found, number("letters"))
        };
        assert_eq!(found.shape, expected["shape"], "{name}");
        let expected = Facts {
            shape: found.shape,
            records: number("records"),
            kept: number("kept"),
            messages: number("messages"),
            replies: number("replies"),
            calls: number("calls"),
            letters: theirs,
        };
        assert_eq!(found, expected, "{name}");
        compared += 1;
    }
    let there =
        expected.values().any(|expected| folder().join(expected["file"].as_str().unwrap_or_default()).is_file());
    assert!(compared > 0 || !there);
}

/// Files of LLaMA-Factory's next version, which no entry names.
#[test]
fn files_without_an_entry_are_understood() {
    for (name, records, shape) in [
        ("v1_sft_demo.jsonl", 500, "conversations"),
        ("v1_dpo_demo.jsonl", 10, "pairs"),
        ("reason_tool_use_demo_50.jsonl", 50, "conversations"),
    ] {
        if !folder().join(name).is_file() {
            eprintln!("passed over: {name} is not in assets/data (cargo xtask assets)");
            continue;
        }
        let dataset = open(name).expect("it is read");
        assert_eq!(dataset.broken, [], "{name}");
        let facts = Facts::of(&dataset);
        assert_eq!((facts.kept, facts.shape), (records, shape), "{name}");
    }
}
