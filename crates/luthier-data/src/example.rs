//! Conversations into examples: tokens, and which of them are trained.
//!
//! Prompt and reply are encoded apart, as LLaMA-Factory does, so that no token reaches from one into the other. Every
//! reply ends with an end token that is trained: the template's own, else the tokenizer's, added and counted. What the
//! template writes after the end token and before the next prompt (a line break, often) belongs to the reply.

use rayon::prelude::*;

use crate::conversation::{Conversation, Role};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::mask::masked_text;
use crate::records::Record;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::truncate::{Truncation, Turn, fit};

/// One row of training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether each token is a label: predicted from the tokens before it. The first one never is. `[tokens]`
    pub trained: Vec<bool>,
}

impl Example {
    /// The number of labels.
    pub fn trained_count(&self) -> usize {
        self.trained.iter().filter(|trained| **trained).count()
    }
}

/// What happened to the rows, to be told before training starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that will be trained.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Their labels.
    pub trained_tokens: usize,
    /// Rows that `cutoff_len` shortened.
    pub rows_truncated: usize,
    /// Replies whose end token was cut off, or that were cut off whole: the model does not learn to end them.
    pub replies_without_end: usize,
    /// Rows that had no label left, and empty documents.
    pub rows_dropped: usize,
    /// Replies that the template did not end, to which the tokenizer's end token was added.
    pub end_tokens_added: usize,
}

/// Where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The dataset's place among those that were given.
    pub dataset: usize,
    /// The record's place in it, from 0.
    pub record: usize,
}

/// Examples and their report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// The rows, in the order of the datasets.
    pub examples: Vec<Example>,
    /// Where each came from; `None` for a block of several documents.
    pub origins: Vec<Option<Origin>>,
    /// What happened to them.
    pub report: Report,
}

impl Tokenized {
    /// Takes a row, or counts it as dropped.
    pub(crate) fn push(&mut self, example: Example, origin: Option<Origin>) {
        let trained = example.trained_count();
        if trained == 0 {
            self.report.rows_dropped += 1;
            return;
        }
        self.report.rows += 1;
        self.report.tokens += example.ids.len();
        self.report.trained_tokens += trained;
        self.examples.push(example);
        self.origins.push(origin);
    }
}

/// LLaMA-Factory's settings of the same names, and which end is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SftOptions {
    /// The most tokens that a row keeps.
    pub cutoff_len: usize,
    /// What is cut of longer ones.
    pub truncation: Truncation,
    /// Whether prompts are trained too.
    pub train_on_prompt: bool,
    /// Whether only the last reply is trained.
    pub mask_history: bool,
}

/// Tokenises conversations for `stage: sft`, in parallel, with a result that does not depend on it.
///
/// Errors: the first record, in order, that is no conversation or that the template refuses.
pub fn tokenize_sft(
    datasets: &[Dataset],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &SftOptions,
) -> Result<Tokenized, Error> {
    let mut tokenized = Tokenized::default();
    for (number, dataset) in datasets.iter().enumerate() {
        let rows = dataset.records.par_iter().map(|record| {
            let Record::Conversation(conversation) = record else {
                let problem = "a document without roles has no reply to train; use stage: pt for documents".to_owned();
                return Err(Error::NothingToTrain { problem });
            };
            let (turns, added) = encode_turns(conversation, tokenizer, template, options.mask_history)?;
            Ok((fit(&turns, options), added))
        });
        let rows: Vec<Result<_, Error>> = rows.collect();
        for (index, row) in rows.into_iter().enumerate() {
            let (fitted, added) = row.map_err(|source| in_record(dataset, index, source))?;
            tokenized.report.rows_truncated += usize::from(fitted.truncated);
            tokenized.report.replies_without_end += fitted.replies_without_end;
            tokenized.report.end_tokens_added += added;
            tokenized.push(fitted.example, Some(Origin { dataset: number, record: index }));
        }
    }
    Ok(tokenized)
}

/// Puts an error into its place.
pub(crate) fn in_record(dataset: &Dataset, index: usize, source: Error) -> Error {
    Error::Conversation { dataset: dataset.name.clone(), record: index + 1, problem: Box::new(source) }
}

/// The turns of a conversation, and the number of end tokens that had to be added.
fn encode_turns(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    last_reply_only: bool,
) -> Result<(Vec<Turn>, usize), Error> {
    if let Some(turns) = template.named_turns(conversation, tokenizer, last_reply_only) {
        return turns;
    }
    let masked = masked_text(template, conversation)?;
    let mut pieces = Vec::with_capacity(2 * masked.replies.len() + 1);
    let mut at = 0;
    for reply in &masked.replies {
        pieces.extend([&masked.text[at..reply.start], &masked.text[reply.clone()]]);
        at = reply.end;
    }
    pieces.extend([&masked.text[at..], ""]);
    let mut encoded = tokenizer.encode_pieces(&pieces)?;
    let mut contents = conversation.messages.iter().filter(|message| message.role == Role::Assistant);
    let mut added = 0;
    let mut turns = Vec::with_capacity(masked.replies.len() + 1);
    for index in 0..masked.replies.len() {
        let content = contents.next().map_or("", |message| message.content.as_str());
        let mut reply = std::mem::take(&mut encoded[2 * index + 1]);
        let end = match end_position(&reply, tokenizer)? {
            Some(end) => end,
            None => {
                let next = &mut encoded[2 * index + 2];
                if next.first().is_some_and(|id| tokenizer.end_ids().contains(id)) {
                    reply.push(next.remove(0)); // a generation block that closes before the end token
                    reply.len() - 1
                } else {
                    added += 1;
                    add_end(&mut reply, pieces[2 * index + 1], content, tokenizer)?
                }
            }
        };
        turns.push(Turn { prompt: std::mem::take(&mut encoded[2 * index]), reply, end });
    }
    let rest = encoded.swap_remove(2 * masked.replies.len());
    if !rest.is_empty() {
        turns.push(Turn { prompt: rest, ..Turn::default() });
    }
    Ok((turns, added))
}

/// The position of the special token that ends a reply: only blanks may follow it.
fn end_position(reply: &[u32], tokenizer: &Tokenizer) -> Result<Option<usize>, Error> {
    for (position, id) in reply.iter().enumerate().rev() {
        if tokenizer.is_special(*id) || tokenizer.end_ids().contains(id) {
            return Ok(Some(position));
        }
        if !tokenizer.decode(&[*id])?.trim().is_empty() {
            break;
        }
    }
    Ok(None)
}

/// Puts the tokenizer's end token right after the content of a reply, before what the template writes behind it.
fn add_end(reply: &mut Vec<u32>, text: &str, content: &str, tokenizer: &Tokenizer) -> Result<usize, Error> {
    let Some(end_id) = tokenizer.end_ids().first() else {
        let problem = "the template does not end replies with an end token, and the tokenizer names none".to_owned();
        return Err(Error::Tokenizer { problem });
    };
    let found = text.rfind(content).filter(|_| !content.is_empty());
    let at = found.map_or(text.trim_end().len(), |at| at + content.len());
    if at == text.len() {
        reply.push(*end_id);
        return Ok(reply.len() - 1);
    }
    // The text before is always there: a prompt. A blank stands in for it, so that the pieces go on from it.
    let mut parts = tokenizer.encode_pieces(&["a", &text[..at], &text[at..]])?;
    let behind = parts.pop().unwrap_or_default();
    *reply = parts.pop().unwrap_or_default();
    reply.push(*end_id);
    let end = reply.len() - 1;
    reply.extend(behind);
    Ok(end)
}
