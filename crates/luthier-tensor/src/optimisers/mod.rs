//! Rules that step one parameter, as operations of a device. AdamW is in [`crate::adamw`]; each other rule has a file here
//! and its loops in `cpu/optimisers`. All of them look at the norm of the gradients on the device: where it is not finite,
//! neither the parameter nor what the rule keeps changes, and the host reads nothing within a step.

mod adafactor;
mod adam_mini;
mod adamw_8bit;
mod low_rank;
mod muon;
mod simple;

use crate::Tensor;

pub use adafactor::{Adafactor, SquareMeans};
pub use adam_mini::AdamMini;
pub use adamw_8bit::{BLOCK, EightBitMoments, dynamic_map};
pub use low_rank::{Apollo, Galore, LowMoments, ProjectionSource, Side};
pub use muon::Muon;
pub use simple::{Lion, ScheduleFree, Sgd};

/// Whether a step counts, and how much of its gradients.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// f32 `[1, 1]`: the norm that decides; where it is not finite nothing changes.
    pub norm: &'a Tensor,
    /// Gradients are scaled down to this norm.
    pub max_norm: Option<f32>,
    /// Factor of the gradients before all else, which the norm has already: 1 / the scale of the loss.
    pub gradient_scale: f32,
}
