//! Each parameter is announced once a step, when its gradient is the step's, whatever is trained, recomputed, or split.
//! On the committed checkpoints, whose origin fixtures/README.md tells.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::{Decoder, FreezeSettings, LoraSettings, TrainedLayers, Tuning, biases};
use luthier_tensor::{Device, Precision};
use luthier_train::{MicroBatch, Row, Step, accumulate, accumulate_announcing};
use support::{checkpoint, device};

fn lora(saved_modules: &[&str]) -> Tuning {
    let Tuning::Lora(settings) = support::lora(0.2) else { unreachable!("it is LoRA") };
    Tuning::Lora(LoraSettings {
        saved_modules: saved_modules.iter().map(|&name| name.to_owned()).collect(),
        ..settings
    })
}

/// A part of the models, which have the same names in their layers.
fn part(layers: TrainedLayers, extra_modules: &[&str]) -> Tuning {
    let extra_modules = extra_modules.iter().map(|&name| name.to_owned()).collect();
    let settings = FreezeSettings { layers, modules: Vec::new(), extra_modules };
    Tuning::Freeze { tensors: settings.tensors(&checkpoint("llama-bias").model).unwrap() }
}

/// Three rows, in one part or three; the last part may have nothing to learn.
fn parts(count: usize) -> Vec<MicroBatch> {
    let ids: Vec<u32> = (3..40).collect();
    let trained = vec![true; ids.len()];
    let row = |length: usize, number| Row::new(&ids[..length], &trained[..length], number);
    let rows = [row(12, 0), row(37, 1), row(2, 2)];
    if count == 1 {
        return vec![MicroBatch::of(&rows)];
    }
    let nothing = Row::new(&ids[..4], &[false; 4], 3);
    rows.iter().chain([&nothing]).map(|row| MicroBatch::of(std::slice::from_ref(row))).collect()
}

/// Names in the order of their announcement.
fn announced(device: &Device, model: &str, tuning: &Tuning, step: &Step, parts: &[MicroBatch]) -> Vec<String> {
    let checkpoint = checkpoint(model);
    let decoder = Decoder::new(device, &checkpoint, tuning, None).unwrap();
    let loss = device.download(&accumulate(device, &decoder, parts, step));
    let expected =
        decoder.parameters().gradients().iter().map(|gradient| device.download(gradient)).collect::<Vec<_>>();
    let parameters: Vec<_> = decoder.parameters().iter().collect();
    let mut order = Vec::new();
    let found = accumulate_announcing(device, &decoder, parts, step, &mut |number| {
        let parameter = parameters[number];
        assert_eq!(device.download(&parameter.gradient), expected[number], "{} is final", parameter.name);
        // Nothing may need the parameter any more: what follows must not notice.
        device.write_f32(&parameter.value, &vec![f32::NAN; parameter.value.len()]);
        order.push(number);
    });
    assert_eq!(device.download(&found), loss);
    for (parameter, expected) in parameters.iter().zip(&expected) {
        assert_eq!(&device.download(&parameter.gradient), expected, "{} at the end", parameter.name);
    }
    let mut once = order.clone();
    once.sort_unstable();
    assert_eq!(once, (0..parameters.len()).collect::<Vec<_>>(), "each of {model} once");
    order.into_iter().map(|number| parameters[number].name.clone()).collect()
}

#[test]
fn each_gradient_is_announced_once_and_is_then_final() {
    let device = device();
    let cases = [
        ("llama", Tuning::Full),
        ("llama-tied", Tuning::Full),
        ("qwen3", Tuning::Full),
        ("llama-bias", part(TrainedLayers::Last(1), &[])),
        ("llama-tied", part(TrainedLayers::None, &["embed_tokens"])),
        ("llama", part(TrainedLayers::First(1), &["lm_head"])),
        ("llama-bias", Tuning::Freeze { tensors: biases(&checkpoint("llama-bias").model).unwrap() }),
        ("llama", lora(&[])),
        ("llama", lora(&["embed_tokens", "lm_head"])),
    ];
    for (model, tuning) in cases {
        for precision in [Precision::F32, Precision::Bf16] {
            let mut orders = Vec::new();
            for (recomputed_layers, count) in [(0, 1), (0, 4), (2, 1), (2, 4), (1, 4)] {
                let step =
                    Step { precision, recomputed: recomputed_layers.into(), dropout_seed: Some(3), ..Step::default() };
                orders.push(announced(&device, model, &tuning, &step, &parts(count)));
            }
            assert!(orders[0] == orders[1] && orders[2] == orders[3], "parts do not change the order");
            // From the head down to the embedding, layer by layer.
            for order in orders {
                let layer = |name: &String| match name.split("layers.").nth(1) {
                    Some(rest) => rest[..1].parse().unwrap(),
                    None if name.contains("embed_tokens") => -1,
                    None => 9,
                };
                let layers: Vec<i32> = order.iter().map(layer).collect();
                assert!(layers.is_sorted_by(|above, below| above >= below), "{model}: {order:?}");
            }
        }
    }
}

#[test]
fn a_step_without_trained_tokens_announces_all() {
    let device = Device::meta();
    let checkpoint = checkpoint("llama");
    let decoder = Decoder::new(&device, &checkpoint, &lora(&[]), None).unwrap();
    let step = Step::default();
    let mut order = Vec::new();
    accumulate_announcing(&device, &decoder, &parts(4)[3..], &step, &mut |number| order.push(number));
    assert_eq!(order, (0..decoder.parameters().iter().len()).collect::<Vec<_>>());
}
