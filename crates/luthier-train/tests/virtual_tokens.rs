//! Learned prefixes, prompts and bottleneck adapters in batches: a row's numbers do not depend on its neighbours, layers may
//! run again, and the device without data counts what the processor allocates.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::adapter::{BottleneckConfig, Placement, PromptKind, PromptStart};
use luthier_model::{BottleneckSettings, Checkpoint, Decoder, PromptSettings, Recomputed, Tuning};
use luthier_tensor::{Activation, Precision};
use luthier_train::{MicroBatch, Optimiser, OptimiserSettings, Row, Step, accumulate, evaluate, plan_memory, run_step};
use support::{checkpoint, device};

fn step(precision: Precision, recomputed: impl Into<Recomputed>) -> Step {
    Step { precision, recomputed: recomputed.into(), learning_rate: 1e-2, ..Step::default() }
}

/// Every method of this file, for a model.
fn methods(checkpoint: &Checkpoint) -> Vec<(&'static str, Tuning)> {
    let prompt = |kind, network| {
        let model = &checkpoint.model.decoder;
        Tuning::Prompt(PromptSettings::new(kind, 5, network, PromptStart::Random, 3, model))
    };
    let bottleneck = |placement| {
        let (size, activation) = (3, Activation::Silu);
        let config = BottleneckConfig { size, placement, activation, base_model: String::new(), revision: None };
        Tuning::Bottleneck(BottleneckSettings { config, seed: 5 })
    };
    vec![
        ("prefix", prompt(PromptKind::Prefix, None)),
        ("prefix with projection", prompt(PromptKind::Prefix, Some(7))),
        ("prompt", prompt(PromptKind::Prompt, None)),
        ("p-tuning", prompt(PromptKind::PTuning, Some(7))),
        ("houlsby", bottleneck(Placement::Houlsby)),
        ("pfeiffer", bottleneck(Placement::Pfeiffer)),
    ]
}

/// Rows of these lengths whose first two tokens are a prompt.
fn rows(lengths: &[usize]) -> Vec<(Vec<u32>, Vec<bool>)> {
    let row = |(number, &length): (usize, &usize)| {
        let ids = (0..length).map(|index| ((number * 31 + index * 7) % 120 + 3) as u32).collect();
        (ids, (0..length).map(|index| index > 1).collect())
    };
    lengths.iter().enumerate().map(row).collect()
}

fn batch(rows: &[(Vec<u32>, Vec<bool>)]) -> MicroBatch {
    let rows: Vec<Row> = rows.iter().map(|(ids, trained)| Row::new(ids, trained, 0)).collect();
    MicroBatch::of(&rows)
}

/// The dynamic model was trained on 16 positions: with five before them the rows lie on both sides.
#[test]
fn packed_rows_give_exactly_what_each_gives_alone() {
    let rows = rows(&[9, 30, 3, 11, 12, 80, 30]);
    for model in ["llama", "llama-dynamic-rope", "mistral-window", "granite"] {
        let checkpoint = checkpoint(model);
        for (name, tuning) in methods(&checkpoint) {
            let device = device();
            let decoder = Decoder::new(&device, &checkpoint, &tuning, None).unwrap();
            for precision in [Precision::F32, Precision::Bf16] {
                let together = evaluate(&device, &decoder, precision, &batch(&rows));
                let alone = rows.chunks(1).flat_map(|row| evaluate(&device, &decoder, precision, &batch(row)));
                assert!(together == alone.collect::<Vec<_>>(), "{model}, {name}, {precision:?}");
            }
        }
    }
}

#[test]
fn layers_that_run_again_give_the_same_gradients_and_memory_is_counted() {
    let checkpoint = checkpoint("llama-dynamic-rope");
    let part = batch(&rows(&[9, 30, 3]));
    let settings = OptimiserSettings::adamw(0.9, 0.999, 1e-8);
    for (name, tuning) in methods(&checkpoint) {
        for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
            let mut found = Vec::new();
            let feed_forward = Recomputed { layers: 2, feed_forward_only: true };
            for recomputed in [0.into(), 1.into(), 2.into(), feed_forward] {
                let device = device();
                let decoder = Decoder::new(&device, &checkpoint, &tuning, None).unwrap();
                let step = step(precision, recomputed);
                let loss = device.download(&accumulate(&device, &decoder, std::slice::from_ref(&part), &step));
                let gradients: Vec<Vec<f32>> =
                    decoder.parameters().gradients().iter().map(|gradient| device.download(gradient)).collect();
                // A bottleneck's first step moves `up` alone, since that starts at zero.
                let moved = gradients.iter().filter(|gradient| gradient.iter().any(|number| *number != 0.0)).count();
                assert!(moved * 2 >= gradients.len() && gradients.iter().flatten().all(|number| number.is_finite()));
                found.push((loss, gradients));

                device.reset_usage();
                let mut optimiser = Optimiser::new(&device, decoder.parameters(), settings.clone());
                let before = device.usage().allocations;
                run_step(&device, &decoder, &mut optimiser, std::slice::from_ref(&part), &step);
                evaluate(&device, &decoder, precision, &part);
                let plan = plan_memory(
                    &checkpoint,
                    &tuning,
                    &[],
                    &settings,
                    &step,
                    [std::slice::from_ref(&part)],
                    std::slice::from_ref(&part),
                )
                .unwrap();
                let usage = device.usage();
                let counted = (usage.peak_bytes, usage.allocations - before);
                assert_eq!((plan.peak_bytes, plan.allocations), counted, "{name}, {precision:?}, {recomputed:?}");
            }
            assert!(found.iter().all(|other| *other == found[0]), "{name}, {precision:?}");
        }
    }
}

#[test]
fn every_method_learns_and_a_bottleneck_starts_at_the_base() {
    let checkpoint = checkpoint("llama");
    let part = batch(&rows(&[9, 30, 3, 24]));
    let settings = OptimiserSettings::adamw(0.9, 0.999, 1e-8);
    let device = device();
    let base = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None).unwrap();
    let base = evaluate(&device, &base, Precision::F32, &part);
    for (name, tuning) in methods(&checkpoint) {
        let decoder = Decoder::new(&device, &checkpoint, &tuning, None).unwrap();
        let start = evaluate(&device, &decoder, Precision::F32, &part);
        if matches!(tuning, Tuning::Bottleneck(_)) {
            let far = start.iter().zip(&base).map(|(one, other)| (one[0] - other[0]).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{name} starts {far} from the base");
        }
        let mut optimiser = Optimiser::new(&device, decoder.parameters(), settings.clone());
        let mut losses = Vec::new();
        for _ in 0..12 {
            let parts = std::slice::from_ref(&part);
            losses
                .push(run_step(&device, &decoder, &mut optimiser, parts, &step(Precision::F32, 0)).read(&device).loss);
        }
        assert!(losses[11] < losses[0] - 0.01, "{name}: {losses:?}");
    }
}
