//! In what numbers are kept, what runs again, and what happens when memory or the range of f16 ends: whole runs on the
//! committed checkpoints, whose origin fixtures/README.md tells.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::cell::Cell;

use luthier_model::adapter::{Ia3Settings, OftSettings, TargetModules, VeraSettings};
use luthier_model::{Decoder, FreezeSettings, LoraSettings, Recomputed, TrainedLayers, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision, RotationSeries, Rounding};
use luthier_train::{
    Control, Due, End, Event, Listener, LossScaling, MicroBatch, Noise, Nonfinite, Optimiser, OptimiserSettings,
    Progress, PureBf16, Row, Schedule, ScheduleKind, Step, Steps, Trainer, TrainerSettings, accumulate, evaluate,
    run_step,
};
use support::{checkpoint, device, lora};

const WHOLE: Recomputed = Recomputed { layers: 2, feed_forward_only: false };
const FEED_FORWARD: Recomputed = Recomputed { layers: 2, feed_forward_only: true };
const NOTHING: Recomputed = Recomputed { layers: 0, feed_forward_only: false };

fn optimiser(pure_bf16: Option<Rounding>) -> OptimiserSettings {
    OptimiserSettings {
        max_gradient_norm: Some(1.0),
        pure_bf16: pure_bf16.map(|rounding| PureBf16 { rounding, seed: 5 }),
        ..OptimiserSettings::adamw(0.9, 0.999, 1e-8)
    }
}

/// Sixteen rows that repeat themselves, so that there is something to learn.
fn rows() -> Vec<Vec<u32>> {
    (0..16u32).map(|row| (0..12 + row % 5).map(|index| 3 + (row * 7 + index * (1 + row % 3)) % 100).collect()).collect()
}

fn parts(budget: usize) -> Vec<MicroBatch> {
    let rows = rows();
    let trained = [true; 32];
    let rows: Vec<Row> =
        rows.iter().zip(0..).map(|(ids, number)| Row::new(ids, &trained[..ids.len()], number)).collect();
    MicroBatch::split(&rows, budget)
}

/// The same rows every step.
struct Same {
    budget: Cell<usize>,
}

impl Steps for Same {
    fn step(&self, _: usize) -> (Vec<MicroBatch>, f64) {
        (parts(self.budget.get()), 0.0)
    }
    fn per_epoch(&self) -> usize {
        1
    }
    fn evaluation(&self) -> Vec<MicroBatch> {
        Vec::new()
    }
    fn names(&self, _: usize) -> String {
        "rows".to_owned()
    }
    fn halve_budget(&self) -> Option<usize> {
        let halved = self.budget.get() / 2;
        (halved >= 16).then(|| {
            self.budget.set(halved);
            halved
        })
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Listener for Events {
    type Error = ();
    fn event(&mut self, event: &Event) -> Control {
        self.0.push(event.clone());
        Control::Continue
    }
    fn save(&mut self, _: &Progress, _: &Optimiser) -> Result<(), ()> {
        Ok(())
    }
}

impl Events {
    fn losses(&self) -> Vec<f64> {
        let loss = |event: &Event| match event {
            Event::Step(step) => Some(step.loss),
            _ => None,
        };
        self.0.iter().filter_map(loss).collect()
    }

    /// The mean of the last ten.
    fn end(&self) -> f64 {
        let losses = self.losses();
        losses[losses.len() - 10..].iter().sum::<f64>() / 10.0
    }
}

struct Run {
    events: Events,
    progress: Progress,
    end: End,
    tokens_of_a_part: usize,
}

fn train(device: &Device, tuning: &Tuning, settings: TrainerSettings) -> Run {
    let checkpoint = checkpoint("llama");
    let storage = settings.optimiser.storage();
    let decoder = Decoder::with_storage(device, &checkpoint, tuning, &[], storage).unwrap();
    let mut trainer = Trainer::new(device, &decoder, settings);
    let (mut events, steps) = (Events::default(), Same { budget: Cell::new(1000) });
    let end = trainer.run(&steps, &mut events).unwrap();
    let tokens_of_a_part = steps.budget.get();
    Run { events, progress: trainer.progress().clone(), end, tokens_of_a_part }
}

fn settings(precision: Precision, total_steps: usize, learning_rate: f64) -> TrainerSettings {
    let schedule = Schedule { kind: ScheduleKind::Constant, learning_rate, warmup_steps: 0, total_steps };
    TrainerSettings {
        precision,
        schedule,
        optimiser: optimiser(None),
        recomputed: NOTHING,
        noise: None,
        dropout_seed: None,
        evaluating: None,
        saving: Due::Never,
        keeps_best: false,
        loss_scaling: (precision == Precision::F16).then(LossScaling::default),
        nonfinite: Nonfinite::Stop,
    }
}

/// Methods that multiply, scale or rotate each linear layer in a way of their own.
fn methods() -> Vec<Tuning> {
    let (targets, saved_modules) = (TargetModules::AllLinear, Vec::new());
    let dora = LoraSettings { dora: true, seed: 7, ..LoraSettings::of_rank(3) };
    let ia3 = |feedforward: &[&str]| {
        let feedforward = TargetModules::Names(feedforward.iter().map(|&name| name.to_owned()).collect());
        Tuning::Ia3(Ia3Settings { targets: targets.clone(), feedforward, saved_modules: saved_modules.clone() })
    };
    let vera = VeraSettings {
        rank: 5,
        start: 0.1,
        key: 1,
        saves_matrices: true,
        dropout: 0.2,
        targets: targets.clone(),
        saved_modules: saved_modules.clone(),
    };
    let oft = OftSettings {
        blocks: 0,
        block: 4,
        series: RotationSeries::Terms(5),
        targets: targets.clone(),
        saved_modules: saved_modules.clone(),
    };
    let others = [Tuning::Vera(vera), Tuning::Oft(oft), ia3(&[]), ia3(&["down_proj"])];
    [Tuning::Full, lora(0.2), Tuning::Lora(dora)].into_iter().chain(others).collect()
}

#[test]
fn what_runs_again_gives_the_same_bytes_and_keeps_less() {
    let device = device();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for tuning in methods() {
            let checkpoint = checkpoint("llama");
            let decoder = Decoder::new(&device, &checkpoint, &tuning, None).unwrap();
            let compute = |recomputed| {
                let step = Step { precision, recomputed, dropout_seed: Some(3), ..Step::default() };
                let loss = device.download(&accumulate(&device, &decoder, &parts(1000), &step));
                let gradients = decoder.parameters().gradients();
                (loss, gradients.iter().map(|gradient| device.download(gradient)).collect::<Vec<_>>())
            };
            let expected = compute(NOTHING);
            assert!(expected.0[0].is_finite());
            assert!(compute(WHOLE) == expected, "{precision:?} {tuning:?}");
            assert!(compute(FEED_FORWARD) == expected, "{precision:?} {tuning:?}");
        }
    }
    let peak = |recomputed| {
        let (device, checkpoint) = (Device::meta(), checkpoint("llama"));
        let decoder = Decoder::new(&device, &checkpoint, &lora(0.0), None).unwrap();
        accumulate(&device, &decoder, &parts(1000), &Step { recomputed, ..Step::default() });
        device.usage().peak_bytes
    };
    let [nothing, feed_forward, whole] = [NOTHING, FEED_FORWARD, WHOLE].map(peak);
    assert!(whole < feed_forward && feed_forward < nothing, "{whole} {feed_forward} {nothing}");
}

#[test]
fn the_device_without_data_counts_what_the_processor_takes() {
    let checkpoint = checkpoint("llama-tied");
    let last = FreezeSettings { layers: TrainedLayers::Last(1), modules: Vec::new(), extra_modules: Vec::new() };
    let tensors = last.tensors(&checkpoint.model).unwrap();
    for tuning in [Tuning::Full, Tuning::Freeze { tensors }, lora(0.0)] {
        for (precision, pure) in [
            (Precision::F16, None),
            (Precision::Bf16, Some(Rounding::Stochastic)),
            (Precision::Bf16, Some(Rounding::Kahan)),
        ] {
            for recomputed in [NOTHING, WHOLE, FEED_FORWARD] {
                let noise = Some(Noise { alpha: 5.0, seed: 1 });
                let step = Step { precision, recomputed, noise, loss_scale: 1024.0, ..Step::default() };
                let used = |device: Device| {
                    let settings = optimiser(pure);
                    let decoder =
                        Decoder::with_storage(&device, &checkpoint, &tuning, &[], settings.storage()).unwrap();
                    let mut state = Optimiser::new(&device, decoder.parameters(), settings);
                    run_step(&device, &decoder, &mut state, &parts(60), &step);
                    run_step(&device, &decoder, &mut state, &parts(1000), &step);
                    device.usage()
                };
                let (counted, taken) = (used(Device::meta()), used(device()));
                assert_eq!(counted, taken, "{tuning:?} {precision:?} {pure:?} {recomputed:?}");
            }
        }
    }
}

#[test]
fn fp16_overflows_recovers_and_ends_where_bf16_does() {
    let device = device();
    let expected = train(&device, &Tuning::Full, settings(Precision::Bf16, 60, 2e-3)).events.end();
    let scaling = LossScaling { initial: 2f64.powi(40), growth_steps: 25, ..LossScaling::default() };
    let run = train(
        &device,
        &Tuning::Full,
        TrainerSettings { loss_scaling: Some(scaling), ..settings(Precision::F16, 80, 2e-3) },
    );
    assert_eq!(run.end, End::Finished, "an overflow is no broken step");
    let overflows: Vec<_> = run
        .events
        .0
        .iter()
        .filter_map(|event| match event {
            Event::Overflow(overflow) => Some((overflow.step, overflow.loss_scale, overflow.next_loss_scale)),
            _ => None,
        })
        .collect();
    assert!(overflows.len() > 10, "{overflows:?}");
    assert_eq!(overflows[0], (1, 2f64.powi(40), 2f64.powi(39)));
    assert_eq!((run.progress.skipped_steps, run.progress.skipped_in_a_row), (overflows.len(), 0));
    let scale = run.progress.loss_scale.unwrap();
    assert_eq!(scale.overflows, overflows.len());
    // It grew again at least once.
    assert!(
        scale.scale > overflows[overflows.len() - 1].2 || overflows.last().unwrap().0 > 25,
        "{scale:?} {overflows:?}"
    );
    let losses = run.events.losses();
    let counted = losses.len() - overflows.len();
    let same: f64 = losses[losses.len() - 10..].iter().sum::<f64>() / 10.0;
    // As many steps that counted as bf16 took, but for the ends of both.
    let reference = train(&device, &Tuning::Full, settings(Precision::Bf16, counted, 2e-3)).events.end();
    assert!((same - reference).abs() < 0.02 * reference, "fp16 {same}, bf16 {reference}, after 60 steps {expected}");
}

#[test]
fn a_loss_that_fp16_cannot_hold_is_no_fault_of_the_scale() {
    let device = device();
    let mut listener = Events::default();
    let checkpoint = checkpoint("llama");
    let decoder = Decoder::new(&device, &checkpoint, &lora(0.0), None).unwrap();
    // Embeddings that the residual stream of f16 cannot hold do not come from training; a broken adapter has the same effect.
    let parameter = decoder.parameters().iter().nth(1).unwrap();
    device.write_f32(&parameter.value, &vec![1e30; parameter.value.len()]);
    let parameter = decoder.parameters().iter().next().unwrap();
    device.write_f32(&parameter.value, &vec![1e30; parameter.value.len()]);
    let mut trainer = Trainer::new(&device, &decoder, settings(Precision::F16, 5, 1e-3));
    let end = trainer.run(&Same { budget: Cell::new(1000) }, &mut listener);
    assert_eq!(end, Ok(End::Nonfinite));
    assert_eq!(trainer.progress().loss_scale.unwrap().overflows, 0);
    assert!(
        listener.0.iter().any(|event| matches!(event, Event::Warning { message, .. } if message.contains("65504")))
    );
}

#[test]
fn pure_bf16_learns_as_bf16_does() {
    let device = device();
    let of = |rounding, rate| {
        let settings = TrainerSettings { optimiser: optimiser(rounding), ..settings(Precision::Bf16, 100, rate) };
        train(&device, &Tuning::Full, settings).events.end()
    };
    // A rate at which rounding to the nearest would lose most of each step.
    for (rate, allowed) in [(2e-3, 0.1), (1e-4, 0.03)] {
        let expected = of(None, rate);
        for rounding in [Rounding::Stochastic, Rounding::Kahan] {
            let found = of(Some(rounding), rate);
            assert!((found - expected).abs() < allowed * expected, "{rate} {rounding:?} {found} {expected}");
        }
    }
}

#[test]
fn pure_bf16_is_the_same_twice_and_takes_half() {
    let of = |pure, device: &Device| {
        let checkpoint = checkpoint("llama");
        let settings = optimiser(pure);
        let decoder = Decoder::with_storage(device, &checkpoint, &Tuning::Full, &[], settings.storage()).unwrap();
        let mut state = Optimiser::new(device, decoder.parameters(), settings);
        let step = Step { precision: Precision::Bf16, learning_rate: 1e-3, ..Step::default() };
        run_step(device, &decoder, &mut state, &parts(1000), &step);
        decoder.parameters().iter().map(|parameter| device.download(&parameter.value)).collect::<Vec<_>>()
    };
    let other = CpuOptions { threads: 1, isa: Isa::detect(), memory_bytes: 1 << 28, poison: true };
    let other = Device::cpu(other, None).unwrap();
    assert!(of(Some(Rounding::Stochastic), &device()) == of(Some(Rounding::Stochastic), &other), "threads");
    let resident = |pure| {
        let (device, checkpoint, settings) = (Device::meta(), checkpoint("llama"), optimiser(pure));
        let decoder = Decoder::with_storage(&device, &checkpoint, &Tuning::Full, &[], settings.storage()).unwrap();
        let state = Optimiser::new(&device, decoder.parameters(), settings);
        let bytes = device.usage().live_bytes;
        drop(state);
        (bytes, decoder.parameters().iter().filter(|parameter| parameter.dims.len() > 1).map(|p| p.value.len()).sum())
    };
    let (full, matrices): (usize, usize) = resident(None);
    // Value and both moments: two bytes less each; allocations are rounded up to 256 bytes.
    let saved = full - resident(Some(Rounding::Stochastic)).0;
    assert!(saved.abs_diff(6 * matrices) < 256 * 3 * 40, "{saved} {matrices}");
    let saved = full - resident(Some(Rounding::Kahan)).0;
    assert!(saved.abs_diff(4 * matrices) < 256 * 4 * 40, "{saved} {matrices}");
}

#[test]
fn noise_follows_the_row_and_stays_out_of_evaluations() {
    let device = device();
    let checkpoint = checkpoint("llama");
    let decoder = Decoder::new(&device, &checkpoint, &lora(0.0), None).unwrap();
    let loss = |alpha: Option<f64>, budget, seed| {
        let noise = alpha.map(|alpha| Noise { alpha, seed });
        let step = Step { noise, ..Step::default() };
        f64::from(device.download(&accumulate(&device, &decoder, &parts(budget), &step))[0])
    };
    let plain = loss(None, 1000, 1);
    let noisy = loss(Some(15.0), 1000, 1);
    assert!((noisy - plain).abs() > 1e-5 && (noisy - plain).abs() < 0.5, "{noisy} {plain}");
    assert!((loss(Some(15.0), 16, 1) - noisy).abs() < 1e-5, "a row's noise does not depend on its part");
    assert!((loss(Some(15.0), 1000, 2) - noisy).abs() > 1e-6, "another step has another noise");
    assert_eq!(loss(Some(0.0), 1000, 1), plain);
    let scores = evaluate(&device, &decoder, Precision::F32, &parts(1000)[0]);
    let mean = -scores.iter().map(|values| f64::from(values[0])).sum::<f64>() / scores.len() as f64;
    assert!((mean - plain).abs() < 1e-4, "{mean} {plain}");
}

#[test]
fn a_lack_of_memory_makes_parts_smaller_and_changes_nothing_else() {
    let limited = |memory_bytes| {
        let options = CpuOptions { threads: 2, isa: Isa::detect(), memory_bytes, poison: true };
        Device::cpu(options, None).unwrap()
    };
    let of = |device: &Device| {
        train(device, &lora(0.1), TrainerSettings { dropout_seed: Some(9), ..settings(Precision::Bf16, 6, 1e-3) })
    };
    let plenty = limited(1 << 28);
    let expected = of(&plenty);
    assert_eq!((expected.end, expected.tokens_of_a_part), (End::Finished, 1000));
    let needed = plenty.usage().peak_bytes;
    let found = of(&limited(needed * 3 / 5));
    assert_eq!(found.end, End::Finished);
    assert!(found.tokens_of_a_part < 1000);
    let warned = |run: &Run| {
        let named = |event: &&Event| matches!(event, Event::Warning { name, .. } if name == "out_of_memory");
        run.events.0.iter().filter(named).count()
    };
    assert!(warned(&found) > 0 && warned(&expected) == 0);
    for (found, expected) in found.events.losses().iter().zip(expected.events.losses()) {
        assert!((found - expected).abs() < 2e-3 * expected, "{found} {expected}");
    }
    // What cannot be helped ends the run.
    let resident = {
        let (device, checkpoint) = (Device::meta(), checkpoint("llama"));
        let decoder = Decoder::new(&device, &checkpoint, &lora(0.1), None).unwrap();
        let state = Optimiser::new(&device, decoder.parameters(), optimiser(None));
        let bytes = device.usage().peak_bytes;
        drop(state);
        bytes
    };
    let hopeless = of(&limited(resident + 16_384));
    assert_eq!(hopeless.end, End::OutOfMemory);
    assert!(warned(&hopeless) > 0 && hopeless.events.losses().is_empty());
}
