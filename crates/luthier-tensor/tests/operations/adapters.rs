//! Adapter terms, the vectors that scale them, and row scales, each for some rows only: gradients against central
//! differences, and to the byte that a row gets what its own adapters give and nothing of the others.

use std::ops::Range;
use std::sync::Arc;

use crate::common::{Matrix, Random, check, device};
use luthier_tensor::{
    AdapterRows, AdapterTerm, Device, Dropout, LinearInput, Norm, Precision, Projection, Residual, RowScale,
    RowScaleKind, Tape, Usage, Var, Weight,
};

const WIDTH: usize = 33;
const TOKENS: usize = 20;
const FACTOR: f64 = 1.5;
const RESIDUAL: f64 = 0.7;

/// What a projection has.
#[derive(Clone, Copy)]
struct Shape {
    out: usize,
    /// Adapter and rank of each term.
    terms: &'static [(u32, usize)],
    /// Whether terms have both vectors.
    vectors: bool,
    /// The adapter that a row scale belongs to.
    scaled_by: Option<u32>,
}

/// Two projections side by side, with the terms of two adapters.
const PLAIN: [Shape; 2] = [
    Shape { out: 9, terms: &[(1, 2), (2, 3)], vectors: false, scaled_by: None },
    Shape { out: 17, terms: &[(1, 2)], vectors: false, scaled_by: None },
];
const ALL_PARTS: [Shape; 2] = [
    Shape { out: 9, terms: &[(1, 2), (2, 3)], vectors: true, scaled_by: Some(2) },
    Shape { out: 17, terms: &[(1, 2)], vectors: false, scaled_by: Some(1) },
];
const SCALED_ONLY: [Shape; 2] = [
    Shape { out: 9, terms: &[], vectors: false, scaled_by: Some(1) },
    Shape { out: 4, terms: &[(2, 3)], vectors: true, scaled_by: None },
];

fn matrices(random: &mut Random, shape: &Shape) -> Vec<Matrix> {
    let mut all = vec![random.matrix(shape.out, WIDTH), random.matrix(1, shape.out)];
    if shape.scaled_by.is_some() {
        all.push(random.matrix(1, shape.out));
    }
    for &(_, rank) in shape.terms {
        all.extend([random.matrix(rank, WIDTH), random.matrix(shape.out, rank)]);
        if shape.vectors {
            all.extend([random.matrix(1, rank), random.matrix(1, shape.out)]);
        }
    }
    all
}

/// The projection of these matrices, with the parts of `adapters` only.
fn projection(device: &Device, shape: &Shape, matrices: &[Matrix], adapters: &[u32], dropout: f32) -> Projection {
    let mut rest = matrices.iter().map(|matrix| matrix.trained(device));
    let mut next = || rest.next().unwrap();
    let (weight, bias) = (next(), next());
    let row_scale = shape.scaled_by.map(|adapter| RowScale { vector: next(), kind: RowScaleKind::Factors, adapter });
    let terms = shape.terms.iter().map(|&(adapter, _)| {
        let (down, up) = (next(), next());
        let (rank_scale, out_scale) = if shape.vectors { (Some(next()), Some(next())) } else { (None, None) };
        let site = u64::from(adapter);
        AdapterTerm { rank_scale, out_scale, dropout, site, adapter, ..AdapterTerm::new(down, up, FACTOR as f32) }
    });
    let terms = terms.filter(|term| adapters.contains(&term.adapter)).collect();
    let row_scale = row_scale.filter(|scale| adapters.contains(&scale.adapter));
    Projection { weight, bias: Some(bias), terms, row_scale, input_map: None }
}

type Selection = Arc<[AdapterRows]>;

fn selection(parts: &[(Range<usize>, &[u32])]) -> Selection {
    parts.iter().map(|(rows, adapters)| AdapterRows { rows: rows.clone(), adapters: adapters.to_vec() }).collect()
}

/// Each adapter alone, none, and both.
fn mixed() -> Selection {
    selection(&[(0..5, &[1]), (6..13, &[2]), (13..20, &[2, 1])])
}

/// The layer in f64: `m` holds the input, the base, and the matrices of each projection.
fn plain(shapes: &[Shape], m: &[Matrix], selection: Option<&[AdapterRows]>) -> Matrix {
    let mut out = m[1].clone();
    let (mut next, mut first) = (2, 0);
    for shape in shapes {
        let applies = |row: usize, adapter: u32| {
            selection.is_none_or(|parts| {
                parts.iter().any(|part| part.rows.contains(&row) && part.adapters.contains(&adapter))
            })
        };
        let mut take = || {
            next += 1;
            &m[next - 1]
        };
        let (weight, bias) = (take(), take());
        let scale = shape.scaled_by.map(|adapter| (adapter, take()));
        let mut sums = m[0].times_transposed(weight);
        for &(adapter, rank) in shape.terms {
            let (down, up) = (take(), take());
            let ones = |columns| Matrix { rows: 1, columns, values: vec![1.0; columns] };
            let (by_rank, by_out) =
                if shape.vectors { (take().clone(), take().clone()) } else { (ones(rank), ones(shape.out)) };
            let mut low = m[0].times_transposed(down);
            low.values.iter_mut().enumerate().for_each(|(i, value)| *value *= by_rank.values[i % rank] * FACTOR);
            let term = low.times_transposed(up);
            for row in (0..TOKENS).filter(|&row| applies(row, adapter)) {
                for column in 0..shape.out {
                    let value = sums.at(row, column) + term.at(row, column) * by_out.values[column];
                    sums.set(row, column, value);
                }
            }
        }
        for row in 0..TOKENS {
            for column in 0..shape.out {
                let by = scale.filter(|&(adapter, _)| applies(row, adapter)).map_or(1.0, |(_, by)| by.values[column]);
                let value = by * sums.at(row, column) + bias.values[column];
                out.set(row, first + column, out.at(row, first + column) + RESIDUAL * value);
            }
        }
        first += shape.out;
    }
    out
}

#[test]
fn gradients_of_every_part_for_all_rows_and_for_some() {
    for (name, shapes) in [("terms", PLAIN), ("all parts", ALL_PARTS), ("row scale alone", SCALED_ONLY)] {
        for rows in [None, Some(mixed())] {
            let (mut random, device) = (Random::new(43), device(2));
            let width = shapes.iter().map(|shape| shape.out).sum();
            let (x, base) = (random.matrix(TOKENS, WIDTH), random.matrix(TOKENS, width));
            let upstream = random.matrix(TOKENS, width);
            let parts: Vec<Vec<Matrix>> = shapes.iter().map(|shape| matrices(&mut random, shape)).collect();
            let layers: Vec<Projection> = shapes
                .iter()
                .zip(&parts)
                .map(|(shape, matrices)| projection(&device, shape, matrices, &[1, 2], 0.0))
                .collect();
            let mut tape = Tape::new(&device, Precision::F32);
            tape.set_adapters(rows.clone());
            let (x_var, base_var) = (tape.input(x.upload(&device)), tape.input(base.upload(&device)));
            let residual = Residual { base: &base_var, scale: RESIDUAL as f32 };
            let out = tape.linear(LinearInput::Plain(&x_var), &layers, Some(residual));
            let output = device.download(out.value());
            let found = tape.backward(vec![(&out, upstream.upload(&device))], &[&x_var, &base_var]);
            let of_inputs = found.into_iter().map(|gradient| device.download(&gradient.unwrap()));
            let of_weights = layers.iter().flat_map(Projection::weights);
            let of_weights = of_weights.map(|weight| device.download(weight.gradient.as_ref().unwrap()));
            let gradients: Vec<Vec<f32>> = of_inputs.chain(of_weights).collect();
            let inputs: Vec<Matrix> = [x, base].into_iter().chain(parts.into_iter().flatten()).collect();
            let plain = |m: &[Matrix]| plain(&shapes, m, rows.as_deref());
            check(&format!("{name}, rows {rows:?}"), &inputs, plain, &upstream, &output, &gradients);
        }
    }
}

/// One layer after a norm, over some rows of a batch whose numbers are fixed.
struct Case {
    device: Device,
    precision: Precision,
    shapes: [Shape; 2],
    dropout: f32,
}

/// Output and input gradient, and the gradients of the adapters' weights.
type Found = ([Vec<f32>; 2], Vec<Vec<f32>>);

impl Case {
    fn run(&self, rows: Range<usize>, adapters: &[u32], selection: Option<Selection>) -> Found {
        let (mut random, device) = (Random::new(47), &self.device);
        let width = self.shapes.iter().map(|shape| shape.out).sum();
        let stored = |matrix: &Matrix| {
            let whole = device.convert(&matrix.upload(device), self.precision.storage());
            device.convert(&whole.slice_rows(rows.start, rows.len()), self.precision.storage())
        };
        let x = stored(&random.matrix(TOKENS, WIDTH));
        let upstream = stored(&random.matrix(TOKENS, width));
        let norm = random.matrix(1, WIDTH).trained(device);
        let layers: Vec<Projection> = self
            .shapes
            .iter()
            .map(|shape| {
                let matrices = matrices(&mut random, shape);
                projection(device, shape, &matrices, adapters, self.dropout)
            })
            .collect();
        let mut tape = Tape::new(device, self.precision);
        let tokens: Vec<u32> = rows.map(|row| row as u32 * 31).collect();
        tape.set_dropout(Some(Dropout { seed: 5, tokens: device.upload_ids(&tokens) }));
        tape.set_adapters(selection);
        let x = tape.input(x);
        let norm = Norm::new(norm, 1e-5);
        let out = tape.linear(LinearInput::Normed { input: &x, norm: &norm }, &layers, None);
        let output = device.download(out.value());
        let gradient = tape.backward(vec![(&out, upstream)], &[&x]).pop().unwrap().unwrap();
        let of_adapters = layers.iter().flat_map(|layer| layer.weights().skip(2));
        let of_adapters = of_adapters.map(|weight| device.download(weight.gradient.as_ref().unwrap())).collect();
        ([output, device.download(&gradient)], of_adapters)
    }
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for shapes in [PLAIN, ALL_PARTS, SCALED_ONLY] {
            for dropout in [0.0, 0.3] {
                all.push(Case { device: device(2), precision, shapes, dropout });
            }
        }
    }
    all
}

fn rows_of(numbers: &[f32], rows: &Range<usize>) -> Vec<f32> {
    let width = numbers.len() / TOKENS;
    numbers[rows.start * width..rows.end * width].to_vec()
}

#[test]
fn a_row_gets_exactly_its_own_adapters() {
    for case in cases() {
        let together = case.run(0..TOKENS, &[1, 2], Some(mixed())).0;
        for (rows, adapters) in [(0..5, &[1][..]), (5..6, &[]), (6..13, &[2]), (13..20, &[1, 2])] {
            // A model that has these adapters only, for all rows.
            let everywhere = case.run(0..TOKENS, adapters, None).0;
            for (what, (together, everywhere)) in ["output", "gradient"].iter().zip(together.iter().zip(&everywhere)) {
                assert!(
                    rows_of(together, &rows) == rows_of(everywhere, &rows),
                    "{:?}: {what} of rows {rows:?} with adapters {adapters:?}",
                    case.precision
                );
            }
        }
        let without = case.run(0..TOKENS, &[], None).0;
        assert_ne!(rows_of(&together[0], &(0..5)), rows_of(&without[0], &(0..5)), "the adapter does something");
    }
}

#[test]
fn an_adapter_learns_from_its_own_rows_alone() {
    for case in cases() {
        let policy = case.run(0..TOKENS, &[1], Some(selection(&[(7..18, &[1])]))).1;
        let alone = case.run(7..18, &[1], None).1;
        assert!(policy.iter().flatten().any(|&number| number != 0.0));
        assert_eq!(policy, alone, "{:?}", case.precision);
    }
}

#[test]
fn all_rows_named_is_no_selection() {
    for case in cases() {
        let all = selection(&[(0..11, &[2, 1]), (11..TOKENS, &[1, 2])]);
        assert_eq!(case.run(0..TOKENS, &[1, 2], Some(all)), case.run(0..TOKENS, &[1, 2], None));
    }
}

#[test]
fn threads_do_not_change_a_byte_and_meta_allocates_alike() {
    for mut case in cases() {
        let found = case.run(0..TOKENS, &[1, 2], Some(mixed()));
        for threads in [1, 3] {
            case.device = device(threads);
            assert_eq!(found, case.run(0..TOKENS, &[1, 2], Some(mixed())), "{threads} threads");
        }
        let mut usage = |device: Device| -> Usage {
            case.device = device;
            case.run(0..TOKENS, &[1, 2], Some(mixed()));
            case.device.usage()
        };
        assert_eq!(usage(device(2)), usage(Device::meta()));
    }
}

#[test]
fn an_adapter_that_applies_nowhere_costs_nothing() {
    let device = Device::meta();
    let mut random = Random::new(53);
    let layers = [projection(&device, &PLAIN[0], &matrices(&mut random, &PLAIN[0]), &[1, 2], 0.0)];
    let bare = [Projection { terms: Vec::new(), ..layers[0].clone() }];
    let x = Var::constant(random.matrix(TOKENS, WIDTH).upload(&device));
    let allocations = |layers: &[Projection], selection: Option<Selection>| {
        let before = device.usage().allocations;
        let mut tape = Tape::new(&device, Precision::F32);
        tape.set_adapters(selection);
        let out = tape.linear(LinearInput::Plain(&x), layers, None);
        tape.backward(vec![(&out, device.empty(luthier_tensor::DType::F32, TOKENS, 9))], &[]);
        device.usage().allocations - before
    };
    let nowhere = selection(&[(0..TOKENS, &[])]);
    assert_eq!(allocations(&layers, Some(nowhere)), allocations(&bare, None));
}

#[test]
fn frozen_vectors_and_matrices_get_no_gradient() {
    let (device, mut random) = (device(1), Random::new(59));
    let shape = &ALL_PARTS[0];
    let mut layer = projection(&device, shape, &matrices(&mut random, shape), &[1, 2], 0.0);
    let freeze = |weight: &mut Weight| weight.gradient = None;
    freeze(&mut layer.weight);
    layer.bias = None;
    for term in &mut layer.terms {
        // VeRA: the matrices are random and shared, the vectors are trained.
        freeze(&mut term.down);
        freeze(&mut term.up);
    }
    let x = Var::constant(random.matrix(TOKENS, WIDTH).upload(&device));
    let mut tape = Tape::new(&device, Precision::F32);
    let out = tape.linear(LinearInput::Plain(&x), std::slice::from_ref(&layer), None);
    assert_eq!(tape.len(), 1);
    tape.backward(vec![(&out, random.matrix(TOKENS, shape.out).upload(&device))], &[]);
    let trained: Vec<&Weight> = layer.weights().filter(|weight| weight.is_trained()).collect();
    assert_eq!(trained.len(), 5, "r, and d and b of two terms");
    for weight in trained {
        assert!(device.download(weight.gradient.as_ref().unwrap()).iter().all(|number| *number != 0.0));
    }
}

#[test]
fn a_layer_that_runs_again_chooses_the_same_rows() {
    let (device, mut random) = (device(2), Random::new(61));
    let shape = Shape { out: WIDTH, terms: &[(1, 2), (2, 3)], vectors: true, scaled_by: Some(2) };
    let (matrices, x) = (matrices(&mut random, &shape), random.matrix(TOKENS, WIDTH));
    let upstream = random.matrix(TOKENS, WIDTH).upload(&device);
    let found = [false, true].map(|recomputed| {
        let layer = [projection(&device, &shape, &matrices, &[1, 2], 0.0)];
        let mut tape = Tape::new(&device, Precision::F32);
        tape.set_adapters(Some(mixed()));
        let x = tape.input(x.upload(&device));
        let run = |tape: &mut Tape<'_>, x: &Var| tape.linear(LinearInput::Plain(x), &layer, None);
        let out = if recomputed { tape.checkpoint(&x, run) } else { run(&mut tape, &x) };
        let output = device.download(out.value());
        let gradient = tape.backward(vec![(&out, upstream.clone())], &[&x]).pop().unwrap().unwrap();
        let weights = layer[0].weights().map(|weight| device.download(weight.gradient.as_ref().unwrap()));
        (output, device.download(&gradient), weights.collect::<Vec<_>>())
    });
    assert_eq!(found[0], found[1]);
}

#[test]
fn generation_with_several_adapters_in_a_batch() {
    let (device, mut random) = (device(2), Random::new(67));
    for shape in PLAIN.iter().chain(&ALL_PARTS) {
        let (matrices, x) = (matrices(&mut random, shape), random.matrix(3, WIDTH).upload(&device));
        let run = |adapters: &[u32], selection: Option<Selection>| {
            let layer = [projection(&device, shape, &matrices, adapters, 0.0)];
            let mut tape = Tape::for_generation(&device, Precision::F32);
            tape.set_adapters(selection);
            let out = tape.linear(LinearInput::Plain(&Var::constant(x.clone())), &layer, None);
            device.download(out.value())
        };
        let together = run(&[1, 2], Some(selection(&[(0..1, &[1]), (2..3, &[2])])));
        for (row, adapters) in [&[1][..], &[], &[2]].into_iter().enumerate() {
            let part = row * shape.out..(row + 1) * shape.out;
            let everywhere = run(adapters, None);
            let far = together[part.clone()].iter().zip(&everywhere[part]).map(|(a, b)| (a - b).abs());
            assert!(far.fold(0.0, f32::max) < 1e-5, "row {row}");
        }
    }
}
