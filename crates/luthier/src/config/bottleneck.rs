//! What the settings of bottleneck adapters say.

use luthier_model::adapter::{BottleneckConfig, Placement};
use luthier_tensor::Activation;

use super::check::Check;

/// Bottleneck adapters in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BottleneckSettings {
    pub(crate) size: BottleneckSize,
    pub(crate) placement: Placement,
    pub(crate) activation: Activation,
}

/// The width inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BottleneckSize {
    /// 1 or more.
    Numbers(usize),
    /// The model's width divided by this, 1 or more.
    Divided(usize),
}

impl Check<'_> {
    pub(super) fn bottleneck(&mut self) -> BottleneckSettings {
        let (size, factor) = (self.optional_count("bottleneck_size"), self.optional_count("reduction_factor"));
        if size.is_some() && factor.is_some() {
            self.problem(
                "reduction_factor",
                "bottleneck_size and reduction_factor both say how wide; expected one of them",
            );
        }
        let size = match size {
            Some(size) => BottleneckSize::Numbers(size),
            // From: AdapterHub's configurations of both placements.
            None => BottleneckSize::Divided(factor.unwrap_or(16)),
        };
        let placement = match self.settings.text("placement") {
            Some("houlsby") => Placement::Houlsby,
            _ => Placement::Pfeiffer,
        };
        let activation = self.settings.text("bottleneck_activation").and_then(BottleneckConfig::activation_named);
        BottleneckSettings { size, placement, activation: activation.unwrap_or(Activation::Relu) }
    }
}
