//! Bottleneck adapters: a small network with a residual of its own after what a block computes: o + up(activation(down(o))),
//! where o is what attention or feed-forward gives, before it is scaled, normalised (where a family does that) and added to the
//! residual stream. From: Houlsby et al. 2019 (after both), Pfeiffer et al. 2020 (after feed-forward alone). Having an
//! activation inside, they cannot be merged into the base's matrices.

use luthier_tensor::{Activation, LinearInput, Projection, Residual, Tape, Var};

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Bottleneck {
    /// Its place in the list of loaded adapters.
    pub(crate) number: u32,
    /// With its bias: `[inner, hidden]`
    pub(crate) down: Projection,
    /// With its bias: `[hidden, inner]`
    pub(crate) up: Projection,
    /// Between the two.
    pub(crate) activation: Activation,
}

impl Bottleneck {
    /// `block + up(activation(down(block)))`, `[tokens, hidden]`.
    pub(crate) fn apply(&self, tape: &mut Tape<'_>, block: &Var) -> Var {
        let inner = tape.linear(LinearInput::Plain(block), std::slice::from_ref(&self.down), None);
        let activated = LinearInput::Activated { input: &inner, activation: self.activation, gated: false };
        tape.linear(activated, std::slice::from_ref(&self.up), Some(Residual { base: block, scale: 1.0 }))
    }
}
