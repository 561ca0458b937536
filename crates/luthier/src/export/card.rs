//! The model card, `README.md`: what the model is made of, how it was trained, and what the replay measured. What a
//! training wrote about itself (`run.json`, `train_results.json`) is taken as it is found; nothing of it is demanded.

use std::fmt::Write;
use std::path::Path;

use luthier_model::Adapter;
use serde_json::Value;

use super::config::{ExportConfig, Format};
use super::files::{Files, Job};
use super::replay::{Prompts, Replay};
use crate::manifest;
use crate::model::Model;

/// What every card says, and by which an export is known again.
pub(super) const MARK: &str = "exported by Luthier ";
/// Rows of one table of what a training said.
const MOST_ROWS: usize = 80;

pub(super) fn text(
    config: &ExportConfig,
    model: &Model,
    adapter: Option<&Adapter>,
    job: &Job<'_>,
    files: &Files,
    (replay, prompts): (&Replay, &Prompts),
) -> String {
    let name = config.target.name();
    let base = base_model(config, model, adapter);
    let mut card = front_matter(config, adapter.is_some(), &base);
    let decoder = &model.checkpoint.model.decoder;
    let _ = writeln!(card, "\n# {name}\n");
    let made = match adapter {
        Some(adapter) => format!("`{base}` with {} merged in f32", adapter.description()),
        None => format!("`{base}`"),
    };
    let _ = writeln!(
        card,
        "{made}, {MARK}{} as {}.\n",
        env!("CARGO_PKG_VERSION"),
        match config.format {
            Format::Hf => "a Hugging Face folder",
            Format::Gguf => "a GGUF file",
        }
    );
    let numbers: usize = model.checkpoint.tensors.values().map(|tensor| tensor.tensor().len()).sum();
    let _ = writeln!(card, "| | |\n| --- | --- |\n| family | {} |\n| numbers | {numbers} |", decoder.model_type);
    let _ = writeln!(card, "| stored as | {} |\n| bytes | {} |", job.stored_name, files.bytes);
    if let Some(positions) = decoder.max_positions {
        let _ = writeln!(card, "| positions | {positions} |");
    }
    for sentence in &files.notes {
        let _ = writeln!(card, "\n> {sentence}.");
    }
    for (file, title) in [(manifest::FILE_NAME, "Data and settings"), ("train_results.json", "Results")] {
        if let Some(found) = training_file(config, file) {
            let _ = write!(card, "\n## {title}\n\n{}", table(&found));
        }
    }
    let before = if adapter.is_some() { "the base with its adapter unmerged" } else { "the base" };
    let _ = writeln!(
        card,
        "\n## Replay\n\nAfter the export the files were loaded again, and {} built-in prompts went {} through {before} and \
         through these files, both computed in f32:\n\n| measure | value |\n| --- | --- |",
        replay.prompts, prompts.how
    );
    for (what, value) in replay.lines() {
        let _ = writeln!(card, "| {what} | {value} |");
    }
    card
}

fn front_matter(config: &ExportConfig, merged: bool, base: &str) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut yaml = format!("---\nbase_model: {}\n", quoted(base));
    let library = match config.format {
        Format::Hf => "transformers",
        Format::Gguf => "gguf",
    };
    let _ = writeln!(yaml, "library_name: {library}\npipeline_tag: text-generation");
    if let Some(license) = license(&config.model) {
        let _ = writeln!(yaml, "license: {license}");
    }
    yaml += "tags:\n- luthier\n";
    if merged {
        yaml += "- lora\n- merged\n";
    }
    yaml + "---\n"
}

/// The name of the base as a hub knows it, where that can be told: `organisation/name`.
fn base_model(config: &ExportConfig, model: &Model, adapter: Option<&Adapter>) -> String {
    let named = adapter.map(|adapter| adapter.base_model().to_owned());
    let configured = model.checkpoint.config.get("_name_or_path").and_then(Value::as_str).map(str::to_owned);
    let hub = |name: &String| {
        let mut parts = name.split('/');
        let valid = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && !part.starts_with('.'));
        valid(parts.next()) && valid(parts.next()) && parts.next().is_none() && !Path::new(name).exists()
    };
    let found = named.into_iter().chain(config.hub_name.clone()).chain(configured).find(hub);
    found.unwrap_or_else(|| {
        let name = config.model.canonicalize().unwrap_or_else(|_| config.model.clone());
        name.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
    })
}

/// `license` of the base's own card.
fn license(model: &Path) -> Option<String> {
    let folder = if model.is_dir() { model } else { model.parent()? };
    let card = std::fs::read_to_string(folder.join("README.md")).ok()?;
    let (front, _) = card.strip_prefix("---\n")?.split_once("\n---")?;
    let license = front.lines().find_map(|line| line.strip_prefix("license:"))?.trim();
    let plain = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    (!license.is_empty() && license.chars().all(plain)).then(|| license.to_owned())
}

/// A file that a training left beside its result, or above its checkpoints. A checkpoint has no results yet.
fn training_file(config: &ExportConfig, name: &str) -> Option<Value> {
    let folder = config.adapter.as_deref().unwrap_or(&config.model);
    let is_checkpoint = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"));
    let above = folder.parent().filter(|_| is_checkpoint && name == manifest::FILE_NAME).unwrap_or(folder);
    let file = [folder, above].into_iter().find_map(|folder| std::fs::read(folder.join(name)).ok())?;
    serde_json::from_slice(&file).ok()
}

/// An object as a table: a row for each value within it.
fn table(value: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    let more = rows.len().saturating_sub(MOST_ROWS);
    let mut table = String::from("| key | value |\n| --- | --- |\n");
    for (key, value) in rows.into_iter().take(MOST_ROWS) {
        let _ = writeln!(table, "| {key} | {value} |");
    }
    if more > 0 {
        let _ = writeln!(table, "\n{more} more are left out.");
    }
    table
}

fn flatten(key: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let within = |inner: &str| if key.is_empty() { inner.to_owned() } else { format!("{key}.{inner}") };
    match value {
        // A setting of a training: its value, and where it was given.
        Value::Object(object) if object.len() == 2 && object.contains_key("from") && object.contains_key("value") => {
            if object["from"] != "default" {
                flatten(key, &object["value"], rows);
            }
        }
        Value::Object(object) => object.iter().for_each(|(inner, value)| flatten(&within(inner), value, rows)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(index, item)| flatten(&within(&(index + 1).to_string()), item, rows));
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(cell).collect();
            rows.push((key.to_owned(), texts.join(", ")));
        }
        Value::Null => {}
        scalar => rows.push((key.to_owned(), cell(scalar))),
    }
}

/// A value within a table: on one line, without the table's own signs.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = text.replace('|', "\\|").replace(['\n', '\r'], " ");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_training_said_becomes_a_table() {
        let value = serde_json::json!({
            "settings": {
                "lora_rank": { "value": 8, "from": "a.yaml, line 3" },
                "seed": { "value": 42, "from": "default" },
                "note": "a|b\nc",
                "none": null,
            },
            "data": [{ "file": "a.json", "rows": 5 }],
            "names": ["x", "y"],
        });
        assert_eq!(
            table(&value),
            "| key | value |\n| --- | --- |\n| settings.lora_rank | 8 |\n| settings.note | a\\|b c |\n\
             | data.1.file | a.json |\n| data.1.rows | 5 |\n| names | x, y |\n"
        );
    }
}
