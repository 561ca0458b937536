//! Values put together from others, against central differences: what learned prefixes, prompts and bottleneck adapters
//! are made of.

use luthier_tensor::{Activation, DType, Device, LinearInput, Precision, Projection, Residual, Tape, Var, Weight};

use crate::common::{Matrix, Random, check, device};

fn gradient(device: &Device, weight: &Weight) -> Vec<f32> {
    device.download(weight.gradient.as_ref().unwrap())
}

fn columns_of(m: &Matrix, first: usize, count: usize) -> Matrix {
    let values = (0..m.rows).flat_map(|row| m.row(row)[first..first + count].to_vec()).collect();
    Matrix { rows: m.rows, columns: count, values }
}

fn with_bias(mut m: Matrix, bias: &Matrix) -> Matrix {
    let columns = m.columns;
    m.values.iter_mut().enumerate().for_each(|(index, value)| *value += bias.values[index % columns]);
    m
}

fn each(mut m: Matrix, function: impl Fn(f64) -> f64) -> Matrix {
    m.values.iter_mut().for_each(|value| *value = function(*value));
    m
}

/// Rows of `x`, below them some columns of a prompt twice, and the same with its other columns on top.
fn plain_arranged(m: &[Matrix]) -> Matrix {
    let inner = each(with_bias(m[1].times_transposed(&m[2]), &m[3]), f64::tanh);
    let prompt = inner.times_transposed(&m[4]);
    let stacked = |part: Matrix| {
        let part = each(part, |x| 1.5 * x).values;
        [&m[0].values[..], &part, &part].concat()
    };
    let (above, below) = (stacked(columns_of(&prompt, 0, 3)), stacked(columns_of(&prompt, 3, 3)));
    let values: Vec<f64> = above.iter().zip(&below).map(|(a, b)| a + 0.7 * b).collect();
    Matrix { rows: values.len() / 3, columns: 3, values }
}

#[test]
fn a_prompt_made_by_a_network_and_put_below_rows() {
    let device = device(2);
    let mut random = Random::new(41);
    let shapes = [(4, 3), (17, 5), (33, 5), (1, 33), (6, 33)];
    let inputs: Vec<Matrix> = shapes.iter().map(|&(rows, columns)| random.matrix(rows, columns)).collect();
    let upstream = random.matrix(4 + 2 * 17, 3);
    let mut bytes = Vec::new();
    for recomputed in [false, true] {
        let weights: Vec<Weight> = inputs[1..].iter().map(|matrix| matrix.trained(&device)).collect();
        let bias = Some(weights[2].clone());
        let first = [Projection { bias, ..Projection::new(weights[1].clone()) }];
        let second = [Projection::new(weights[3].clone())];
        let mut tape = Tape::new(&device, Precision::F32);
        let x = tape.input(inputs[0].upload(&device));
        let prompt = tape.in_f32(|tape| {
            let embedding = tape.parameter(&weights[0]);
            let wide = tape.linear(LinearInput::Plain(&embedding), &first, None);
            let input = LinearInput::Activated { input: &wide, activation: Activation::Tanh, gated: false };
            tape.linear(input, &second, None)
        });
        let arranged = |tape: &mut Tape<'_>, vars: &[Var]| {
            let (left, right) = (tape.columns(&vars[1], 0..3), tape.columns(&vars[1], 3..6));
            let (above, below) =
                (tape.append_rows(&vars[0], &left, 2, 1.5), tape.append_rows(&vars[0], &right, 2, 1.5));
            tape.add_scaled(&above, &below, 0.7)
        };
        let out = match recomputed {
            true => tape.checkpoint_all(&[&x, &prompt], arranged),
            false => arranged(&mut tape, &[x.clone(), prompt]),
        };
        let output = device.download(out.value());
        let found = tape.backward(vec![(&out, upstream.upload(&device))], &[&x]);
        let mut gradients = vec![device.download(found[0].as_ref().unwrap())];
        gradients.extend(weights.iter().map(|weight| gradient(&device, weight)));
        check("prompt", &inputs, plain_arranged, &upstream, &output, &gradients);
        bytes.push((output, gradients));
    }
    assert!(bytes[0] == bytes[1], "a layer that runs again gives other bytes");
}

/// A bottleneck adapter between a projection and its residual: base + s * (o + act(o D^T + b) U^T + c), o = x W^T.
fn plain_bottleneck(m: &[Matrix]) -> Matrix {
    let o = m[0].times_transposed(&m[2]);
    let z = each(with_bias(o.times_transposed(&m[3]), &m[4]), |x| x.max(0.0));
    let up = with_bias(z.times_transposed(&m[5]), &m[6]);
    let values = (0..o.values.len()).map(|i| m[1].values[i] + 0.7 * (o.values[i] + up.values[i])).collect();
    Matrix { values, ..o }
}

#[test]
fn a_bottleneck_between_a_projection_and_its_residual() {
    for (tokens, width, inner) in [(1, 1, 1), (7, 17, 3), (33, 33, 15)] {
        let (device, mut random) = (device(2), Random::new(43));
        let shapes =
            [(tokens, width), (tokens, width), (width, width), (inner, width), (1, inner), (width, inner), (1, width)];
        let inputs: Vec<Matrix> = shapes.iter().map(|&(rows, columns)| random.matrix(rows, columns)).collect();
        let upstream = random.matrix(tokens, width);
        let weight = |index: usize| inputs[index].trained(&device);
        let output = [Projection::new(weight(2))];
        let down = [Projection { bias: Some(weight(4)), ..Projection::new(weight(3)) }];
        let up = [Projection { bias: Some(weight(6)), ..Projection::new(weight(5)) }];
        let mut tape = Tape::new(&device, Precision::F32);
        let (x, base) = (tape.input(inputs[0].upload(&device)), tape.input(inputs[1].upload(&device)));
        let o = tape.linear(LinearInput::Plain(&x), &output, None);
        let z = tape.linear(LinearInput::Plain(&o), &down, None);
        let activated = LinearInput::Activated { input: &z, activation: Activation::Relu, gated: false };
        let adapted = tape.linear(activated, &up, Some(Residual { base: &o, scale: 1.0 }));
        let out = tape.add_scaled(&base, &adapted, 0.7);
        let values = device.download(out.value());
        let found = tape.backward(vec![(&out, upstream.upload(&device))], &[&x, &base]);
        let mut gradients: Vec<Vec<f32>> = found.iter().map(|found| device.download(found.as_ref().unwrap())).collect();
        let weights = [&output, &down, &up].into_iter().flat_map(|projection| projection[0].weights());
        gradients.extend(weights.map(|weight| gradient(&device, weight)));
        check(&format!("bottleneck {tokens}x{width}"), &inputs, plain_bottleneck, &upstream, &values, &gradients);
    }
}

#[test]
fn in_half_precision_a_weight_gets_an_f32_gradient() {
    let device = device(1);
    let weight = Random::new(47).matrix(3, 4).trained(&device);
    let mut tape = Tape::new(&device, Precision::Bf16);
    let whole = tape.parameter(&weight);
    let part = tape.columns(&whole, 1..3);
    assert_eq!(part.value().dtype(), DType::Bf16);
    let seed = device.convert(&device.upload(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2), DType::Bf16);
    tape.backward(vec![(&part, seed)], &[]);
    assert_eq!(gradient(&device, &weight), [0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 5.0, 6.0, 0.0]);
}
