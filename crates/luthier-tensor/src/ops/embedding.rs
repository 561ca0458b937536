//! Token embedding: rows of a table, decoded from whatever storage it has.

use crate::finality::Additions;
use crate::{Tape, Tensor, Var, Weight};

impl<'a> Tape<'a> {
    /// `out[t] = (table[ids[t]] + noise) * scale`, `[tokens, width]`. ids u32 `[1, tokens]`.
    pub fn embedding(&mut self, table: &Weight, ids: &Tensor, scale: f32) -> Var {
        let out = self.device().empty(self.precision().storage(), ids.len(), table.value.columns());
        self.device().run("embedding", |cpu| cpu.embed(&table.value, ids, scale, &out));
        if let Some(noise) = self.noise() {
            self.device().run("embedding", |cpu| {
                cpu.add_noise(&out, &noise.tokens, &noise.magnitudes, noise.seed, scale);
            });
        }
        let additions = Additions::to([table]);
        let wanted = self.wants(&[], &additions);
        let Some(gradient) = table.live().gradient.filter(|_| wanted) else {
            return Var::constant(out);
        };
        let out = self.reached(out);
        let (slot, ids) = (out.slot(), ids.clone());
        self.record(additions, move |gradients| {
            let Some(upstream) = slot.and_then(|slot| gradients.take(slot)) else { return };
            let device = gradients.device.clone();
            device.run("embedding backward", |cpu| cpu.embed_backward(&ids, scale, &upstream, &gradient));
        });
        out
    }
}
