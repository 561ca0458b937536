//! From datasets to the steps of a run: rows are tokenised, put in order, and laid into parts under the token budget.

use std::collections::HashSet;

use luthier_data::{
    Dataset, Example, PtOptions, Record, Report, SftOptions, Tokenized, Truncation, permutation, take_tokens,
    tokenize_pt, tokenize_sft,
};
use luthier_train::{MicroBatch, Row, Steps};

use crate::config::{BatchSettings, DataSettings, RunLength, Scored, Stage};
use crate::model::Model;

/// Reads and tokenises the datasets of a configuration.
pub(crate) fn read(model: &Model, stage: Stage, settings: &DataSettings) -> anyhow::Result<(Tokenized, Vec<String>)> {
    let mut notes = Vec::new();
    let mut datasets = Vec::with_capacity(settings.datasets.len());
    for name in &settings.datasets {
        let mut dataset = Dataset::open(name, &settings.folder)?;
        if let Some(most) = settings.max_samples.filter(|most| *most < dataset.records.len()) {
            notes.push(format!("dataset {name}: max_samples leaves {most} of {} records", dataset.records.len()));
            dataset.records.truncate(most);
        }
        for (key, count) in &dataset.ignored_keys {
            notes.push(format!("dataset {name}: `{key}` of {count} records is not read"));
        }
        datasets.push(dataset);
    }
    if datasets.iter().flat_map(|dataset| &dataset.records).all(|record| matches!(record, Record::Tokens(_))) {
        notes.push("the records are tokens already: template, train_on_prompt, mask_history have no effect".to_owned());
        if stage == Stage::PreTraining && settings.packing {
            notes.push("the records are tokens already: they are not packed, each is a row".to_owned());
        }
        return Ok((take_tokens(datasets, settings.cutoff_len)?, notes));
    }
    let tokenizer = model.tokenizer()?;
    let tokenized = match stage {
        Stage::PreTraining => tokenize_pt(
            &datasets,
            &tokenizer,
            &PtOptions { cutoff_len: settings.cutoff_len, packing: settings.packing },
        )?,
        Stage::SupervisedFineTuning => {
            let template = model.template(settings.template.as_deref(), &tokenizer)?;
            let options = SftOptions {
                cutoff_len: settings.cutoff_len,
                truncation: Truncation::LlamaFactory,
                train_on_prompt: settings.scored == Scored::Everything,
                mask_history: settings.scored == Scored::LastReply,
            };
            tokenize_sft(&datasets, &tokenizer, &template, &options)?
        }
    };
    Ok((tokenized, notes))
}

/// What a report has to say, a sentence each.
pub(crate) fn sentences(report: &Report, cutoff_len: usize) -> Vec<String> {
    let mut said =
        vec![format!("{} rows, {} tokens, {} of them trained", report.rows, report.tokens, report.trained_tokens)];
    let counted = [
        (report.rows_truncated, format!("rows were longer than cutoff_len {cutoff_len} and cut")),
        (report.replies_without_end, "replies lost their end and do not teach the model to stop".to_owned()),
        (report.rows_dropped, "rows were dropped: they have no token to train".to_owned()),
        (report.end_tokens_added, "replies got the tokenizer's end token: the template writes none".to_owned()),
    ];
    said.extend(counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    said
}

/// The steps of a run, each a function of its number.
pub(crate) struct RowSteps {
    examples: Vec<Example>,
    /// The examples of each row: one, or several that are packed.
    rows: Vec<Vec<usize>>,
    rows_per_step: usize,
    seed: u64,
    shuffle: bool,
    pub(crate) token_budget: usize,
    pub(crate) total: usize,
}

impl RowSteps {
    /// `examples` must not be empty. With `pack`, rows are filled up to so many tokens.
    pub(crate) fn new(
        examples: Vec<Example>,
        settings: &BatchSettings,
        seed: u64,
        shuffle: bool,
        pack: Option<usize>,
    ) -> Self {
        let rows = match pack {
            Some(room) => pack_rows(&examples, room),
            None => (0..examples.len()).map(|example| vec![example]).collect(),
        };
        let rows_per_step = settings.rows.saturating_mul(settings.accumulation).clamp(1, rows.len().max(1));
        let per_epoch = rows.len().div_ceil(rows_per_step);
        let total = match settings.length {
            RunLength::Steps(steps) => steps,
            RunLength::Epochs(epochs) => ((epochs * per_epoch as f64).ceil() as usize).max(1),
        };
        Self { examples, rows, rows_per_step, seed, shuffle, token_budget: usize::MAX, total }
    }

    fn per_epoch(&self) -> usize {
        self.rows.len().div_ceil(self.rows_per_step)
    }

    /// The longest row.
    pub(crate) fn longest_row(&self) -> usize {
        self.examples.iter().map(|example| example.ids.len()).max().unwrap_or(0)
    }

    fn examples_of(&self, step: usize) -> Vec<usize> {
        let (epoch, index) = (step / self.per_epoch(), step % self.per_epoch());
        let order = match self.shuffle {
            true => permutation(self.seed, epoch as u64, self.rows.len()),
            false => (0..self.rows.len()).collect(),
        };
        let rows = order.into_iter().skip(index * self.rows_per_step).take(self.rows_per_step);
        rows.flat_map(|row| self.rows[row].iter().copied()).collect()
    }

    /// The parts of the steps that need most memory: those with most tokens in one part, and with most trained tokens.
    pub(crate) fn largest(&self, count: usize) -> Vec<Vec<MicroBatch>> {
        let mut all: Vec<Vec<MicroBatch>> = Vec::new();
        let mut seen = HashSet::new();
        let looked_at = self.total.min(self.per_epoch().saturating_mul(LOOKED_AT_EPOCHS));
        let mut all_seen = looked_at == self.total;
        for step in 0..looked_at {
            for part in self.step(step).0 {
                let shape = (part.ids.len(), part.targets.len(), part.segments.len());
                if seen.insert(shape) {
                    all.push(vec![part]);
                }
            }
            if seen.len() > MOST_SHAPES {
                all_seen = false;
                break;
            }
        }
        if !all_seen {
            all.push(vec![self.fullest()]);
        }
        all.sort_by_key(|parts| std::cmp::Reverse((parts[0].ids.len(), parts[0].targets.len())));
        let mut chosen: Vec<_> = all.iter().take(count).cloned().collect();
        all.sort_by_key(|parts| std::cmp::Reverse(parts[0].targets.len()));
        chosen.extend(all.into_iter().take(count));
        chosen
    }

    /// A part that no step exceeds: the longest row as often as the budget and a step allow, all of it trained.
    fn fullest(&self) -> MicroBatch {
        let Some(longest) = self.examples.iter().max_by_key(|example| example.ids.len()) else {
            return MicroBatch::default();
        };
        let count = (self.token_budget / longest.ids.len().max(1)).clamp(1, self.rows_per_step);
        let trained = vec![true; longest.ids.len()];
        MicroBatch::of(&vec![Row { ids: &longest.ids, trained: &trained, number: 0 }; count])
    }
}

/// Puts examples into rows of at most `room` tokens, each into the first row that has room left, in order.
fn pack_rows(examples: &[Example], room: usize) -> Vec<Vec<usize>> {
    // Full rows need not be looked at again: only the last few can still take something.
    const OPEN: usize = 64;
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let first = rows.len().saturating_sub(OPEN);
        let tokens = example.ids.len();
        match rows[first..].iter_mut().find(|(used, _)| used + tokens <= room) {
            Some((used, row)) => {
                *used += tokens;
                row.push(index);
            }
            None => rows.push((tokens, vec![index])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Epochs whose order is looked at for the largest parts.
const LOOKED_AT_EPOCHS: usize = 4;
/// Different parts that are looked at.
const MOST_SHAPES: usize = 4096;

impl Steps for RowSteps {
    fn step(&self, step: usize) -> (Vec<MicroBatch>, f64) {
        let numbers = self.examples_of(step);
        let epoch = step / self.per_epoch();
        let rows: Vec<Row> = numbers
            .iter()
            .map(|&row| {
                let example = &self.examples[row];
                let number = (epoch * self.examples.len() + row) as u64;
                Row { ids: &example.ids, trained: &example.trained, number }
            })
            .collect();
        let passed = (step % self.per_epoch() + 1) as f64 / self.per_epoch() as f64;
        (MicroBatch::split(&rows, self.token_budget), epoch as f64 + passed)
    }
}
