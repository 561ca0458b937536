//! Tokens count in the loss by their weight, and rows by themselves: on the committed checkpoints, whose origin
//! fixtures/README.md tells.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::{Checkpoint, Decoder, Recomputed, Tuning};
use luthier_tensor::{Device, OUTPUTS, Precision};
use luthier_train::{Control, MicroBatch, Row, Step, accumulate, evaluate, evaluate_all};
use support::{checkpoint, device, lora};

const STEP: Step = Step {
    precision: Precision::F32,
    recomputed: Recomputed { layers: 0, feed_forward_only: false },
    dropout_seed: None,
    learning_rate: 0.0,
    loss_scale: 1.0,
    noise: None,
};

/// Loss, and all gradients one after another.
fn loss_and_gradients(checkpoint: &Checkpoint, tuning: &Tuning, parts: &[MicroBatch]) -> (f32, Vec<f32>) {
    let device = device();
    let decoder = Decoder::new(&device, checkpoint, tuning, None).unwrap();
    let loss = device.download(&accumulate(&device, &decoder, parts, &STEP))[0];
    let gradients = decoder.parameters().gradients();
    (loss, gradients.iter().flat_map(|gradient| device.download(gradient)).collect())
}

#[test]
fn loss_and_gradient_are_the_weighted_means_of_those_of_each_token() {
    let rows: [&[u32]; 3] = [&[3, 4, 5, 6, 7], &[8, 9], &[10, 11, 12]];
    let trained: [&[bool]; 3] = [&[false, true, false, true, true], &[false, true], &[false, true, true]];
    let weights: [&[f32]; 3] = [&[0.0, 0.5, 0.0, 2.0, 0.1], &[0.0, 1.0], &[0.0, 0.25, 3.0]];
    let row = |index: usize| Row { weights: Some(weights[index]), ..Row::new(rows[index], trained[index], 0) };
    for (model, tuning) in [("llama", Tuning::Full), ("llama", lora(0.0)), ("llama-tied", Tuning::Full)] {
        let checkpoint = checkpoint(model);
        let (mut loss, mut gradients, mut sum) = (0.0_f64, Vec::<f64>::new(), 0.0_f64);
        for index in 0..rows.len() {
            for token in (0..rows[index].len()).filter(|&token| trained[index][token]) {
                let alone: Vec<bool> = (0..rows[index].len()).map(|other| other == token).collect();
                let part = MicroBatch::of(&[Row::new(rows[index], &alone, 0)]);
                let (own_loss, own) = loss_and_gradients(&checkpoint, &tuning, &[part]);
                let weight = f64::from(weights[index][token]);
                loss += weight * f64::from(own_loss);
                sum += weight;
                gradients.resize(own.len(), 0.0);
                gradients.iter_mut().zip(own).for_each(|(all, own)| *all += weight * f64::from(own));
            }
        }
        // Whatever the parts.
        let together = vec![MicroBatch::of(&[row(0), row(1), row(2)])];
        let apart = (0..3).map(|index| MicroBatch::of(&[row(index)])).collect();
        for parts in [together, apart] {
            let (found_loss, found) = loss_and_gradients(&checkpoint, &tuning, &parts);
            assert!((f64::from(found_loss) - loss / sum).abs() < 1e-5, "{found_loss} {}", loss / sum);
            let largest = gradients.iter().fold(0.0_f64, |most, one| most.max(one.abs() / sum));
            for (found, expected) in found.iter().zip(&gradients) {
                assert!((f64::from(*found) - expected / sum).abs() < 1e-5 * largest, "{found} {}", expected / sum);
            }
        }
    }
}

#[test]
fn equal_weights_change_no_bit() {
    let ids: Vec<u32> = (3..20).collect();
    let trained: Vec<bool> = (0..17).map(|token| token % 3 > 0).collect();
    let plain =
        [MicroBatch::of(&[Row::new(&ids, &trained, 0)]), MicroBatch::of(&[Row::new(&ids[..5], &trained[..5], 1)])];
    let checkpoint = checkpoint("llama");
    let expected = loss_and_gradients(&checkpoint, &lora(0.0), &plain);
    for weight in [1.0, 4.0] {
        let weights = vec![weight; ids.len()];
        let weighted = |length: usize, number| {
            let row = Row { weights: Some(&weights[..length]), ..Row::new(&ids[..length], &trained[..length], number) };
            MicroBatch::of(&[row])
        };
        let found = loss_and_gradients(&checkpoint, &lora(0.0), &[weighted(17, 0), weighted(5, 1)]);
        assert_eq!(found, expected, "weight {weight}");
    }
}

#[test]
fn an_evaluation_is_weighted_alike() {
    let (device, checkpoint) = (device(), checkpoint("llama"));
    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None).unwrap();
    let (ids, trained) = ([3, 4, 5, 6], [false, true, true, true]);
    let row = Row::new(&ids, &trained, 0);
    let values = evaluate(&device, &decoder, Precision::F32, &MicroBatch::of(&[row]));
    let weighted = MicroBatch::of(&[Row { weights: Some(&[0.0, 0.5, 1.0, 2.0]), ..row }]);
    let mut watch = |_| Control::Continue;
    let scores = evaluate_all(&device, &decoder, Precision::F32, &[weighted], &mut watch).unwrap();
    let loss = |index: usize| -f64::from(values[index][0]);
    assert_eq!((scores.loss, scores.tokens), ((0.5 * loss(0) + loss(1) + 2.0 * loss(2)) / 3.5, 3));
}

/// What the head finds for each token of a row, whatever stands beside the row in its part: the same bytes.
#[test]
fn a_packed_row_has_the_losses_of_the_row_alone() {
    let checkpoint = checkpoint("qwen3");
    let (mut seed, mut ids, mut trained) = (7_u64, Vec::new(), Vec::new());
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..24 {
        let length = 2 + random(60);
        ids.push((0..length).map(|_| 3 + random(50) as u32).collect::<Vec<_>>());
        trained.push((0..length).map(|_| random(3) > 0).collect::<Vec<_>>());
    }
    let rows: Vec<Row> = ids.iter().zip(&trained).map(|(ids, trained)| Row::new(ids, trained, 0)).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let device = device();
        let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None).unwrap();
        let found = |parts: &[MicroBatch]| -> Vec<[u32; OUTPUTS]> {
            let values = parts.iter().flat_map(|part| evaluate(&device, &decoder, precision, part));
            values.map(|values| values.map(f32::to_bits)).collect()
        };
        let alone = found(&rows.iter().map(|row| MicroBatch::of(&[*row])).collect::<Vec<_>>());
        for budget in [64, 200, usize::MAX] {
            assert!(found(&MicroBatch::split(&rows, budget)) == alone, "{precision:?}, parts of {budget}");
        }
    }
}

#[test]
fn weights_take_no_memory_of_the_device() {
    let checkpoint = checkpoint("llama");
    let device = Device::meta();
    let decoder = Decoder::new(&device, &checkpoint, &lora(0.0), None).unwrap();
    decoder.parameters().allocate_gradients(&device);
    let row = Row::new(&[3, 4, 5], &[false, true, true], 0);
    let usage = |part: MicroBatch| {
        let before = device.usage().allocations;
        accumulate(&device, &decoder, &[part], &STEP);
        (device.usage().allocations - before, device.usage().peak_bytes)
    };
    let plain = usage(MicroBatch::of(&[row]));
    assert_eq!(usage(MicroBatch::of(&[Row { weights: Some(&[0.0, 0.5, 1.0]), ..row }])), plain);
}
