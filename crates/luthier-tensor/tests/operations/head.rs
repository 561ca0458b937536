//! What the head finds on request: the most likely ids against sorting, log-probabilities of given ids with their
//! derivative against central differences; and that asking changes no other byte.

use crate::common::{Matrix, Random, check, device};
use luthier_tensor::{DType, Device, HeadOptions, HeadRequest, Norm, Precision, Tape, Tensor, Usage, Var, Weight};

const SCALE: f64 = 0.8;
const NO_ID: u32 = u32::MAX;

fn bound(logit: f64, soft_cap: Option<f32>) -> f64 {
    soft_cap.map_or(logit, |cap| f64::from(cap) * (logit / f64::from(cap)).tanh())
}

fn options(device: &Device, norm: &Matrix, weight: &Matrix, trained: bool, differentiate_all: bool) -> HeadOptions {
    let weight = if trained { weight.trained(device) } else { Weight::frozen(weight.upload(device)) };
    let norm = Norm::new(norm.trained(device), 1e-5);
    HeadOptions { norm, weight, scale: SCALE as f32, soft_cap: None, differentiate_all }
}

fn ids_of(device: &Device, ids: &[u32], tokens: usize) -> Tensor {
    device.upload_ids(ids).reshape(tokens, ids.len() / tokens)
}

/// In f64: the four differentiable values, then the log-probabilities of `ids`, 0 for none.
fn plain(m: &[Matrix], positions: &[u32], targets: &[u32], ids: &[u32], soft_cap: Option<f32>) -> Matrix {
    let count = positions.len();
    let n = ids.len() / count;
    let mut out = Matrix::zeros(count, 4 + n);
    for (row, &position) in positions.iter().enumerate() {
        let x = m[0].row(position as usize);
        let square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let h: Vec<f64> = x.iter().zip(&m[1].values).map(|(x, w)| x / (square + 1e-5).sqrt() * w).collect();
        let logit = |id: usize| m[2].row(id).iter().zip(&h).map(|(w, h)| w * h).sum::<f64>() * SCALE;
        let logits: Vec<f64> = (0..m[2].rows).map(|id| bound(logit(id), soft_cap)).collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        out.set(row, 0, logits[targets[row] as usize] - log_sum);
        out.set(row, 1, log_sum);
        out.set(row, 2, logits.iter().sum::<f64>() / logits.len() as f64);
        out.set(row, 3, logits.iter().map(|logit| -(logit - log_sum).exp() * (logit - log_sum)).sum());
        for (column, &id) in ids[row * n..(row + 1) * n].iter().enumerate() {
            let found = logits.get(id as usize).map_or(0.0, |logit| logit - log_sum);
            out.set(row, 4 + column, found);
        }
    }
    out
}

/// Columns of an f64 matrix as a tensor.
fn columns(device: &Device, matrix: &Matrix, first: usize, count: usize) -> Tensor {
    let values: Vec<f32> =
        (0..matrix.rows).flat_map(|row| matrix.row(row)[first..first + count].iter().map(|&v| v as f32)).collect();
    device.upload(&values, matrix.rows, count)
}

#[test]
fn log_probabilities_of_given_ids() {
    let positions = [0u32, 2, 5];
    // (vocabulary, width, targets, ids of each token): the target itself, an id twice, none, ids of the second block.
    let small = (33, 17, [32u32, 0, 7], vec![32u32, 5, 5, 31, 0, NO_ID, 30, 7, 1, 2, NO_ID, 6]);
    let large = (4099, 5, [4098u32, 0, 4095], vec![4098, 4096, 1, 4095, NO_ID, 4095, 0, 4097, 4097]);
    let capped = (small.clone(), Some(0.9));
    for ((vocabulary, width, targets, ids), soft_cap) in [(small, None), (large, None), capped] {
        for (trained, all, target_too) in
            [(true, true, true), (true, false, false), (false, false, true), (false, false, false), (false, true, true)]
        {
            let (mut random, device) = (Random::new(61), device(2));
            let n = ids.len() / positions.len();
            let (x, norm) = (random.matrix(6, width), random.matrix(1, width));
            let weight = random.matrix(vocabulary, width);
            let mut upstream = random.matrix(positions.len(), 4 + n);
            for row in 0..positions.len() {
                let kept = if !target_too {
                    0
                } else if all {
                    4
                } else {
                    1
                };
                (kept..4).for_each(|column| upstream.set(row, column, 0.0));
                for (column, _) in ids[row * n..][..n].iter().enumerate().filter(|&(_, &id)| id == NO_ID) {
                    // Whatever stands there, it counts for nothing.
                    upstream.set(row, 4 + column, 1e6);
                }
            }
            let options = HeadOptions { soft_cap, ..options(&device, &norm, &weight, trained, all) };
            let mut tape = Tape::new(&device, Precision::F32);
            let input = tape.input(x.upload(&device));
            let request = HeadRequest { top_k: 0, ids: Some(ids_of(&device, &ids, positions.len())) };
            let (at, aim) = (device.upload_ids(&positions), device.upload_ids(&targets));
            let head = tape.head_with(&input, &options, &at, &aim, &request);
            let chosen = head.chosen.unwrap();
            let (values, found) = (device.download(head.values.value()), device.download(chosen.value()));
            let mut output = Vec::new();
            for (row, values) in values.chunks(5).enumerate() {
                output.extend_from_slice(&values[..4]);
                for column in 0..n {
                    let (found, id) = (found[row * n + column], ids[row * n + column]);
                    assert_eq!(id == NO_ID, found == f32::NEG_INFINITY);
                    assert!(id != targets[row] || found == values[0], "the target's own, to the byte");
                    output.push(if id == NO_ID { 0.0 } else { found });
                }
            }
            let mut seeds = vec![(&chosen, columns(&device, &upstream, 4, n))];
            if target_too {
                seeds.push((&head.values, columns(&device, &upstream, 0, 4)));
            }
            let gradient = tape.backward(seeds, &[&input]).pop().unwrap().unwrap();
            let mut gradients =
                vec![device.download(&gradient), device.download(options.norm.weight.gradient.as_ref().unwrap())];
            let of_weight = options.weight.gradient.as_ref().map(|gradient| device.download(gradient));
            let name = format!("{vocabulary} cap {soft_cap:?} trained {trained} all {all} target {target_too}");
            let plain = |m: &[Matrix]| plain(m, &positions, &targets, &ids, soft_cap);
            let inputs = [x, norm, weight];
            if vocabulary < 100 {
                gradients.extend(of_weight);
                check(&name, &inputs, plain, &upstream, &output, &gradients);
                continue;
            }
            check(&name, &inputs, plain, &upstream, &output, &gradients);
            // The large matrix at some places: each difference walks the whole vocabulary.
            let Some(of_weight) = of_weight else { continue };
            let loss =
                |m: &[Matrix]| -> f64 { plain(m).values.iter().zip(&upstream.values).map(|(out, by)| out * by).sum() };
            for row in [0, 1, 7, 2048, 4094, 4095, 4096, 4097, 4098] {
                let mut moved = inputs.clone();
                let index = row * width + row % width;
                moved[2].values[index] += 1e-5;
                let above = loss(&moved);
                moved[2].values[index] -= 2e-5;
                let expected = (above - loss(&moved)) / 2e-5;
                let found = f64::from(of_weight[index]);
                assert!((expected - found).abs() < 1e-4, "{name}: row {row} is {found}, differences say {expected}");
            }
        }
    }
}

#[test]
fn the_most_likely_ids_are_those_of_sorting() {
    for (vocabulary, repeats) in [(33, 33), (33, 7), (4099, 4099), (4099, 50), (8193, 4097)] {
        let (mut random, device) = (Random::new(67), device(2));
        let (width, count) = (7, 5);
        let (x, norm, rows) = (random.matrix(count, width), random.matrix(1, width), random.matrix(repeats, width));
        // Rows that repeat have equal logits.
        let values = (0..vocabulary).flat_map(|id| rows.row(id % repeats).to_vec()).collect();
        let options = options(&device, &norm, &Matrix { rows: vocabulary, columns: width, values }, false, false);
        let all: Vec<u32> = (0..count).flat_map(|_| 0..vocabulary as u32).collect();
        let positions: Vec<u32> = (0..count as u32).collect();
        let positions = device.upload_ids(&positions);
        for k in [1, 2, 5, 64, 100] {
            let request = HeadRequest { top_k: k, ids: Some(ids_of(&device, &all, count)) };
            let mut tape = Tape::without_gradients(&device, Precision::F32);
            let x = Var::constant(x.upload(&device));
            let head = tape.head_with(&x, &options, &positions, &positions, &request);
            let (top, every) = (head.top.unwrap(), device.download(head.chosen.unwrap().value()));
            let (ids, found) = (device.download_ids(&top.ids), device.download(&top.log_probabilities));
            assert_eq!((ids.len(), found.len()), (count * k, count * k));
            for (row, (ids, found)) in ids.chunks(k).zip(found.chunks(k)).enumerate() {
                let every = &every[row * vocabulary..][..vocabulary];
                let mut sorted = every.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let there = k.min(vocabulary);
                assert_eq!(found[..there], sorted[..there], "log-probabilities of {k} of {vocabulary}");
                assert!(found[there..].iter().all(|&number| number == f32::NEG_INFINITY));
                assert!(ids[there..].iter().all(|&id| id == NO_ID));
                for (place, (&id, &number)) in ids[..there].iter().zip(found).enumerate() {
                    assert_eq!(every[id as usize], number, "the number is that of the id");
                    // Of equal rows the smaller ids come first, and none is left out.
                    let before = (0..id as usize).filter(|other| other % repeats == id as usize % repeats);
                    let mut listed = before.map(|other| ids[..place].contains(&(other as u32)));
                    assert!(listed.all(|listed| listed), "id {id} stands before a smaller one of its kind");
                }
            }
        }
    }
}

/// What a run over some tokens gives, in the storage of `precision`.
#[derive(Debug, PartialEq)]
struct Found {
    values: Vec<f32>,
    chosen: Vec<f32>,
    top: Vec<u32>,
    top_numbers: Vec<f32>,
    gradient: Vec<f32>,
    of_weight: Option<Vec<f32>>,
}

const VOCABULARY: usize = 4133;
const WIDE: usize = 24;

fn run(device: &Device, precision: Precision, trained: bool, rows: std::ops::Range<usize>, request: bool) -> Found {
    let (mut random, count) = (Random::new(71), rows.len());
    let (norm, weight, x) = (random.matrix(1, WIDE), random.matrix(VOCABULARY, WIDE), random.matrix(1100, WIDE));
    let options = options(device, &norm, &weight, trained, false);
    let x = device.convert(&x.upload(device), precision.storage());
    let x = device.convert(&x.slice_rows(rows.start, count), precision.storage());
    let ids: Vec<u32> =
        rows.clone().flat_map(|row| [row * 7, row * 3 + 50, 4132].map(|id| (id % VOCABULARY) as u32)).collect();
    let targets: Vec<u32> = rows.clone().map(|row| (row * 11 % VOCABULARY) as u32).collect();
    let positions: Vec<u32> = (0..count as u32).collect();
    let mut tape = Tape::new(device, precision);
    let x = tape.input(x);
    let request = match request {
        true => HeadRequest { top_k: 6, ids: Some(ids_of(device, &ids, count)) },
        false => HeadRequest::default(),
    };
    let (at, aim) = (device.upload_ids(&positions), device.upload_ids(&targets));
    let head = tape.head_with(&x, &options, &at, &aim, &request);
    let values = device.download(head.values.value());
    let chosen = head.chosen.as_ref().map(|chosen| device.download(chosen.value())).unwrap_or_default();
    let (top, top_numbers) = head
        .top
        .as_ref()
        .map(|top| (device.download_ids(&top.ids), device.download(&top.log_probabilities)))
        .unwrap_or_default();
    let by_values = (0..count * 4).map(|i| if i % 4 == 0 { 0.3 } else { 0.0 }).collect::<Vec<_>>();
    let mut seeds = vec![(&head.values, device.upload(&by_values, count, 4))];
    if let Some(chosen) = &head.chosen {
        let by_ids: Vec<f32> = (0..count).flat_map(|_| [0.25, -0.5, 0.125]).collect();
        seeds.push((chosen, device.upload(&by_ids, count, 3)));
    }
    let gradient = tape.backward(seeds, &[&x]).pop().unwrap().unwrap();
    let of_weight = options.weight.gradient.map(|gradient| device.download(&gradient));
    Found { values, chosen, top, top_numbers, gradient: device.download(&gradient), of_weight }
}

#[test]
fn a_token_gets_the_same_bytes_in_any_batch_and_on_any_threads() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for trained in [false, true] {
            let together = run(&device(2), precision, trained, 0..1100, true);
            for threads in [1, 3] {
                assert!(together == run(&device(threads), precision, trained, 0..1100, true), "{threads} threads");
            }
            for rows in [0..1, 3..20, 1000..1061] {
                let alone = run(&device(2), precision, trained, rows.clone(), true);
                assert_eq!(alone.values, together.values[rows.start * 5..rows.end * 5]);
                assert_eq!(alone.chosen, together.chosen[rows.start * 3..rows.end * 3]);
                assert_eq!(alone.top, together.top[rows.start * 6..rows.end * 6]);
                assert_eq!(alone.top_numbers, together.top_numbers[rows.start * 6..rows.end * 6]);
                assert_eq!(alone.gradient, together.gradient[rows.start * WIDE..rows.end * WIDE]);
            }
        }
    }
}

#[test]
fn asking_for_more_changes_no_other_byte() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let (plain, asked) =
            (run(&device(2), precision, false, 0..77, false), run(&device(2), precision, false, 0..77, true));
        assert_eq!(plain.values, asked.values);
        // And with coefficients of zero for the ids: nor in backward.
        let (mut random, device) = (Random::new(73), device(2));
        let (norm, weight, x) = (random.matrix(1, WIDE), random.matrix(77, WIDE), random.matrix(9, WIDE));
        let positions = device.upload_ids(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let by_values = device.upload(&[0.5, 0.0, 0.0, 0.0].repeat(9), 9, 4);
        for trained in [false, true] {
            let gradients = [None, Some(0.0f32)].map(|by_ids| {
                let options = options(&device, &norm, &weight, trained, false);
                let mut tape = Tape::new(&device, precision);
                let x = tape.input(device.convert(&x.upload(&device), precision.storage()));
                let request = HeadRequest { top_k: 3, ids: Some(positions.reshape(9, 1)) };
                let head = tape.head_with(&x, &options, &positions, &positions, &request);
                let chosen = head.chosen.unwrap();
                let mut seeds = vec![(&head.values, by_values.clone())];
                seeds.extend(by_ids.map(|by| (&chosen, device.upload(&[by; 9], 9, 1))));
                let gradient = tape.backward(seeds, &[&x]).pop().unwrap().unwrap();
                let of_weight = options.weight.gradient.map(|gradient| device.download(&gradient));
                (device.download(&gradient), of_weight)
            });
            assert_eq!(gradients[0], gradients[1]);
        }
    }
}

#[test]
fn meta_allocates_what_the_processor_does() {
    for (trained, request) in [(false, false), (false, true), (true, true)] {
        let usage = |device: Device| -> Usage {
            run(&device, Precision::Bf16, trained, 0..1100, request);
            device.usage()
        };
        assert_eq!(usage(device(2)), usage(Device::meta()));
    }
}

#[test]
fn the_logits_of_a_batch_never_exist() {
    let device = Device::meta();
    let (tokens, vocabulary, width) = (1000, 100_000, 8);
    let frozen = |rows: usize, columns: usize| Weight::frozen(device.empty(DType::F32, rows, columns));
    let (norm, weight) = (frozen(1, width), frozen(vocabulary, width));
    let norm = Norm::new(norm, 1e-5);
    let options = HeadOptions { norm, weight, scale: 1.0, soft_cap: None, differentiate_all: true };
    let ids = device.empty(DType::U32, tokens, 64);
    let vector = device.empty(DType::U32, 1, tokens);
    let before = device.usage().live_bytes;
    let mut tape = Tape::new(&device, Precision::F32);
    let x = tape.input(device.empty(DType::F32, tokens, width));
    let head = tape.head_with(&x, &options, &vector, &vector, &HeadRequest { top_k: 64, ids: Some(ids) });
    let by_ids = device.empty(DType::F32, tokens, 64);
    tape.backward(vec![(&head.chosen.unwrap(), by_ids)], &[&x]);
    assert!(device.usage().peak_bytes - before < tokens * vocabulary, "a quarter of the logits");
}
