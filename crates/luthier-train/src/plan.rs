//! What a run will need, counted by the code that will run: the steps themselves on the device without data.

use luthier_model::{Checkpoint, Decoder, Error, LoraAdapter, Tuning};
use luthier_tensor::{Device, Usage};

use crate::{MicroBatch, Optimiser, OptimiserSettings, Step, evaluate, run_step};

/// The memory of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tensors that live as long as the run: trained parameters, their gradients and moments, norms.
    pub resident_bytes: usize,
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
    adapter: Option<&LoraAdapter>,
    optimiser: OptimiserSettings,
    step: &Step,
    steps: impl IntoIterator<Item = &'s [MicroBatch]>,
    evaluation: &[MicroBatch],
) -> Result<MemoryPlan, Error> {
    let device = Device::meta();
    let decoder = Decoder::with_storage(&device, checkpoint, tuning, adapter, optimiser.storage())?;
    let mut optimiser = Optimiser::new(&device, decoder.parameters(), optimiser);
    let resident_bytes = device.usage().live_bytes;
    let before = device.usage().allocations;
    for parts in steps {
        run_step(&device, &decoder, &mut optimiser, parts, step);
    }
    for part in evaluation {
        evaluate(&device, &decoder, step.precision, part);
    }
    let Usage { peak_bytes, allocations, .. } = device.usage();
    Ok(MemoryPlan { resident_bytes, peak_bytes, allocations: allocations - before })
}
