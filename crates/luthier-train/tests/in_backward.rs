//! Steps on the way back: the same numbers as steps after it, without the memory of all gradients; and BAdam, which has
//! gradients of one layer only. On the committed checkpoints, whose origin fixtures/README.md tells.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::collections::BTreeSet;

use luthier_model::{Decoder, FreezeSettings, Recomputed, TrainedLayers, Tuning};
use luthier_tensor::{Device, Precision, Usage};
use luthier_train::{
    BadamSettings, BlockOrder, Clipping, MicroBatch, MuonSettings, Optimiser, OptimiserKind, OptimiserSettings, Row,
    Step, StepNumbers, plan_memory, run_step,
};
use support::{checkpoint, device};

fn parts() -> Vec<MicroBatch> {
    let ids: Vec<u32> = (3..40).collect();
    let trained = vec![true; ids.len()];
    vec![MicroBatch::of(&[Row::new(&ids, &trained, 0), Row::new(&ids[..12], &trained[..12], 1)])]
}

const STEP: Step = Step {
    precision: Precision::F32,
    recomputed: Recomputed { layers: 0, feed_forward_only: false },
    dropout_seed: None,
    learning_rate: 1e-3,
    loss_scale: 1.0,
    noise: None,
};

/// The tensors of the last layer of `llama-bias`.
fn last_layer() -> BTreeSet<String> {
    let last = FreezeSettings { layers: TrainedLayers::Last(1), modules: Vec::new(), extra_modules: Vec::new() };
    last.tensors(&checkpoint("llama-bias").model).unwrap()
}

struct Ran {
    numbers: Vec<StepNumbers>,
    values: Vec<Vec<f32>>,
    usage: Usage,
    gradient_bytes: usize,
}

fn ran(device: &Device, model: &str, tuning: &Tuning, settings: &OptimiserSettings, step: &Step, count: usize) -> Ran {
    let checkpoint = checkpoint(model);
    let decoder = Decoder::new(device, &checkpoint, tuning, None).unwrap();
    let mut optimiser = Optimiser::new(device, decoder.parameters(), settings.clone());
    let run = |_| run_step(device, &decoder, &mut optimiser, &parts(), step).read(device);
    let numbers = (0..count).map(run).collect();
    Ran {
        numbers,
        values: decoder.parameters().iter().map(|parameter| device.download(&parameter.value)).collect(),
        usage: device.usage(),
        gradient_bytes: decoder.parameters().gradient_bytes(),
    }
}

#[test]
fn steps_on_the_way_back_are_the_same_steps() {
    let muon = OptimiserKind::Muon(MuonSettings::default());
    for (model, tuning) in [("llama", Tuning::Full), ("llama-tied", Tuning::Full), ("qwen3", Tuning::Full)]
        .into_iter()
        .chain([("llama-bias", Tuning::Freeze { tensors: last_layer() })])
    {
        for (kind, clip, recomputed_layers) in
            [(OptimiserKind::AdamW, None, 0), (OptimiserKind::AdamW, Some(0.01), 2), (muon.clone(), None, 2)]
        {
            let after = OptimiserSettings {
                kind,
                max_gradient_norm: clip,
                clipping: Clipping::PerTensor,
                ..OptimiserSettings::adamw(0.9, 0.999, 1e-8)
            };
            let back = OptimiserSettings { in_backward: true, ..after.clone() };
            let step = Step { recomputed: recomputed_layers.into(), ..STEP };
            let after = ran(&device(), model, &tuning, &after, &step, 3);
            let found = ran(&device(), model, &tuning, &back, &step, 3);
            assert!(found.values == after.values, "{model}: other parameters");
            for (found, after) in found.numbers.iter().zip(&after.numbers) {
                assert_eq!(found.loss, after.loss);
                assert!((found.gradient_norm / after.gradient_norm - 1.0).abs() < 1e-5, "{found:?}, {after:?}");
            }
            assert_eq!(found.gradient_bytes, 0, "gradients are gone");
            assert!(found.usage.peak_bytes < after.usage.peak_bytes, "{:?} {:?}", found.usage, after.usage);
            let meta = ran(&Device::meta(), model, &tuning, &back, &step, 3);
            assert_eq!(meta.usage, found.usage, "{model}");
        }
    }
}

#[test]
fn badam_has_gradients_of_its_block_only() {
    let badam = BadamSettings { start: None, order: BlockOrder::Descending, interval: Some(2) };
    let settings =
        OptimiserSettings { kind: OptimiserKind::Badam(badam), ..OptimiserSettings::adamw(0.9, 0.999, 1e-8) };
    let all = OptimiserSettings::adamw(0.9, 0.999, 1e-8);
    let start = ran(&device(), "llama", &Tuning::Full, &settings, &STEP, 0);
    let whole = ran(&device(), "llama", &Tuning::Full, &all, &STEP, 3);
    let names: Vec<String> = {
        let checkpoint = checkpoint("llama");
        let decoder = Decoder::new(&Device::meta(), &checkpoint, &Tuning::Full, None).unwrap();
        decoder.parameters().iter().map(|parameter| parameter.name.clone()).collect()
    };
    for (in_backward, count, moved) in [(false, 1, "layers.1."), (false, 3, "layers."), (true, 3, "layers.")] {
        let settings = OptimiserSettings { in_backward, ..settings.clone() };
        let found = ran(&device(), "llama", &Tuning::Full, &settings, &STEP, count);
        for ((name, found), start) in names.iter().zip(&found.values).zip(&start.values) {
            assert_eq!(found != start, name.contains(moved), "{name} after {count}");
        }
        assert!(found.gradient_bytes < whole.gradient_bytes / 2);
        assert!(found.usage.peak_bytes < whole.usage.peak_bytes);
        assert_eq!(ran(&Device::meta(), "llama", &Tuning::Full, &settings, &STEP, count).usage, found.usage);
        // The plan visits each block, and is not too low.
        let steps = [parts()];
        let steps = steps.iter().map(Vec::as_slice);
        let plan = plan_memory(&checkpoint("llama"), &Tuning::Full, &[], &settings, &STEP, steps, &[]).unwrap();
        assert!(plan.peak_bytes >= found.usage.peak_bytes, "{plan:?} {:?}", found.usage);
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_no_parameter_of_its_own() {
    let device = device();
    let checkpoint = checkpoint("llama");
    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Full, None).unwrap();
    let last = decoder.parameters().iter().last().unwrap();
    device.write_f32(&last.value, &vec![f32::INFINITY; last.value.len()]);
    let settings = OptimiserSettings { in_backward: true, ..OptimiserSettings::adamw(0.9, 0.999, 1e-8) };
    let mut optimiser = Optimiser::new(&device, decoder.parameters(), settings);
    let values = || decoder.parameters().iter().map(|parameter| device.download(&parameter.value)).collect::<Vec<_>>();
    let before = values();
    let numbers = run_step(&device, &decoder, &mut optimiser, &parts(), &STEP).read(&device);
    assert!(!numbers.gradient_norm.is_finite());
    assert!(values() == before);
}
