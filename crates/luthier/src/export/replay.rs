//! What an export did to the numbers: the exported files are loaded again, and the same texts go through the base with its
//! adapter unmerged and through what was written. Both are computed in f32, so that what differs is what the files store.

use anyhow::Context;
use luthier_data::{Message, Role, Specials, Tokenizer};
use luthier_model::{Decoder, most_likely};
use luthier_tensor::{Device, Precision, Segment, Tape};

use crate::config::TemplateSettings;
use crate::model::Model;
use crate::signals;

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
    /// Why the model's chat template was not used, as a sentence.
    pub(crate) note: Option<String>,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Replay {
    pub(crate) prompts: usize,
    pub(crate) positions: usize,
    /// The largest difference of two logits.
    pub(crate) largest_difference: f64,
    /// The mean of the differences of all logits.
    pub(crate) mean_difference: f64,
    /// The same between the base alone and the base with its adapter, where there is one.
    pub(crate) mean_by_adapter: Option<f64>,
    /// Positions at which both find the same token the most likely.
    pub(crate) agreeing: usize,
    /// Positions with a logit that is no finite number: of the model before, and of the files. They agree with nothing.
    pub(crate) broken: [usize; 2],
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
            let rows = (0..32).map(row).collect();
            let how = "of arbitrary tokens, as there is no tokenizer";
            return Ok(Self { rows, how, has_tokenizer: false, note: None });
        };
        let texts: Vec<String> = serde_json::from_str(PROMPTS).context("the built-in prompts")?;
        let (in_template, how, note) = match (named, tokenizer.chat_template()) {
            (None, None) => (None, "as plain text", None),
            _ => match rendered(model, tokenizer, named, &texts) {
                Ok(ids) => (Some(ids), "through the chat template", None),
                // It was asked for, and what cannot be is an error.
                Err(error) if named.is_some() => return Err(error),
                Err(error) => {
                    let note =
                        format!("the chat template is kept as it is, and the replay takes plain text: {error:#}");
                    (None, "as plain text", Some(note))
                }
            },
        };
        let plain = || texts.iter().map(|text| Ok(tokenizer.encode(text, Specials::Add)?)).collect();
        let mut rows = Vec::new();
        for mut ids in in_template.map_or_else(plain, anyhow::Ok)? {
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
        Ok(Self { rows, how, has_tokenizer: true, note })
    }
}

/// The texts as the chat template writes them, in tokens.
fn rendered(
    model: &Model,
    tokenizer: &Tokenizer,
    named: Option<&str>,
    texts: &[String],
) -> anyhow::Result<Vec<Vec<u32>>> {
    let template = model.template(&TemplateSettings::named(named), tokenizer)?;
    let ids = |text: &String| Ok(template.prompt_ids(&[Message::new(Role::User, text.as_str())], &[], tokenizer)?);
    texts.iter().map(ids).collect()
}

impl Replay {
    /// Runs the model as it was trained, the same without its adapter, and the files over the rows.
    ///
    /// # Errors
    /// When it is to stop.
    pub(crate) fn run(
        device: &Device,
        (before, untuned): (&Decoder, Option<&Decoder>),
        after: &Decoder,
        prompts: &Prompts,
    ) -> std::io::Result<Self> {
        let mut replay = Self { prompts: prompts.rows.len(), ..Self::default() };
        let (mut lost_before, mut lost_after, mut predicted) = (0.0f64, 0.0f64, 0usize);
        let (mut far, mut far_by_adapter, mut numbers) = (0.0f64, 0.0f64, 0usize);
        for ids in &prompts.rows {
            signals::check()?;
            let (one, other) = (logits(device, before, ids), logits(device, after, ids));
            far += total_difference(&one, &other);
            if let Some(untuned) = untuned {
                far_by_adapter += total_difference(&one, &logits(device, untuned, ids));
            }
            numbers += one.len();
            let width = one.len() / ids.len();
            for (place, (one, other)) in one.chunks_exact(width).zip(other.chunks_exact(width)).enumerate() {
                replay.compare(one, other);
                if let Some(next) = ids.get(place + 1) {
                    lost_before += surprise(one, *next);
                    lost_after += surprise(other, *next);
                    predicted += 1;
                }
            }
        }
        let mean = |sum: f64| sum / numbers.max(1) as f64;
        (replay.mean_difference, replay.mean_by_adapter) = (mean(far), untuned.map(|_| mean(far_by_adapter)));
        let perplexity = |lost: f64| (lost / predicted.max(1) as f64).exp();
        (replay.perplexity_before, replay.perplexity_after) = (perplexity(lost_before), perplexity(lost_after));
        Ok(replay)
    }

    /// What the adapter changes in the mean, where storing changes no less.
    pub(crate) fn outweighed(&self) -> Option<f64> {
        self.mean_by_adapter.filter(|by_adapter| self.mean_difference >= *by_adapter && self.mean_difference > 0.0)
    }

    /// Takes the logits of one position.
    fn compare(&mut self, before: &[f32], after: &[f32]) {
        self.positions += 1;
        for (a, b) in before.iter().zip(after) {
            // A number that is none differs without bound.
            let difference = f64::from((a - b).abs());
            let difference = if difference.is_nan() { f64::INFINITY } else { difference };
            self.largest_difference = self.largest_difference.max(difference);
        }
        let broken = [before, after].map(|logits| !logits.iter().all(|logit| logit.is_finite()));
        self.agreeing += usize::from(broken == [false; 2] && most_likely(before) == most_likely(after));
        self.broken = [0, 1].map(|side| self.broken[side] + usize::from(broken[side]));
    }

    /// Share of the positions at which both find the same token the most likely, in percent.
    pub(crate) fn agreement_percent(&self) -> f64 {
        100.0 * self.agreeing as f64 / self.positions.max(1) as f64
    }

    /// The numbers, a line each: what they are, and their values.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("largest logit difference", small(self.largest_difference)),
            ("mean logit difference", small(self.mean_difference)),
            (
                "most likely token agrees",
                format!("{:.2} % ({} of {} positions)", self.agreement_percent(), self.agreeing, self.positions),
            ),
            ("perplexity before, after", format!("{:.4}, {:.4}", self.perplexity_before, self.perplexity_after)),
        ];
        if let Some(by_adapter) = self.mean_by_adapter {
            lines.push(("mean change by the adapter", small(by_adapter)));
        }
        if self.broken != [0; 2] {
            let [before, after] = self.broken;
            lines.push(("not finite before, after", format!("{before}, {after} of {} positions", self.positions)));
        }
        lines
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

/// The sum of the differences.
fn total_difference(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).map(|(one, other)| f64::from((one - other).abs())).sum()
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
    fn there_are_32_prompts_and_no_two_are_the_same() {
        let texts: std::collections::BTreeSet<String> = serde_json::from_str(PROMPTS).expect("JSON");
        assert_eq!(texts.len(), 32);
    }

    #[test]
    fn a_surprise_is_minus_the_log_probability() {
        assert!((surprise(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-12);
        assert!(surprise(&[1000.0, -1000.0], 0).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_number_agrees_with_nothing() {
        let mut replay = Replay::default();
        replay.compare(&[1.0, 2.0], &[1.0, 2.5]);
        assert_eq!((replay.agreeing, replay.largest_difference, replay.broken), (1, 0.5, [0, 0]));
        replay.compare(&[f32::NAN, 2.0], &[f32::NAN, 2.0]);
        replay.compare(&[1.0, 2.0], &[1.0, f32::INFINITY]);
        assert_eq!((replay.positions, replay.agreeing, replay.broken), (3, 1, [1, 2]));
        assert_eq!(replay.largest_difference, f64::INFINITY);
        assert_eq!(replay.lines()[4].1, "1, 2 of 3 positions");
    }
}
