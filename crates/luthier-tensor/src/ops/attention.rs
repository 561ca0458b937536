//! Attention of the queries in a tensor over ranges of keys: in the same tensor, or in others.

use std::sync::Arc;

use crate::cpu::{AttentionShape, KeySource};
use crate::finality::Additions;
use crate::{DType, HeadLayout, Segment, Tape, Tensor, Var};

/// Keys and values outside the tensor of the queries: a learned prefix, or a cache.
#[derive(Clone, Debug)]
pub struct KeyValues {
    /// `[rows, key_value_heads * head_dim]`
    pub keys: Var,
    /// `[rows, key_value_heads * head_dim]`
    pub values: Var,
}

/// What attends to what.
#[derive(Clone, Debug)]
pub struct AttentionOptions {
    /// The heads.
    pub layout: HeadLayout,
    /// Factor of the scores.
    pub scale: f32,
    /// A query sees this many positions, its own included.
    pub window: Option<usize>,
    /// Scores are bounded: `cap * tanh(score / cap)`. From: Gemma Team 2024 (Gemma 2), section 2.
    pub soft_cap: Option<f32>,
    /// Queries and their keys; source i of a range is `others[i - 1]`.
    pub segments: Arc<[Segment]>,
}

impl AttentionOptions {
    /// # Panics
    /// When a segment names rows that are not there, or rows of another segment: kernels write rows unchecked.
    fn check(&self, tokens: usize, others: &[KeyValues]) {
        let mut rows: Vec<_> = self.segments.iter().map(|segment| segment.rows.clone()).collect();
        rows.sort_by_key(|rows| rows.start);
        let apart = rows.windows(2).all(|pair| pair[0].end <= pair[1].start);
        assert!(apart && rows.last().is_none_or(|last| last.end <= tokens), "segments of {tokens} tokens: {rows:?}");
        for range in self.segments.iter().flat_map(|segment| &segment.keys) {
            let source = match range.source {
                0 => tokens,
                other => others[other - 1].keys.value().rows().min(others[other - 1].values.value().rows()),
            };
            assert!(range.rows.end <= source, "keys {:?} of a source with {source} rows", range.rows);
        }
    }

    fn shape(&self) -> AttentionShape<'_> {
        let Self { layout, scale, window, soft_cap, segments } = self;
        AttentionShape { layout: *layout, scale: *scale, window: *window, soft_cap: *soft_cap, segments }
    }
}

impl<'a> Tape<'a> {
    /// `[tokens, heads * head_dim]` from `heads` `[tokens, layout.columns()]`. A segment's rows are computed once each;
    /// rows that no segment names are undefined.
    pub fn attention(&mut self, heads: &Var, others: &[KeyValues], options: &AttentionOptions) -> Var {
        let (device, precision) = (self.device().clone(), self.precision());
        let (compute, storage) = (precision.compute(), precision.storage());
        let layout = options.layout;
        let tokens = heads.value().rows();
        options.check(tokens, others);
        let output = device.empty(storage, tokens, layout.output_columns());
        let log_sums = device.empty(DType::F32, tokens, layout.heads);
        let sources: Vec<(Tensor, Tensor)> =
            others.iter().map(|other| (other.keys.value().clone(), other.values.value().clone())).collect();
        device.run("attention", |cpu| {
            let sources = key_sources(heads.value(), &sources, &[]);
            cpu.attention(compute, &options.shape(), heads.value(), &sources, &output, &log_sums);
        });
        let inputs: Vec<&Var> = others.iter().flat_map(|other| [&other.keys, &other.values]).chain([heads]).collect();
        if !self.wants(&inputs, &Additions::NONE) {
            return Var::constant(output);
        }
        let other_slots: Vec<_> = others.iter().map(|other| (other.keys.slot(), other.values.slot())).collect();
        let out = self.reached(output.clone());
        let (slot, heads_slot, queries) = (out.slot(), heads.slot(), heads.value().clone());
        let options = options.clone();
        self.record(Additions::NONE, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            let delta = device.empty(DType::F32, tokens, layout.heads);
            let sums = device.zeros(DType::F32, tokens, layout.columns());
            let other_sums: Vec<Option<(Tensor, Tensor)>> = sources
                .iter()
                .zip(&other_slots)
                .map(|((keys, values), slots)| {
                    (slots.0.is_some() || slots.1.is_some()).then(|| {
                        let zeros = |tensor: &Tensor| device.zeros(DType::F32, tensor.rows(), tensor.columns());
                        (zeros(keys), zeros(values))
                    })
                })
                .collect();
            device.run("attention backward", |cpu| {
                let sources = key_sources(&queries, &sources, &other_sums);
                cpu.attention_backward(
                    compute,
                    &options.shape(),
                    &queries,
                    &sources,
                    &output,
                    &log_sums,
                    &upstream,
                    &delta,
                    &sums,
                );
            });
            let stored = |sums: Tensor| if storage == DType::F32 { sums } else { device.convert(&sums, storage) };
            gradients.add(heads_slot, stored(sums));
            for ((key_slot, value_slot), sums) in other_slots.into_iter().zip(other_sums) {
                if let Some((keys, values)) = sums {
                    gradients.add(key_slot, stored(keys));
                    gradients.add(value_slot, stored(values));
                }
            }
        });
        out
    }
}

fn key_sources<'t>(
    own: &'t Tensor,
    others: &'t [(Tensor, Tensor)],
    gradients: &'t [Option<(Tensor, Tensor)>],
) -> Vec<KeySource<'t>> {
    let first = KeySource { keys: own, values: own, gradients: None, own: true };
    let rest = others.iter().enumerate().map(|(index, (keys, values))| KeySource {
        keys,
        values,
        gradients: gradients.get(index).and_then(Option::as_ref).map(|(keys, values)| (keys, values)),
        own: false,
    });
    std::iter::once(first).chain(rest).collect()
}
