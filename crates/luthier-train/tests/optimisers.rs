//! Every optimiser takes twenty steps and ends where its reference implementation does. What the references found is
//! fixtures/optimisers.safetensors; `tests/external/optimisers.py` made it and says with which versions. Starting values
//! and gradients are functions of counted random numbers, the same here as there.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]
#![allow(clippy::print_stdout, reason = "how far apart the ends are is worth seeing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use luthier_model::checkpoint::read_safetensors;
use luthier_model::{Parameter, Parameters};
use luthier_tensor::{CpuOptions, DType, Device, Isa, SharedBytes, Usage, dynamic_map};
use luthier_train::{
    AdafactorSettings, ApolloSettings, BadamSettings, BlockOrder, Clipping, GaloreSettings, LowRankSettings, Moments,
    MuonSettings, Optimiser, OptimiserKind, OptimiserSettings, ProjectedSide, ScheduleFreeSettings, SgdSettings,
    Targets,
};

const SEED: u64 = 7;
const STEPS: usize = 20;
/// Of the way that the reference went from the start, what another end may be away from its.
const TOLERANCE: f64 = 1e-3;
/// The same with codes of eight bits: bitsandbytes' search finds the second nearest code for 1.5 numbers in 1000, which lie
/// within 0.1 % of the middle between two; ours always finds the nearest.
const EIGHT_BIT_TOLERANCE: f64 = 3e-3;

/// Names decide what an optimiser does with a parameter, so they are those of a Llama.
const SHAPES: [(&str, &[usize]); 8] = [
    ("model.embed_tokens.weight", &[40, 16]),
    ("model.layers.0.self_attn.q_proj.weight", &[16, 16]),
    ("model.layers.0.self_attn.k_proj.weight", &[8, 16]),
    ("model.layers.0.mlp.down_proj.weight", &[16, 48]),
    ("model.layers.1.mlp.up_proj.weight", &[64, 65]),
    ("model.layers.1.mlp.up_proj.bias", &[64]),
    ("model.layers.1.post_attention_layernorm.weight", &[16]),
    ("lm_head.weight", &[40, 16]),
];

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From -1 to below 1; `round` tells them from others of the parameter.
fn numbers(name: &str, round: u64, count: usize) -> Vec<f64> {
    let named = name.bytes().fold(SEED, |hash, byte| mix(hash ^ u64::from(byte)));
    let stream = mix(named ^ mix(round));
    (0..count).map(|index| (mix(stream ^ mix(index as u64)) >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0).collect()
}

fn start(name: &str, count: usize) -> Vec<f32> {
    numbers(name, 0, count).into_iter().map(|number| number as f32).collect()
}

fn gradient(name: &str, step: usize, count: usize) -> Vec<f32> {
    let (common, own) = (numbers(name, 1000, count), numbers(name, step as u64, count));
    let mut found: Vec<f32> = common.iter().zip(own).map(|(common, own)| (0.1 * (common + 0.5 * own)) as f32).collect();
    if name == "model.embed_tokens.weight" {
        found[30 * 16..].fill(0.0);
    }
    found
}

fn rate(step: usize) -> f64 {
    1.0 - (step as f64 - 1.0) / 40.0
}

fn parameters(device: &Device) -> Parameters {
    let parameter = |(name, dims): &(&str, &[usize])| {
        let (rows, columns) = if dims.len() == 2 { (dims[0], dims[1]) } else { (1, dims[0]) };
        Parameter {
            name: (*name).to_owned(),
            value: device.upload(&start(name, rows * columns), rows, columns),
            gradient: device.zeros(DType::F32, rows, columns),
            dims: dims.to_vec(),
            decays: !name.contains("norm") && !name.contains("bias"),
            rate: 1.0,
        }
    };
    SHAPES.iter().map(parameter).collect()
}

fn settings(kind: OptimiserKind) -> OptimiserSettings {
    OptimiserSettings { kind, weight_decay: 0.1, seed: SEED, ..OptimiserSettings::adamw(0.9, 0.95, 1e-8) }
}

fn low_rank(rank: usize, scale: f64) -> LowRankSettings {
    LowRankSettings { targets: Targets::All, rank, interval: 7, scale }
}

fn apollo(rank: usize, scale: f64, random: bool) -> ApolloSettings {
    ApolloSettings { low_rank: low_rank(rank, scale), random, by_channel: true, scale_front: false }
}

/// The cases of the script, by name: settings and the highest rate.
fn cases() -> Vec<(&'static str, OptimiserSettings, f64)> {
    let sgd = |momentum, dampening, nesterov| OptimiserKind::Sgd(SgdSettings { momentum, dampening, nesterov });
    let muon = |matches_adamw| OptimiserKind::Muon(MuonSettings { matches_adamw, ..MuonSettings::default() });
    let galore = |side| OptimiserKind::Galore(GaloreSettings { low_rank: low_rank(4, 0.25), side });
    let relative = AdafactorSettings {
        beta_1: Some(0.9),
        scale_parameter: true,
        relative_step: true,
        ..AdafactorSettings::default()
    };
    let mini = ApolloSettings { by_channel: false, scale_front: true, ..apollo(1, 128.0, true) };
    let badam = BadamSettings { start: None, order: BlockOrder::Ascending, interval: Some(6) };
    let clipped = OptimiserSettings { max_gradient_norm: Some(1.0), ..settings(OptimiserKind::AdamW) };
    let lion = OptimiserSettings {
        moments: Moments { beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8 },
        ..settings(OptimiserKind::Lion)
    };
    vec![
        ("adamw", settings(OptimiserKind::AdamW), 1e-2),
        ("adamw_clipped", clipped, 1e-2),
        ("adam_mini", settings(OptimiserKind::AdamMini { head_dim: 8 }), 1e-2),
        ("adamw_8bit", settings(OptimiserKind::AdamW8Bit), 1e-2),
        ("adafactor", settings(OptimiserKind::Adafactor(AdafactorSettings::default())), 1e-2),
        ("adafactor_relative", settings(OptimiserKind::Adafactor(relative)), 1.0),
        ("lion", lion, 1e-3),
        ("sgd", settings(sgd(0.0, 0.0, false)), 0.1),
        ("sgd_momentum", settings(sgd(0.9, 0.3, false)), 0.1),
        ("sgd_nesterov", settings(sgd(0.9, 0.0, true)), 0.1),
        ("muon", settings(muon(false)), 1e-2),
        ("muon_matching", settings(muon(true)), 1e-2),
        ("galore", settings(galore(ProjectedSide::Shorter)), 1e-2),
        ("galore_reverse", settings(galore(ProjectedSide::Longer)), 1e-2),
        ("apollo", settings(OptimiserKind::Apollo(apollo(4, 1.0, true))), 1e-2),
        ("apollo_mini", settings(OptimiserKind::Apollo(mini)), 1e-2),
        ("apollo_svd", settings(OptimiserKind::Apollo(apollo(4, 1.0, false))), 1e-2),
        ("badam", OptimiserSettings { weight_decay: 0.0, ..settings(OptimiserKind::Badam(badam)) }, 1e-2),
        ("schedule_free", settings(OptimiserKind::ScheduleFree(ScheduleFreeSettings::default())), 1e-2),
    ]
}

fn cpu(threads: usize) -> Device {
    let options = CpuOptions { threads, isa: Isa::detect(), memory_bytes: 1 << 28, poison: true };
    Device::cpu(options, None).unwrap()
}

/// Steps `first..=last` of a run.
fn run(device: &Device, parameters: &Parameters, optimiser: &mut Optimiser, highest: f64, steps: [usize; 2]) {
    let loss = device.upload(&[1.0], 1, 1);
    for step in steps[0]..=steps[1] {
        optimiser.prepare(device, parameters);
        for parameter in parameters.iter() {
            device.write_f32(&parameter.gradient, &gradient(&parameter.name, step, parameter.value.len()));
        }
        optimiser.step(device, parameters, &loss, highest * rate(step), 1.0);
    }
}

fn values(device: &Device, parameters: &Parameters) -> BTreeMap<String, Vec<f32>> {
    parameters.iter().map(|parameter| (parameter.name.clone(), device.download(&parameter.value))).collect()
}

fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|number| number * number).sum::<f64>().sqrt()
}

fn fixture() -> BTreeMap<String, Vec<f32>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/optimisers.safetensors");
    let bytes: SharedBytes = Arc::new(std::fs::read(path).unwrap());
    let device = cpu(1);
    let tensors = read_safetensors("optimisers.safetensors", &bytes, |_| false).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, device.download(tensor.tensor()))).collect()
}

#[test]
fn each_optimiser_ends_where_its_reference_does() {
    let expected = fixture();
    let mut failures = Vec::new();
    for (case, settings, highest) in cases() {
        let device = cpu(2);
        let parameters = parameters(&device);
        let mut optimiser = Optimiser::new(&device, &parameters, settings);
        run(&device, &parameters, &mut optimiser, highest, [1, STEPS]);
        optimiser.show(&device, &parameters);
        let mut worst = (0.0, String::new());
        let tolerance = if case == "adamw_8bit" { EIGHT_BIT_TOLERANCE } else { TOLERANCE };
        for (name, found) in values(&device, &parameters) {
            let expected = &expected[&format!("{case}/{name}")];
            let start = start(&name, found.len());
            let apart = norm(found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            let way = norm(expected.iter().zip(&start).map(|(a, b)| f64::from(*a) - f64::from(*b)));
            let size = norm(expected.iter().map(|&number| number.into()));
            assert!(apart <= TOLERANCE * size, "{case}: {name} is {apart:.1e} away from {size:.1e}");
            let far = if apart == 0.0 { 0.0 } else { apart / way };
            if far.is_nan() || far >= worst.0 {
                worst = (far, name);
            }
        }
        println!("{case}: {:.1e} of the way, at most, in {}", worst.0, worst.1);
        if worst.0.is_nan() || worst.0 > tolerance {
            failures.push(format!("{case}: {:.1e} in {}", worst.0, worst.1));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_dynamic_maps_are_those_of_bitsandbytes() {
    let expected = fixture();
    for (name, signed) in [("dynamic_map.signed", true), ("dynamic_map.unsigned", false)] {
        for (found, expected) in dynamic_map(signed).iter().zip(&expected[name]) {
            assert!((found - expected).abs() <= expected.abs() * 2e-7, "{name}: {found} for {expected}");
        }
    }
}

/// Settings of every kind, and per-tensor clipping.
fn all() -> Vec<(&'static str, OptimiserSettings, f64)> {
    let mut all = cases();
    let clipped = OptimiserSettings {
        max_gradient_norm: Some(0.1),
        clipping: Clipping::PerTensor,
        layer_decay: Some(0.9),
        ..settings(OptimiserKind::AdamW)
    };
    all.push(("per tensor", clipped, 1e-2));
    all
}

#[test]
fn a_run_that_goes_on_is_the_same_run_whatever_the_threads() {
    for (case, settings, highest) in all() {
        let ends: Vec<_> = [1, 3]
            .map(|threads| {
                let device = cpu(threads);
                let parameters = parameters(&device);
                let mut optimiser = Optimiser::new(&device, &parameters, settings.clone());
                run(&device, &parameters, &mut optimiser, highest, [1, STEPS]);
                optimiser.show(&device, &parameters);
                values(&device, &parameters)
            })
            .into();
        assert_eq!(ends[0], ends[1], "{case}: threads");
        let device = cpu(2);
        for stop in [1, 8, 13] {
            let first = parameters(&device);
            let mut optimiser = Optimiser::new(&device, &first, settings.clone());
            run(&device, &first, &mut optimiser, highest, [1, stop]);
            optimiser.show(&device, &first);
            let kept: Vec<_> = optimiser.state(&first);
            let second = parameters(&device);
            let mut resumed = Optimiser::new(&device, &second, settings.clone());
            resumed.resume(&device, &second, stop, |step| highest * rate(step + 1));
            let state = resumed.state(&second);
            let names = |state: &[(String, _)]| state.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&kept), names(&state), "{case} after {stop}");
            for ((_, from), (_, to)) in kept.iter().zip(&state) {
                assert_eq!(
                    (from.dtype(), from.rows(), from.columns()),
                    (to.dtype(), to.rows(), to.columns()),
                    "{case}"
                );
                device.write_bytes(to, &device.download_bytes(from));
            }
            for (from, to) in first.iter().zip(second.iter()) {
                device.copy(&from.value, &to.value);
            }
            run(&device, &second, &mut resumed, highest, [stop + 1, STEPS]);
            resumed.show(&device, &second);
            assert_eq!(values(&device, &second), ends[0], "{case} after {stop}");
        }
    }
}

#[test]
fn what_is_not_finite_changes_nothing_and_meta_counts_what_the_processor_takes() {
    for (case, settings, highest) in all() {
        let usages: Vec<Usage> = [Device::meta(), cpu(2)]
            .map(|device| {
                let parameters = parameters(&device);
                let mut optimiser = Optimiser::new(&device, &parameters, settings.clone());
                let state = |optimiser: &Optimiser| {
                    let state = optimiser.state(&parameters);
                    state.into_iter().map(|(name, tensor)| (name, device.download_bytes(&tensor))).collect::<Vec<_>>()
                };
                run(&device, &parameters, &mut optimiser, highest, [1, 2]);
                let before = (values(&device, &parameters), state(&optimiser));
                let loss = device.upload(&[1.0], 1, 1);
                let first = parameters.iter().next().unwrap();
                device.write_f32(&first.gradient, &vec![f32::NAN; first.gradient.len()]);
                // BAdam steps no embedding, and does not look at its gradient.
                let loss = if case == "badam" { device.upload(&[f32::INFINITY], 1, 1) } else { loss };
                let norm = optimiser.step(&device, &parameters, &loss, highest, 1.0);
                assert!(!device.has_data() || device.download(&norm)[0].is_nan(), "{case}");
                assert!((values(&device, &parameters), state(&optimiser)) == before, "{case}: something changed");
                device.usage()
            })
            .into();
        assert_eq!(usages[0], usages[1], "{case}");
    }
}

#[test]
fn a_broken_first_step_does_not_leave_a_projection_of_nothing() {
    let device = cpu(1);
    let parameters = parameters(&device);
    let galore = GaloreSettings { low_rank: low_rank(4, 1.0), side: ProjectedSide::Shorter };
    let mut optimiser = Optimiser::new(&device, &parameters, settings(OptimiserKind::Galore(galore)));
    optimiser.step(&device, &parameters, &device.upload(&[f32::NAN], 1, 1), 1e-2, 1.0);
    run(&device, &parameters, &mut optimiser, 1e-2, [2, 2]);
    let state = optimiser.state(&parameters);
    let projections = state.iter().filter(|(name, _)| name.ends_with(".projection"));
    let rows = projections.flat_map(|(_, tensor)| {
        device
            .download(tensor)
            .chunks(tensor.columns())
            .map(|row| norm(row.iter().map(|&n| n.into())))
            .collect::<Vec<_>>()
    });
    for length in rows {
        assert!((length - 1.0).abs() < 1e-5, "a vector of length {length}");
    }
}

#[test]
fn the_rate_falls_from_layer_to_layer() {
    let device = cpu(1);
    let decayed = OptimiserSettings { layer_decay: Some(0.5), weight_decay: 0.0, ..settings(OptimiserKind::AdamW) };
    let moved = |settings: OptimiserSettings| {
        let parameters = parameters(&device);
        let mut optimiser = Optimiser::new(&device, &parameters, settings);
        run(&device, &parameters, &mut optimiser, 1e-2, [1, 1]);
        let way = |parameter: &Parameter| {
            let start = start(&parameter.name, parameter.value.len());
            let end = device.download(&parameter.value);
            norm(start.iter().zip(end).map(|(a, b)| f64::from(*a) - f64::from(b)))
        };
        parameters.iter().map(way).collect::<Vec<_>>()
    };
    let plain = moved(OptimiserSettings { layer_decay: None, ..decayed.clone() });
    // Two layers: the embedding is below both, the head above.
    let shares = [0.25, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0];
    for ((decayed, plain), share) in moved(decayed).into_iter().zip(plain).zip(shares) {
        assert!((decayed / plain - share).abs() < 1e-4, "{decayed} of {plain}, expected {share}");
    }
}
