//! From datasets to the steps of a run: rows are tokenised, put in order, and laid into parts under the token budget.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use luthier_data::{
    Bins, BrokenRecord, CutRow, Example, Origin, PtOptions, Record, Report, SftOptions, Tokenized, Tokenizer,
    first_fit_decreasing, grouped_by_length, permutation, take_tokens, tokenize_pt, tokenize_sft,
};
use luthier_train::{MicroBatch, Row, Steps};
use sha2::{Digest, Sha256};

use crate::config::{BatchSettings, DataSettings, RowOrder, RunLength, Scored, Span, Stage};
use crate::datasets::{self, Opened};
use crate::model::Model;
use crate::wording::{count, thousands};

/// Datasets as rows of tokens, and what made them.
pub(crate) struct Rows {
    pub(crate) tokenized: Tokenized,
    /// The files of the datasets.
    pub(crate) files: Vec<PathBuf>,
    /// What was passed over, or guessed.
    pub(crate) notes: Vec<String>,
    /// What could not be read, with the name of its dataset.
    pub(crate) broken: Vec<(String, BrokenRecord)>,
    /// `None` where the records were tokens already.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// The chat template, where one was used.
    pub(crate) template: Option<UsedTemplate>,
}

/// The chat template that wrote the rows.
pub(crate) struct UsedTemplate {
    pub(crate) name: String,
    /// Its Jinja source, where it was named and the model's own is missing or writes something else: what is saved has it.
    pub(crate) replacement: Option<String>,
}

impl Rows {
    /// Rows that no file of their own made.
    pub(crate) fn of(tokenized: Tokenized) -> Self {
        Self { tokenized, files: Vec::new(), notes: Vec::new(), broken: Vec::new(), tokenizer: None, template: None }
    }
}

/// What is wanted of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To train or to evaluate on.
    Tokens,
    /// To be shown: who wrote each token too.
    Roles,
}

/// Reads and tokenises datasets, those of a training or those to evaluate on, as a configuration says.
///
/// An adapter that is trained on brings the chat template that it was trained with.
pub(crate) fn read(
    model: &Model,
    adapter: Option<&Path>,
    stage: Stage,
    names: &[String],
    settings: &DataSettings,
    wanted: Wanted,
) -> anyhow::Result<Rows> {
    let Opened { datasets, files, mut notes, mut broken } = datasets::open(names, settings)?;
    let places: Vec<Vec<Origin>> = datasets.iter().map(|dataset| dataset.origins.clone()).collect();
    let mixed = datasets.len() < names.len();
    let mut records = datasets.iter().flat_map(|dataset| &dataset.records).peekable();
    if records.peek().is_some() && records.all(|record| matches!(record, Record::Tokens(_))) {
        notes.push("the records are tokens already: template, train_on_prompt, mask_history have no effect".to_owned());
        if settings.role_weights.is_some() {
            notes.push("the records are tokens already: role_weights has no effect, their own weights have".to_owned());
        }
        if stage == Stage::PreTraining && settings.packing {
            notes.push("the records are tokens already: they are not packed, each is a row".to_owned());
        }
        let mut tokenized = take_tokens(datasets, settings.cutoff_len, settings.truncation)?;
        datasets::name_places(&mut tokenized, &places, mixed);
        let files = files.concat();
        return Ok(Rows { tokenized, files, notes, broken, tokenizer: None, template: None });
    }
    let tokenizer = model.tokenizer_with(adapter)?;
    let mut named = None;
    let mut tokenized = match stage {
        Stage::PreTraining => tokenize_pt(
            &datasets,
            &tokenizer,
            &PtOptions { cutoff_len: settings.cutoff_len, packing: settings.packing, truncation: settings.truncation },
        )?,
        Stage::SupervisedFineTuning => {
            let template = model.template(&settings.template, &tokenizer)?;
            let options = SftOptions {
                cutoff_len: settings.cutoff_len,
                truncation: settings.truncation,
                train_on_prompt: settings.scored == Scored::Everything,
                mask_history: settings.scored == Scored::LastReply,
                role_weights: settings.role_weights,
                roles: wanted == Wanted::Roles,
            };
            notes.extend(template.notes().iter().cloned());
            let replacement = template.replaces_own().then(|| template.jinja_source());
            if replacement.is_some() {
                notes.push(format!("what is saved gets the template {} as chat_template.jinja", template.name()));
            }
            named = Some(UsedTemplate { name: template.name().to_owned(), replacement });
            tokenize_sft(&datasets, &tokenizer, &template, &options)?
        }
    };
    datasets::name_places(&mut tokenized, &places, mixed);
    let refused = datasets::set_refused_aside(&tokenized, names, &files, settings.strict)?;
    broken.extend(refused.broken);
    notes.extend(refused.notes);
    Ok(Rows { tokenized, files: files.concat(), notes, broken, tokenizer: Some(tokenizer), template: named })
}

/// What of the rows was cut, dropped, added or weighed, a sentence each.
/// `datasets` are the names of those that the rows came from.
pub(crate) fn losses(report: &Report, datasets: &[String], cutoff_len: usize) -> Vec<String> {
    let counted = [
        (report.rows_truncated, format!("rows were longer than cutoff_len {cutoff_len} and cut")),
        (report.rows_too_long, format!("rows were longer than cutoff_len {cutoff_len} and left out")),
        (report.replies_without_end, "replies lost their end and do not teach the model to stop".to_owned()),
        (report.rows_dropped, "rows were dropped: they have no token to train".to_owned()),
        (
            report.rows_with_made_ids,
            "rows got ids for their calls of tools: the template refuses calls without an id of nine letters or digits"
                .to_owned(),
        ),
        (report.end_tokens_added, "replies got the tokenizer's end token: the template writes none".to_owned()),
        (
            report.weighted_tokens,
            format!(
                "of {} trained tokens have a weight other than 1; all count as {:.1} together",
                report.trained_tokens, report.weight
            ),
        ),
    ];
    let mut sentences: Vec<String> =
        counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !report.worst.is_empty() {
        sentences.push(format!("those that lost most: {}", worst(report, datasets).join(", ")));
    }
    sentences
}

/// The rows that lost most, the worst first: `faq record 3 (812 tokens to 512)`; a dataset is named where it is another.
fn worst(report: &Report, datasets: &[String]) -> Vec<String> {
    let mut last = None;
    let name = |row: &CutRow| {
        let dataset = match last.replace(row.origin.dataset) == Some(row.origin.dataset) {
            true => String::new(),
            false => datasets.get(row.origin.dataset).map_or_else(String::new, |name| format!("{name} ")),
        };
        let (record, before) = (row.origin.record + 1, thousands(row.before));
        match row.after {
            0 => format!("{dataset}record {record} ({before} tokens)"),
            after => format!("{dataset}record {record} ({before} tokens to {})", thousands(after)),
        }
    };
    report.worst.iter().map(name).collect()
}

/// Sets rows aside to evaluate on: a share of them, or so many, drawn with the seed. Both parts keep their order.
///
/// # Errors
/// When nothing would be left to train or to evaluate on.
pub(crate) fn set_aside(tokenized: Tokenized, size: Span, seed: u64) -> anyhow::Result<(Tokenized, Tokenized)> {
    let rows = tokenized.examples.len();
    let wanted = size.steps(rows);
    if wanted >= rows {
        anyhow::bail!("val_size: {wanted} of {rows} rows would be set aside, and none left to train; expected fewer");
    }
    // An epoch that no run reaches: its order is independent of those that are trained.
    let aside: HashSet<usize> = permutation(seed, u64::MAX, rows).into_iter().take(wanted).collect();
    let (mut training, mut evaluation) = (Tokenized::default(), Tokenized::default());
    training.report =
        Report { rows: 0, tokens: 0, trained_tokens: 0, weighted_tokens: 0, weight: 0.0, ..tokenized.report };
    for (row, (example, origin)) in tokenized.examples.into_iter().zip(tokenized.origins).enumerate() {
        let part = if aside.contains(&row) { &mut evaluation } else { &mut training };
        part.report.count(&example);
        part.examples.push(example);
        part.origins.push(origin);
    }
    Ok((training, evaluation))
}

/// The steps of a run, each a function of its number.
pub(crate) struct RowSteps {
    examples: Vec<Example>,
    origins: Vec<Option<Origin>>,
    datasets: Vec<String>,
    evaluation: Vec<Example>,
    /// The examples of each row, where several are packed; else each is a row.
    bins: Option<Bins>,
    /// Tokens that a row may have, where several are packed.
    room: Option<usize>,
    rows_per_step: usize,
    seed: u64,
    order: RowOrder,
    kept_order: Mutex<Option<(usize, Arc<[usize]>)>>,
    accumulation: usize,
    length: RunLength,
    token_budget: AtomicUsize,
    pub(crate) total: usize,
}

/// How rows become steps.
pub(crate) struct Order<'s> {
    pub(crate) batch: &'s BatchSettings,
    pub(crate) seed: u64,
    pub(crate) order: RowOrder,
    /// Rows are filled up to so many tokens.
    pub(crate) pack: Option<usize>,
}

impl RowSteps {
    /// `tokenized` must not be empty; `datasets` are the names of those that it came from.
    pub(crate) fn new(tokenized: Tokenized, datasets: &[String], evaluation: Vec<Example>, order: &Order) -> Self {
        let Tokenized { examples, origins, .. } = tokenized;
        let bins = order.pack.map(|room| {
            let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
            // An epoch that no run reaches, and that sets nothing aside.
            let equal_ones = match order.order {
                RowOrder::AsGiven => (0..lengths.len()).collect(),
                RowOrder::Shuffled | RowOrder::ByLength => permutation(order.seed, u64::MAX - 1, lengths.len()),
            };
            first_fit_decreasing(&lengths, room, &equal_ones)
        });
        let rows = bins.as_ref().map_or(examples.len(), Bins::len);
        let batch = order.batch;
        let mut steps = Self {
            examples,
            origins,
            datasets: datasets.to_vec(),
            evaluation,
            bins,
            room: order.pack,
            rows_per_step: 1,
            seed: order.seed,
            order: order.order,
            kept_order: Mutex::default(),
            accumulation: batch.accumulation,
            length: batch.length,
            token_budget: AtomicUsize::new(usize::MAX),
            total: 1,
        };
        steps.set_batch_rows(batch.rows.unwrap_or(1).min(rows.max(1)));
        steps
    }

    /// Makes batches of so many rows.
    pub(crate) fn set_batch_rows(&mut self, rows: usize) {
        self.rows_per_step = rows.saturating_mul(self.accumulation).clamp(1, self.rows().max(1));
        let per_epoch = self.rows().div_ceil(self.rows_per_step);
        self.total = match self.length {
            RunLength::Steps(steps) => steps,
            RunLength::Epochs(epochs) => ((epochs * per_epoch as f64).ceil() as usize).max(1),
        };
        *self.kept_order.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The most rows of a batch that leave so many steps to an epoch.
    pub(crate) fn most_batch_rows(&self, steps: usize) -> usize {
        (self.rows() / (steps * self.accumulation).max(1)).max(1)
    }

    /// Tokens of a part.
    pub(crate) fn token_budget(&self) -> usize {
        self.token_budget.load(Ordering::Relaxed)
    }

    pub(crate) fn set_token_budget(&self, tokens: usize) {
        self.token_budget.store(tokens, Ordering::Relaxed);
    }

    /// A hash of all that the rows of each step depend on: a run can only be continued where it is the same.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {:?} {}\n", self.seed, self.order, self.rows_per_step));
        for row in self.bins.iter().flat_map(|bins| (0..bins.len()).map(|row| bins.row(row))) {
            hash.update((row.len() as u64).to_le_bytes());
            row.iter().for_each(|&example| hash.update((example as u64).to_le_bytes()));
        }
        for example in self.examples.iter().chain(&self.evaluation) {
            hash.update((example.ids.len() as u64).to_le_bytes());
            example.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            example.trained.iter().for_each(|&trained| hash.update([u8::from(trained)]));
            example.weights.iter().flatten().for_each(|weight| hash.update(weight.to_le_bytes()));
        }
        luthier_files::hexadecimal(hash)
    }

    /// The first row that is trained.
    pub(crate) fn first(&self) -> &Example {
        &self.examples[self.examples_of(0).first().copied().unwrap_or(0)]
    }

    /// Rows, tokens and trained tokens of an epoch.
    pub(crate) fn totals(&self) -> [usize; 3] {
        totals(&self.examples)
    }

    /// Rows, tokens and scored tokens of the evaluation.
    pub(crate) fn evaluation_totals(&self) -> [usize; 3] {
        totals(&self.evaluation)
    }

    /// Rows that so many steps train; each epoch's last step has what is left.
    pub(crate) fn rows_until(&self, step: usize) -> usize {
        let (epochs, steps) = (step / self.per_epoch(), step % self.per_epoch());
        epochs * self.rows() + (steps * self.rows_per_step).min(self.rows())
    }

    /// The rows of an epoch.
    fn rows(&self) -> usize {
        self.bins.as_ref().map_or(self.examples.len(), Bins::len)
    }

    /// How full rows are that several records share, where they do: a sentence.
    pub(crate) fn packing(&self) -> Option<String> {
        let (bins, room) = (self.bins.as_ref()?, self.room?);
        let [records, tokens, _] = self.totals();
        Some(filled(records, tokens, bins, room))
    }

    /// The rows of a step.
    pub(crate) fn rows_per_step(&self) -> usize {
        self.rows_per_step
    }

    /// The longest row.
    pub(crate) fn longest_row(&self) -> usize {
        self.examples.iter().chain(&self.evaluation).map(|example| example.ids.len()).max().unwrap_or(0)
    }

    fn examples_of(&self, step: usize) -> Vec<usize> {
        let (epoch, index) = (step / self.per_epoch(), step % self.per_epoch());
        let order = self.order(epoch);
        let begin = index * self.rows_per_step;
        let rows = &order[begin..(begin + self.rows_per_step).min(order.len())];
        match &self.bins {
            None => rows.to_vec(),
            Some(bins) => rows.iter().flat_map(|&row| bins.row(row).iter().copied()).collect(),
        }
    }

    /// The rows of an epoch in its order. The last one is kept: to sort a million rows anew for every step takes longer than
    /// a small step.
    fn order(&self, epoch: usize) -> Arc<[usize]> {
        let epoch = if self.order == RowOrder::AsGiven { 0 } else { epoch };
        let mut kept = self.kept_order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, order)) if *of == epoch => Arc::clone(order),
            _ => {
                let order: Arc<[usize]> = self.new_order(epoch as u64).into();
                *kept = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    fn new_order(&self, epoch: u64) -> Vec<usize> {
        let length = |example: usize| self.examples[example].ids.len();
        match self.order {
            RowOrder::AsGiven => (0..self.rows()).collect(),
            RowOrder::Shuffled => permutation(self.seed, epoch, self.rows()),
            RowOrder::ByLength => {
                let lengths: Vec<usize> = match &self.bins {
                    None => (0..self.rows()).map(length).collect(),
                    Some(bins) => {
                        (0..self.rows()).map(|row| bins.row(row).iter().map(|&member| length(member)).sum()).collect()
                    }
                };
                grouped_by_length(self.seed, epoch, &lengths, self.rows_per_step)
            }
        }
    }

    /// The parts of the evaluation that need most memory.
    pub(crate) fn largest_evaluation(&self) -> Vec<MicroBatch> {
        let mut parts = self.evaluation();
        let by_tokens = parts.iter().max_by_key(|part| part.ids.len()).cloned();
        let by_targets = parts.drain(..).max_by_key(|part| part.targets.len());
        by_tokens.into_iter().chain(by_targets).collect()
    }

    /// The parts of the steps that need most memory: those with most tokens in one part, and with most trained tokens.
    pub(crate) fn largest(&self, count: usize) -> Vec<MicroBatch> {
        let sizes: Vec<(usize, usize)> =
            self.examples.iter().map(|example| (example.ids.len(), example.trained_count())).collect();
        // Lengths alone say how large a part is; the first part of each size stands for all of that size.
        let mut sized: HashMap<(usize, usize, usize), Vec<usize>> = HashMap::new();
        let looked_at = self.total.min((MOST_ROWS_LOOKED_AT / self.rows_per_step).max(self.per_epoch()));
        for step in 0..looked_at {
            let examples = self.examples_of(step);
            let lengths: Vec<usize> = examples.iter().map(|&example| sizes[example].0).collect();
            for part in MicroBatch::cuts(&lengths, self.token_budget()) {
                let part = &examples[part];
                let trained = part.iter().map(|&example| sizes[example].1).sum();
                let tokens = part.iter().map(|&example| sizes[example].0).sum();
                sized.entry((tokens, trained, part.len())).or_insert_with(|| part.to_vec());
            }
        }
        let mut sized: Vec<_> = sized.into_iter().collect();
        sized.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        let most_tokens = sized.iter().take(count).cloned().collect::<Vec<_>>();
        sized.sort_by_key(|((_, trained, _), _)| std::cmp::Reverse(*trained));
        let chosen = most_tokens.into_iter().chain(sized.into_iter().take(count));
        let mut parts: Vec<MicroBatch> = chosen.map(|(_, examples)| self.part(&examples)).collect();
        if looked_at < self.total {
            parts.push(self.fullest());
        }
        parts
    }

    fn part(&self, examples: &[usize]) -> MicroBatch {
        let rows: Vec<Row> = examples.iter().map(|&example| row_of(&self.examples[example], 0)).collect();
        MicroBatch::of(&rows)
    }

    /// A part that no step exceeds: the longest row as often as the budget and a step allow, all of it trained.
    pub(crate) fn fullest(&self) -> MicroBatch {
        let Some(longest) = self.examples.iter().max_by_key(|example| example.ids.len()) else {
            return MicroBatch::default();
        };
        let length = longest.ids.len().max(1);
        let most = self.rows_per_step.saturating_mul(self.room.unwrap_or(0).div_ceil(length).max(1));
        let count = (self.token_budget() / length).clamp(1, most);
        let trained = vec![true; longest.ids.len()];
        MicroBatch::of(&vec![Row::new(&longest.ids, &trained, 0); count])
    }
}

/// Records in rows that are packed: `packing: 1,090 records in 212 rows of 2,048 tokens, 99.4 % filled`.
fn filled(records: usize, tokens: usize, bins: &Bins, room: usize) -> String {
    let share = 100.0 * tokens as f64 / (bins.len() * room).max(1) as f64;
    let (records, rows, room) = (count(records, "record"), count(bins.len(), "row"), thousands(room));
    format!("packing: {records} in {rows} of {room} tokens, {share:.1} % filled")
}

/// The same for rows that are only shown.
pub(crate) fn packing(examples: &[Example], room: usize) -> String {
    let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    // Which of equal ones goes where does not matter for their number.
    let order: Vec<usize> = (0..lengths.len()).collect();
    filled(lengths.len(), lengths.iter().sum(), &first_fit_decreasing(&lengths, room, &order), room)
}

fn totals(examples: &[Example]) -> [usize; 3] {
    let tokens = examples.iter().map(|example| example.ids.len()).sum();
    [examples.len(), tokens, examples.iter().map(Example::trained_count).sum()]
}

/// Rows of all epochs that are looked at for the largest parts, or those of one epoch where it has more.
const MOST_ROWS_LOOKED_AT: usize = 1 << 20;

fn row_of(example: &Example, number: u64) -> Row<'_> {
    Row { weights: example.weights.as_deref(), ..Row::new(&example.ids, &example.trained, number) }
}

impl Steps for RowSteps {
    fn step(&self, step: usize) -> (Vec<MicroBatch>, f64) {
        let numbers = self.examples_of(step);
        let epoch = step / self.per_epoch();
        let rows: Vec<Row> = numbers
            .iter()
            .map(|&row| row_of(&self.examples[row], (epoch * self.examples.len() + row) as u64))
            .collect();
        let passed = (step % self.per_epoch() + 1) as f64 / self.per_epoch() as f64;
        (MicroBatch::split(&rows, self.token_budget()), epoch as f64 + passed)
    }

    fn per_epoch(&self) -> usize {
        self.rows().div_ceil(self.rows_per_step)
    }

    fn evaluation(&self) -> Vec<MicroBatch> {
        let rows: Vec<Row> = self.evaluation.iter().map(|example| row_of(example, 0)).collect();
        MicroBatch::split(&rows, self.token_budget())
    }

    fn halve_budget(&self) -> Option<usize> {
        // The largest part may be smaller than the budget allows.
        let largest = self.fullest().ids.len().min(self.token_budget());
        let longest = self.longest_row();
        let halved = (largest / 2).max(longest);
        (halved < largest).then(|| {
            self.set_token_budget(halved);
            halved
        })
    }

    fn names(&self, step: usize) -> String {
        const MOST: usize = 16;
        let rows = self.examples_of(step);
        let name = |&row: &usize| match self.origins[row] {
            Some(Origin { dataset, record }) => {
                let dataset = self.datasets.get(dataset).map_or("", String::as_str);
                format!("{dataset} record {}", record + 1)
            }
            None => format!("block {}", row + 1),
        };
        let named: Vec<String> = rows.iter().take(MOST).map(name).collect();
        let more = rows.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", named.join(", "))
    }
}
