//! Lines through codes: which scale, or scale and minimum, lets whole numbers of few bits stand for given numbers with the
//! least sum of squared errors. For given codes the best line follows from sums (linear regression), and for a given line
//! the best codes are the nearest; a search over how far the outermost number is squeezed finds where to start, and the
//! two rules in turn go down from there.
//!
//! Everything is plain f32 in a fixed order, so that every instruction set finds the same bits.

/// Sums that run side by side.
const LANES: usize = 8;
/// Numbers closer to zero are zeros: every scale in f16 is larger.
const SMALLEST: f32 = 1e-12;
/// How often codes and line are fitted to each other after the search, at most.
const DESCENTS: usize = 3;

/// The nearest whole number, ties to even, of numbers below 2^22.
#[inline(always)]
pub(super) fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// The nearest whole number from `low` to `high`.
#[inline(always)]
pub(super) fn code(value: f32, low: f32, high: f32) -> f32 {
    // Comparisons are one instruction each where `max` and `min`, which look for NaN, are three.
    let value = if value > low { value } else { low };
    nearest(if value < high { value } else { high })
}

/// Several sums over a part, each in the same fixed order.
#[inline(always)]
pub(super) fn sums<const N: usize, const S: usize>(numbers: &[f32; N], term: impl Fn(f32) -> [f32; S]) -> [f32; S] {
    let mut lanes = [[0.0f32; LANES]; S];
    for eight in numbers.as_chunks::<LANES>().0 {
        for (lane, number) in eight.iter().enumerate() {
            let terms = term(*number);
            for sum in 0..S {
                lanes[sum][lane] += terms[sum];
            }
        }
    }
    lanes.map(|lanes| {
        let fours = [0, 1, 2, 3].map(|lane| lanes[lane] + lanes[lane + 4]);
        (fours[0] + fours[2]) + (fours[1] + fours[3])
    })
}

/// 1 / scale, and 0 for no scale.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale.abs() < SMALLEST { 0.0 } else { 1.0 / scale }
}

/// The number that is farthest from zero, with its sign; the first of equals.
#[inline(always)]
pub(super) fn extreme<const N: usize>(numbers: &[f32; N]) -> f32 {
    numbers.iter().fold(0.0f32, |most, number| if number.abs() > most.abs() { *number } else { most })
}

/// The scale for numbers that are `scale * code` with codes `low ..= -low - 1`; it may be negative, so that the end with one
/// more code is where it is needed.
#[inline(always)]
pub(super) fn scale_of<const N: usize>(numbers: &[f32; N], low: f32) -> f32 {
    let (extreme, high) = (extreme(numbers), -low - 1.0);
    if extreme.abs() < SMALLEST {
        return 0.0;
    }
    const STEPS: usize = 12;
    let mut best = (0.0f32, 0.0f32);
    for step in 0..STEPS {
        // The codes at which the outermost number would lie: from well inside to beyond the ends, on both sides.
        let squeeze = 0.78 + 0.42 / (STEPS - 1) as f32 * step as f32;
        for end in [low * squeeze, (high + 0.4) * squeeze] {
            let found = explained(numbers, low, end / extreme);
            best = if found.0 > best.0 { found } else { best };
        }
    }
    for _ in 0..DESCENTS {
        let found = explained(numbers, low, inverse(best.1));
        if found.0 <= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// What the best scale for the codes that a scale gives explains of the numbers' squares, and that best scale.
#[inline(always)]
fn explained<const N: usize>(numbers: &[f32; N], low: f32, inverse: f32) -> (f32, f32) {
    let [both, codes] = sums(numbers, |number| {
        let code = code(number * inverse, low, -low - 1.0);
        [number * code, code * code]
    });
    if codes > 0.0 { (both * both / codes, both / codes) } else { (0.0, 0.0) }
}

/// `scale * code - minimum` for codes from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) scale: f32,
    pub(super) minimum: f32,
}

/// The line for codes `0 ..= top`. With `downwards` its minimum is none above zero, as some formats want.
#[inline(always)]
pub(super) fn line_of<const N: usize>(numbers: &[f32; N], top: f32, downwards: bool) -> Line {
    let low = numbers.iter().fold(f32::INFINITY, |low, number| low.min(*number));
    let high = numbers.iter().fold(f32::NEG_INFINITY, |high, number| high.max(*number));
    let low = if downwards { low.min(0.0) } else { low };
    let range = high - low;
    if range < SMALLEST {
        return Line { scale: 0.0, minimum: -low };
    }
    let totals = sums(numbers, |number| [number, number * number]);
    const STEPS: usize = 7;
    let mut best = (f32::INFINITY, Line::default());
    let step_of = |step: usize| 0.5 * range / top * (step as f32 / (STEPS - 1) as f32 * 3.0 - 1.0);
    for step in 0..STEPS {
        // How much of the range is cut off at both ends, in steps of the grid: a half step more to one and a half less.
        let cut = step_of(step);
        for (below, above) in [(cut, cut), (cut, 0.0), (0.0, cut)] {
            let found = fitted(numbers, totals, (top, downwards), top / (range - below - above), -(low + below));
            best = if found.0 < best.0 { found } else { best };
        }
    }
    for _ in 0..DESCENTS {
        let found = fitted(numbers, totals, (top, downwards), inverse(best.1.scale), best.1.minimum);
        if found.0 >= best.0 {
            break;
        }
        best = found;
    }
    best.1
}

/// The best line for the codes that a line gives, and the squared error that it leaves. `totals`: the sum of the numbers
/// and of their squares.
#[inline(always)]
fn fitted<const N: usize>(
    numbers: &[f32; N],
    totals: [f32; 2],
    (top, downwards): (f32, bool),
    inverse: f32,
    minimum: f32,
) -> (f32, Line) {
    let (count, [all, squares]) = (N as f32, totals);
    let [codes, square_codes, both] = sums(numbers, |number| {
        let code = code((number + minimum) * inverse, 0.0, top);
        [code, code * code, number * code]
    });
    let spread = count * square_codes - codes * codes;
    let mut line = Line { scale: 0.0, minimum: -all / count };
    if spread > 0.0 {
        line.scale = (count * both - all * codes) / spread;
        line.minimum = (line.scale * codes - all) / count;
    }
    if downwards && line.minimum < 0.0 {
        line.minimum = 0.0;
        line.scale = if square_codes > 0.0 { both / square_codes } else { 0.0 };
    }
    let (scale, shift) = (line.scale, -line.minimum);
    let error = squares - 2.0 * (scale * both + shift * all)
        + scale * scale * square_codes
        + 2.0 * scale * shift * codes
        + shift * shift * count;
    (error, line)
}
