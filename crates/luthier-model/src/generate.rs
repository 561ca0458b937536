//! Generation, token by token, over a key-value cache. The same decoder that trains, without a tape.

use luthier_tensor::{Device, KeyRange, KeyValues, Precision, Segment, Tape};

use crate::adapter::Chosen;
use crate::decoder::Decoder;
use crate::prompt::Prompt;
use crate::sampler::Sampler;

/// Tokens that go through the model at once: more take more memory and are no faster.
const PIECE: usize = 1024;

/// A sequence that grows.
pub struct Generator<'m> {
    device: &'m Device,
    decoder: &'m Decoder,
    precision: Precision,
    caches: Vec<KeyValues>,
    capacity: usize,
    ids: Vec<u32>,
    /// The positions, with those of a learned prompt, that the cached keys' angles were made for; 0: nothing is cached.
    rotated_for: usize,
    chosen: Chosen,
}

impl<'m> Generator<'m> {
    /// An empty sequence that may become `capacity` tokens long.
    pub fn new(device: &'m Device, decoder: &'m Decoder, precision: Precision, capacity: usize) -> Self {
        let caches = decoder.caches(device, precision, decoder.prompt_rows() + capacity);
        Self { device, decoder, precision, caches, capacity, ids: Vec::new(), rotated_for: 0, chosen: None }
    }

    /// Goes on with these of the decoder's adapters. What was computed with others is forgotten.
    pub fn choose(&mut self, chosen: Chosen) {
        self.chosen = chosen;
        self.ids.clear();
        self.rotated_for = 0;
    }

    fn prompt_rows(&self) -> usize {
        self.decoder.prompt(&self.chosen).map_or(0, Prompt::rows)
    }

    /// Tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many more tokens fit.
    pub fn room(&self) -> usize {
        self.capacity - self.ids.len()
    }

    /// Forgets what follows the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
    }

    /// Appends tokens and returns the logits of what follows the last: `vocabulary` numbers.
    ///
    /// # Panics
    /// When `ids` is empty or does not fit.
    pub fn feed(&mut self, ids: &[u32]) -> Vec<f32> {
        assert!(!ids.is_empty() && ids.len() <= self.room(), "{} tokens for {} places", ids.len(), self.room());
        let before = self.ids.len();
        self.ids.extend_from_slice(ids);
        let length = self.ids.len();
        let rotary = &self.decoder.config().rotary;
        // Frequencies that follow the row's length make every cached key stale.
        let positions = self.prompt_rows() + length;
        let (shorter, longer) = (self.rotated_for.min(positions), self.rotated_for.max(positions));
        let is_primed = self.rotated_for > 0;
        let stale = is_primed && rotary.changes_between(shorter, longer);
        if stale || !is_primed {
            let mut tape = Tape::for_generation(self.device, self.precision);
            self.decoder.prime_caches(&mut tape, &self.caches, positions, &self.chosen);
        }
        self.rotated_for = positions;
        let mut first = if stale { 0 } else { before };
        // And then all of the row must be computed at its whole length.
        let piece = if rotary.changes_between(1, positions) { length } else { PIECE };
        while length - first > piece {
            self.forward(first, first + piece);
            first += piece;
        }
        let (mut tape, hidden) = self.forward(first, length);
        let last = self.device.upload_ids(&[(length - first) as u32 - 1]);
        let logits = tape.logits(&hidden, &self.decoder.head_options(false), &last);
        self.device.download(&logits)
    }

    /// Computes the tokens from `first` to before `end`; their keys and values are then in the cache.
    fn forward(&self, first: usize, end: usize) -> (Tape<'m>, luthier_tensor::Var) {
        let new = &self.ids[first..end];
        let prompt = self.prompt_rows();
        let keys = vec![KeyRange { source: 1, rows: 0..prompt + end, first_position: 0 }];
        let segment = Segment { rows: 0..new.len(), first_position: prompt + first, keys };
        let inputs = self.decoder.inputs_as_given(self.device, new, vec![segment], &self.chosen);
        let mut tape = Tape::for_generation(self.device, self.precision);
        let hidden = self.decoder.hidden_with_cache(&mut tape, &inputs, &self.caches, prompt + first);
        (tape, hidden)
    }

    /// Appends the most likely token again and again, up to `limit` of them or until one of `ends` was appended; each is
    /// given to `listen`, which says whether to go on. Returns what was appended.
    pub fn greedy(
        &mut self,
        prompt: &[u32],
        limit: usize,
        ends: &[u32],
        listen: &mut dyn FnMut(u32) -> bool,
    ) -> Vec<u32> {
        let whole = [&self.ids, prompt].concat();
        self.generate(&whole, limit, ends, &Sampler::GREEDY, listen)
    }

    /// Makes `prompt` the whole sequence and appends tokens that the sampler chooses, up to `limit` of them or until one
    /// of `ends` was appended; each is given to `listen`, which says whether to go on. Returns what was appended. What the
    /// sequence has in common with the prompt is not computed again.
    ///
    /// # Panics
    /// When `prompt` is empty or does not fit.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        limit: usize,
        ends: &[u32],
        sampler: &Sampler,
        listen: &mut dyn FnMut(u32) -> bool,
    ) -> Vec<u32> {
        assert!(!prompt.is_empty(), "a prompt without a token");
        let common = self.ids.iter().zip(prompt).take_while(|(kept, wanted)| kept == wanted).count();
        // The last token is always computed: its logits are what is needed.
        self.truncate(common.min(prompt.len() - 1));
        let mut logits = self.feed(&prompt[self.ids.len()..]);
        let mut found = Vec::new();
        while found.len() < limit {
            let next = sampler.next(&mut logits, &self.ids);
            found.push(next);
            if !listen(next) || ends.contains(&next) || found.len() == limit || self.room() == 0 {
                break;
            }
            logits = self.feed(&[next]);
        }
        found
    }
}

/// The id with the largest logit; the first of equals.
pub fn most_likely(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold(
        (0, f32::NEG_INFINITY),
        |best, (id, &logit)| {
            if logit > best.1 { (id, logit) } else { best }
        },
    );
    best.0 as u32
}
