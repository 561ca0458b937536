//! Which layers `finetuning_type: freeze` trains.

use super::check::Check;

/// The decoder layers that are trained; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreezeLayers {
    First(usize),
    Last(usize),
}

impl Check<'_> {
    pub(super) fn freeze(&mut self) -> FreezeLayers {
        let layers = self.settings.whole("freeze_trainable_layers").unwrap_or_default();
        if layers == 0 {
            self.problem(
                "freeze_trainable_layers",
                "freeze_trainable_layers is 0, so nothing would be trained; expected a number of layers",
            );
        }
        let count = usize::try_from(layers.unsigned_abs()).unwrap_or(usize::MAX);
        if layers < 0 { FreezeLayers::First(count) } else { FreezeLayers::Last(count) }
    }
}
