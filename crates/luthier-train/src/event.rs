//! What happens in a run, for whoever wants to show or keep it: the terminal, the log file, a chart, a page.

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A step has ended.
    Step(StepEvent),
    /// Something that the user should know, with what to do about it.
    Warning {
        /// A fixed name, such as `nonfinite`.
        name: &'static str,
        /// One sentence.
        message: String,
    },
}

/// The numbers of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepEvent {
    /// Its number, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub total_steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean negative log-probability of the step's trained tokens.
    pub loss: f64,
    /// Norm of all gradients together before clipping.
    pub gradient_norm: f64,
    /// The rate that was used.
    pub learning_rate: f64,
    /// Tokens that were computed.
    pub tokens: usize,
    /// Tokens that were predicted and scored.
    pub trained_tokens: usize,
    /// Parts that the step was computed in.
    pub micro_steps: usize,
    /// Most bytes of tensors so far.
    pub peak_bytes: usize,
}
