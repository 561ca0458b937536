//! The scale of the loss in fp16. Small gradients would be 0 in f16, so the loss is multiplied before backward and the
//! gradients are divided after it. The scale falls when a gradient grows too large for f16, and rises after many steps
//! without that. From: Micikevicius et al. 2018, section 3.2; the numbers are those of PyTorch's `GradScaler`.

use serde::{Deserialize, Serialize};

/// How the scale moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaling {
    /// The first scale.
    pub initial: f64,
    /// Factor after [`growth_steps`](Self::growth_steps) steps without overflow; above 1.
    pub growth: f64,
    /// Steps without overflow until the scale grows.
    pub growth_steps: usize,
    /// Factor after an overflow; below 1.
    pub back_off: f64,
    /// The least scale: an overflow there is not the scale's fault.
    pub floor: f64,
}

impl Default for LossScaling {
    fn default() -> Self {
        Self { initial: 65_536.0, growth: 2.0, growth_steps: 2000, back_off: 0.5, floor: 1.0 }
    }
}

/// Where the scale is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// Factor of the loss.
    pub scale: f64,
    /// Steps without overflow since it last moved.
    pub good_steps: usize,
    /// Overflows so far.
    pub overflows: usize,
}

impl LossScale {
    /// At the beginning of a run.
    pub fn new(scaling: &LossScaling) -> Self {
        Self { scale: scaling.initial.max(scaling.floor), good_steps: 0, overflows: 0 }
    }

    /// Whether a step of this loss and gradient norm was spoilt by the scale: the loss is fine, and the scale can fall.
    pub fn is_overflow(&self, scaling: &LossScaling, loss: f64, gradient_norm: f64) -> bool {
        loss.is_finite() && !gradient_norm.is_finite() && self.scale > scaling.floor
    }

    /// After an overflow.
    pub fn fall(&mut self, scaling: &LossScaling) {
        self.scale = (self.scale * scaling.back_off).max(scaling.floor);
        self.good_steps = 0;
        self.overflows += 1;
    }

    /// After a step that counted.
    pub(crate) fn rise(&mut self, scaling: &LossScaling) {
        self.good_steps += 1;
        if self.good_steps >= scaling.growth_steps {
            let grown = self.scale * scaling.growth;
            // It is an f32 where it is used.
            if (grown as f32).is_finite() {
                self.scale = grown;
            }
            self.good_steps = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_at_once_and_rises_after_many_steps() {
        let scaling = LossScaling { growth_steps: 3, floor: 20_000.0, ..LossScaling::default() };
        let mut scale = LossScale::new(&scaling);
        assert!(scale.is_overflow(&scaling, 2.0, f64::INFINITY) && scale.is_overflow(&scaling, 2.0, f64::NAN));
        assert!(!scale.is_overflow(&scaling, f64::NAN, f64::NAN), "no scale makes a loss a number");
        scale.rise(&scaling);
        scale.rise(&scaling);
        scale.fall(&scaling);
        assert_eq!(scale, LossScale { scale: 32_768.0, good_steps: 0, overflows: 1 });
        scale.fall(&scaling);
        assert_eq!(scale.scale, 20_000.0);
        assert!(!scale.is_overflow(&scaling, 2.0, f64::INFINITY), "it cannot fall any more");
        (0..3).for_each(|_| scale.rise(&scaling));
        assert_eq!(scale, LossScale { scale: 40_000.0, good_steps: 0, overflows: 2 });
        let mut largest = LossScale { scale: 3e38, ..scale };
        (0..3).for_each(|_| largest.rise(&scaling));
        assert_eq!(largest.scale, 3e38);
    }
}
