//! Making a run fit: token budget and recomputed layers are chosen on the device without data, by the code that will run.

use luthier_model::Tuning;
use luthier_model::adapter::Loaded;
use luthier_train::{MemoryPlan, Step, TrainerSettings, plan_memory};

use crate::checkpoint::Layout;
use crate::config::{Recomputation, TrainConfig};
use crate::eprint_line;
use crate::machine::{ProcessMemory, available_bytes};
use crate::model::Model;
use crate::rows::RowSteps;

/// Tokens of a part where nothing else is said: more make no part faster, and fewer pack each weight more often.
const TOKEN_BUDGET: usize = 1536;
/// Bytes of activations that are never worth a smaller part. Beyond them, and beyond half of the weights, parts shrink by an
/// eighth at a time: each part packs the weights again, which costs a few percent of speed (docs/log.md, 2026-11-25).
const MODEST_ACTIVATIONS: usize = 500_000_000;
/// Share of the free memory that a plan may take.
const MEMORY_SHARE: f64 = 0.8;
/// Largest steps that the plan computes, by each of two measures.
const PLANNED_STEPS: usize = 64;

/// Sets token budget and recomputed layers so that the run fits the free memory.
pub(crate) fn fit(
    config: &TrainConfig,
    model: &Model,
    tuning: &Tuning,
    adapters: &[Loaded<'_>],
    steps: &mut RowSteps,
    trainer: &mut TrainerSettings,
    resumed: Option<&Layout>,
) -> anyhow::Result<MemoryPlan> {
    let layers = model.checkpoint.model.decoder.layers.len();
    let always = config.machine.recomputation == Recomputation::Always;
    trainer.recomputed_layers = if always { layers } else { 0 };
    steps.token_budget = config.batch.token_budget.unwrap_or(TOKEN_BUDGET);
    if let Some(layout) = resumed {
        // Parts add in their order: other parts would give other last bits.
        if config.batch.token_budget.is_some_and(|budget| budget != layout.token_budget) {
            eprint_line(&format!("note: token_budget stays {}, as in the checkpoint", layout.token_budget));
        }
        steps.token_budget = layout.token_budget;
        trainer.recomputed_layers = layout.recomputed_layers;
    }
    if trainer.optimiser.in_backward {
        whole_steps(config, steps, resumed)?;
    }
    let limit = available_bytes().map(|bytes| (bytes as f64 * MEMORY_SHARE) as usize);
    if limit.is_none() {
        eprint_line("note: this system does not tell how much memory is free; the plan is not compared with it");
    }
    let weights: usize = model.checkpoint.tensors.values().map(|tensor| tensor.memory_bytes()).sum();
    loop {
        let step = Step {
            precision: trainer.precision,
            recomputed_layers: trainer.recomputed_layers,
            dropout_seed: trainer.dropout_seed,
            learning_rate: trainer.schedule.learning_rate,
        };
        let largest = steps.largest(PLANNED_STEPS);
        let found = plan_memory(
            &model.checkpoint,
            tuning,
            adapters,
            &trainer.optimiser,
            &step,
            largest.iter().map(std::slice::from_ref),
            &steps.largest_evaluation(),
        )?;
        let needed = found.peak_bytes + weights;
        let may_shrink = resumed.is_none()
            && config.batch.token_budget.is_none()
            && steps.token_budget > steps.longest_row()
            && !trainer.optimiser.in_backward;
        let activations = found.peak_bytes - found.resident_bytes;
        if may_shrink && activations > MODEST_ACTIVATIONS.max(weights / 2) {
            steps.token_budget = (steps.token_budget * 7 / 8).max(steps.longest_row());
            continue;
        }
        let Some(limit) = limit.filter(|limit| needed > *limit) else { return Ok(found) };
        if may_shrink {
            steps.token_budget = (steps.token_budget / 2).max(steps.longest_row());
        } else if config.machine.recomputation == Recomputation::Auto && trainer.recomputed_layers < layers {
            // Layers that are computed again give the same numbers, so a run may go on with more of them.
            trainer.recomputed_layers = layers;
        } else if resumed.is_some() {
            anyhow::bail!(
                "this run needs {:.1} GB for weights and tensors, and {:.1} GB of the free memory may be used; it goes on with \
                 the token_budget that it began with, so close other programs or go on on a larger machine",
                needed as f64 / 1e9,
                limit as f64 / 1e9
            );
        } else {
            anyhow::bail!(
                "this run needs {:.1} GB for weights and tensors, and {:.1} GB of the free memory may be used; lower cutoff_len or \
                 token_budget, use finetuning_type: lora, or set gradient_checkpointing: true",
                needed as f64 / 1e9,
                limit as f64 / 1e9
            );
        }
    }
}

/// Each step in one part: a gradient is final after the last one, and all of them would be there before it.
fn whole_steps(config: &TrainConfig, steps: &mut RowSteps, resumed: Option<&Layout>) -> anyhow::Result<()> {
    let before = steps.token_budget;
    steps.token_budget = usize::MAX;
    let needed = steps.largest(1).iter().map(|part| part.ids.len()).max().unwrap_or(0).max(1);
    if resumed.is_some() {
        steps.token_budget = before;
    } else if let Some(budget) = config.batch.token_budget.filter(|budget| *budget < needed) {
        anyhow::bail!(
            "token_budget is {budget}, and a step has up to {needed} tokens; optimizer_in_bwd needs each step in one part: \
             leave token_budget out, or lower per_device_train_batch_size"
        );
    } else {
        steps.token_budget = config.batch.token_budget.unwrap_or(needed);
    }
    Ok(())
}

/// What the program's own code, its threads' stacks and small host buffers take once they are used.
pub(crate) const PROGRAM: u64 = 32 << 20;
/// Bytes for each token of a GGUF file's tokenizer while it is written as JSON, beside a model that is saved whole: 861 were
/// measured with the 49,152 tokens of SmolLM2.
const TOKENIZER_AS_JSON: u64 = 900;

/// What the process will hold at most, from what it holds now.
pub(crate) fn predict(
    before: &ProcessMemory,
    plan: &MemoryPlan,
    model: &Model,
    scratch_bytes: u64,
    tuning: &Tuning,
    restored: Restored,
) -> u64 {
    // Tensors lie in huge pages, so the last one is touched as a whole.
    const HUGE_PAGE: u64 = 2 << 20;
    let weights: u64 = model.checkpoint.tensors.values().map(|tensor| tensor.memory_bytes() as u64).sum();
    let tensors = plan.peak_bytes as u64 + weights;
    let touched = before.file_bytes + before.anonymous_bytes;
    let activations = (plan.peak_bytes - plan.resident_bytes) as u64;
    let state = plan.state_bytes as u64;
    // A checkpoint is mapped while it is read: masters and state before any activation, masters alone after all.
    let mapped = match restored {
        Restored::Nothing => 0,
        Restored::Best { trained } => 4 * trained,
        Restored::Everything { trained } => (4 * trained).max((4 * trained + state).saturating_sub(activations)),
    };
    touched + tensors.next_multiple_of(HUGE_PAGE) + scratch_bytes + PROGRAM + mapped + tokenizer_bytes(model, tuning)
}

fn tokenizer_bytes(model: &Model, tuning: &Tuning) -> u64 {
    match (&model.checkpoint.gguf_tokenizer, tuning) {
        (Some(found), Tuning::Full | Tuning::Freeze { .. }) => found.tokens.len() as u64 * TOKENIZER_AS_JSON,
        _ => 0,
    }
}

/// What of a checkpoint a run reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    Nothing,
    /// The best state at the end: so many trained numbers.
    Best {
        trained: u64,
    },
    /// All at the beginning too.
    Everything {
        trained: u64,
    },
}
