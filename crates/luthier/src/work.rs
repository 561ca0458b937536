//! The work that a step needs: multiply-adds, without what is computed twice. It is what the share of the processor's peak
//! is measured against.

use luthier_model::Tuning;
use luthier_model::adapter::{PromptKind, is_adapters_own};
use luthier_train::MicroBatch;

use crate::run::Run;

/// Multiply-adds of one step: linear layers forward and, as far down as something is trained, backward; attention over the
/// causal half, in every layer and without regard to windows; the head on trained tokens only.
pub(crate) fn multiply_adds(run: &Run, parts: &[MicroBatch]) -> f64 {
    let per_token = linear_per_token(run);
    let decoder = &run.model.checkpoint.model.decoder;
    let head = head_per_token(run);
    let per_pair = 6.0 * (decoder.heads * decoder.head_dim * decoder.layers.len()) as f64;
    parts
        .iter()
        .map(|part| {
            let pairs: f64 = part.segments.iter().map(|segment| causal_pairs(segment.rows.len())).sum();
            part.ids.len() as f64 * per_token + part.targets.len() as f64 * head + pairs * per_pair
        })
        .sum()
}

fn causal_pairs(tokens: usize) -> f64 {
    tokens as f64 * (tokens as f64 + 1.0) / 2.0
}

fn linear_per_token(run: &Run) -> f64 {
    let checkpoint = &run.model.checkpoint;
    let names = &checkpoint.model.names;
    let trained: Vec<&str> = run.decoder.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    // A learned prefix is reached through every layer, a learned prompt through their inputs too.
    let (lowest, embeds) = match &run.tuning {
        Tuning::Prompt(prompt) => (0, prompt.config.kind != PromptKind::Prefix),
        _ => (
            trained.iter().filter_map(|name| layer_of(name)).min().unwrap_or(usize::MAX),
            trained.iter().any(|name| name.contains(names.embedding)),
        ),
    };
    // The modules of a layer in the order of the forward pass: a product gives its input a gradient where something before
    // it is trained.
    let stages: [&[&str]; 6] = [
        &[names.attention_norm],
        names.query_key_value,
        &[names.attention_output],
        &[names.feed_forward_norm],
        names.gate_up,
        &[names.down],
    ];
    let is_of = |name: &str, path: &str| path.split("{}").nth(1).is_some_and(|path| name.contains(path));
    let stage = |name: &str| stages.iter().position(|paths| paths.iter().any(|path| is_of(name, path)));
    let lowest_stage =
        trained.iter().filter(|name| layer_of(name) == Some(lowest)).filter_map(|name| stage(name)).min();
    let mut sum = 0.0;
    for (name, tensor) in checkpoint.tensors.iter().filter(|(_, tensor)| tensor.dims().len() == 2) {
        let Some(layer) = layer_of(name) else { continue };
        let size = tensor.tensor().len() as f64;
        let reached = embeds || layer > lowest || layer == lowest && stage(name) > lowest_stage;
        sum += size;
        sum += if reached { size } else { 0.0 };
        sum += if trained.contains(&name.as_str()) { size } else { 0.0 };
    }
    if run.tuning.is_adapter() {
        // An adapter's two matrices: forward, to the input, and their own gradients.
        let adapters = run.decoder.parameters().iter().filter(|parameter| is_adapters_own(&parameter.name));
        sum += adapters.map(|parameter| 3.0 * parameter.value.len() as f64).sum::<f64>();
    }
    sum
}

fn head_per_token(run: &Run) -> f64 {
    let decoder = &run.model.checkpoint.model.decoder;
    let size = (decoder.vocabulary_size * decoder.hidden_size) as f64;
    let trained = run.decoder.head_options(false).weight.is_trained();
    if trained { 3.0 * size } else { 2.0 * size }
}

/// The number of the layer that a tensor belongs to.
fn layer_of(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}
