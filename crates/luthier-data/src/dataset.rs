//! A dataset into records: its files are located, read value by value, and each value is a record or is set aside as broken,
//! with file, line and reason. Nothing broken is repaired, and where most is broken, the format is wrong and reading fails.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::detect::detect;
use crate::error::Error;
use crate::layout::Layout;
use crate::locate::{Located, locate};
use crate::order::{draws, permutation};
use crate::read::{self, Container, Damaged, Item};
use crate::records::{Record, kind, read_record};
use crate::report::Origin;

/// How datasets are read.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions<'o> {
    /// Where datasets and `dataset_info.json` are.
    pub folder: &'o Path,
    /// Whether the first broken record is an error.
    pub strict: bool,
    /// The most records that are taken.
    pub max_samples: Option<usize>,
    /// What `num_samples` draws with.
    pub seed: u64,
}

/// The records of one dataset, in the order of its files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// The name as the user wrote it, for messages.
    pub name: String,
    /// The files that they came from; none where bytes were given.
    pub files: Vec<PathBuf>,
    /// The records.
    pub records: Vec<Record>,
    /// Where each record came from: its dataset, and its number among all that were found there, broken ones too.
    pub origins: Vec<Origin>,
    /// The names of the datasets that were mixed into this one, where it is mixed.
    pub names: Vec<String>,
    /// Keys that records have and the layout does not read, with the number of records that have them.
    pub ignored_keys: BTreeMap<String, usize>,
    /// What was set aside.
    pub broken: Vec<BrokenRecord>,
    /// What was left out or drawn, a clause each.
    pub notes: Vec<String>,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokenRecord {
    /// Its file.
    pub file: PathBuf,
    /// Its number in the file, from 1.
    pub record: usize,
    /// Its line, from 1, where the file has lines.
    pub line: Option<usize>,
    /// What is wrong with it, as a clause.
    pub problem: String,
    /// What it is: its value, or its text where it is none.
    pub raw: Value,
}

impl Dataset {
    /// Opens a dataset by its name in `dataset_info.json`, or by the path of its file or folder or a glob (as it is, or inside
    /// the folder of datasets, there without an ending too); the layout of what has no entry is found by its keys.
    ///
    /// Errors: the name is unknown, a file cannot be read, the layout is unknown or ambiguous, most records are broken.
    pub fn open(dataset: &str, options: &ReadOptions) -> Result<Self, Error> {
        let located = locate(dataset, options.folder)?;
        let Located { files, entry, slice, notes, file_name } = located;
        let drawn = entry.as_ref().and_then(|entry| entry.num_samples);
        let mut collector = Collector::new(dataset, &file_name, options);
        collector.several = files.len() > 1;
        if drawn.is_none() && slice.is_none() {
            collector.most = options.max_samples.unwrap_or(usize::MAX);
        }
        if let Some(entry) = entry {
            collector.trl = entry.layout.is_none();
            collector.layout = entry.layout;
            collector.media = entry.media;
        }
        collector.dataset.notes = notes;
        for file in files {
            collector.begin(&file, Container::of_name(&file.to_string_lossy()));
            read::file(&file, &mut |item| collector.take(item))?;
            collector.dataset.files.push(file);
        }
        let mut dataset = collector.finish()?;
        if let Some(slice) = slice {
            let range = slice.of(dataset.records.len());
            dataset.notes.push(format!("its split leaves {} of {} records", range.len(), dataset.records.len()));
            dataset.choose(range);
        }
        if let Some(drawn) = drawn {
            let found = dataset.records.len();
            if drawn > found.saturating_mul(MOST_DRAWN) {
                let problem = format!(
                    "num_samples is {drawn}, and there are {found} records; expected at most {MOST_DRAWN} times as many"
                );
                return Err(Error::Dataset { dataset: dataset.name, problem });
            }
            dataset.draw(drawn, options.seed);
        }
        let found = dataset.records.len();
        if let Some(most) = options.max_samples.filter(|most| *most < found) {
            dataset.notes.push(format!("max_samples leaves {most} of {found} records"));
            dataset.choose(0..most);
        }
        Ok(dataset)
    }

    /// Reads a dataset from the bytes of its file. `name` stands in messages, and its ending says what the bytes are where
    /// they cannot. Without a layout, the records decide.
    ///
    /// Errors: as for [`open`](Self::open).
    pub fn parse(name: &str, bytes: &[u8], layout: Option<&Layout>, strict: bool) -> Result<Self, Error> {
        let options = ReadOptions { folder: Path::new(""), strict, max_samples: None, seed: 0 };
        let mut collector = Collector::new(name, name, &options);
        collector.layout = layout.cloned();
        collector.begin(Path::new(name), Container::of_name(name));
        read::reader(name, name, Box::new(bytes), &mut |item| collector.take(item))?;
        collector.finish()
    }

    /// The dataset that a record came from, and its number there from 1.
    pub fn place(&self, index: usize) -> (&str, usize) {
        let Some(origin) = self.origins.get(index) else { return (&self.name, index + 1) };
        (self.names.get(origin.dataset).unwrap_or(&self.name), origin.record + 1)
    }

    /// Keeps these records, in this order.
    fn choose(&mut self, chosen: impl IntoIterator<Item = usize>) {
        let chosen: Vec<usize> = chosen.into_iter().collect();
        self.records = chosen.iter().map(|&index| self.records[index].clone()).collect();
        self.origins = chosen.iter().map(|&index| self.origins[index]).collect();
    }

    /// As LLaMA-Factory: so many records in a random order; where there are fewer, all, and some of them again.
    fn draw(&mut self, count: usize, seed: u64) {
        // A stream of its own: the orders of epochs count from 0.
        const STREAM: u64 = u64::MAX - 1;
        let found = self.records.len();
        let again = count.saturating_sub(found);
        self.notes.push(match again {
            0 => format!("num_samples draws {count} of {found} records"),
            _ => format!("num_samples takes all {found} records and {again} of them once more, drawn with replacement"),
        });
        let first = permutation(seed, STREAM, found).into_iter().take(count);
        let chosen: Vec<usize> = first.chain(draws(seed, STREAM, found).take(again)).collect();
        self.choose(chosen);
    }
}

/// Reads these records of a dataset once more, to set them aside: each by its number among all that its files have, from 0,
/// with what is wrong with it.
///
/// Errors: a file cannot be read.
pub fn read_again(files: &[PathBuf], wanted: &BTreeMap<usize, String>) -> Result<Vec<BrokenRecord>, Error> {
    let mut found = Vec::new();
    let mut number = 0;
    for path in files {
        let mut record = 0;
        let mut take = |Item { line, value }: Item| {
            record += 1;
            if let Some(problem) = wanted.get(&number) {
                let raw = value.unwrap_or_else(|damaged| Value::String(damaged.raw));
                found.push(BrokenRecord { file: path.clone(), record, line, problem: problem.clone(), raw });
            }
            number += 1;
            ControlFlow::Continue(())
        };
        read::file(path, &mut take)?;
    }
    Ok(found)
}

/// How often each record may be drawn on average: LLaMA-Factory has no end, and fills the memory.
const MOST_DRAWN: usize = 1000;
/// Where reading ends if nearly all so far is broken.
const MANY_BROKEN: usize = 100_000;
/// How many records are looked at to find the layout.
const LOOKED_AT: usize = 100;

/// Takes values and makes a dataset of them.
struct Collector<'o> {
    options: &'o ReadOptions<'o>,
    file_name: &'o str,
    dataset: Dataset,
    layout: Option<Layout>,
    /// Whether the layout is one of TRL's.
    trl: bool,
    media: Vec<String>,
    /// The file that is being read.
    file: PathBuf,
    several: bool,
    text: bool,
    /// Its values so far.
    in_file: usize,
    /// All values so far.
    found: usize,
    /// As many records as are wanted.
    most: usize,
    /// Good records beyond that were not looked at.
    beyond: usize,
    /// The first values, until the layout is known.
    waiting: Vec<Waiting>,
    fatal: Option<Error>,
}

struct Waiting {
    file: PathBuf,
    in_file: usize,
    number: usize,
    item: Item,
}

impl<'o> Collector<'o> {
    fn new(name: &str, file_name: &'o str, options: &'o ReadOptions<'o>) -> Self {
        Self {
            options,
            file_name,
            dataset: Dataset { name: name.to_owned(), ..Dataset::default() },
            layout: None,
            trl: false,
            media: Vec::new(),
            file: PathBuf::new(),
            several: false,
            text: false,
            in_file: 0,
            found: 0,
            most: usize::MAX,
            beyond: 0,
            waiting: Vec::new(),
            fatal: None,
        }
    }

    fn begin(&mut self, file: &Path, container: Option<Container>) {
        file.clone_into(&mut self.file);
        self.in_file = 0;
        self.text = container == Some(Container::Text);
        if self.text && !matches!(self.layout, Some(Layout::Text { .. })) {
            // A text file has nothing else.
            self.layout = Some(Layout::Text { text: read::TEXT_COLUMN.to_owned(), query: None });
        }
    }

    fn take(&mut self, item: Item) -> ControlFlow<()> {
        let waiting = Waiting { file: self.file.clone(), in_file: self.in_file, number: self.found, item };
        self.in_file += 1;
        self.found += 1;
        let result = if self.layout.is_some() {
            self.keep(waiting)
        } else {
            self.waiting.push(waiting);
            if self.waiting.len() < LOOKED_AT { Ok(()) } else { self.settle() }
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.fatal = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Finds the layout and keeps what has waited for it.
    fn settle(&mut self) -> Result<(), Error> {
        if self.layout.is_none() {
            let values = self.waiting.iter().filter_map(|waiting| waiting.item.value.as_ref().ok());
            let objects: Vec<&Map<String, Value>> = values.filter_map(Value::as_object).collect();
            if objects.is_empty() {
                return Err(self.no_object());
            }
            let layout = detect(&objects, &entry_name(&self.dataset.name), self.file_name, self.trl);
            self.layout = Some(layout.map_err(|problem| self.problem(problem))?);
            if self.media.is_empty() {
                self.media = ["images", "videos", "audios"].map(str::to_owned).to_vec();
            }
        }
        std::mem::take(&mut self.waiting).into_iter().try_for_each(|waiting| self.keep(waiting))
    }

    /// Why there is no record to find a layout by.
    fn no_object(&self) -> Error {
        match self.waiting.first() {
            None => self.problem("it has no records".to_owned()),
            Some(Waiting { item: Item { line, value: Ok(value) }, .. }) => {
                let line = line.map(|line| format!(" (line {line})")).unwrap_or_default();
                self.problem(format!("its first record{line} is {}, not an object", kind(value)))
            }
            Some(Waiting { in_file, item: Item { line, value: Err(damaged) }, .. }) => Error::Record {
                dataset: self.dataset.name.clone(),
                record: in_file + 1,
                line: *line,
                problem: damaged.problem.clone(),
            },
        }
    }

    fn keep(&mut self, waiting: Waiting) -> Result<(), Error> {
        if self.dataset.records.len() >= self.most {
            self.beyond += usize::from(waiting.item.value.is_ok());
            return Ok(());
        }
        let Waiting { file, in_file, number, item: Item { line, value } } = waiting;
        let Some(layout) = &self.layout else { return Ok(()) };
        let (problem, raw) = match value {
            Err(Damaged { problem, raw }) => (problem, Value::String(raw)),
            Ok(value) => match read_record(layout, &value) {
                Ok(record) => {
                    self.check_media(&value, in_file)?;
                    let known = layout.keys();
                    for (key, value) in value.as_object().into_iter().flatten() {
                        if !value.is_null() && !known.contains(&key.as_str()) {
                            *self.dataset.ignored_keys.entry(key.clone()).or_insert(0) += 1;
                        }
                    }
                    self.dataset.records.push(record);
                    self.dataset.origins.push(Origin { dataset: 0, record: number });
                    return Ok(());
                }
                Err(problem) => (problem, value),
            },
        };
        if self.options.strict {
            let dataset = match self.several {
                true => format!("{} ({})", self.dataset.name, file.display()),
                false => self.dataset.name.clone(),
            };
            return Err(Error::Record { dataset, record: in_file + 1, line, problem });
        }
        self.dataset.broken.push(BrokenRecord { file, record: in_file + 1, line, problem, raw });
        // What is not read at all need not be kept to the end.
        let (broken, good) = (self.dataset.broken.len(), self.dataset.records.len());
        if broken >= MANY_BROKEN && good < broken / 10 { Err(self.mostly_broken()) } else { Ok(()) }
    }

    fn check_media(&self, value: &Value, in_file: usize) -> Result<(), Error> {
        for column in &self.media {
            let empty = match value.get(column) {
                None | Some(Value::Null) => true,
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::String(text)) => text.is_empty(),
                Some(_) => false,
            };
            if !empty {
                return Err(self.problem(format!(
                    "record {} has {column}, and models here are text only; take such records out, or their {column}",
                    in_file + 1
                )));
            }
        }
        Ok(())
    }

    fn problem(&self, problem: String) -> Error {
        Error::Dataset { dataset: self.dataset.name.clone(), problem }
    }

    fn finish(mut self) -> Result<Dataset, Error> {
        if let Some(error) = self.fatal.take() {
            return Err(error);
        }
        if self.found == 0 && !self.text {
            return Err(self.problem("it has no records".to_owned()));
        }
        self.settle()?;
        if self.beyond > 0 {
            let kept = self.dataset.records.len();
            self.dataset.notes.push(format!("max_samples leaves {kept} of {} records", kept + self.beyond));
        }
        let (broken, good) = (self.dataset.broken.len(), self.dataset.records.len());
        if broken > good {
            return Err(self.mostly_broken());
        }
        Ok(self.dataset)
    }

    fn mostly_broken(&self) -> Error {
        let broken = &self.dataset.broken;
        let (shown, more) = broken.split_at(broken.len().min(3));
        let mut lines: Vec<String> = shown.iter().map(|broken| format!("\n  {broken}")).collect();
        lines.extend((!more.is_empty()).then(|| format!("\n  and {} more", more.len())));
        self.problem(format!(
            "{} of {} records are broken, so their format is probably another than was thought:{}",
            broken.len(),
            broken.len() + self.dataset.records.len(),
            lines.concat()
        ))
    }
}

impl std::fmt::Display for BrokenRecord {
    /// `record 3 (line 5): "output" is missing`
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let line = self.line.map(|line| format!(" (line {line})")).unwrap_or_default();
        write!(formatter, "record {}{line}: {}", self.record, self.problem)
    }
}

/// How an entry for a path could be called: its file's name without endings.
fn entry_name(dataset: &str) -> String {
    let name = Path::new(dataset).file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("mine").to_owned()
}
