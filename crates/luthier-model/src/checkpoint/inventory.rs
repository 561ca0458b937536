//! Which tensors a model needs, and in which shapes. A checkpoint is accepted when it has exactly these: a missing one has
//! no value, and one that nobody reads means that the model is another than the configuration says.

use std::collections::BTreeMap;

use super::stored::StoredTensor;
use crate::config::FeedForward;
use crate::config::QueryKeyNorm;
use crate::error::{Error, shape, up_to_five};
use crate::families::ModelDescription;

/// Every tensor of the model, with its dimensions, in the order of the forward pass.
pub fn needed_tensors(model: &ModelDescription) -> Vec<(String, Vec<usize>)> {
    let (decoder, names) = (&model.decoder, &model.names);
    let hidden = decoder.hidden_size;
    let query = decoder.heads * decoder.head_dim;
    let key = decoder.key_value_heads * decoder.head_dim;
    let mut list = List(vec![(format!("{}.weight", names.embedding), vec![decoder.vocabulary_size, hidden])]);
    for layer in 0..decoder.layers.len() {
        let at = |name: &str| name.replacen("{}", &layer.to_string(), 1);
        list.vector(&at(names.attention_norm), hidden);
        for (name, rows) in parts(names.query_key_value, &[query, key, key]) {
            list.linear(&at(name), rows, hidden, decoder.biases.query_key_value);
        }
        if decoder.query_key_norm != QueryKeyNorm::None {
            list.vector(&at(names.query_norm), decoder.head_dim);
            list.vector(&at(names.key_norm), decoder.head_dim);
        }
        list.linear(&at(names.attention_output), hidden, query, decoder.biases.attention_output);
        names.attention_output_norm.iter().for_each(|name| list.vector(&at(name), hidden));
        list.vector(&at(names.feed_forward_norm), hidden);
        let inner = decoder.intermediate_size;
        let widths: &[usize] = match decoder.feed_forward {
            FeedForward::Gated(_) => &[inner, inner],
            FeedForward::Plain(_) => &[inner],
        };
        for (name, rows) in parts(names.gate_up, widths) {
            list.linear(&at(name), rows, hidden, decoder.biases.feed_forward);
        }
        list.linear(&at(names.down), hidden, inner, decoder.biases.feed_forward);
        names.down_norm.iter().for_each(|name| list.vector(&at(name), hidden));
    }
    list.vector(names.final_norm, hidden);
    if !decoder.tied_head {
        list.linear(names.head, decoder.vocabulary_size, hidden, false);
    }
    list.0
}

struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn vector(&mut self, module: &str, length: usize) {
        self.0.push((format!("{module}.weight"), vec![length]));
    }

    fn linear(&mut self, module: &str, rows: usize, columns: usize, bias: bool) {
        self.0.push((format!("{module}.weight"), vec![rows, columns]));
        if bias {
            self.0.push((format!("{module}.bias"), vec![rows]));
        }
    }
}

/// Projections with their rows: each its own, or all of them in the one that is fused.
fn parts<'a>(names: &[&'a str], rows: &[usize]) -> Vec<(&'a str, usize)> {
    match names {
        [fused] => vec![(*fused, rows.iter().sum())],
        _ => names.iter().copied().zip(rows.iter().copied()).collect(),
    }
}

/// Settles the head, then demands that `tensors` are exactly what the model needs. `weights` names their file or files.
/// The names of copies that are left out are added to `ignored`.
pub(super) fn settle(
    weights: &str,
    model: &mut ModelDescription,
    tensors: &mut BTreeMap<String, StoredTensor>,
    ignored: &mut Vec<String>,
) -> Result<(), Error> {
    let head = format!("{}.weight", model.names.head);
    let embedding = format!("{}.weight", model.names.embedding);
    if model.decoder.tied_head
        && let Some(copy) = tensors.remove(&head)
    {
        match tensors.get(&embedding) {
            Some(original) if same(original, &copy) => ignored.push(head),
            // transformers 5 does the same: the values in the file decide.
            Some(_) => {
                model.decoder.tied_head = false;
                let note = format!(
                    "{weights}: `tie_word_embeddings` is true, but `{head}` differs from `{embedding}`: both are used"
                );
                model.notes.push(note);
                tensors.insert(head, copy);
            }
            None => drop(tensors.insert(embedding, copy)),
        }
    }

    let needed: BTreeMap<_, _> = needed_tensors(model).into_iter().collect();
    let missing: Vec<String> = needed.keys().filter(|name| !tensors.contains_key(*name)).cloned().collect();
    let unknown: Vec<String> = tensors.keys().filter(|name| !needed.contains_key(*name)).cloned().collect();
    if !missing.is_empty() {
        let hint = match missing.iter().all(|name| name.ends_with(".bias")) {
            true => "the configuration says that these projections have a bias",
            false => "check that the weights belong to this config.json and that no file is missing",
        };
        return Err(Error::MissingTensors {
            label: weights.into(),
            count: missing.len(),
            names: up_to_five(&missing),
            hint: hint.into(),
        });
    }
    if let Some(first) = unknown.first() {
        return Err(Error::UnknownTensors {
            label: tensors[first].file().into(),
            count: unknown.len(),
            names: up_to_five(&unknown),
            hint:
                "without them it would compute something else; check `model_type` and the bias switches of config.json"
                    .into(),
        });
    }
    for (name, dims) in needed {
        let tensor = &tensors[&name];
        if tensor.dims() != dims {
            return Err(Error::TensorShape {
                file: tensor.file().into(),
                tensor: name,
                found: shape(tensor.dims()),
                expected: format!("{}, as the configuration implies", shape(&dims)),
            });
        }
    }
    Ok(())
}

fn same(a: &StoredTensor, b: &StoredTensor) -> bool {
    a.dtype() == b.dtype() && a.dims() == b.dims() && a.bytes() == b.bytes()
}
