//! When something is done that is done again and again.

/// After which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// After none.
    Never,
    /// After the last of each epoch.
    EachEpoch,
    /// After each so many; never 0.
    Every(usize),
}

impl Due {
    /// Whether it is due when so many steps are done.
    pub fn is_due(self, done: usize, steps_per_epoch: usize) -> bool {
        match self {
            Self::Never => false,
            Self::EachEpoch => done > 0 && done.is_multiple_of(steps_per_epoch.max(1)),
            Self::Every(steps) => done > 0 && done.is_multiple_of(steps.max(1)),
        }
    }
}

/// What follows a step whose loss or gradient is not finite. It never reaches the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonfinite {
    /// The step is left out.
    Skip,
    /// The run ends.
    Stop,
}
