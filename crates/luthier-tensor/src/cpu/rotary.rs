//! Rotary position embedding of query and key heads, with the per-head RMS norm that some families put before or after
//! it. From: Su et al. 2021, section 3.2. Without a norm it runs in place, and its backward is the rotation by the
//! negative angle; with a norm backward reads the unrotated heads.

use super::Cpu;
use super::element::{Element, Rows, with_element};
use super::lanes::{LaneTask, Plain};
use super::norm::{BackwardRow, ForwardRow};
use crate::{HeadLayout, Tensor};

const GRAIN: usize = 16;

/// Which columns are rotated and by what.
#[derive(Clone)]
pub(crate) struct RotaryShape {
    pub(crate) layout: HeadLayout,
    pub(crate) interleaved: bool,
    /// f32 `[tokens, rotated / 2]` each.
    pub(crate) cosine: Tensor,
    pub(crate) sine: Tensor,
}

/// The norm of each query and key head.
#[derive(Clone)]
pub(crate) struct HeadNorm {
    /// f32 `[1, head_dim]`
    pub(crate) query: Tensor,
    pub(crate) key: Tensor,
    pub(crate) epsilon: f32,
    pub(crate) after_rotation: bool,
}

impl Cpu {
    /// Rotates in place; `sign` is 1 forward and -1 for the gradient.
    pub(crate) fn rotate(&self, shape: &RotaryShape, heads: &Tensor, sign: f32) {
        with_element!(heads.dtype(), E, {
            let rows = Rows::<E>::of_mut(heads);
            let (cosine, sine) = (Rows::<f32>::of(&shape.cosine), Rows::<f32>::of(&shape.sine));
            self.pool.run_rows(heads.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: rows are there by the tensors' shapes; each row belongs to one task.
                    let (row, cosine, sine) = unsafe { (rows.row_mut(row), cosine.row(row), sine.row(row)) };
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for column in shape.layout.rotated_columns() {
                                rotate_head(
                                    &mut row[column..][..2 * cosine.len()],
                                    cosine,
                                    sine,
                                    sign,
                                    shape.interleaved,
                                );
                            }
                        },
                    );
                }
            });
        });
    }

    /// `output` = `input` with its query and key heads normalised and rotated.
    pub(crate) fn normalise_and_rotate(&self, shape: &RotaryShape, norm: &HeadNorm, input: &Tensor, output: &Tensor) {
        with_element!(input.dtype(), E, {
            let (input, out) = (Rows::<E>::of(input), Rows::<E>::of_mut(output));
            let (cosine, sine) = (Rows::<f32>::of(&shape.cosine), Rows::<f32>::of(&shape.sine));
            self.pool.run_rows(output.rows(), GRAIN, |range| {
                for row in range {
                    // SAFETY: as in `rotate`.
                    let (x, y, c, s) = unsafe { (input.row(row), out.row_mut(row), cosine.row(row), sine.row(row)) };
                    y.copy_from_slice(x);
                    self.isa.run(
                        #[inline(always)]
                        || {
                            for (head, column) in shape.layout.rotated_columns().enumerate() {
                                let weight = norm.weight(head < shape.layout.heads);
                                let y = &mut y[column..][..weight.len()];
                                let mut values = Scratch::load(y);
                                let values = &mut values.0[..weight.len()];
                                if norm.after_rotation {
                                    rotate_head(&mut values[..2 * c.len()], c, s, 1.0, shape.interleaved);
                                }
                                let normed = &mut Scratch::load(values).0[..weight.len()];
                                normalise(values, weight, normed, norm.epsilon);
                                if !norm.after_rotation {
                                    rotate_head(&mut normed[..2 * c.len()], c, s, 1.0, shape.interleaved);
                                }
                                store(normed, y);
                            }
                        },
                    );
                }
            });
        });
    }

    /// Turns `gradient` of the output into that of the input in place, and adds the gradients of those weights that are
    /// trained: `(query, key)`, f32 `[1, head_dim]`.
    pub(crate) fn normalise_and_rotate_backward(
        &self,
        shape: &RotaryShape,
        norm: &HeadNorm,
        input: &Tensor,
        gradient: &Tensor,
        (query_sums, key_sums): (Option<&Tensor>, Option<&Tensor>),
    ) {
        with_element!(input.dtype(), E, {
            let (input, upstream) = (Rows::<E>::of(input), Rows::<E>::of_mut(gradient));
            let (cosine, sine) = (Rows::<f32>::of(&shape.cosine), Rows::<f32>::of(&shape.sine));
            let one_row = |row: usize, sums: &mut [Option<&mut [f32]>; 2]| {
                // SAFETY: as in `rotate`.
                let (x, dy, c, s) = unsafe { (input.row(row), upstream.row_mut(row), cosine.row(row), sine.row(row)) };
                for (head, column) in shape.layout.rotated_columns().enumerate() {
                    let is_query = head < shape.layout.heads;
                    let weight = norm.weight(is_query);
                    let width = weight.len();
                    let dy = &mut dy[column..][..width];
                    let x = &mut Scratch::load(&x[column..][..width]).0[..width];
                    let g = &mut Scratch::load(dy).0[..width];
                    if norm.after_rotation {
                        rotate_head(&mut x[..2 * c.len()], c, s, 1.0, shape.interleaved);
                    } else {
                        rotate_head(&mut g[..2 * c.len()], c, s, -1.0, shape.interleaved);
                    }
                    let normed = &mut Scratch::load(x).0[..width];
                    let ones = [1.0; MAX_HEAD];
                    let inverse = normalise(x, &ones[..width], normed, norm.epsilon);
                    if let Some(sums) = &mut sums[usize::from(!is_query)] {
                        for ((sum, g), n) in sums.iter_mut().zip(&*g).zip(&*normed) {
                            *sum += g * n;
                        }
                    }
                    let dx = &mut Scratch::load(x).0[..width];
                    let y = &mut [][..];
                    BackwardRow::<f32, false> {
                        x: &*x,
                        w: weight,
                        offset: 0.0,
                        r: inverse,
                        dy: &*g,
                        dx,
                        accumulate: false,
                        y,
                    }
                    .run::<Plain>();
                    if norm.after_rotation {
                        rotate_head(&mut dx[..2 * c.len()], c, s, -1.0, shape.interleaved);
                    }
                    store(dx, dy);
                }
            };
            if query_sums.is_none() && key_sums.is_none() {
                self.pool.run_rows(gradient.rows(), GRAIN, |range| {
                    self.isa.run(
                        #[inline(always)]
                        || range.for_each(|row| one_row(row, &mut [None, None])),
                    );
                });
            } else {
                // The weights' sums run over all tokens in order: one thread.
                // SAFETY: nothing else uses the gradients now.
                let row = |sums: Option<&Tensor>| sums.map(|sums| unsafe { Rows::<f32>::of_mut(sums).row_mut(0) });
                let mut sums = [row(query_sums), row(key_sums)];
                self.isa.run(
                    #[inline(always)]
                    || (0..gradient.rows()).for_each(|row| one_row(row, &mut sums)),
                );
            }
        });
    }
}

/// The widest head that can be normalised.
const MAX_HEAD: usize = 512;

/// One head in f32.
struct Scratch([f32; MAX_HEAD]);

impl Scratch {
    #[inline(always)]
    fn load<E: Element>(values: &[E]) -> Self {
        let mut numbers = [0.0; MAX_HEAD];
        for (number, value) in numbers.iter_mut().zip(values) {
            *number = value.load();
        }
        Self(numbers)
    }
}

/// Writes the normalised head and returns 1 / root of its mean square.
#[inline(always)]
fn normalise(x: &[f32], w: &[f32], y: &mut [f32], epsilon: f32) -> f32 {
    ForwardRow { x, w, y, epsilon, offset: 0.0 }.run::<Plain>()
}

#[inline(always)]
fn store<E: Element>(numbers: &[f32], values: &mut [E]) {
    for (value, number) in values.iter_mut().zip(numbers) {
        *value = E::store(*number);
    }
}

impl HeadNorm {
    #[inline(always)]
    fn weight(&self, query: bool) -> &[f32] {
        let rows = Rows::<f32>::of(if query { &self.query } else { &self.key });
        // SAFETY: the tensor lives as long as `self`, and nobody writes weights during an operation.
        unsafe { rows.row(0) }
    }
}

/// Rotates the pairs of one head; `head` holds the rotated numbers only.
#[inline(always)]
fn rotate_head<E: Element>(head: &mut [E], cosine: &[f32], sine: &[f32], sign: f32, interleaved: bool) {
    if interleaved {
        for ((pair, c), s) in head.as_chunks_mut::<2>().0.iter_mut().zip(cosine).zip(sine) {
            let (u, v, s) = (pair[0].load(), pair[1].load(), s * sign);
            pair[0] = E::store(u * c - v * s);
            pair[1] = E::store(v * c + u * s);
        }
    } else {
        let (first, second) = head.split_at_mut(cosine.len());
        for (((x, y), c), s) in first.iter_mut().zip(second).zip(cosine).zip(sine) {
            let (u, v, s) = (x.load(), y.load(), s * sign);
            *x = E::store(u * c - v * s);
            *y = E::store(v * c + u * s);
        }
    }
}
