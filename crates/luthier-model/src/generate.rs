//! Generation, token by token, over a key-value cache. The same decoder that trains, without a tape.

use luthier_tensor::{Device, KeyRange, KeyValues, Precision, Segment, Tape};

use crate::decoder::Decoder;

/// A sequence that grows.
pub struct Generator<'m> {
    device: &'m Device,
    decoder: &'m Decoder,
    precision: Precision,
    caches: Vec<KeyValues>,
    capacity: usize,
    ids: Vec<u32>,
}

impl<'m> Generator<'m> {
    /// An empty sequence that may become `capacity` tokens long.
    pub fn new(device: &'m Device, decoder: &'m Decoder, precision: Precision, capacity: usize) -> Self {
        let caches = decoder.caches(device, precision, capacity);
        Self { device, decoder, precision, caches, capacity, ids: Vec::new() }
    }

    /// Tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many more tokens fit.
    pub fn room(&self) -> usize {
        self.capacity - self.ids.len()
    }

    /// Appends tokens and returns the logits of what follows the last: `vocabulary` numbers.
    ///
    /// # Panics
    /// When `ids` is empty or does not fit.
    pub fn feed(&mut self, ids: &[u32]) -> Vec<f32> {
        assert!(!ids.is_empty() && ids.len() <= self.room(), "{} tokens for {} places", ids.len(), self.room());
        let before = self.ids.len();
        self.ids.extend_from_slice(ids);
        // Frequencies that follow the row's length make every cached key stale.
        let stale = before > 0 && self.decoder.config().rotary.changes_between(before, self.ids.len());
        let first = if stale { 0 } else { before };
        let new = &self.ids[first..];
        let keys = vec![KeyRange { source: 1, rows: 0..self.ids.len(), first_position: 0 }];
        let segment = Segment { rows: 0..new.len(), first_position: first, keys };
        let inputs = self.decoder.inputs(self.device, new, vec![segment]);
        let mut tape = Tape::for_generation(self.device, self.precision);
        let hidden = self.decoder.hidden_with_cache(&mut tape, &inputs, &self.caches, first);
        let last = self.device.upload_ids(&[new.len() as u32 - 1]);
        let logits = tape.logits(&hidden, &self.decoder.head_options(false), &last);
        self.device.download(&logits)
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
        let mut found = Vec::new();
        let mut next = most_likely(&self.feed(prompt));
        while found.len() < limit {
            found.push(next);
            if !listen(next) || ends.contains(&next) || found.len() == limit || self.room() == 0 {
                break;
            }
            next = most_likely(&self.feed(&[next]));
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
