//! `cargo xtask llamafactory`: LLaMA-Factory's example configurations, held against Luthier.
//!
//! Its source package and the one of transformers are fetched through pip into the ignored folder `assets/`. From them
//! come the list of keys that a test compares the table of settings with, and the page `docs/llamafactory.md`: which of
//! the examples for `stage: sft` and `pt` run with only paths changed, and why the others do not. Each is given to
//! `luthier train` with `dry_run: true`, a tiny model that the chore makes, and a few records.

mod keys;
mod model;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{assets, cargo, root};

const LLAMA_FACTORY: &str = "llamafactory==0.9.5";
const TRANSFORMERS: &str = "transformers==5.6.0";

/// Fetches what is missing, then writes the list of keys and the page.
pub(crate) fn run() -> Result<()> {
    let folder = root().join("assets");
    let source = folder.join("llamafactory/llamafactory-0.9.5");
    if !source.join("examples").is_dir() {
        let options = ["--no-binary", "llamafactory"];
        assets::unpack(LLAMA_FACTORY, &options, "tarfile", &folder.join("llamafactory"))?;
    }
    let transformers = folder.join("transformers");
    if !transformers.join("transformers/training_args.py").is_file() {
        assets::unpack(TRANSFORMERS, &[], "zipfile", &transformers)?;
    }
    let keys = root().join("crates/luthier/src/settings/llamafactory.tsv");
    let list = keys::list(&source.join("src/llamafactory"), &transformers.join("transformers"))?;
    fs::write(&keys, list).with_context(|| format!("{} cannot be written", keys.display()))?;

    let work = folder.join("llamafactory/work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    write_data(&work)?;
    let pictures = datasets_with_pictures(&source.join("data/dataset_info.json"))?;
    let mut lines = Vec::new();
    for path in examples(&source.join("examples"))? {
        let name = path.strip_prefix(&source).unwrap_or(&path).display().to_string();
        println!("{name}");
        lines.push((name, check(&path, &work, &pictures)?));
    }
    let page = root().join("docs/llamafactory.md");
    fs::write(&page, write_page(&lines)).with_context(|| format!("{} cannot be written", page.display()))
}

/// The YAML files whose `stage` is `sft` or `pt`, by name.
fn examples(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml")
                && matches!(value(&fs::read_to_string(&path)?, "stage").as_deref(), Some("sft" | "pt"))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The value of a key of a flat YAML file, without its comment.
fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.split(" #").next().unwrap_or_default().trim().to_owned())
}

/// A dataset of each stage.
fn write_data(work: &Path) -> Result<()> {
    let data = work.join("data");
    fs::create_dir_all(&data)?;
    let record = |number: usize| {
        let question = format!("What is {number} and {number}?");
        serde_json::json!({ "instruction": question, "input": "", "output": format!("It is {}.", 2 * number) })
    };
    let records: Vec<Value> = (0..24).map(record).collect();
    fs::write(data.join("questions.json"), serde_json::to_vec(&records)?)?;
    let documents: String = (0..24).map(|number| format!("{number} and {number} is {}.\n", 2 * number)).collect();
    fs::write(data.join("documents.txt"), documents)?;
    Ok(())
}

/// The names of datasets whose records have pictures, films or sound.
fn datasets_with_pictures(info: &Path) -> Result<Vec<String>> {
    let info: BTreeMap<String, Value> = serde_json::from_slice(&fs::read(info)?)?;
    let has = |entry: &Value| ["images", "videos", "audios"].iter().any(|key| entry["columns"].get(key).is_some());
    Ok(info.into_iter().filter(|(_, entry)| has(entry)).map(|(name, _)| name).collect())
}

/// What became of an example.
struct Outcome {
    /// Empty where it runs.
    reasons: Vec<String>,
    /// Keys that were accepted without effect.
    without_effect: Vec<String>,
    /// What the reader should know besides.
    remark: String,
}

/// Gives the example to Luthier.
fn check(path: &Path, work: &Path, pictures: &[String]) -> Result<Outcome> {
    let text = fs::read_to_string(path)?;
    let template = value(&text, "template").unwrap_or_default();
    let model = model::write(&work.join("models"), &template)?;
    let dataset = if value(&text, "stage").as_deref() == Some("pt") { "documents" } else { "questions" };
    let words = [
        ("model_name_or_path", model.display().to_string()),
        ("dataset", dataset.to_owned()),
        ("dataset_dir", work.join("data").display().to_string()),
        ("output_dir", work.join("out").display().to_string()),
        ("dry_run", "true".to_owned()),
    ];
    let output = cargo()
        .args(["run", "--quiet", "--package", "luthier", "--", "train"])
        .arg(path)
        .args(words.map(|(key, value)| format!("{key}={value}")))
        .output()?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let reasons: Vec<String> = printed.lines().filter_map(|line| line.strip_prefix("error: ")).map(reason).collect();
    if !output.status.success() && reasons.is_empty() {
        bail!("{}: luthier failed without an error: {printed}", path.display());
    }
    let without_effect = printed
        .lines()
        .filter_map(|line| line.strip_prefix("note: "))
        .filter_map(|note| note.split_once(" has no effect").or_else(|| note.split_once(" have no effect")))
        .flat_map(|(keys, _)| keys.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .filter(|key| !key.contains(' '))
        .collect();
    let own = value(&text, "dataset").unwrap_or_default();
    let own: Vec<&str> =
        own.split(',').map(str::trim).filter(|name| pictures.iter().any(|other| other == name)).collect();
    let own_model = value(&text, "model_name_or_path").unwrap_or_default();
    let mut remarks = Vec::new();
    if ["AQLM", "AWQ", "GPTQ"].iter().any(|name| own_model.contains(name)) {
        remarks.push("its own model is quantised, which is not read yet".to_owned());
    }
    if own_model.contains("-VL-") {
        remarks.push("its own model sees pictures, which is not read".to_owned());
    }
    if !own.is_empty() {
        remarks.push(format!("records of {} have pictures, which are refused", code(&own)));
    }
    let remark = remarks.join("; ");
    Ok(Outcome { reasons, without_effect, remark })
}

/// An error without the place where it is.
fn reason(error: &str) -> String {
    let places = [".yaml, line ", "command line"];
    let Some(place) = places.iter().filter_map(|place| error.find(place)).min() else { return error.to_owned() };
    error[place..].split_once(": ").map_or(error, |(_, reason)| reason).to_owned()
}

fn code(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn write_page(lines: &[(String, Outcome)]) -> String {
    let runs = lines.iter().filter(|(_, outcome)| outcome.reasons.is_empty()).count();
    let mut page = format!(
        "# LLaMA-Factory's examples\n\n\
         Every example of LLaMA-Factory 0.9.5 for `stage: sft` and `stage: pt`, given to `luthier train` with `dry_run: true`.\n\
         Only paths were changed: `model_name_or_path` (a tiny model whose chat template is of the family that `template`\n\
         names), `dataset` and `dataset_dir` (a few text records), `output_dir`. {runs} of {} run. This page is written by\n\
         `cargo xtask llamafactory`.\n\n\
         That a file runs says that its settings are understood; whether the architecture of its own model is known is\n\
         another question, and models of hundreds of billions of numbers need the memory for them.\n\n\
         ## These run\n\n\
         | example | accepted without effect | remark |\n| --- | --- | --- |\n",
        lines.len()
    );
    for (name, outcome) in lines.iter().filter(|(_, outcome)| outcome.reasons.is_empty()) {
        let keys: Vec<&str> = outcome.without_effect.iter().map(String::as_str).collect();
        let _ = writeln!(page, "| `{name}` | {} | {} |", code(&keys), outcome.remark);
    }
    page.push_str("\n## These are refused\n\n| example | why |\n| --- | --- |\n");
    for (name, outcome) in lines.iter().filter(|(_, outcome)| !outcome.reasons.is_empty()) {
        let reasons: Vec<String> = outcome.reasons.iter().map(|reason| reason.replace('|', "\\|")).collect();
        let _ = writeln!(page, "| `{name}` | {} |", reasons.join("<br>"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_without_their_places() {
        assert_eq!(reason("/a/b.yaml, line 12: fp8 is refused: not yet"), "fp8 is refused: not yet");
        assert_eq!(reason("command line: there is no setting \"a: b\""), "there is no setting \"a: b\"");
        assert_eq!(reason("model: it is cut off"), "model: it is cut off");
    }

    #[test]
    fn values_of_flat_files() {
        let text = "### a\nstage: sft\ndataset: a, b  # two\n# stage: pt\n";
        assert_eq!(value(text, "stage").as_deref(), Some("sft"));
        assert_eq!(value(text, "dataset").as_deref(), Some("a, b"));
        assert_eq!(value(text, "template"), None);
    }
}
