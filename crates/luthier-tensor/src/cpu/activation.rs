//! Activations of a feed-forward block, gated or not. Backward overwrites the kept input with its gradient, so the block
//! needs no second buffer of its widest size.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::math::{erf, exp, sigmoid, tanh};
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
                    self.isa.run(
                        #[inline(always)]
                        || by_function(how.activation, Forward { x, y, gated: how.gated }),
                    );
                }
            });
        });
    }

    /// Overwrites `input` with d loss / d input, given `output_gradient` `[rows, width]`.
    pub(crate) fn activate_backward(&self, how: Activated, input: &Tensor, output_gradient: &Tensor) {
        with_element!(input.dtype(), E, {
            let (x, upstream) = (Rows::<E>::of_mut(input), Rows::<E>::of(output_gradient));
            self.pool.run_rows(input.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as in forward.
                    let (x, dy) = unsafe { (x.row_mut(row), upstream.row(row)) };
                    self.isa.run(
                        #[inline(always)]
                        || by_function(how.activation, Backward { x, dy, gated: how.gated }),
                    );
                }
            });
        });
    }
}

/// A loop over a row that is compiled once for each activation.
trait RowLoop {
    /// `function` gives the activation's value and slope.
    fn run(self, function: impl Fn(f32) -> (f32, f32));
}

#[inline(always)]
fn by_function(activation: Activation, row: impl RowLoop) {
    match activation {
        Activation::Silu => row.run(silu),
        Activation::Gelu => row.run(gelu),
        Activation::GeluTanh => row.run(gelu_tanh),
        Activation::Relu => row.run(|x| if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }),
        Activation::ReluSquared => row.run(|x| if x > 0.0 { (x * x, 2.0 * x) } else { (0.0, 0.0) }),
    }
}

struct Forward<'a, E> {
    x: &'a [E],
    y: &'a mut [E],
    gated: bool,
}

impl<E: Element> RowLoop for Forward<'_, E> {
    #[inline(always)]
    fn run(self, function: impl Fn(f32) -> (f32, f32)) {
        if self.gated {
            let (gate, up) = self.x.split_at(self.y.len());
            for ((y, gate), up) in self.y.iter_mut().zip(gate).zip(up) {
                *y = E::store(function(gate.load()).0 * up.load());
            }
        } else {
            for (y, x) in self.y.iter_mut().zip(self.x) {
                *y = E::store(function(x.load()).0);
            }
        }
    }
}

struct Backward<'a, E> {
    x: &'a mut [E],
    dy: &'a [E],
    gated: bool,
}

impl<E: Element> RowLoop for Backward<'_, E> {
    #[inline(always)]
    fn run(self, function: impl Fn(f32) -> (f32, f32)) {
        if self.gated {
            let (gate, up) = self.x.split_at_mut(self.dy.len());
            for ((gate, up), dy) in gate.iter_mut().zip(up).zip(self.dy) {
                let (value, slope) = function(gate.load());
                let dy = dy.load();
                *gate = E::store(dy * up.load() * slope);
                *up = E::store(dy * value);
            }
        } else {
            for (x, dy) in self.x.iter_mut().zip(self.dy) {
                *x = E::store(dy.load() * function(x.load()).1);
            }
        }
    }
}

#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s + x * s * (1.0 - s))
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
