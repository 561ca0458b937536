//! What an export did to the numbers: the exported files are loaded again, and the same texts go through the base with its
//! adapter unmerged and through what was written. Both are computed in f32, so that what differs is what the files store.

use anyhow::Context;
use luthier_data::{Message, Role, Specials, Tokenizer};
use luthier_model::{Decoder, most_likely};
use luthier_tensor::{Device, Precision, Segment, Tape};

use crate::model::Model;

/// The texts, of different kinds.
const PROMPTS: &str = include_str!("prompts.json");
/// Tokens of a text that go through the models.
const MOST_TOKENS: usize = 256;

/// Token rows to compare on.
pub(crate) struct Prompts {
    pub(crate) rows: Vec<Vec<u32>>,
    /// How the texts were made tokens, as the end of a sentence.
    pub(crate) how: &'static str,
    pub(crate) has_tokenizer: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Replay {
    pub(crate) prompts: usize,
    pub(crate) positions: usize,
    /// The largest difference of two logits.
    pub(crate) largest_difference: f64,
    /// Positions at which both find the same token the most likely.
    pub(crate) agreeing: usize,
    pub(crate) perplexity_before: f64,
    pub(crate) perplexity_after: f64,
}

impl Prompts {
    /// The built-in texts in tokens; without a tokenizer, rows of arbitrary tokens.
    pub(crate) fn new(model: &Model, tokenizer: Option<&Tokenizer>, named: Option<&str>) -> anyhow::Result<Self> {
        let decoder = &model.checkpoint.model.decoder;
        let longest = decoder.max_positions.unwrap_or(MOST_TOKENS).min(MOST_TOKENS);
        let Some(tokenizer) = tokenizer else {
            let row = |number: usize| -> Vec<u32> {
                let id = |place: usize| (number * 7919 + place * 104_729 + 1) * 31 % decoder.vocabulary_size;
                (0..longest.min(24)).map(|place| id(place) as u32).collect()
            };
            let rows = (0..16).map(row).collect();
            return Ok(Self { rows, how: "of arbitrary tokens, as there is no tokenizer", has_tokenizer: false });
        };
        let texts: Vec<String> = serde_json::from_str(PROMPTS).context("the built-in prompts")?;
        let has = named.is_some() || tokenizer.chat_template().is_some();
        let template = has.then(|| model.template(named, tokenizer)).transpose()?;
        let mut rows = Vec::new();
        for text in texts {
            let mut ids = match &template {
                Some(template) => {
                    let rendered = template.render(&[Message::new(Role::User, text)], true)?;
                    tokenizer.encode(&rendered.text, Specials::None)?
                }
                None => tokenizer.encode(&text, Specials::Add)?,
            };
            ids.truncate(longest);
            if let Some(id) = ids.iter().find(|id| **id as usize >= decoder.vocabulary_size) {
                let known = decoder.vocabulary_size;
                anyhow::bail!(
                    "the tokenizer gives token {id}, but the model knows {known}; it belongs to another model"
                );
            }
            rows.push(ids);
        }
        rows.retain(|ids| ids.len() > 1);
        let how = if template.is_some() { "through the chat template" } else { "as plain text" };
        Ok(Self { rows, how, has_tokenizer: true })
    }
}

impl Replay {
    /// Runs both models over the rows.
    pub(crate) fn run(device: &Device, before: &Decoder, after: &Decoder, prompts: &Prompts) -> Self {
        let mut replay = Self { prompts: prompts.rows.len(), ..Self::default() };
        let (mut lost_before, mut lost_after, mut predicted) = (0.0f64, 0.0f64, 0usize);
        for ids in &prompts.rows {
            let (one, other) = (logits(device, before, ids), logits(device, after, ids));
            let width = one.len() / ids.len();
            for (place, (one, other)) in one.chunks_exact(width).zip(other.chunks_exact(width)).enumerate() {
                replay.positions += 1;
                for (a, b) in one.iter().zip(other) {
                    // A number that is none differs without bound.
                    let difference = f64::from((a - b).abs());
                    let difference = if difference.is_nan() { f64::INFINITY } else { difference };
                    replay.largest_difference = replay.largest_difference.max(difference);
                }
                replay.agreeing += usize::from(most_likely(one) == most_likely(other));
                if let Some(next) = ids.get(place + 1) {
                    lost_before += surprise(one, *next);
                    lost_after += surprise(other, *next);
                    predicted += 1;
                }
            }
        }
        let perplexity = |lost: f64| (lost / predicted.max(1) as f64).exp();
        (replay.perplexity_before, replay.perplexity_after) = (perplexity(lost_before), perplexity(lost_after));
        replay
    }

    /// Share of the positions at which both find the same token the most likely, in percent.
    pub(crate) fn agreement_percent(&self) -> f64 {
        100.0 * self.agreeing as f64 / self.positions.max(1) as f64
    }

    /// The numbers, a line each: what they are, and their values.
    pub(crate) fn lines(&self) -> [(&'static str, String); 3] {
        [
            ("largest logit difference", small(self.largest_difference)),
            (
                "most likely token agrees",
                format!("{:.2} % ({} of {} positions)", self.agreement_percent(), self.agreeing, self.positions),
            ),
            ("perplexity before, after", format!("{:.4}, {:.4}", self.perplexity_before, self.perplexity_after)),
        ]
    }
}

/// The logits after each token of a row: `ids.len()` rows of `vocabulary` numbers, computed in f32.
pub(crate) fn logits(device: &Device, decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let mut tape = Tape::without_gradients(device, Precision::F32);
    let inputs = decoder.inputs(device, ids, vec![Segment::alone(0..ids.len())]);
    let hidden = decoder.hidden(&mut tape, &inputs, 0);
    let places: Vec<u32> = (0..ids.len() as u32).collect();
    let logits = tape.logits(&hidden, &decoder.head_options(false), &device.upload_ids(&places));
    device.download(&logits)
}

/// A difference: as a decimal where that can be read.
fn small(number: f64) -> String {
    if number == 0.0 || number >= 1e-3 { format!("{number:.4}") } else { format!("{number:.1e}") }
}

/// Minus the log-probability of a token.
fn surprise(logits: &[f32], id: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(logits[id as usize] - largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_sixteen_prompts_and_no_two_are_the_same() {
        let texts: std::collections::BTreeSet<String> = serde_json::from_str(PROMPTS).expect("JSON");
        assert_eq!(texts.len(), 16);
    }

    #[test]
    fn a_surprise_is_minus_the_log_probability() {
        assert!((surprise(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-12);
        assert!(surprise(&[1000.0, -1000.0], 0).abs() < 1e-12);
    }
}
