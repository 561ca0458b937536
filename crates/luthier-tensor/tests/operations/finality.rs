//! When a gradient is final: each is announced once, after the last addition to it, in the order of the list.

use crate::common::{Random, device};
use luthier_tensor::{
    Device, HeadLayout, HeadNormWeights, HeadOptions, HeadOrder, LinearInput, Norm, Precision, Projection,
    RotaryTables, Tape, Tensor, Var, Weight,
};

const WIDTH: usize = 12;

/// An embedding that is the head too, a layer that is used twice, one with norms of heads, and one that is never used.
struct Model {
    table: Weight,
    shared: Projection,
    norm: Weight,
    head_norm: HeadNormWeights,
    final_norm: Weight,
    unused: Weight,
}

impl Model {
    fn new(device: &Device) -> Self {
        let mut random = Random::new(79);
        let mut trained = |rows: usize, columns: usize| random.matrix(rows, columns).trained(device);
        Self {
            table: trained(30, WIDTH),
            shared: Projection { bias: Some(trained(1, WIDTH)), ..Projection::new(trained(WIDTH, WIDTH)) },
            norm: trained(1, WIDTH),
            head_norm: HeadNormWeights {
                query: trained(1, 4),
                key: trained(1, 4),
                epsilon: 1e-5,
                after_rotation: false,
            },
            final_norm: trained(1, WIDTH),
            unused: trained(2, 2),
        }
    }

    const NAMES: [&str; 8] = ["table", "norm", "weight", "bias", "query", "key", "final norm", "unused"];

    fn gradients(&self) -> Vec<Tensor> {
        let shared = [&self.norm, &self.shared.weight, self.shared.bias.as_ref().unwrap()];
        let rest = [&self.head_norm.query, &self.head_norm.key, &self.final_norm, &self.unused];
        let all = std::iter::once(&self.table).chain(shared).chain(rest);
        all.map(|weight| weight.gradient.clone().unwrap()).collect()
    }

    fn layer(&self, tape: &mut Tape<'_>, hidden: &Var) -> Var {
        let norm = Norm::new(self.norm.clone(), 1e-5);
        let normed = LinearInput::Normed { input: hidden, norm: &norm };
        tape.linear(normed, std::slice::from_ref(&self.shared), None)
    }

    /// Announced names, each with whether its gradient was then what it is at the end.
    fn run(&self, device: &Device, recomputed: bool) -> Vec<(&'static str, bool)> {
        let gradients = self.gradients();
        gradients.iter().for_each(|gradient| device.fill_zero(gradient));
        let mut tape = Tape::new(device, Precision::F32);
        let ids = device.upload_ids(&[3, 1, 4, 1, 5]);
        let mut hidden = tape.embedding(&self.table, &ids, 1.0);
        for _ in 0..2 {
            hidden = match recomputed {
                // A layer that runs again inside one that does.
                true => tape.checkpoint(&hidden, |tape, hidden| {
                    tape.checkpoint(hidden, |tape, hidden| self.layer(tape, hidden))
                }),
                false => self.layer(&mut tape, &hidden),
            };
        }
        let layout = HeadLayout { heads: 1, key_value_heads: 1, head_dim: 4, order: HeadOrder::Blocks };
        let angles = device.upload(&[0.5; 10], 5, 2);
        let tables = RotaryTables { cosine: angles.clone(), sine: angles, interleaved: false };
        let hidden = tape.rotary(hidden, layout, &tables, Some(&self.head_norm));
        let options = HeadOptions {
            norm: Norm::new(self.final_norm.clone(), 1e-5),
            weight: self.table.clone(),
            scale: 1.0,
            soft_cap: None,
            differentiate_all: false,
        };
        let head = tape.head(&hidden, &options, &device.upload_ids(&[0, 2, 4]), &device.upload_ids(&[7, 8, 9]));
        let seed = device.upload(&[1.0, 0.0, 0.0, 0.0].repeat(3), 3, 4);
        let mut announced = Vec::new();
        tape.backward_announcing(vec![(&head.values, seed)], &[], &gradients, &mut |number| {
            announced.push((number, device.download(&gradients[number])));
        });
        let is_final =
            |(number, then): (usize, Vec<f32>)| (Self::NAMES[number], then == device.download(&gradients[number]));
        announced.into_iter().map(is_final).collect()
    }
}

#[test]
fn gradients_are_announced_once_and_when_they_are_final() {
    let device = device(2);
    let model = Model::new(&device);
    let expected = ["unused", "final norm", "query", "key", "norm", "weight", "bias", "table"].map(|name| (name, true));
    for recomputed in [false, true] {
        assert_eq!(model.run(&device, recomputed), expected, "recomputed {recomputed}");
    }
    assert!(
        model.gradients()[..7].iter().all(|gradient| device.download(gradient).iter().any(|&number| number != 0.0))
    );
}

#[test]
fn a_frozen_layer_that_runs_again_is_not_recorded() {
    let device = device(1);
    let mut random = Random::new(83);
    let layer = Projection::new(Weight::frozen(random.matrix(4, 4).upload(&device)));
    let mut tape = Tape::new(&device, Precision::F32);
    let x = Var::constant(random.matrix(3, 4).upload(&device));
    let run = |tape: &mut Tape<'_>, x: &Var| tape.linear(LinearInput::Plain(x), std::slice::from_ref(&layer), None);
    let out = tape.checkpoint(&x, run);
    assert!(tape.is_empty() && !out.needs_gradient());
}
