//! Making a run fit: token budget and recomputed layers are chosen on the device without data, by the code that will run.

use std::ops::Range;

use luthier_model::adapter::Loaded;
use luthier_model::{Recomputed, Tuning};
use luthier_tensor::Precision;
use luthier_train::{MemoryPlan, MicroBatch, Step, TrainerSettings, plan_memory};

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

/// Share of the free memory that a batch of as many rows as possible aims at.
const BATCH_SHARE: f64 = 0.75;
/// Steps that an epoch keeps however large batches may be: larger ones would learn less from as many rows.
const STEPS_OF_AN_EPOCH: usize = 16;

/// What fitting found.
pub(crate) struct Fitted {
    pub(crate) plan: MemoryPlan,
    /// The same run in fp32, where that is of interest.
    pub(crate) in_fp32: Option<MemoryPlan>,
}

/// A run whose memory can be planned.
pub(crate) struct Planner<'r> {
    pub(crate) model: &'r Model,
    pub(crate) tuning: &'r Tuning,
    pub(crate) adapters: &'r [Loaded<'r>],
}

impl Planner<'_> {
    fn weight_bytes(&self) -> usize {
        self.model.checkpoint.tensors.values().map(|tensor| tensor.memory_bytes()).sum()
    }

    fn plan(
        &self,
        trainer: &TrainerSettings,
        parts: &[MicroBatch],
        evaluation: &[MicroBatch],
    ) -> anyhow::Result<MemoryPlan> {
        let step = Step {
            precision: trainer.precision,
            recomputed: trainer.recomputed,
            dropout_seed: trainer.dropout_seed,
            learning_rate: trainer.schedule.learning_rate,
            noise: trainer.noise,
            ..Step::default()
        };
        let steps = parts.iter().map(std::slice::from_ref);
        let (checkpoint, optimiser) = (&self.model.checkpoint, &trainer.optimiser);
        Ok(plan_memory(checkpoint, self.tuning, self.adapters, optimiser, &step, steps, evaluation)?)
    }

    /// Makes batches as large as three quarters of the free memory hold in one part of the longest rows.
    pub(crate) fn fill_batch(
        &self,
        config: &TrainConfig,
        steps: &mut RowSteps,
        trainer: &mut TrainerSettings,
    ) -> anyhow::Result<()> {
        let limit = available_bytes().map_or(usize::MAX, |bytes| (bytes as f64 * BATCH_SHARE) as usize);
        trainer.recomputed = wanted(config, self.model);
        let most = steps.most_batch_rows(STEPS_OF_AN_EPOCH);
        let mut needed = |rows: usize| -> anyhow::Result<usize> {
            steps.set_batch_rows(rows);
            let longest = [steps.fullest()];
            Ok(self.plan(trainer, &longest, &[])?.peak_bytes + self.weight_bytes())
        };
        let rows = largest_that(1..most + 1, |rows| Ok(needed(rows)? <= limit))?.unwrap_or(1);
        let bytes = needed(rows)?;
        let reason = if rows == most { "more would leave too few steps to an epoch" } else { "more would not fit" };
        eprint_line(&format!(
            "note: per_device_train_batch_size: auto is {rows}: the longest rows take {:.1} GB of the {:.1} GB aimed at; {reason}",
            bytes as f64 / 1e9,
            limit as f64 / 1e9
        ));
        Ok(())
    }

    /// Sets token budget and recomputed layers so that the run fits the free memory.
    pub(crate) fn fit(
        &self,
        config: &TrainConfig,
        steps: &RowSteps,
        trainer: &mut TrainerSettings,
        resumed: Option<&Layout>,
    ) -> anyhow::Result<Fitted> {
        let layers = self.model.checkpoint.model.decoder.layers.len();
        trainer.recomputed = wanted(config, self.model);
        steps.set_token_budget(match (config.batch.token_budget, config.batch.rows) {
            (Some(budget), _) => budget,
            (None, Some(_)) => TOKEN_BUDGET,
            // Its rows were counted so that they fit in one part.
            (None, None) => usize::MAX,
        });
        if let Some(layout) = resumed {
            // Parts add in their order: other parts would give other last bits.
            if config.batch.token_budget.is_some_and(|budget| budget != layout.token_budget) {
                eprint_line(&format!("note: token_budget stays {}, as in the checkpoint", layout.token_budget));
            }
            steps.set_token_budget(layout.token_budget);
            trainer.recomputed = layout.recomputed();
        }
        if trainer.optimiser.in_backward {
            whole_steps(config, steps, resumed)?;
        }
        let limit = available_bytes().map(|bytes| (bytes as f64 * MEMORY_SHARE) as usize);
        if limit.is_none() {
            eprint_line("note: this system does not tell how much memory is free; the plan is not compared with it");
        }
        let weights = self.weight_bytes();
        let evaluation = |steps: &RowSteps| steps.largest_evaluation();
        let found = loop {
            let (largest, evaluated) = (steps.largest(PLANNED_STEPS), evaluation(steps));
            let found = self.plan(trainer, &largest, &evaluated)?;
            let needed = found.peak_bytes + weights;
            let (budget, longest) = (steps.token_budget().min(steps.fullest().ids.len()), steps.longest_row());
            let may_shrink = resumed.is_none()
                && config.batch.token_budget.is_none()
                && budget > longest
                && !trainer.optimiser.in_backward;
            let activations = found.peak_bytes - found.resident_bytes;
            let is_modest = activations <= MODEST_ACTIVATIONS.max(weights / 2) || config.batch.rows.is_none();
            if may_shrink && !is_modest {
                steps.set_token_budget((budget * 7 / 8).max(longest));
                continue;
            }
            let Some(limit) = limit.filter(|limit| needed > *limit) else { break found };
            if may_shrink {
                steps.set_token_budget((budget / 2).max(longest));
                continue;
            }
            let (needed, limit) = (needed as f64 / 1e9, limit as f64 / 1e9);
            if config.machine.recomputation == Recomputation::Auto {
                // Layers that are computed again give the same numbers, so a run may go on with more of them.
                let again = |layers| TrainerSettings { recomputed: Recomputed::from(layers), ..trainer.clone() };
                let fits = |layers: usize| -> anyhow::Result<bool> {
                    let plan = self.plan(&again(layers), &largest, &evaluated)?;
                    Ok((plan.peak_bytes + weights) as f64 <= limit * 1e9)
                };
                // As few as will do: from the end, counted backwards.
                let kept = largest_that(0..layers + 1, |kept| fits(layers - kept))?;
                if let Some(kept) = kept {
                    trainer.recomputed = Recomputed::from(layers - kept);
                    break self.plan(trainer, &largest, &evaluated)?;
                }
            }
            if resumed.is_some() {
                anyhow::bail!(
                    "this run needs {needed:.1} GB for weights and tensors, and {limit:.1} GB of the free memory may be used; it \
                     goes on with the token_budget that it began with, so close other programs or go on on a larger machine"
                );
            }
            anyhow::bail!(
                "this run needs {needed:.1} GB for weights and tensors, and {limit:.1} GB of the free memory may be used; lower \
                 cutoff_len or token_budget, use finetuning_type: lora, or set gradient_checkpointing: true"
            );
        };
        let in_fp32 = (trainer.precision == Precision::F16)
            .then(|| {
                let other = TrainerSettings { precision: Precision::F32, ..trainer.clone() };
                self.plan(&other, &steps.largest(PLANNED_STEPS), &evaluation(steps))
            })
            .transpose()?;
        Ok(Fitted { plan: found, in_fp32 })
    }
}

/// What runs again whatever the memory.
fn wanted(config: &TrainConfig, model: &Model) -> Recomputed {
    let layers = model.checkpoint.model.decoder.layers.len();
    match config.machine.recomputation {
        Recomputation::Always => layers.into(),
        Recomputation::FeedForward => Recomputed { layers, feed_forward_only: true },
        Recomputation::Auto | Recomputation::Never => 0.into(),
    }
}

/// The largest number of a range that passes, where all below it do; `None` when none does.
fn largest_that(
    range: Range<usize>,
    mut passes: impl FnMut(usize) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<usize>> {
    let Range { start, end } = range;
    if start >= end || !passes(start)? {
        return Ok(None);
    }
    let (mut yes, mut no) = (start, end);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if passes(middle)? { yes = middle } else { no = middle }
    }
    Ok(Some(yes))
}

/// Each step in one part: a gradient is final after the last one, and all of them would be there before it.
fn whole_steps(config: &TrainConfig, steps: &RowSteps, resumed: Option<&Layout>) -> anyhow::Result<()> {
    let before = steps.token_budget();
    steps.set_token_budget(usize::MAX);
    let needed = steps.largest(1).iter().map(|part| part.ids.len()).max().unwrap_or(0).max(1);
    if resumed.is_some() {
        steps.set_token_budget(before);
    } else if let Some(budget) = config.batch.token_budget.filter(|budget| *budget < needed) {
        anyhow::bail!(
            "token_budget is {budget}, and a step has up to {needed} tokens; optimizer_in_bwd needs each step in one part: \
             leave token_budget out, or lower per_device_train_batch_size"
        );
    } else {
        steps.set_token_budget(config.batch.token_budget.unwrap_or(needed));
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
        Restored::Best { trained } => trained,
        Restored::Everything { trained } => trained.max((trained + state).saturating_sub(activations)),
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
    /// The best state at the end: so many bytes of trained numbers.
    Best {
        trained: u64,
    },
    /// All at the beginning too.
    Everything {
        trained: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_passes_is_found() {
        for most in 0..20 {
            assert_eq!(
                largest_that(1..20, |number| Ok(number <= most)).ok(),
                Some((most >= 1).then_some(most.min(19)))
            );
        }
    }
}
