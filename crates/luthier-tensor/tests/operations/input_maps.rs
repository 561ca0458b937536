//! What IA3, OFT and DoRA do to a projection: maps of its input, factors of its bias, magnitudes over norms. Gradients
//! against central differences of plain f64 versions, and meta against the processor.

use std::sync::Arc;

use luthier_tensor::{
    AdapterRows, AdapterTerm, Device, InputMap, InputMapKind, LinearInput, Precision, Projection, RotationSeries,
    RowScale, RowScaleKind, Tape, Usage, Weight,
};

use crate::common::{Matrix, Random, check, device};

const TOKENS: usize = 7;
const WIDTH: usize = 12;
const OUT: usize = 9;
const BLOCK: usize = 4;
/// Rows that adapter 1 applies to.
const ROWS: std::ops::Range<usize> = 2..6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Scale,
    Rotation(RotationSeries),
    BiasToo,
    Magnitudes,
}

const KINDS: [Kind; 5] = [
    Kind::Scale,
    Kind::Rotation(RotationSeries::Exact),
    Kind::Rotation(RotationSeries::Terms(5)),
    Kind::BiasToo,
    Kind::Magnitudes,
];

/// Input, weight, bias, the adapter's own, and A and B of magnitudes.
fn matrices(kind: Kind) -> Vec<Matrix> {
    let mut random = Random::new(71);
    let mut all = vec![random.matrix(TOKENS, WIDTH), random.matrix(OUT, WIDTH), random.matrix(1, OUT)];
    all.push(match kind {
        Kind::Scale => random.matrix(1, WIDTH),
        Kind::Rotation(_) => random.matrix(WIDTH / BLOCK, BLOCK * (BLOCK - 1) / 2),
        Kind::BiasToo | Kind::Magnitudes => random.matrix(1, OUT),
    });
    if kind == Kind::Magnitudes {
        all.extend([random.matrix(2, WIDTH), random.matrix(OUT, 2)]);
    }
    all
}

fn projection(device: &Device, kind: Kind, m: &[Matrix]) -> Projection {
    let mut made = Projection { bias: Some(m[2].trained(device)), ..Projection::new(m[1].trained(device)) };
    let own: Weight = m[3].trained(device);
    let map = |kind| Some(InputMap { kind, adapter: 1 });
    let scale = |vector, kind| Some(RowScale { vector, kind, adapter: 1 });
    match kind {
        Kind::Scale => made.input_map = map(InputMapKind::Scale { vector: own }),
        Kind::Rotation(series) => {
            made.input_map = map(InputMapKind::Rotation { angles: own, block: BLOCK, series });
        }
        Kind::BiasToo => made.row_scale = scale(own, RowScaleKind::BiasToo),
        Kind::Magnitudes => {
            let squares = device.row_squares(&made.weight.value);
            made.row_scale = scale(own, RowScaleKind::Magnitudes { squares });
            let (down, up) = (m[4].trained(device), m[5].trained(device));
            made.terms.push(AdapterTerm { adapter: 1, ..AdapterTerm::new(down, up, 1.5) });
        }
    }
    made
}

fn times(a: &Matrix, b: &Matrix) -> Matrix {
    let transposed = Matrix {
        rows: b.columns,
        columns: b.rows,
        values: (0..b.rows * b.columns).map(|i| b.at(i % b.rows, i / b.rows)).collect(),
    };
    a.times_transposed(&transposed)
}

/// By a sum that converges for these sizes of angles where the series is exact.
fn rotation(angles: &[f64], series: RotationSeries) -> Matrix {
    let mut q = Matrix::zeros(BLOCK, BLOCK);
    let mut next = angles.iter();
    for row in 0..BLOCK {
        for column in row + 1..BLOCK {
            let angle = *next.next().unwrap();
            q.set(row, column, angle);
            q.set(column, row, -angle);
        }
    }
    let (last, sign) = match series {
        RotationSeries::Exact => (80, -1.0),
        RotationSeries::Terms(terms) => (terms - 1, 1.0),
    };
    let mut sum = Matrix::zeros(BLOCK, BLOCK);
    (0..BLOCK).for_each(|i| sum.set(i, i, 1.0));
    let mut power = sum.clone();
    for exponent in 1..=last {
        power = times(&power, &q);
        power.values.iter_mut().for_each(|value| *value *= sign);
        let factor = if exponent == last { 1.0 } else { 2.0 };
        sum.values.iter_mut().zip(&power.values).for_each(|(sum, value)| *sum += factor * value);
    }
    sum
}

fn plain(kind: Kind, m: &[Matrix], norms: &[f64], applies: impl Fn(usize) -> bool) -> Matrix {
    let mut mapped = m[0].clone();
    for row in (0..TOKENS).filter(|&row| applies(row)) {
        for column in 0..WIDTH {
            let value = match kind {
                Kind::Scale => m[0].at(row, column) * m[3].values[column],
                Kind::Rotation(series) => {
                    let block = column / BLOCK;
                    let rotation = rotation(m[3].row(block), series);
                    (0..BLOCK).map(|k| m[0].at(row, block * BLOCK + k) * rotation.at(k, column % BLOCK)).sum()
                }
                Kind::BiasToo | Kind::Magnitudes => m[0].at(row, column),
            };
            mapped.set(row, column, value);
        }
    }
    let mut out = mapped.times_transposed(&m[1]);
    for row in 0..TOKENS {
        for column in 0..OUT {
            let (sum, bias, own) = (out.at(row, column), m[2].values[column], &m[3].values);
            let value = match kind {
                Kind::BiasToo if applies(row) => own[column] * (sum + bias),
                Kind::Magnitudes if applies(row) => {
                    let low = m[0].times_transposed(&m[4]);
                    let term: f64 = (0..2).map(|k| low.at(row, k) * m[5].at(column, k) * 1.5).sum();
                    own[column] / norms[column] * (sum + term) + bias
                }
                _ => sum + bias,
            };
            out.set(row, column, value);
        }
    }
    out
}

/// The norms of the rows of W + 1.5 B A.
fn norms(m: &[Matrix]) -> Vec<f64> {
    let Some((down, up)) = m.get(4).zip(m.get(5)) else { return Vec::new() };
    let update = times(up, down);
    let square =
        |row: usize| -> f64 { m[1].row(row).iter().zip(update.row(row)).map(|(w, u)| (w + 1.5 * u).powi(2)).sum() };
    (0..OUT).map(|row| square(row).sqrt()).collect()
}

#[test]
fn gradients_for_all_rows_and_for_some() {
    for kind in KINDS {
        // A series that converges slowly would need more terms than the plain version sums.
        let mut inputs = matrices(kind);
        if matches!(kind, Kind::Rotation(_)) {
            inputs[3].values.iter_mut().for_each(|angle| *angle *= 0.3);
            inputs[3].values.iter_mut().for_each(|angle| *angle = f64::from(*angle as f32));
        }
        for some in [false, true] {
            let device = device(2);
            let layer = [projection(&device, kind, &inputs)];
            let upstream = Random::new(73).matrix(TOKENS, OUT);
            let mut tape = Tape::new(&device, Precision::F32);
            let rows = some.then(|| Arc::from([AdapterRows { rows: ROWS, adapters: vec![1] }]));
            tape.set_adapters(rows);
            let x = tape.input(inputs[0].upload(&device));
            let out = tape.linear(LinearInput::Plain(&x), &layer, None);
            let output = device.download(out.value());
            let found = tape.backward(vec![(&out, upstream.upload(&device))], &[&x]);
            let of_weight = |weight: &Weight| device.download(weight.gradient.as_ref().unwrap());
            let mut gradients = vec![device.download(found[0].as_ref().unwrap()), of_weight(&layer[0].weight)];
            gradients.push(of_weight(layer[0].bias.as_ref().unwrap()));
            let scale = layer[0].row_scale.as_ref().map(|scale| &scale.vector);
            let map = layer[0].input_map.iter().flat_map(InputMap::weights);
            gradients.extend(scale.into_iter().chain(map).map(of_weight));
            gradients.extend(layer[0].terms.iter().flat_map(AdapterTerm::weights).map(of_weight));
            let norms = norms(&inputs);
            let plain = |m: &[Matrix]| plain(kind, m, &norms, |row| !some || ROWS.contains(&row));
            check(&format!("{kind:?}, some rows {some}"), &inputs, plain, &upstream, &output, &gradients);
        }
    }
}

#[test]
fn threads_do_not_change_a_byte_and_meta_allocates_alike() {
    for kind in KINDS {
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |device: &Device| -> (Vec<Vec<f32>>, Usage) {
                let inputs = matrices(kind);
                let layer = [projection(device, kind, &inputs)];
                let mut tape = Tape::new(device, precision);
                let x = tape.input(device.convert(&inputs[0].upload(device), precision.storage()));
                let out = tape.linear(LinearInput::Plain(&x), &layer, None);
                let upstream = device.convert(out.value(), precision.storage());
                let mut found = vec![device.download(out.value())];
                tape.backward(vec![(&out, upstream)], &[&x]);
                let weights = layer[0].weights().map(|weight| device.download(weight.gradient.as_ref().unwrap()));
                found.extend(weights);
                (found, device.usage())
            };
            let (found, usage) = run(&device(1));
            assert_eq!(found, run(&device(3)).0, "{kind:?}");
            assert_eq!(usage, run(&Device::meta()).1, "{kind:?}");
        }
    }
}
