//! Blocks of 256 numbers in parts that have small whole numbers for scales (and minima), with one factor in f16 for all of
//! them. Each part is first fitted alone; then factors and whole numbers are chosen in turn, each the best for the others,
//! until the error of the block falls no more.

use super::fit::{Line, code, inverse, line_of, nearest, scale_of, sums};
use super::round_factor;

pub(super) const N: usize = 256;
/// Turns of choosing small scales and fitting the factors.
const TURNS: usize = 3;

/// What an affine block says: number i is `scale * scales[p] * codes[i] - minimum * minima[p]`.
#[derive(Clone, Copy)]
pub(super) struct Affine<const P: usize> {
    pub(super) scale: f32,
    pub(super) minimum: f32,
    pub(super) scales: [u8; P],
    pub(super) minima: [u8; P],
    pub(super) codes: [u8; N],
}

/// What a symmetric block says: number i is `scale * scales[p] * codes[i]`, codes from `low` on.
#[derive(Clone, Copy)]
pub(super) struct Symmetric<const P: usize> {
    pub(super) scale: f32,
    pub(super) scales: [i8; P],
    pub(super) codes: [i8; N],
}

/// `P` parts of `L` numbers with codes up to `top`, scales and minima up to `most`.
#[inline(always)]
pub(super) fn affine<const L: usize, const P: usize>(numbers: &[f32; N], top: f32, most: f32) -> Affine<P> {
    let parts = numbers.as_chunks::<L>().0;
    let mut lines = [Line::default(); P];
    for (line, part) in lines.iter_mut().zip(parts) {
        *line = line_of(part, top, true);
    }
    let largest = |of: fn(&Line) -> f32| lines.iter().map(of).fold(0.0f32, f32::max);
    let mut factors = (largest(|line| line.scale) / most, largest(|line| line.minimum) / most);
    let mut best: Option<(f32, Affine<P>)> = None;
    for _ in 0..TURNS {
        let (scale, minimum) = (round_factor(factors.0), round_factor(factors.1));
        let mut block = Affine { scale, minimum, scales: [0; P], minima: [0; P], codes: [0; N] };
        let mut error = 0.0;
        // Sums of the two regressors and the numbers over the block: s q, m, x.
        let mut normal = [0.0f32; 5];
        for (p, (part, line)) in parts.iter().zip(&lines).enumerate() {
            let found = small_line(part, *line, [scale, minimum], top, most);
            let step = scale * found.scale;
            let (inverse, shift) = (inverse(step), minimum * found.minimum);
            error += found.error;
            block.scales[p] = found.scale as u8;
            block.minima[p] = found.minimum as u8;
            let codes = &mut block.codes[p * L..][..L];
            for (code_of, number) in codes.iter_mut().zip(part) {
                *code_of = code((number + shift) * inverse, 0.0, top) as u8;
            }
            let (s, m) = (found.scale, found.minimum);
            let terms: [f32; 5] = sums(part, |number| {
                let code = s * code((number + shift) * inverse, 0.0, top);
                [code * code, code * m, m * m, number * code, number * m]
            });
            normal.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, block));
        } else {
            break;
        }
        let [cc, cm, mm, xc, xm] = normal;
        let determinant = cc * mm - cm * cm;
        factors = match determinant > 1e-6 * cc * mm {
            true => ((xc * mm - xm * cm) / determinant, (xc * cm - xm * cc) / determinant),
            false if cc > 0.0 => ((xc + minimum * cm) / cc, minimum),
            false => break,
        };
        if factors.0 <= 0.0 || factors.1 < 0.0 || (round_factor(factors.0), round_factor(factors.1)) == (scale, minimum)
        {
            break;
        }
    }
    best.map(|(_, block)| block).unwrap_or(Affine {
        scale: 0.0,
        minimum: 0.0,
        scales: [0; P],
        minima: [0; P],
        codes: [0; N],
    })
}

/// Whole numbers for a part's scale and minimum.
struct SmallLine {
    error: f32,
    scale: f32,
    minimum: f32,
}

/// The best of the whole numbers around a line.
#[inline(always)]
fn small_line<const L: usize>(part: &[f32; L], line: Line, factors: [f32; 2], top: f32, most: f32) -> SmallLine {
    let [scale, minimum] = factors;
    let (of_scale, of_minimum) = (inverse(scale), inverse(minimum));
    let middle = nearest((line.scale * of_scale).max(0.0).min(most));
    let [all] = sums(part, |number| [number]);
    let centre = (all / L as f32 + line.minimum) * inverse(line.scale);
    let mut best = SmallLine { error: f32::INFINITY, scale: 0.0, minimum: 0.0 };
    for s in [middle, middle - 1.0, middle + 1.0] {
        if s < 0.0 || s > most {
            continue;
        }
        let step = scale * s;
        let back = inverse(step);
        // Another slope turns the line about its centre; then the codes say where it should lie.
        let shift = line.minimum + (step - line.scale) * centre;
        let [codes] = sums(part, |number| [code((number + shift) * back, 0.0, top)]);
        let wanted = (step * codes - all) / L as f32 * of_minimum;
        let below = nearest((wanted - 0.5).max(0.0).min(most));
        for m in [below, (below + 1.0).min(most)] {
            let shift = minimum * m;
            let [error] = sums(part, |number| {
                let rest = number - (step * code((number + shift) * back, 0.0, top) - shift);
                [rest * rest]
            });
            if error < best.error {
                best = SmallLine { error, scale: s, minimum: m };
            }
        }
    }
    best
}

/// `P` parts of `L` numbers with codes from `low` to `-low - 1`, scales from `least` to `-least - 1`.
#[inline(always)]
pub(super) fn symmetric<const L: usize, const P: usize>(numbers: &[f32; N], low: f32, least: f32) -> Symmetric<P> {
    let (parts, high) = (numbers.as_chunks::<L>().0, -low - 1.0);
    let mut steps = [0.0f32; P];
    for (step, part) in steps.iter_mut().zip(parts) {
        *step = scale_of(part, low);
    }
    let mut factor = super::fit::extreme(&steps) / least;
    let mut best: Option<(f32, Symmetric<P>)> = None;
    for _ in 0..TURNS {
        let scale = round_factor(factor);
        let of_scale = inverse(scale);
        let mut block = Symmetric { scale, scales: [0; P], codes: [0; N] };
        let (mut error, mut both, mut squares) = (0.0f32, 0.0f32, 0.0f32);
        for (p, (part, step)) in parts.iter().zip(steps).enumerate() {
            let middle = code(step * of_scale, least, -least - 1.0);
            let mut found = (f32::INFINITY, 0.0);
            for s in [middle, middle - 1.0, middle + 1.0] {
                let back = inverse(scale * s);
                let [error] = sums(part, |number| {
                    let rest = number - scale * s * code(number * back, low, high);
                    [rest * rest]
                });
                if error < found.0 && s >= least && s < -least {
                    found = (error, s);
                }
            }
            let (least_error, s) = found;
            error += least_error;
            block.scales[p] = s as i8;
            let back = inverse(scale * s);
            for (code_of, number) in block.codes[p * L..][..L].iter_mut().zip(part) {
                *code_of = code(number * back, low, high) as i8;
            }
            let terms: [f32; 2] = sums(part, |number| {
                let code = s * code(number * back, low, high);
                [number * code, code * code]
            });
            both += terms[0];
            squares += terms[1];
        }
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, block));
        } else {
            break;
        }
        factor = if squares > 0.0 { both / squares } else { break };
        if round_factor(factor) == scale {
            break;
        }
    }
    best.map(|(_, block)| block).unwrap_or(Symmetric { scale: 0.0, scales: [0; P], codes: [0; N] })
}
