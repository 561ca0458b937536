//! Rotary embedding of the query and key heads, with the norm that some families put around it.

use crate::cpu::{HeadNorm, RotaryShape};
use crate::finality::Additions;
use crate::{HeadLayout, Tape, Tensor, Var, Weight};

/// Cosine and sine of each token's angles, made on the host from positions and frequencies.
#[derive(Clone, Debug)]
pub struct RotaryTables {
    /// f32 `[tokens, rotated / 2]`
    pub cosine: Tensor,
    /// f32 `[tokens, rotated / 2]`
    pub sine: Tensor,
    /// Pairs are neighbours instead of halves.
    pub interleaved: bool,
}

/// RMS norm of each query and key head.
#[derive(Clone, Debug)]
pub struct HeadNormWeights {
    /// f32 `[1, head_dim]`
    pub query: Weight,
    /// f32 `[1, head_dim]`
    pub key: Weight,
    /// Added to the mean square.
    pub epsilon: f32,
    /// The norm follows the rotation.
    pub after_rotation: bool,
}

impl<'a> Tape<'a> {
    /// Rotates the query and key heads of `heads` `[tokens, layout.columns()]`. Without a norm the tensor itself is
    /// changed, so it must have no other reader.
    pub fn rotary(
        &mut self,
        heads: Var,
        layout: HeadLayout,
        tables: &RotaryTables,
        norm: Option<&HeadNormWeights>,
    ) -> Var {
        let shape = RotaryShape {
            layout,
            interleaved: tables.interleaved,
            cosine: tables.cosine.clone(),
            sine: tables.sine.clone(),
        };
        match norm {
            None => self.rotate(heads, shape),
            Some(weights) => self.normalise_and_rotate(&heads, shape, weights),
        }
    }

    fn rotate(&mut self, heads: Var, shape: RotaryShape) -> Var {
        self.device().run("rotary", |cpu| cpu.rotate(&shape, heads.value(), 1.0));
        if let Some(slot) = heads.slot() {
            self.record(Additions::NONE, move |gradients| {
                let Some(gradient) = gradients.take(slot) else { return };
                gradients.device.run("rotary backward", |cpu| cpu.rotate(&shape, &gradient, -1.0));
                gradients.put(slot, gradient);
            });
        }
        heads
    }

    fn normalise_and_rotate(&mut self, heads: &Var, shape: RotaryShape, weights: &HeadNormWeights) -> Var {
        let norm = HeadNorm {
            query: weights.query.value.clone(),
            key: weights.key.value.clone(),
            epsilon: weights.epsilon,
            after_rotation: weights.after_rotation,
        };
        let input = heads.value().clone();
        let output = self.device().empty(input.dtype(), input.rows(), input.columns());
        self.device().run("rotary", |cpu| cpu.normalise_and_rotate(&shape, &norm, &input, &output));
        let sums = (weights.query.live().gradient, weights.key.live().gradient);
        let additions = Additions::to([&weights.query, &weights.key]);
        if !self.wants(&[heads], &additions) {
            return Var::constant(output);
        }
        let out = self.reached(output);
        let (slot, input_slot) = (out.slot(), heads.slot());
        self.record(additions, move |gradients| {
            let Some(gradient) = slot.and_then(|slot| gradients.take(slot)) else { return };
            gradients.device.run("rotary backward", |cpu| {
                let sums = (sums.0.as_ref(), sums.1.as_ref());
                cpu.normalise_and_rotate_backward(&shape, &norm, &input, &gradient, sums);
            });
            gradients.add(input_slot, gradient);
        });
        out
    }
}
