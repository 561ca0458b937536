//! `luthier data preview`: rows as training sees them, read by the same code, with what is trained of them shown in green
//! or in brackets; then what was cut or dropped, and how long the rows are. In the terminal, as a page for a browser, or
//! as lines of JSON for other programs. Nothing else is written.

mod histogram;
mod html;
mod tokens;

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;

use luthier_data::{Report, Tokenizer};
use serde_json::{Value, json};

use crate::config::{Stage, TrainConfig};
use crate::datasets;
use crate::model::Model;
use crate::rows::{self, Rows, Wanted};
use crate::settings::{Problem, words};
use crate::wording::{count as counted, thousands};
use crate::{ConfigArguments, Environment, eprint_line, fail, print_text};
use tokens::{Marks, Shown, tokens, who};

/// What follows `luthier data preview`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "luthier data preview [--rows N | --row K] [--ids] [--html FILE | --json] [CONFIG] [key=value | --key value]..."
)]
pub(crate) struct Arguments {
    /// How many rows to show, from the first on [default: 3; with --html 50, with --json all]
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// The one row to show, counted from 1
    #[arg(long, value_name = "K")]
    row: Option<usize>,
    /// Show the ids of the tokens too
    #[arg(long)]
    ids: bool,
    /// Write a page for a browser, where each token can be looked at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print a line of JSON for each row: where it came from, its ids, and how much each counts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

/// Rows that are shown where nothing is said.
const ROWS: usize = 3;
const ROWS_OF_A_PAGE: usize = 50;

/// What there is to show.
struct Preview {
    read: Rows,
    /// Of the records, or of the model where they were tokens already.
    tokenizer: Option<Tokenizer>,
    model: String,
    datasets: Vec<String>,
    /// What was cut, dropped, added, weighed or packed.
    losses: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    // Options may stand behind the settings too.
    let mut words = arguments.config.words.clone();
    let count = words::take_count(&mut words, "rows").map_err(fail)?.or(arguments.rows);
    let row = words::take_count(&mut words, "row").map_err(fail)?.or(arguments.row);
    let ids = words::take_flag(&mut words, "ids") || arguments.ids;
    let json = words::take_flag(&mut words, "json") || arguments.json;
    let page = words::take_text(&mut words, "html").map(PathBuf::from).or_else(|| arguments.html.clone());
    if json && page.is_some() {
        return Err(fail(vec![Problem("--html and --json exclude one another; expected one of them".to_owned())]));
    }
    if page.as_ref().is_some_and(|page| page.as_os_str().is_empty()) {
        return Err(fail(vec![Problem("--html has no value; expected the file to write".to_owned())]));
    }
    let mut config = TrainConfig::from_words(&words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    config.check_model_files().map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let preview = Preview::of(&config)?;
    let found = preview.read.tokenized.examples.len();
    let usual = match (json, &page) {
        (true, _) => found,
        (false, Some(_)) => ROWS_OF_A_PAGE,
        (false, None) => ROWS,
    };
    let shown = match (row, count) {
        (Some(row), _) if !(1..=found).contains(&row) => {
            return Err(fail(vec![Problem(format!("--row is {row}, but there are {found} rows"))]));
        }
        (Some(row), _) => row - 1..row,
        (None, count) => 0..count.unwrap_or(usual).min(found),
    };
    if json {
        shown.for_each(|row| print_text(&format!("{}\n", preview.json(row))));
    } else if let Some(path) = page {
        let rows = shown.len();
        let page = html::page(&preview, shown)?;
        luthier_files::write_atomically(&path, |out| out.write_all(page.as_bytes()))?;
        print_text(&format!("wrote {}: {} of {}\n", path.display(), thousands(rows), counted(found, "row")));
    } else {
        let colours = std::io::stdout().is_terminal() && !environment.no_color;
        let marks = if colours { Marks::Colours } else { Marks::Brackets };
        let mut text = String::new();
        for row in shown {
            text += &preview.terminal(row, ids, marks)?;
        }
        print_text(&(text + &preview.summary()));
    }
    Ok(())
}

impl Preview {
    fn of(config: &TrainConfig) -> anyhow::Result<Self> {
        let (model, data) = (Model::of(config)?, &config.data);
        let read =
            rows::read(&model, config.model.adapter.as_deref(), config.stage, &data.datasets, data, Wanted::Roles)?;
        for note in &read.notes {
            eprint_line(&format!("note: {note}"));
        }
        if let Some(path) = &data.quarantine {
            datasets::quarantine(path, &read.broken)?.iter().for_each(|note| eprint_line(&format!("note: {note}")));
        }
        let mut losses = rows::losses(&read.tokenized.report, &data.datasets, data.cutoff_len);
        if data.packing && config.stage == Stage::SupervisedFineTuning {
            losses.push(rows::packing(&read.tokenized.examples, data.cutoff_len));
        }
        Ok(Self {
            losses,
            // Records that are tokens already can be shown as text where the model has a tokenizer.
            tokenizer: model.tokenizer().ok(),
            model: model.files.label.clone(),
            datasets: data.datasets.clone(),
            read,
        })
    }

    fn tokens(&self, row: usize) -> anyhow::Result<Vec<Shown>> {
        let spans = self.read.tokenized.roles.get(row).map_or(&[][..], Vec::as_slice);
        tokens(&self.read.tokenized.examples[row], spans, self.tokenizer.as_ref())
    }

    /// The dataset and the number of the record, from 1, that a row came from.
    fn origin(&self, row: usize) -> Option<(&str, usize)> {
        let origin = self.read.tokenized.origins.get(row).copied().flatten()?;
        Some((self.datasets.get(origin.dataset)?, origin.record + 1))
    }

    /// `row 2 of 91 (identity record 2): 54 tokens, 21 trained`
    fn heading(&self, row: usize) -> String {
        let example = &self.read.tokenized.examples[row];
        let origin = self.origin(row);
        let origin = origin.map_or_else(String::new, |(dataset, record)| format!(" ({dataset} record {record})"));
        let (found, trained) = (self.read.tokenized.examples.len(), example.trained_count());
        format!("row {} of {found}{origin}: {} tokens, {trained} trained", row + 1, example.ids.len())
    }

    fn terminal(&self, row: usize, ids: bool, marks: Marks) -> anyhow::Result<String> {
        let tokens = self.tokens(row)?;
        let mut text = format!("{}\n", self.heading(row));
        if self.tokenizer.is_some() {
            let _ = writeln!(text, "{}", marks.text(&tokens).trim_end_matches('\n'));
        }
        if ids || self.tokenizer.is_none() {
            let _ = writeln!(text, "ids: {}", marks.ids(&tokens));
        }
        if self.read.tokenized.roles.get(row).is_some() {
            let _ = writeln!(text, "written by: {}", who(&tokens));
        }
        Ok(text + "\n")
    }

    fn json(&self, row: usize) -> Value {
        let example = &self.read.tokenized.examples[row];
        let (dataset, record) = self.origin(row).unzip();
        let weights: Vec<f64> = (0..example.ids.len()).map(|token| tokens::decimal(example.weight(token))).collect();
        json!({ "dataset": dataset, "record": record, "input_ids": example.ids, "weights": weights })
    }

    /// What there is of each dataset: its name and its counts. Blocks of several documents belong to none.
    fn counts(&self) -> Vec<(String, Report)> {
        let named = self.datasets.iter().cloned().chain(["blocks of several documents".to_owned()]);
        let mut counts: Vec<(String, Report)> = named.map(|name| (name, Report::default())).collect();
        let tokenized = &self.read.tokenized;
        for (example, origin) in tokenized.examples.iter().zip(&tokenized.origins) {
            let place = origin.map_or(self.datasets.len(), |origin| origin.dataset);
            if let Some((_, report)) = counts.get_mut(place) {
                report.count(example);
            }
        }
        // Datasets that gave no row are shown too, unless all went into blocks.
        let blocks = counts.last().is_some_and(|(_, report)| report.rows > 0);
        let (most, all) = (self.datasets.len(), counts.len());
        counts.drain(if blocks { 0..most } else { most..all });
        counts
    }

    fn lengths(&self) -> Vec<usize> {
        self.read.tokenized.examples.iter().map(|example| example.ids.len()).collect()
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        let counts = self.counts();
        if counts.len() > 1 {
            for (name, Report { rows, tokens, trained_tokens, .. }) in &counts {
                let _ = writeln!(text, "{name}: {rows} rows, {tokens} tokens, {trained_tokens} of them trained");
            }
        }
        let Report { rows, tokens, trained_tokens, .. } = &self.read.tokenized.report;
        let _ = writeln!(text, "{rows} rows, {tokens} tokens, {trained_tokens} of them trained");
        self.losses.iter().for_each(|loss| text += &format!("{loss}\n"));
        text + &histogram::lines(&self.lengths())
    }
}
