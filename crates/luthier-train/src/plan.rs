//! What a run will need, counted by the code that will run: the steps themselves on the device without data.

use luthier_model::adapter::Loaded;
use luthier_model::{Checkpoint, Decoder, Error, Tuning};
use luthier_tensor::{Device, Usage};

use crate::{MicroBatch, Optimiser, OptimiserSettings, Step, evaluate, run_step};

/// The memory of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tensors that live as long as the run: trained parameters, their gradients and moments, norms.
    pub resident_bytes: usize,
    /// Gradients among it.
    pub gradient_bytes: usize,
    /// What the optimiser keeps of it.
    pub state_bytes: usize,
    /// The most that tensors take at one moment.
    pub peak_bytes: usize,
    /// Allocations of all planned steps together.
    pub allocations: usize,
}

/// Runs `steps` and the `evaluation` on shapes alone. Give it every step of the run, or those that are largest.
///
/// # Errors
/// When the model cannot be made of the checkpoint.
pub fn plan_memory<'s>(
    checkpoint: &Checkpoint,
    tuning: &Tuning,
    adapters: &[Loaded<'_>],
    optimiser: &OptimiserSettings,
    step: &Step,
    steps: impl IntoIterator<Item = &'s [MicroBatch]>,
    evaluation: &[MicroBatch],
) -> Result<MemoryPlan, Error> {
    let device = Device::meta();
    let decoder = Decoder::with_storage(&device, checkpoint, tuning, adapters, optimiser.storage())?;
    let mut optimiser = Optimiser::new(&device, decoder.parameters(), optimiser.clone());
    let resident_bytes = device.usage().live_bytes;
    let gradient_bytes = decoder.parameters().gradient_bytes();
    let state_bytes = optimiser.state_bytes(decoder.parameters());
    let before = device.usage().allocations;
    let steps: Vec<&[MicroBatch]> = steps.into_iter().collect();
    for block in 0..optimiser.blocks(decoder.parameters()) {
        optimiser.visit(&device, decoder.parameters(), block);
        // The lowest block has the longest way back; of the others one step is enough.
        let count = if block == 0 { steps.len() } else { 1 };
        for parts in steps.iter().take(count) {
            run_step(&device, &decoder, &mut optimiser, parts, step);
        }
    }
    optimiser.show(&device, decoder.parameters());
    for part in evaluation {
        evaluate(&device, &decoder, step.precision, part);
    }
    let Usage { peak_bytes, allocations, .. } = device.usage();
    Ok(MemoryPlan { resident_bytes, gradient_bytes, state_bytes, peak_bytes, allocations: allocations - before })
}
