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
use crate::owners::{owners, turn_weights};
use crate::records::Record;
use crate::report::{LongRows, Origin, Report};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::truncate::{Truncation, Turn, fit};

/// One row of training.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether each token is a label: predicted from the tokens before it. The first one never is. `[tokens]`
    pub trained: Vec<bool>,
    /// How much each label counts in the loss, 0 elsewhere; `None` where each counts 1. `[tokens]`
    pub weights: Option<Vec<f32>>,
}

impl Example {
    /// A row whose labels count alike.
    pub fn new(ids: Vec<u32>, trained: Vec<bool>) -> Self {
        Self { ids, trained, weights: None }
    }

    /// A row whose tokens are labels where they have a weight. The first token has none before it and never is one.
    pub fn weighted(ids: Vec<u32>, mut weights: Vec<f32>) -> Self {
        if let Some(first) = weights.first_mut() {
            *first = 0.0;
        }
        let trained = weights.iter().map(|&weight| weight > 0.0).collect();
        let plain = weights.iter().all(|&weight| weight == 0.0 || weight == 1.0);
        Self { ids, trained, weights: (!plain).then_some(weights) }
    }

    /// The number of labels.
    pub fn trained_count(&self) -> usize {
        self.trained.iter().filter(|trained| **trained).count()
    }

    /// How much a token counts in the loss.
    pub fn weight(&self, token: usize) -> f32 {
        match &self.weights {
            Some(weights) => weights[token],
            None => f32::from(u8::from(self.trained[token])),
        }
    }

    /// Keeps the first tokens.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.ids.truncate(tokens);
        self.trained.truncate(tokens);
        self.weights.iter_mut().for_each(|weights| weights.truncate(tokens));
    }
}

/// Tokens of a row that one message wrote, or the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleSpan {
    /// Where they end; they begin where the last span ends.
    pub end: usize,
    /// Whose they are; `None` for what the template writes around messages.
    pub role: Option<Role>,
}

impl Refused {
    /// As an error at this place: the name of a dataset, and the number of the record in it, from 1.
    pub fn error(&self, (dataset, record): (&str, usize)) -> Error {
        Error::Record { dataset: dataset.to_owned(), record, line: None, problem: self.problem.clone() }
    }
}

/// Examples and their report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tokenized {
    /// The rows, in the order of the datasets.
    pub examples: Vec<Example>,
    /// Where each came from; `None` for a block of several documents.
    pub origins: Vec<Option<Origin>>,
    /// Who wrote the tokens of each row, where [`SftOptions::roles`] asks for it; else empty.
    pub roles: Vec<Vec<RoleSpan>>,
    /// Records that the template refused, in the order of the datasets: they are left out.
    pub refused: Vec<Refused>,
    /// What happened to them.
    pub report: Report,
}

/// A record that the template does not write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it came from.
    pub origin: Origin,
    /// What the template says, as a clause.
    pub problem: String,
}

impl Tokenized {
    /// Takes a row and says so, or counts it as dropped.
    pub(crate) fn push(&mut self, example: Example, origin: Option<Origin>) -> bool {
        if example.trained_count() == 0 {
            self.report.rows_dropped += 1;
            return false;
        }
        self.report.count(&example);
        self.examples.push(example);
        self.origins.push(origin);
        true
    }
}

/// LLaMA-Factory's settings of the same names, what is cut, and what counts how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SftOptions {
    /// The most tokens that a row keeps.
    pub cutoff_len: usize,
    /// What is cut of longer ones.
    pub truncation: Truncation,
    /// Whether prompts are trained too.
    pub train_on_prompt: bool,
    /// Whether only the last reply is trained.
    pub mask_history: bool,
    /// How much a message counts by its role, where its record does not say it.
    pub role_weights: Option<RoleWeights>,
    /// Whether [`Tokenized::roles`] are kept, to be shown.
    pub roles: bool,
}

/// How much the messages of a role count in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoleWeights {
    /// System messages.
    pub system: f32,
    /// The person's.
    pub user: f32,
    /// Replies.
    pub assistant: f32,
    /// What tools give back.
    pub tool: f32,
}

impl Default for RoleWeights {
    /// Replies alone.
    fn default() -> Self {
        Self { system: 0.0, user: 0.0, assistant: 1.0, tool: 0.0 }
    }
}

impl RoleWeights {
    /// That of a role.
    pub fn of(&self, role: Role) -> f32 {
        match role {
            Role::System => self.system,
            Role::User => self.user,
            Role::Assistant => self.assistant,
            Role::Tool => self.tool,
        }
    }
}

/// Tokenises conversations for `stage: sft`, in parallel, with a result that does not depend on it.
///
/// Errors: the first record, in order, that is no conversation or at which the template fails; the first that the template
/// refuses, where it refuses more than it writes; rows that are too long, where that is an error.
pub fn tokenize_sft(
    datasets: &[Dataset],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &SftOptions,
) -> Result<Tokenized, Error> {
    let mut tokenized = Tokenized::default();
    let mut long_rows = LongRows::new(options.cutoff_len, options.truncation);
    for (number, dataset) in datasets.iter().enumerate() {
        let rows = dataset.records.par_iter().map(|record| {
            let Record::Conversation(conversation) = record else {
                let problem = match record {
                    Record::Preference(_) => {
                        "it has a better and a worse reply, which stage: sft does not train; expected one reply"
                    }
                    Record::Judged(_) => "it has a verdict on its reply, which stage: sft does not train; take the key of the verdict out to train every reply",
                    _ => "a document without roles has no reply to train; use stage: pt for documents",
                };
                return Err(Error::NothingToTrain { problem: problem.to_owned() });
            };
            let encoded = encode_turns(conversation, tokenizer, template, options.mask_history)?;
            let turns = &encoded.turns;
            let owners = owners(conversation, turns, tokenizer, template, options)?;
            let weights = turn_weights(conversation, turns, &owners, options)?;
            let fitted = fit(turns, weights.as_deref(), &owners, options);
            Ok((fitted, encoded.end_tokens_added, encoded.made_ids))
        });
        let rows: Vec<Result<_, Error>> = rows.collect();
        for (index, row) in rows.into_iter().enumerate() {
            let origin = Origin { dataset: number, record: index };
            let (fitted, added, made_ids) = match row {
                Ok(row) => row,
                Err(source @ Error::Refused { .. }) => {
                    tokenized.refused.push(Refused { origin, problem: source.to_string() });
                    continue;
                }
                Err(source) => return Err(in_record(dataset, index, source)),
            };
            let Tokenized { report, .. } = &mut tokenized;
            if long_rows.keeps(report, dataset, origin, fitted.before, fitted.example.ids.len()) {
                report.replies_without_end += fitted.replies_without_end;
                report.end_tokens_added += added;
                report.rows_with_made_ids += usize::from(made_ids);
                if tokenized.push(fitted.example, Some(origin)) && options.roles {
                    tokenized.roles.push(fitted.roles);
                }
            }
        }
    }
    if let Some(first) = tokenized.refused.first()
        && tokenized.refused.len() > tokenized.examples.len()
    {
        return Err(first.error(datasets[first.origin.dataset].place(first.origin.record)));
    }
    long_rows.finish()?;
    Ok(tokenized)
}

/// Puts an error into its place.
pub(crate) fn in_record(dataset: &Dataset, index: usize, source: Error) -> Error {
    let (dataset, record) = dataset.place(index);
    Error::Conversation { dataset: dataset.to_owned(), record, problem: Box::new(source) }
}

/// The turns of a conversation, and what had to be done for them.
struct Encoded {
    turns: Vec<Turn>,
    end_tokens_added: usize,
    /// Whether calls of tools got ids.
    made_ids: bool,
}

fn encode_turns(
    conversation: &Conversation,
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    last_reply_only: bool,
) -> Result<Encoded, Error> {
    if let Some(turns) = template.named_turns(conversation, tokenizer, last_reply_only) {
        return turns.map(|(turns, end_tokens_added)| Encoded { turns, end_tokens_added, made_ids: false });
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
        turns.push(Turn { prompt: std::mem::take(&mut encoded[2 * index]), reply, end, ..Turn::default() });
    }
    let rest = encoded.swap_remove(2 * masked.replies.len());
    if !rest.is_empty() {
        turns.push(Turn { prompt: rest, ..Turn::default() });
    }
    Ok(Encoded { turns, end_tokens_added: added, made_ids: masked.made_ids })
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
    // A thought may stand before it and say the same; blanks stand behind it.
    let blanks = text.len() - text.trim_start().len();
    let found = match content.trim() {
        "" => text.find(content),
        // What closes the reply may hold a short content again.
        _ if text[blanks..].starts_with(content) => Some(blanks),
        _ => text.rfind(content),
    };
    let found = found.filter(|_| !content.is_empty());
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
