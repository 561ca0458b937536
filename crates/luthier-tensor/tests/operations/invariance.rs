//! A row's numbers depend on nothing but the row: not on what it is packed with, nor on the number of threads. The
//! processor and the device without data allocate alike.

use crate::common::{Random, device};
use luthier_tensor::{
    Activation, AttentionOptions, Device, HeadLayout, HeadOptions, HeadOrder, LinearInput, Norm, Precision, Projection,
    Residual, Segment, Tape, Usage, Var, Weight,
};

const WIDTH: usize = 48;
const LAYOUT: HeadLayout = HeadLayout { heads: 6, key_value_heads: 3, head_dim: 8, order: HeadOrder::Blocks };

struct Layer {
    norm: Weight,
    heads: Projection,
    output: Projection,
    gate_up: Projection,
    down: Projection,
    head: Weight,
}

impl Layer {
    fn new(device: &Device) -> Self {
        let mut random = Random::new(31);
        let mut trained = |rows, columns| random.matrix(rows, columns).trained(device);
        let mut projection = |out, width| Projection::new(trained(out, width));
        Self {
            heads: projection(LAYOUT.columns(), WIDTH),
            output: projection(WIDTH, LAYOUT.output_columns()),
            gate_up: projection(2 * 65, WIDTH),
            down: projection(WIDTH, 65),
            norm: trained(1, WIDTH),
            head: trained(257, WIDTH),
        }
    }

    /// Hidden states, the head's outputs, and the gradient of the input, for rows of these lengths.
    fn run(&self, device: &Device, precision: Precision, input: &[f32], lengths: &[usize]) -> [Vec<f32>; 3] {
        let tokens = lengths.iter().sum();
        let mut first = 0;
        let segments: Vec<Segment> = lengths
            .iter()
            .map(|length| {
                first += length;
                Segment::alone(first - length..first)
            })
            .collect();
        let mut tape = Tape::new(device, precision);
        let x = device.convert(&device.upload(input, tokens, WIDTH), precision.storage());
        let x = tape.input(x);
        let norm = Norm::new(self.norm.clone(), 1e-5);
        let normed = |input| LinearInput::Normed { input, norm: &norm };
        let heads = tape.linear(normed(&x), std::slice::from_ref(&self.heads), None);
        let options =
            AttentionOptions { layout: LAYOUT, scale: 0.3, window: None, soft_cap: None, segments: segments.into() };
        let attended = tape.attention(&heads, &[], &options);
        let plain = LinearInput::Plain(&attended);
        let hidden = tape.linear(plain, std::slice::from_ref(&self.output), Some(Residual { base: &x, scale: 1.0 }));
        let wide = tape.linear(normed(&hidden), std::slice::from_ref(&self.gate_up), None);
        let activated = LinearInput::Activated { input: &wide, activation: Activation::Silu, gated: true };
        let hidden =
            tape.linear(activated, std::slice::from_ref(&self.down), Some(Residual { base: &hidden, scale: 1.0 }));
        let options = HeadOptions {
            norm: norm.clone(),
            weight: self.head.clone(),
            scale: 1.0,
            soft_cap: None,
            differentiate_all: false,
        };
        let all: Vec<u32> = (0..tokens as u32).collect();
        let targets: Vec<u32> = (0..tokens).map(|token| (input[token * WIDTH].to_bits() >> 5) % 257).collect();
        let head = tape.head(&hidden, &options, &device.upload_ids(&all), &device.upload_ids(&targets));
        let (hidden_values, values) = (device.download(hidden.value()), device.download(head.values.value()));
        let coefficients: Vec<f32> = (0..tokens * 4).map(|i| if i % 4 == 0 { 1.0 } else { 0.0 }).collect();
        let seed = device.upload(&coefficients, tokens, 4);
        drop(hidden);
        let found = tape.backward(vec![(&head.values, seed)], &[&x]);
        [hidden_values, values, device.download(found[0].as_ref().unwrap())]
    }
}

fn input(tokens: usize) -> Vec<f32> {
    Random::new(37).matrix(tokens, WIDTH).values.iter().map(|&value| value as f32).collect()
}

#[test]
fn packed_rows_give_exactly_what_each_gives_alone() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let device = device(2);
        let layer = Layer::new(&device);
        let lengths = [1, 70, 15, 300, 33];
        let input = input(lengths.iter().sum());
        let together = layer.run(&device, precision, &input, &lengths);
        let mut first = 0;
        for length in lengths {
            let alone = layer.run(&device, precision, &input[first * WIDTH..(first + length) * WIDTH], &[length]);
            for (what, (alone, together)) in ["hidden", "head", "gradient"].iter().zip(alone.iter().zip(&together)) {
                let width = alone.len() / length;
                let part = &together[first * width..(first + length) * width];
                assert!(alone == part, "{precision:?}: {what} of the row of {length} tokens");
            }
            first += length;
        }
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let lengths = [40, 1, 100];
        let input = input(141);
        let mut found = Vec::new();
        for threads in [1, 2, 3] {
            let device = device(threads);
            let layer = Layer::new(&device);
            let numbers = layer.run(&device, precision, &input, &lengths);
            let weights = [&layer.norm, &layer.heads.weight, &layer.down.weight, &layer.head];
            let gradients = weights.map(|weight| device.download(weight.gradient.as_ref().unwrap()));
            found.push((numbers, gradients));
        }
        assert!(found[0] == found[1] && found[1] == found[2], "{precision:?}");
    }
}

#[test]
fn meta_allocates_what_the_processor_does() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let usage = |device: &Device| -> Usage {
            let layer = Layer::new(device);
            layer.run(device, precision, &input(60), &[59, 1]);
            device.usage()
        };
        assert_eq!(usage(&device(2)), usage(&Device::meta()), "{precision:?}");
    }
}

#[test]
fn frozen_weights_are_not_recorded_and_backward_stops_at_the_lowest_trained() {
    let device = device(1);
    let mut random = Random::new(41);
    let frozen = |random: &mut Random| Projection::new(Weight::frozen(random.matrix(5, 5).upload(&device)));
    let trained = Projection::new(random.matrix(5, 5).trained(&device));
    let mut tape = Tape::new(&device, Precision::F32);
    let x = Var::constant(random.matrix(3, 5).upload(&device));
    let x = tape.linear(LinearInput::Plain(&x), &[frozen(&mut random)], None);
    assert!(tape.is_empty() && !x.needs_gradient());
    let x = tape.linear(LinearInput::Plain(&x), &[trained], None);
    let x = tape.linear(LinearInput::Plain(&x), &[frozen(&mut random)], None);
    assert!(tape.len() == 2 && x.needs_gradient());
}

#[test]
fn bf16_keeps_two_bytes_a_number() {
    let device = Device::meta();
    let layer = Layer::new(&device);
    let kept = |precision: Precision, tokens: usize| {
        let mut tape = Tape::new(&device, precision);
        let x = tape.input(device.empty(precision.storage(), tokens, WIDTH));
        let before = device.usage().live_bytes;
        let norm = Norm::new(layer.norm.clone(), 1e-5);
        let normed = |input| LinearInput::Normed { input, norm: &norm };
        let heads = tape.linear(normed(&x), std::slice::from_ref(&layer.heads), None);
        let segments = vec![Segment::alone(0..tokens)].into();
        let options = AttentionOptions { layout: LAYOUT, scale: 1.0, window: None, soft_cap: None, segments };
        let attended = tape.attention(&heads, &[], &options);
        let plain = LinearInput::Plain(&attended);
        let hidden = tape.linear(plain, std::slice::from_ref(&layer.output), Some(Residual { base: &x, scale: 1.0 }));
        let wide = tape.linear(normed(&hidden), std::slice::from_ref(&layer.gate_up), None);
        let activated = LinearInput::Activated { input: &wide, activation: Activation::Silu, gated: true };
        let out =
            tape.linear(activated, std::slice::from_ref(&layer.down), Some(Residual { base: &hidden, scale: 1.0 }));
        let kept = device.usage().live_bytes - before;
        drop((tape, out));
        kept
    };
    // Per token: heads, attention output, hidden, gate and up, output; f32: two norms' factors, the softmax's logarithms.
    let numbers = LAYOUT.columns() + LAYOUT.output_columns() + WIDTH + 2 * 65 + WIDTH;
    let tokens = 256;
    assert_eq!(kept(Precision::Bf16, tokens), tokens * (2 * numbers + 4 * (2 + LAYOUT.heads)));
    assert_eq!(kept(Precision::F16, tokens), tokens * (2 * numbers + 4 * (2 + LAYOUT.heads)));
    assert_eq!(kept(Precision::F32, tokens), tokens * (4 * numbers + 4 * (2 + LAYOUT.heads)));
}
