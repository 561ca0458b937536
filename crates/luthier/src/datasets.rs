//! The datasets of a run: opened as the configuration says, mixed, and what was left out of them told and kept. Broken records
//! go to a quarantine file, so that they can be mended and nothing is lost in silence.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use luthier_data::{BrokenRecord, Dataset, Example, Interleave, Origin, ReadOptions, Tokenized, interleave};
use serde_json::{Value, json};

use crate::config::{DataSettings, Mix};

/// Datasets, and what is said of them.
pub(crate) struct Opened {
    /// One for each name, or one that they were mixed into.
    pub(crate) datasets: Vec<Dataset>,
    /// The files of each name.
    pub(crate) files: Vec<Vec<PathBuf>>,
    /// What was passed over, or guessed.
    pub(crate) notes: Vec<String>,
    /// What was set aside, with the name of its dataset.
    pub(crate) broken: Vec<(String, BrokenRecord)>,
}

/// Opens datasets by their names.
pub(crate) fn open(names: &[String], settings: &DataSettings) -> anyhow::Result<Opened> {
    let options = ReadOptions {
        folder: &settings.folder,
        strict: settings.strict,
        max_samples: settings.max_samples,
        seed: settings.seed,
    };
    let mut opened = Opened { datasets: Vec::new(), files: Vec::new(), notes: Vec::new(), broken: Vec::new() };
    for name in names {
        let mut dataset = Dataset::open(name, &options)?;
        opened.notes.extend(dataset.notes.drain(..).map(|note| format!("dataset {name}: {note}")));
        for (key, count) in &dataset.ignored_keys {
            opened.notes.push(format!("dataset {name}: `{key}` of {count} records is not read"));
        }
        let broken = std::mem::take(&mut dataset.broken);
        if !broken.is_empty() {
            opened.notes.push(format!("dataset {name}: {}", reasons(&broken, dataset.records.len())));
        }
        opened.broken.extend(broken.into_iter().map(|record| (name.clone(), record)));
        opened.files.push(std::mem::take(&mut dataset.files));
        opened.datasets.push(dataset);
    }
    if let Mix::Interleave { until, shares } = &settings.mix {
        if opened.datasets.len() > 1 {
            let found: usize = opened.datasets.iter().map(|dataset| dataset.records.len()).sum();
            let mixed = interleave(opened.datasets, *until, shares.as_deref(), settings.seed);
            let how = match until {
                Interleave::Under => "interleaved until the first dataset is used up",
                Interleave::Over => "interleaved until every dataset is used up, shorter ones again and again",
                Interleave::Once => "interleaved until every record is used once",
            };
            opened.notes.push(format!("{found} records are {how}: {}", mixed.records.len()));
            opened.datasets = vec![mixed];
        } else {
            opened.notes.push("mix_strategy has no effect on a single dataset".to_owned());
        }
    }
    Ok(opened)
}

/// `2 of 12 records are broken and left out`, and a line for each reason, the most frequent first.
fn reasons(broken: &[BrokenRecord], good: usize) -> String {
    const SHOWN: usize = 5;
    let mut reasons: Vec<(&str, Vec<&BrokenRecord>)> = Vec::new();
    for record in broken {
        match reasons.iter_mut().find(|(problem, _)| *problem == record.problem) {
            Some((_, records)) => records.push(record),
            None => reasons.push((&record.problem, vec![record])),
        }
    }
    reasons.sort_by_key(|(_, records)| std::cmp::Reverse(records.len()));
    let all = broken.len() + good;
    let are = if broken.len() == 1 { "is" } else { "are" };
    let mut text = format!("{} of {all} records {are} broken and left out", broken.len());
    for (problem, records) in reasons.iter().take(SHOWN) {
        let place = |record: &&BrokenRecord| match record.line {
            Some(line) => format!("line {line}"),
            None => format!("record {}", record.record),
        };
        let mut places: Vec<String> = records.iter().take(3).map(place).collect();
        places.extend((records.len() > 3).then(|| "...".to_owned()));
        let _ = write!(text, "\n  {} ({}): {problem}", records.len(), places.join(", "));
    }
    if reasons.len() > SHOWN {
        let more: usize = reasons.iter().skip(SHOWN).map(|(_, records)| records.len()).sum();
        let _ = write!(text, "\n  {more} for other reasons");
    }
    text
}

/// Puts the places of rows right: from those among the records that were read to those in the files.
pub(crate) fn name_places(tokenized: &mut Tokenized, places: &[Vec<Origin>], mixed: bool) {
    let right = |origin: &mut Origin| {
        let found = places.get(origin.dataset).and_then(|places| places.get(origin.record));
        if let Some(found) = found {
            let dataset = if mixed { found.dataset } else { origin.dataset };
            *origin = Origin { dataset, record: found.record };
        }
    };
    tokenized.origins.iter_mut().flatten().for_each(right);
    tokenized.report.worst.iter_mut().for_each(|row| right(&mut row.origin));
    tokenized.refused.iter_mut().for_each(|record| right(&mut record.origin));
}

/// What was set aside of several datasets.
pub(crate) struct SetAside {
    /// With the names of their datasets.
    pub(crate) broken: Vec<(String, BrokenRecord)>,
    /// A sentence for each dataset.
    pub(crate) notes: Vec<String>,
}

/// Sets aside what the template refused, with the files of each dataset: the records, and what is said of them. Where nothing
/// may be broken, the first is an error.
pub(crate) fn set_refused_aside(
    tokenized: &Tokenized,
    names: &[String],
    files: &[Vec<PathBuf>],
    strict: bool,
) -> anyhow::Result<SetAside> {
    let (mut broken, mut notes) = (Vec::new(), Vec::new());
    if let Some(first) = tokenized.refused.first().filter(|_| strict) {
        let name = names.get(first.origin.dataset).map_or("", String::as_str);
        return Err(first.error((name, first.origin.record + 1)).into());
    }
    for (number, (name, files)) in names.iter().zip(files).enumerate() {
        let of_dataset = tokenized.refused.iter().filter(|record| record.origin.dataset == number);
        let wanted: BTreeMap<usize, String> =
            of_dataset.map(|record| (record.origin.record, record.problem.clone())).collect();
        if wanted.is_empty() {
            continue;
        }
        let records = luthier_data::read_again(files, &wanted)?;
        let good = tokenized.origins.iter().flatten().filter(|origin| origin.dataset == number).count();
        notes.push(format!("dataset {name}: {}", reasons(&records, good)));
        broken.extend(records.into_iter().map(|record| (name.clone(), record)));
    }
    Ok(SetAside { broken, notes })
}

/// How many rows to train are also among those to evaluate on, token for token.
pub(crate) fn also_evaluated(training: &[Example], evaluation: &[Example]) -> usize {
    let evaluated: HashSet<&[u32]> = evaluation.iter().map(|example| example.ids.as_slice()).collect();
    training.iter().filter(|example| evaluated.contains(example.ids.as_slice())).count()
}

/// The name of the quarantine file in an output folder.
pub(crate) const QUARANTINE_FILE: &str = "quarantine.jsonl";

/// Whether a file is one that [`quarantine`] has written.
fn is_quarantine(path: &Path) -> bool {
    let mut line = String::new();
    let read = std::fs::File::open(path).and_then(|file| BufReader::new(file).take(1 << 24).read_line(&mut line));
    let value: Value = read.ok().and_then(|_| serde_json::from_str(&line).ok()).unwrap_or_default();
    ["dataset", "file", "record", "reason"].iter().all(|key| value.get(key).is_some())
}

/// Writes what was set aside, a line each, and gives the sentence that says so. An older file goes where nothing was.
pub(crate) fn quarantine(path: &Path, broken: &[(String, BrokenRecord)]) -> anyhow::Result<Option<String>> {
    if path.is_file() && !is_quarantine(path) {
        anyhow::bail!("quarantine: {} is another file already; choose another name", path.display());
    }
    if broken.is_empty() {
        if path.is_file() {
            std::fs::remove_file(path)?;
        }
        return Ok(None);
    }
    luthier_files::write_atomically(path, |writer| {
        for (dataset, record) in broken {
            let BrokenRecord { file, record, line, problem, raw } = record;
            let entry = json!({
                "dataset": dataset,
                "file": file.display().to_string(),
                "record": record,
                "line": line,
                "reason": problem,
                "value": raw,
            });
            writeln!(writer, "{entry}")?;
        }
        Ok(())
    })?;
    let what = if broken.len() == 1 {
        "the broken record is".to_owned()
    } else {
        format!("the {} broken records are", broken.len())
    };
    Ok(Some(format!("{what} kept in {}, with the reasons", path.display())))
}
