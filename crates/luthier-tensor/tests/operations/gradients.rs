//! Every operation, forward and backward, against central differences of a plain f64 version: odd sizes, a segment of one
//! token, several threads, and fresh memory filled with NaN.

use std::sync::Arc;

use crate::common::{Matrix, Random, check, device};
use luthier_tensor::{
    Activation, AdapterTerm, AttentionOptions, DType, Device, HeadLayout, HeadNormWeights, HeadOptions, HeadOrder,
    KeyRange, KeyValues, LinearInput, Norm, Precision, Projection, Residual, RotaryTables, Segment, Tape, Tensor, Var,
    Weight,
};

const EPSILON: f64 = 1e-5;

fn gradient(device: &Device, weight: &Weight) -> Vec<f32> {
    device.download(weight.gradient.as_ref().unwrap())
}

/// Runs the tape back from `out` and returns the gradients of the inputs.
fn backward(tape: Tape, out: &Var, upstream: &Tensor, inputs: &[&Var]) -> Vec<Vec<f32>> {
    let device = tape.device().clone();
    let found = tape.backward(vec![(out, upstream.clone())], inputs);
    found.into_iter().map(|gradient| device.download(&gradient.unwrap())).collect()
}

fn rms_norm(x: &Matrix, weight: &Matrix) -> Matrix {
    let mut out = x.clone();
    for row in 0..x.rows {
        let square = x.row(row).iter().map(|v| v * v).sum::<f64>() / x.columns as f64;
        for column in 0..x.columns {
            out.set(row, column, x.at(row, column) / (square + EPSILON).sqrt() * weight.values[column]);
        }
    }
    out
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => x * normal_distribution(x),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Tanh => x.tanh(),
    }
}

/// The normal distribution function by integration of its density (Simpson's rule).
fn normal_distribution(x: f64) -> f64 {
    let steps = 2000;
    let width = x / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let sum: f64 = (0..=steps)
        .map(|i| {
            let weight = if i == 0 || i == steps {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            };
            weight * density(f64::from(i) * width)
        })
        .sum();
    0.5 + sum * width / 3.0
}

/// The f64 linear layer: `h` and, per projection, weight, bias, down, up.
fn plain_linear(h: &Matrix, projections: &[&[Matrix]], adapter_scale: f64, residual: Option<(&Matrix, f64)>) -> Matrix {
    let columns = projections.iter().map(|projection| projection[0].rows).sum();
    let mut out = Matrix::zeros(h.rows, columns);
    let mut first = 0;
    for projection in projections {
        let [weight, bias, down, up] = projection else { panic!("weight, bias, down, up") };
        let y = h.times_transposed(weight);
        let low = h.times_transposed(down).times_transposed(up);
        for row in 0..h.rows {
            for column in 0..weight.rows {
                let sum = y.at(row, column) + adapter_scale * low.at(row, column) + bias.values[column];
                let value = residual.map_or(sum, |(base, scale)| base.at(row, first + column) + scale * sum);
                out.set(row, first + column, value);
            }
        }
        first += weight.rows;
    }
    out
}

/// Weight, bias, down, up of a projection.
fn projection_matrices(random: &mut Random, out: usize, width: usize, rank: usize) -> [Matrix; 4] {
    [random.matrix(out, width), random.matrix(1, out), random.matrix(rank, width), random.matrix(out, rank)]
}

/// Trained projections whose `down` matrices share one tensor, as a model has them, when `joined`.
fn projections(device: &Device, matrices: &[[Matrix; 4]], scale: f32, joined: bool) -> Vec<Projection> {
    let rank = matrices.iter().map(|m| m[2].rows).sum();
    let width = matrices[0][2].columns;
    let (downs, gradients) = (device.zeros(DType::F32, rank, width), device.zeros(DType::F32, rank, width));
    let mut first = 0;
    let mut made = Vec::new();
    for [weight, bias, down, up] in matrices {
        let down = if joined {
            let value = downs.slice_rows(first, down.rows);
            device.copy(&down.upload(device), &value);
            Weight { gradient: Some(gradients.slice_rows(first, down.rows)), value }
        } else {
            down.trained(device)
        };
        first += down.value.rows();
        made.push(Projection {
            weight: weight.trained(device),
            bias: Some(bias.trained(device)),
            terms: vec![AdapterTerm { site: 1, ..AdapterTerm::new(down, up.trained(device), scale) }],
            row_scale: None,
            input_map: None,
        });
    }
    made
}

fn projection_gradients(device: &Device, projections: &[Projection]) -> Vec<Vec<f32>> {
    projections
        .iter()
        .flat_map(|p| [&p.weight, p.bias.as_ref().unwrap(), &p.terms[0].down, &p.terms[0].up])
        .map(|weight| gradient(device, weight))
        .collect()
}

#[test]
fn linear_with_norm_adapters_bias_and_residual() {
    for (tokens, width, outs, joined) in
        [(1, 1, [1, 3], true), (5, 17, [9, 4], true), (7, 15, [16, 17], false), (33, 33, [5, 1], true)]
    {
        let (mut random, device) = (Random::new(3), device(2));
        let matrices = outs.map(|out| projection_matrices(&mut random, out, width, 2));
        let (x, norm) = (random.matrix(tokens, width), random.matrix(1, width));
        let base = random.matrix(tokens, outs.iter().sum());
        let upstream = random.matrix(tokens, outs.iter().sum());
        let weights = projections(&device, &matrices, 1.5, joined);
        let normed = Norm { offset: 0.5, ..Norm::new(norm.trained(&device), EPSILON as f32) };
        let mut tape = Tape::new(&device, Precision::F32);
        let (x_var, base_var) = (tape.input(x.upload(&device)), tape.input(base.upload(&device)));
        let input = LinearInput::Normed { input: &x_var, norm: &normed };
        let out = tape.linear(input, &weights, Some(Residual { base: &base_var, scale: 0.7 }));
        let output = device.download(out.value());
        let mut gradients = backward(tape, &out, &upstream.upload(&device), &[&x_var, &base_var]);
        gradients.push(gradient(&device, &normed.weight));
        gradients.extend(projection_gradients(&device, &weights));
        let inputs: Vec<Matrix> = [x, base, norm].into_iter().chain(matrices.into_iter().flatten()).collect();
        let plain = |m: &[Matrix]| {
            plain_linear(&rms_norm(&m[0], &plus(&m[2], 0.5)), &[&m[3..7], &m[7..11]], 1.5, Some((&m[1], 0.7)))
        };
        check(&format!("linear {tokens}x{width}"), &inputs, plain, &upstream, &output, &gradients);
    }
}

fn plus(m: &Matrix, number: f64) -> Matrix {
    Matrix { values: m.values.iter().map(|value| value + number).collect(), ..m.clone() }
}

#[test]
fn a_normed_block_joins_the_stream() {
    for (tokens, width) in [(1, 1), (5, 17), (7, 33)] {
        let (mut random, device) = (Random::new(41), device(2));
        let (base, x, norm) = (random.matrix(tokens, width), random.matrix(tokens, width), random.matrix(1, width));
        let upstream = random.matrix(tokens, width);
        let normed = Norm { offset: 1.0, ..Norm::new(norm.trained(&device), EPSILON as f32) };
        let mut tape = Tape::new(&device, Precision::F32);
        let (base_var, x_var) = (tape.input(base.upload(&device)), tape.input(x.upload(&device)));
        let out = tape.add_normed(&base_var, &x_var, &normed);
        let output = device.download(out.value());
        let mut gradients = backward(tape, &out, &upstream.upload(&device), &[&base_var, &x_var]);
        gradients.push(gradient(&device, &normed.weight));
        let plain = |m: &[Matrix]| {
            let mut out = rms_norm(&m[1], &plus(&m[2], 1.0));
            out.values.iter_mut().zip(&m[0].values).for_each(|(out, base)| *out += base);
            out
        };
        check(&format!("normed {tokens}x{width}"), &[base, x, norm], plain, &upstream, &output, &gradients);
    }
}

#[test]
fn linear_after_each_activation() {
    for activation in [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::ReluSquared,
        Activation::Tanh,
    ] {
        for gated in [true, false] {
            let (mut random, device) = (Random::new(5), device(2));
            let (tokens, width) = (3, 17);
            let matrices = [projection_matrices(&mut random, 5, width, 1)];
            let x = random.matrix(tokens, if gated { 2 * width } else { width });
            let upstream = random.matrix(tokens, 5);
            let weights = projections(&device, &matrices, 0.5, true);
            let mut tape = Tape::new(&device, Precision::F32);
            let x_var = tape.input(x.upload(&device));
            let out = tape.linear(LinearInput::Activated { input: &x_var, activation, gated }, &weights, None);
            let output = device.download(out.value());
            let mut gradients = backward(tape, &out, &upstream.upload(&device), &[&x_var]);
            gradients.extend(projection_gradients(&device, &weights));
            let inputs: Vec<Matrix> = std::iter::once(x).chain(matrices.into_iter().flatten()).collect();
            let plain = |m: &[Matrix]| {
                let mut h = Matrix::zeros(tokens, width);
                for row in 0..tokens {
                    for column in 0..width {
                        let gate = activate(activation, m[0].at(row, column));
                        h.set(row, column, if gated { gate * m[0].at(row, width + column) } else { gate });
                    }
                }
                plain_linear(&h, &[&m[1..5]], 0.5, None)
            };
            check(&format!("{activation:?} gated {gated}"), &inputs, plain, &upstream, &output, &gradients);
        }
    }
}

#[test]
fn embedding_adds_up_repeated_ids() {
    let (mut random, device) = (Random::new(7), device(2));
    let table = random.matrix(9, 33);
    let ids = [4u32, 8, 4, 0, 4];
    let upstream = random.matrix(ids.len(), 33);
    let weight = table.trained(&device);
    let mut tape = Tape::new(&device, Precision::F32);
    let out = tape.embedding(&weight, &device.upload_ids(&ids), 3.0);
    let output = device.download(out.value());
    backward(tape, &out, &upstream.upload(&device), &[]);
    let plain = |m: &[Matrix]| {
        let values = ids.iter().flat_map(|&id| m[0].row(id as usize).iter().map(|v| v * 3.0)).collect();
        Matrix { rows: ids.len(), columns: 33, values }
    };
    check("embedding", &[table], plain, &upstream, &output, &[gradient(&device, &weight)]);
}

fn rotate(head: &mut [f64], angles: &[f64], interleaved: bool) {
    let pairs = angles.len();
    for (pair, angle) in angles.iter().enumerate() {
        let (i, j) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + pairs) };
        let (u, v) = (head[i], head[j]);
        (head[i], head[j]) = (u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin());
    }
}

#[test]
fn rotary_in_all_its_forms() {
    for (norm, interleaved, order, partial) in [
        (None, false, HeadOrder::Blocks, false),
        (None, true, HeadOrder::Groups, true),
        (Some(false), false, HeadOrder::Groups, false),
        (Some(true), true, HeadOrder::Blocks, true),
        (Some(true), false, HeadOrder::Blocks, false),
    ] {
        let (mut random, device) = (Random::new(11), device(2));
        let layout = HeadLayout { heads: 4, key_value_heads: 2, head_dim: 6, order };
        let pairs = if partial { 2 } else { 3 };
        let tokens = 5;
        let angles = random.matrix(tokens, pairs);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.values.iter().map(|&angle| f(angle) as f32).collect();
            device.upload(&values, tokens, pairs)
        };
        let tables = RotaryTables { cosine: table(f64::cos), sine: table(f64::sin), interleaved };
        let heads = random.matrix(tokens, layout.columns());
        let (query, key) = (random.matrix(1, 6), random.matrix(1, 6));
        let upstream = random.matrix(tokens, layout.columns());
        let weights = norm.map(|after_rotation| HeadNormWeights {
            query: query.trained(&device),
            key: key.trained(&device),
            epsilon: EPSILON as f32,
            after_rotation,
        });
        let mut tape = Tape::new(&device, Precision::F32);
        let input = tape.input(heads.upload(&device));
        let out = tape.rotary(input.clone(), layout, &tables, weights.as_ref());
        let output = device.download(out.value());
        let mut gradients = backward(tape, &out, &upstream.upload(&device), &[&input]);
        if let Some(weights) = &weights {
            gradients.extend([gradient(&device, &weights.query), gradient(&device, &weights.key)]);
        }
        let plain = |m: &[Matrix]| {
            let mut out = m[0].clone();
            for row in 0..tokens {
                for (index, column) in layout.rotated_columns().enumerate() {
                    let mut head = m[0].row(row)[column..][..6].to_vec();
                    let normalise = |head: &mut Vec<f64>| {
                        let x = Matrix { rows: 1, columns: 6, values: head.clone() };
                        *head = rms_norm(&x, &m[if index < layout.heads { 1 } else { 2 }]).values;
                    };
                    if norm == Some(false) {
                        normalise(&mut head);
                    }
                    rotate(&mut head[..2 * pairs], angles.row(row), interleaved);
                    if norm == Some(true) {
                        normalise(&mut head);
                    }
                    out.values[row * out.columns + column..][..6].copy_from_slice(&head);
                }
            }
            out
        };
        let inputs = if norm.is_some() { vec![heads, query, key] } else { vec![heads] };
        check(&format!("rotary {norm:?} {interleaved} {order:?}"), &inputs, plain, &upstream, &output, &gradients);
    }
}

/// Attention in f64: `m[0]` holds the heads, `m[1]` and `m[2]` the keys and values of source 1.
fn plain_attention(
    m: &[Matrix],
    layout: HeadLayout,
    scale: f64,
    window: Option<usize>,
    soft_cap: Option<f32>,
    segments: &[Segment],
) -> Matrix {
    let width = layout.head_dim;
    let mut out = Matrix::zeros(m[0].rows, layout.output_columns());
    for segment in segments {
        for (offset, row) in segment.rows.clone().enumerate() {
            let position = segment.first_position + offset;
            for head in 0..layout.heads {
                let key_head = head / layout.group();
                let query = &m[0].row(row)[layout.query_column(head)..][..width];
                let mut seen = Vec::new();
                for range in &segment.keys {
                    for (index, key_row) in range.rows.clone().enumerate() {
                        let key_position = range.first_position + index;
                        if key_position > position || window.is_some_and(|window| key_position + window <= position) {
                            continue;
                        }
                        let (keys, values) = match range.source {
                            0 => (
                                &m[0].row(key_row)[layout.key_column(key_head)..][..width],
                                &m[0].row(key_row)[layout.value_column(key_head)..][..width],
                            ),
                            _ => (
                                &m[1].row(key_row)[key_head * width..][..width],
                                &m[2].row(key_row)[key_head * width..][..width],
                            ),
                        };
                        let score: f64 = query.iter().zip(keys).map(|(q, k)| q * k).sum::<f64>() * scale;
                        seen.push((bound(score, soft_cap).exp(), values.to_vec()));
                    }
                }
                let total: f64 = seen.iter().map(|(weight, _)| weight).sum();
                for column in 0..width {
                    let sum: f64 = seen.iter().map(|(weight, values)| weight * values[column]).sum();
                    out.set(row, head * width + column, sum / total);
                }
            }
        }
    }
    out
}

#[test]
fn attention_over_ranges_of_keys() {
    let own = |rows: std::ops::Range<usize>, first_position| KeyRange { source: 0, rows, first_position };
    let other = |rows: std::ops::Range<usize>| KeyRange { source: 1, rows, first_position: 0 };
    let packed = vec![Segment::alone(0..1), Segment::alone(1..18), Segment::alone(18..20)];
    let with_prefix = vec![
        Segment { rows: 0..7, first_position: 3, keys: vec![other(0..3), own(0..7, 3)] },
        Segment { rows: 7..8, first_position: 3, keys: vec![other(0..3), own(7..8, 3)] },
    ];
    // Two replies that share the prompt in rows 0..5.
    let shared_prompt = vec![
        Segment::alone(0..5),
        Segment { rows: 5..8, first_position: 5, keys: vec![own(0..5, 0), own(5..8, 5)] },
        Segment { rows: 8..9, first_position: 5, keys: vec![own(0..5, 0), own(8..9, 5)] },
    ];
    for (name, tokens, segments, window, soft_cap, order, head_dim) in [
        ("packed", 20, packed.clone(), None, None, HeadOrder::Blocks, 5),
        ("window", 20, packed, Some(4), Some(0.7), HeadOrder::Groups, 8),
        ("prefix", 8, with_prefix, None, Some(1.3), HeadOrder::Blocks, 16),
        ("shared prompt", 9, shared_prompt, None, None, HeadOrder::Groups, 3),
    ] {
        let (mut random, device) = (Random::new(13), device(2));
        let layout = HeadLayout { heads: 6, key_value_heads: 2, head_dim, order };
        let heads = random.matrix(tokens, layout.columns());
        let (keys, values) = (random.matrix(3, 2 * head_dim), random.matrix(3, 2 * head_dim));
        let upstream = random.matrix(tokens, layout.output_columns());
        let mut tape = Tape::new(&device, Precision::F32);
        let input = tape.input(heads.upload(&device));
        let (key_var, value_var) = (tape.input(keys.upload(&device)), tape.input(values.upload(&device)));
        let uses_other = segments.iter().any(|segment| segment.keys.iter().any(|range| range.source == 1));
        let others = [KeyValues { keys: key_var.clone(), values: value_var.clone() }];
        let others = if uses_other { &others[..] } else { &[] };
        let options = AttentionOptions { layout, scale: 0.6, window, soft_cap, segments: segments.clone().into() };
        let out = tape.attention(&input, others, &options);
        let output = device.download(out.value());
        let wanted: &[&Var] = if uses_other { &[&input, &key_var, &value_var] } else { &[&input] };
        let gradients = backward(tape, &out, &upstream.upload(&device), wanted);
        let plain = |m: &[Matrix]| plain_attention(m, layout, 0.6, window, soft_cap, &segments);
        check(name, &[heads, keys, values], plain, &upstream, &output, &gradients);
    }
}

#[test]
fn attention_over_several_tiles() {
    let device = device(2);
    let mut random = Random::new(17);
    let layout = HeadLayout { heads: 2, key_value_heads: 1, head_dim: 2, order: HeadOrder::Blocks };
    let tokens = 300;
    let segments: Arc<[Segment]> = vec![Segment::alone(0..tokens)].into();
    let heads = random.matrix(tokens, layout.columns());
    let upstream = random.matrix(tokens, layout.output_columns());
    for (window, soft_cap) in [(None, None), (Some(70), None), (None, Some(2.0))] {
        let mut tape = Tape::new(&device, Precision::F32);
        let input = tape.input(heads.upload(&device));
        let options = AttentionOptions { layout, scale: 1.3, window, soft_cap, segments: Arc::clone(&segments) };
        let out = tape.attention(&input, &[], &options);
        let output = device.download(out.value());
        let gradients = backward(tape, &out, &upstream.upload(&device), &[&input]);
        let plain = |m: &[Matrix]| plain_attention(m, layout, 1.3, window, soft_cap, &segments);
        // Differences at a few places only: each costs two passes over all pairs.
        let expected = plain(std::slice::from_ref(&heads));
        for (expected, &found) in expected.values.iter().zip(&output) {
            assert!((expected - f64::from(found)).abs() < 2e-5, "{found} instead of {expected}");
        }
        let loss = |m: &Matrix| -> f64 {
            plain(std::slice::from_ref(m)).values.iter().zip(&upstream.values).map(|(out, by)| out * by).sum()
        };
        for index in (0..heads.values.len()).step_by(173) {
            let mut moved = heads.clone();
            moved.values[index] += 1e-5;
            let above = loss(&moved);
            moved.values[index] -= 2e-5;
            let expected = (above - loss(&moved)) / 2e-5;
            let found = f64::from(gradients[0][index]);
            assert!((expected - found).abs() < 1e-4, "window {window:?}: gradient {index} is {found}, not {expected}");
        }
    }
}

fn bound(number: f64, soft_cap: Option<f32>) -> f64 {
    soft_cap.map_or(number, |cap| f64::from(cap) * (number / f64::from(cap)).tanh())
}

/// The head's four differentiable outputs in f64.
fn plain_head(m: &[Matrix], positions: &[u32], targets: &[u32], scale: f64, soft_cap: Option<f32>) -> Matrix {
    let h = rms_norm(&m[0], &m[1]).times_transposed(&m[2]);
    let mut out = Matrix::zeros(positions.len(), 4);
    for (row, (&position, &target)) in positions.iter().zip(targets).enumerate() {
        let logits: Vec<f64> = h.row(position as usize).iter().map(|logit| bound(logit * scale, soft_cap)).collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        out.set(row, 0, logits[target as usize] - log_sum);
        out.set(row, 1, log_sum);
        out.set(row, 2, logits.iter().sum::<f64>() / logits.len() as f64);
        out.set(row, 3, logits.iter().map(|logit| -(logit - log_sum).exp() * (logit - log_sum)).sum());
    }
    out
}

#[test]
fn head_with_all_its_outputs() {
    let (mut random, device) = (Random::new(19), device(2));
    let (tokens, width, vocabulary) = (6, 17, 33);
    let (x, norm, weight) = (random.matrix(tokens, width), random.matrix(1, width), random.matrix(vocabulary, width));
    let (positions, targets) = ([0u32, 2, 5], [32u32, 0, 7]);
    let ways = [(true, true), (true, false), (false, false), (false, true)];
    for (soft_cap, (trained, all)) in [None, Some(1.5)].into_iter().flat_map(|cap| ways.map(|way| (cap, way))) {
        let mut upstream = random.matrix(positions.len(), 4);
        if !all {
            for row in 0..upstream.rows {
                (1..4).for_each(|column| upstream.set(row, column, 0.0));
            }
        }
        let head_weight = if trained { weight.trained(&device) } else { Weight::frozen(weight.upload(&device)) };
        let options = HeadOptions {
            norm: Norm::new(norm.trained(&device), EPSILON as f32),
            weight: head_weight,
            scale: 0.8,
            soft_cap,
            differentiate_all: all,
        };
        let mut tape = Tape::new(&device, Precision::F32);
        let input = tape.input(x.upload(&device));
        let head = tape.head(&input, &options, &device.upload_ids(&positions), &device.upload_ids(&targets));
        let values = device.download(head.values.value());
        let output: Vec<f32> = values.chunks(5).flat_map(|row| row[..4].to_vec()).collect();
        let mut gradients = backward(tape, &head.values, &upstream.upload(&device), &[&input]);
        gradients.push(gradient(&device, &options.norm.weight));
        if trained {
            gradients.push(gradient(&device, &options.weight));
        }
        let plain = |m: &[Matrix]| plain_head(m, &positions, &targets, 0.8, soft_cap);
        let inputs = [x.clone(), norm.clone(), weight.clone()];
        check(
            &format!("head cap {soft_cap:?} trained {trained} all {all}"),
            &inputs,
            plain,
            &upstream,
            &output,
            &gradients,
        );
        let logits = rms_norm(&x, &norm).times_transposed(&weight);
        for (row, values) in values.chunks(5).enumerate() {
            let logits = logits.row(positions[row] as usize);
            let best = (0..vocabulary).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert_eq!(values[4], if best == targets[row] as usize { 1.0 } else { 0.0 });
        }
    }
}

#[test]
fn a_layer_that_runs_twice_gives_the_same_gradients() {
    let (mut random, device) = (Random::new(23), device(2));
    let matrices = [projection_matrices(&mut random, 17, 17, 2)];
    let x = random.matrix(5, 17);
    let upstream = random.matrix(5, 17).upload(&device);
    let mut found = Vec::new();
    for recomputed in [false, true] {
        let weights = projections(&device, &matrices, 1.0, true);
        let mut tape = Tape::new(&device, Precision::F32);
        let input = tape.input(x.upload(&device));
        let layer = |tape: &mut Tape<'_>, x: &Var| {
            let y = tape.linear(LinearInput::Plain(x), &weights, Some(Residual { base: x, scale: 1.0 }));
            tape.linear(LinearInput::Plain(&y), &weights, None)
        };
        let out = if recomputed { tape.checkpoint(&input, layer) } else { layer(&mut tape, &input) };
        assert_eq!(tape.len(), if recomputed { 1 } else { 2 });
        let output = device.download(out.value());
        let gradients = backward(tape, &out, &upstream, &[&input]);
        found.push((output, gradients, projection_gradients(&device, &weights)));
    }
    assert_eq!(found[0], found[1]);
}

#[test]
fn dropout_is_undone_by_the_same_mask_in_backward() {
    let (mut random, device) = (Random::new(29), device(2));
    let matrices = [projection_matrices(&mut random, 9, 33, 3)];
    let x = random.matrix(7, 33);
    let upstream = random.matrix(7, 9);
    let mut weights = projections(&device, &matrices, 1.0, true);
    weights[0].terms[0].dropout = 0.4;
    let tokens: Vec<u32> = (0..7).map(|token| token * 31).collect();
    let run = |x: &Matrix| {
        let mut tape = Tape::new(&device, Precision::F32);
        tape.set_dropout(Some(luthier_tensor::Dropout { seed: 5, tokens: device.upload_ids(&tokens) }));
        let input = tape.input(x.upload(&device));
        let out = tape.linear(LinearInput::Plain(&input), &weights, None);
        let output = device.download(out.value());
        (output, backward(tape, &out, &upstream.upload(&device), &[&input]))
    };
    let (output, gradients) = run(&x);
    assert_eq!(output, run(&x).0, "the mask is a function of its seed");
    let without = Tape::without_gradients(&device, Precision::F32).linear(
        LinearInput::Plain(&Var::constant(x.upload(&device))),
        &weights,
        None,
    );
    assert_ne!(output, device.download(without.value()), "something was dropped");
    // With the mask fixed the layer is linear: a difference of any size is exact.
    for index in [0, 40, 230] {
        let mut moved = x.clone();
        moved.values[index] += 1.0;
        let change = |(a, b): (&f32, &f32)| f64::from(b - a);
        let moved = run(&moved).0;
        let expected: f64 =
            output.iter().zip(&moved).map(change).zip(&upstream.values).map(|(change, by)| change * by).sum();
        let found = f64::from(gradients[0][index]);
        assert!((expected - found).abs() < 1e-4, "gradient {index} is {found}, not {expected}");
    }
}
