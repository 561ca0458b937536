//! Which gradients of weights a record adds to, and from that: after which record of a tape each gradient is final. A
//! weight may be used by several records (a tied head, a shared layer) and a record may add to several weights (a layer
//! that runs again). The tape runs backwards, so the first record that uses a weight is the last that adds to its gradient.

use std::collections::HashMap;

use crate::{Device, Tensor, Weight};

/// The gradients that a record adds to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions(Vec<Tensor>);

impl Additions {
    /// None: an operation without weights.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// Those of the trained ones among `weights`.
    pub(crate) fn to<'w>(weights: impl IntoIterator<Item = &'w Weight>) -> Self {
        let trained = weights.into_iter().filter(|weight| weight.is_trained());
        Self(trained.filter_map(|weight| weight.gradient.clone()).collect())
    }

    /// True when the operation has no trained weight.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each its memory.
    pub(crate) fn allocate(&self, device: &Device) {
        self.0.iter().for_each(|gradient| device.allocate(gradient));
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }
}

/// For each point of a backward pass the gradients that are final there, by their number in a list.
pub(crate) struct Finality {
    /// Final before the pass begins: no record adds to them.
    pub(crate) before: Vec<usize>,
    /// By record: final when it has run. In the order of the list.
    pub(crate) after: Vec<Vec<usize>>,
}

impl Finality {
    /// `records` in the order of the forward pass.
    pub(crate) fn new<'r>(gradients: &[Tensor], records: impl IntoIterator<Item = &'r Additions>) -> Self {
        let mut waiting: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for (number, gradient) in gradients.iter().enumerate() {
            waiting.entry(gradient.identity()).or_default().push(number);
        }
        let after = records
            .into_iter()
            .map(|additions| {
                let mut found: Vec<usize> = {
                    let ids = additions.0.iter().map(Tensor::identity);
                    ids.filter_map(|id| waiting.remove(&id)).flatten().collect()
                };
                found.sort_unstable();
                found
            })
            .collect();
        let mut before: Vec<usize> = waiting.into_values().flatten().collect();
        before.sort_unstable();
        Self { before, after }
    }
}
