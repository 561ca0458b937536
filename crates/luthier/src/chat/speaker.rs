//! One side of a chat: a model, with or without its adapter, and the conversation as that side knows it. Each answer is
//! computed from the whole conversation as the template writes it; what the cache already holds is not computed again.

use std::time::Instant;

use luthier_data::{ChatTemplate, Message, Role, Tokenizer};
use luthier_model::Generator;
use luthier_model::adapter::Chosen;

use crate::sampling::Sampling;
use crate::stop::StopFilter;
use crate::{eprint_line, signals};

/// What all sides share.
pub(super) struct Common<'a> {
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) template: &'a ChatTemplate,
    /// Tokens that end an answer.
    pub(super) ends: &'a [u32],
    /// Tokens that the model knows.
    pub(super) vocabulary: usize,
    /// Tokens that a conversation may have.
    pub(super) capacity: usize,
}

pub(super) struct Speaker<'m> {
    pub(super) title: &'static str,
    generator: Generator<'m>,
    /// User and assistant in turn.
    pub(super) turns: Vec<Message>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Model,
    StopText,
    Limit,
    Context,
    Interrupt,
}

/// An answer that was given.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) tokens: usize,
    /// Without the first token, which waits for the prompt.
    pub(super) tokens_per_second: Option<f64>,
    pub(super) end: End,
}

impl<'m> Speaker<'m> {
    pub(super) fn new(title: &'static str, generator: Generator<'m>) -> Self {
        Self { title, generator, turns: Vec::new() }
    }

    /// Goes on with these adapters; the conversation stays.
    pub(super) fn choose(&mut self, chosen: Chosen) {
        self.generator.choose(chosen);
    }

    /// Answers the last message and puts the answer into the conversation. `show` gets the text as it becomes certain.
    ///
    /// # Errors
    /// When the template refuses the conversation, or the last message alone does not fit; then it is taken back.
    pub(super) fn answer(
        &mut self,
        common: &Common,
        system: Option<&str>,
        sampling: &Sampling,
        retries: u64,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let answer = self.try_answer(common, system, sampling, retries, show);
        match &answer {
            Ok(answer) => self.turns.push(Message::new(Role::Assistant, answer.text.clone())),
            Err(_) => drop(self.turns.pop()),
        }
        answer
    }

    fn try_answer(
        &mut self,
        common: &Common,
        system: Option<&str>,
        sampling: &Sampling,
        retries: u64,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let prompt = self.prompt(common, system, sampling)?;
        let room = common.capacity - prompt.len();
        let mut stream = common.tokenizer.stream();
        let mut filter = StopFilter::new(&sampling.stops);
        let (mut text, mut failure) = (String::new(), None);
        let mut end = if sampling.most_tokens <= room { End::Limit } else { End::Context };
        let mut first = None;
        let mut last = Instant::now();
        let found = self.generator.generate(
            &prompt,
            sampling.most_tokens.min(room),
            common.ends,
            &sampling.sampler(retries),
            &mut |id| {
                last = Instant::now();
                first.get_or_insert(last);
                if common.ends.contains(&id) {
                    end = End::Model;
                    return false;
                }
                if signals::is_asked() {
                    end = End::Interrupt;
                    return false;
                }
                if common.tokenizer.is_special(id) {
                    return true;
                }
                let piece = match stream.push(id) {
                    Ok(piece) => piece,
                    Err(error) => {
                        failure = Some(error);
                        return false;
                    }
                };
                let (shown, stopped) = filter.push(&piece);
                show(&shown);
                text.push_str(&shown);
                if stopped {
                    end = End::StopText;
                }
                !stopped
            },
        );
        if let Some(error) = failure {
            return Err(error.into());
        }
        if end != End::StopText {
            let (shown, stopped) = filter.push(&stream.finish()?);
            let rest = if stopped { String::new() } else { filter.finish() };
            for part in [shown, rest] {
                show(&part);
                text.push_str(&part);
            }
        }
        let seconds = first.map_or(0.0, |first| (last - first).as_secs_f64());
        let tokens_per_second = (found.len() > 1 && seconds > 0.0).then(|| (found.len() - 1) as f64 / seconds);
        Ok(Answer { text, tokens: found.len(), tokens_per_second, end })
    }

    /// The conversation as ids, with the oldest turns dropped when it does not fit. None is dropped in vain.
    fn prompt(&mut self, common: &Common, system: Option<&str>, sampling: &Sampling) -> anyhow::Result<Vec<u32>> {
        // Room for the whole answer, but never for so long a one that little of the conversation would be left.
        let reserve = sampling.most_tokens.min(common.capacity / 4).max(1);
        let mut dropped = 0;
        loop {
            let system = system.map(|system| Message::new(Role::System, system));
            let turns = &self.turns[2 * dropped..];
            let messages: Vec<Message> = system.into_iter().chain(turns.iter().cloned()).collect();
            let prompt = common.template.prompt_ids(&messages, &[], common.tokenizer)?;
            if prompt.is_empty() {
                anyhow::bail!("the chat template writes nothing for this conversation, so there is nothing to answer");
            }
            if let Some(id) = prompt.iter().find(|id| **id as usize >= common.vocabulary) {
                anyhow::bail!(
                    "the tokenizer gives token {id}, but the model knows {}; it belongs to another model",
                    common.vocabulary
                );
            }
            let only = turns.len() <= 1;
            if prompt.len() + reserve <= common.capacity || (only && prompt.len() < common.capacity) {
                if dropped > 0 {
                    self.turns.drain(..2 * dropped);
                    let turns = match dropped {
                        1 => "oldest turn was".to_owned(),
                        more => format!("{more} oldest turns were"),
                    };
                    eprint_line(&format!(
                        "note: the context of {} tokens is full; the {turns} dropped",
                        common.capacity
                    ));
                }
                return Ok(prompt);
            }
            if only {
                anyhow::bail!(
                    "the message has {} tokens with what the template adds, and the context has {}; shorten the message or \
                     the system message, or raise --context",
                    prompt.len(),
                    common.capacity
                );
            }
            dropped += 1;
        }
    }
}
