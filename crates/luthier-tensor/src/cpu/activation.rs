//! Activations of a feed-forward block, gated or not. Backward overwrites the kept input with its gradient, so the block
//! needs no second buffer of its widest size; on the way it makes the block's output again, which weight gradients need.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::lanes::{LaneTask, Lanes, each_vector};
use super::math::{erf, exp, tanh};
use crate::{Activation, Tensor};

const GRAIN: usize = 8;

/// The input of a feed-forward block's last projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activated {
    pub(crate) activation: Activation,
    /// The input holds gate and up side by side; else up alone.
    pub(crate) gated: bool,
}

impl Cpu {
    /// `output = activation(gate) * up`, or `activation(up)`. input `[rows, 2 * width]` or `[rows, width]`.
    pub(crate) fn activate(&self, how: Activated, input: &Tensor, output: &Tensor) {
        with_element!(input.dtype(), E, {
            let (input, out) = (Rows::<E>::of(input), Rows::<E>::of_mut(output));
            self.pool.run_rows(output.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (x, y) = unsafe { (input.row(row), out.row_mut(row)) };
                    self.isa.lanes(Forward { x, y, how });
                }
            });
        });
    }

    /// Overwrites `input` with d loss / d input, given `output_gradient` `[rows, width]`; with `output`, writes there what
    /// forward did.
    pub(crate) fn activate_backward(
        &self,
        how: Activated,
        input: &Tensor,
        output_gradient: &Tensor,
        output: Option<&Tensor>,
    ) {
        with_element!(input.dtype(), E, {
            let (x, upstream) = (Rows::<E>::of_mut(input), Rows::<E>::of(output_gradient));
            let output = output.map(Rows::<E>::of_mut);
            self.pool.run_rows(input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as in forward.
                    let (x, dy, y) =
                        unsafe { (x.row_mut(row), upstream.row(row), output.map(|output| output.row_mut(row))) };
                    match y {
                        Some(y) => self.isa.lanes(Backward::<_, true> { x, dy, y, how }),
                        None => self.isa.lanes(Backward::<_, false> { x, dy, y: &mut [], how }),
                    }
                }
            });
        });
    }
}

/// The activation's value and slope.
#[inline(always)]
fn value_and_slope<L: Lanes>(activation: Activation, x: L) -> (L, L) {
    match activation {
        Activation::Silu => {
            let one = L::splat(1.0);
            let sigmoid = one.add(L::splat(0.0).sub(x).exp()).reciprocal();
            let value = x.mul(sigmoid);
            (value, value.mul(one.sub(sigmoid)).add(sigmoid))
        }
        Activation::Gelu => by_lane(x, gelu),
        Activation::GeluTanh => by_lane(x, gelu_tanh),
        Activation::Relu => by_lane(x, |x| if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }),
        Activation::ReluSquared => by_lane(x, |x| if x > 0.0 { (x * x, 2.0 * x) } else { (0.0, 0.0) }),
        Activation::Tanh => by_lane(x, |x| {
            let value = tanh(x);
            (value, 1.0 - value * value)
        }),
    }
}

/// A function of one number on each lane; the compiler makes a vector of it again.
#[inline(always)]
fn by_lane<L: Lanes>(x: L, function: impl Fn(f32) -> (f32, f32)) -> (L, L) {
    let mut values = [0.0f32; super::lanes::LANES];
    let mut slopes = [0.0f32; super::lanes::LANES];
    x.store(&mut values);
    for (value, slope) in values.iter_mut().zip(&mut slopes) {
        (*value, *slope) = function(*value);
    }
    (L::load(&values), L::load(&slopes))
}

struct Forward<'a, E> {
    x: &'a [E],
    y: &'a mut [E],
    how: Activated,
}

impl<E: Element> LaneTask for Forward<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.y.len();
        let (gate, up) = self.x.split_at(width);
        let activation = self.how.activation;
        if self.how.gated {
            each_vector!(
                width,
                |i| value_and_slope(activation, L::load(&gate[i..])).0.mul(L::load(&up[i..])).store(&mut self.y[i..]),
                value_and_slope(activation, L::load_some(&gate[i..]))
                    .0
                    .mul(L::load_some(&up[i..]))
                    .store_some(&mut self.y[i..])
            );
        } else {
            each_vector!(
                width,
                |i| value_and_slope(activation, L::load(&gate[i..])).0.store(&mut self.y[i..]),
                value_and_slope(activation, L::load_some(&gate[i..])).0.store_some(&mut self.y[i..])
            );
        }
    }
}

/// `OUTPUT`: the output is made again.
struct Backward<'a, E, const OUTPUT: bool> {
    x: &'a mut [E],
    dy: &'a [E],
    y: &'a mut [E],
    how: Activated,
}

impl<E: Element, const OUTPUT: bool> LaneTask for Backward<'_, E, OUTPUT> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.dy.len();
        let (gate, up) = self.x.split_at_mut(width);
        let activation = self.how.activation;
        if self.how.gated {
            each_vector!(
                width,
                |i| {
                    let (value, slope) = value_and_slope(activation, L::load(&gate[i..]));
                    let (dy, factor) = (L::load(&self.dy[i..]), L::load(&up[i..]));
                    dy.mul(factor).mul(slope).store(&mut gate[i..]);
                    dy.mul(value).store(&mut up[i..]);
                    if OUTPUT {
                        value.mul(factor).store(&mut self.y[i..]);
                    }
                },
                {
                    let (value, slope) = value_and_slope(activation, L::load_some(&gate[i..]));
                    let (dy, factor) = (L::load_some(&self.dy[i..]), L::load_some(&up[i..]));
                    dy.mul(factor).mul(slope).store_some(&mut gate[i..]);
                    dy.mul(value).store_some(&mut up[i..]);
                    if OUTPUT {
                        value.mul(factor).store_some(&mut self.y[i..]);
                    }
                }
            );
        } else {
            each_vector!(
                width,
                |i| {
                    let (value, slope) = value_and_slope(activation, L::load(&gate[i..]));
                    L::load(&self.dy[i..]).mul(slope).store(&mut gate[i..]);
                    if OUTPUT {
                        value.store(&mut self.y[i..]);
                    }
                },
                {
                    let (value, slope) = value_and_slope(activation, L::load_some(&gate[i..]));
                    L::load_some(&self.dy[i..]).mul(slope).store_some(&mut gate[i..]);
                    if OUTPUT {
                        value.store_some(&mut self.y[i..]);
                    }
                }
            );
        }
    }
}

#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    let phi = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    let density = 0.398_942_3 * exp(-0.5 * x * x);
    (x * phi, phi + x * density)
}

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    const ROOT_TWO_OVER_PI: f32 = 0.797_884_6;
    let inner = ROOT_TWO_OVER_PI * (x + 0.044_715 * x * x * x);
    let t = tanh(inner);
    let slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT_TWO_OVER_PI * (1.0 + 0.134_145 * x * x);
    (0.5 * x * (1.0 + t), slope)
}
