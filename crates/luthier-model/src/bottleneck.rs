//! Bottleneck adapters: a small network with a residual of its own between what a block computes and what it is added to:
//! h + s * (o + up(activation(down(o)))), where o is what attention or feed-forward gives. From: Houlsby et al. 2019 (after
//! both), Pfeiffer et al. 2020 (after feed-forward alone). Being no linear function of the base's matrices, they cannot be
//! merged into them.

use luthier_tensor::{Activation, LinearInput, Projection, Residual, Tape, Var};

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Bottleneck {
    /// With its bias: `[inner, hidden]`
    pub(crate) down: Projection,
    /// With its bias: `[hidden, inner]`
    pub(crate) up: Projection,
    /// Between the two.
    pub(crate) activation: Activation,
}

impl Bottleneck {
    /// `base + scale * (block + up(activation(down(block))))`, all `[tokens, hidden]`.
    pub(crate) fn add(&self, tape: &mut Tape<'_>, block: &Var, base: &Var, scale: f32) -> Var {
        let inner = tape.linear(LinearInput::Plain(block), std::slice::from_ref(&self.down), None);
        let sum = tape.add_scaled(base, block, scale);
        let activated = LinearInput::Activated { input: &inner, activation: self.activation, gated: false };
        tape.linear(activated, std::slice::from_ref(&self.up), Some(Residual { base: &sum, scale }))
    }
}
