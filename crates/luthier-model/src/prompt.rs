//! What is learned and stands before every row: keys and values of each layer (a prefix), or rows that enter the first
//! layer (a prompt). Tokens then start at position `rows`. Neither is repeated for each row of a batch: a prefix is a
//! source of keys, and a prompt's rows, which see themselves alone, are computed once below the batch's tokens and seen by
//! all segments. Only where a row's own length turns its keys (dynamic rotary embeddings) do rows of other lengths get a
//! copy of their own. From: Li & Liang 2021 (prefix); Lester et al. 2021 (prompt); Liu et al. 2021 (P-tuning).

use luthier_tensor::{
    Activation, Device, KeyRange, KeyValues, LinearInput, Precision, Projection, Segment, Tape, Var, Weight,
};

use crate::config::Rotary;

/// Learned rows or keys, as they are computed with.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// Its place in the list of loaded adapters.
    pub(crate) number: u32,
    /// Keys and values of every layer, unrotated; else rows of the first layer's input.
    pub(crate) is_prefix: bool,
    /// `[rows, width]`: a prefix's width is layers * 2 * key-value width, layer by layer keys, then values.
    pub(crate) embedding: Weight,
    /// What makes the rows of the embedding into what is used.
    pub(crate) network: Option<Network>,
}

/// A small network of linear layers with biases.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// Each takes what the one before gives.
    pub(crate) layers: Vec<Projection>,
    /// Between two of them.
    pub(crate) activation: Activation,
}

/// A batch with its prompt.
pub(crate) struct LaidOut {
    /// What attends to what.
    pub(crate) segments: Vec<Segment>,
    /// Of each segment: the length of the row that its angles follow from.
    pub(crate) lengths: Vec<usize>,
    /// Copies of the prompt's rows below the tokens.
    pub(crate) copies: usize,
}

/// Where a segment ends.
pub(crate) fn end_position(segment: &Segment) -> usize {
    segment.first_position + segment.rows.len()
}

impl Prompt {
    /// Positions that it takes.
    pub(crate) fn rows(&self) -> usize {
        self.embedding.value.rows()
    }

    /// What is used, `[rows, width]`. A network computes in f32 whatever the precision, so that it gives what was saved.
    pub(crate) fn make<'a>(&'a self, tape: &mut Tape<'a>) -> Var {
        let Some(network) = &self.network else { return tape.parameter(&self.embedding) };
        tape.in_f32(|tape| {
            let mut value = tape.parameter(&self.embedding);
            for (number, layer) in network.layers.iter().enumerate() {
                let activated = LinearInput::Activated { input: &value, activation: network.activation, gated: false };
                let input = if number == 0 { LinearInput::Plain(&value) } else { activated };
                value = tape.linear(input, std::slice::from_ref(layer), None);
            }
            value
        })
    }

    /// Keys and values of each layer, from what [`make`](Self::make) gave of a prefix.
    pub(crate) fn key_values(&self, tape: &mut Tape, made: &Var, layers: usize) -> Vec<KeyValues> {
        let width = made.value().columns() / (2 * layers);
        let mut part = |number: usize| tape.columns(made, number * width..(number + 1) * width);
        (0..layers).map(|layer| KeyValues { keys: part(2 * layer), values: part(2 * layer + 1) }).collect()
    }

    /// Puts it before the segments of a batch of `tokens` tokens.
    pub(crate) fn lay_out(&self, rotary: &Rotary, tokens: usize, mut segments: Vec<Segment>) -> LaidOut {
        let rows = self.rows();
        for segment in &mut segments {
            segment.first_position += rows;
            segment.keys.iter_mut().for_each(|range| range.first_position += rows);
        }
        let mut lengths: Vec<usize> = segments.iter().map(end_position).collect();
        if self.is_prefix {
            let range = KeyRange { source: 1, rows: 0..rows, first_position: 0 };
            segments.iter_mut().for_each(|segment| segment.keys.insert(0, range.clone()));
            return LaidOut { segments, lengths, copies: 0 };
        }
        // The length that each copy's angles follow from.
        let mut copies: Vec<usize> = Vec::new();
        for (segment, &length) in segments.iter_mut().zip(&lengths) {
            let same = |copy: &usize| !rotary.changes_between((*copy).min(length), (*copy).max(length));
            let copy = copies.iter().position(same).unwrap_or_else(|| {
                copies.push(length);
                copies.len() - 1
            });
            let first = tokens + copy * rows;
            segment.keys.insert(0, KeyRange { source: 0, rows: first..first + rows, first_position: 0 });
        }
        segments.extend((0..copies.len()).map(|copy| Segment::alone(tokens + copy * rows..tokens + (copy + 1) * rows)));
        lengths.extend_from_slice(&copies);
        LaidOut { segments, lengths, copies: copies.len() }
    }

    /// The numbers that a file holds: what is used, in f32.
    pub(crate) fn saved(&self, device: &Device) -> luthier_tensor::Tensor {
        let mut tape = Tape::without_gradients(device, Precision::F32);
        self.make(&mut tape).value().clone()
    }
}
