//! Functions of one number and sums of a row, branch-free so that the compiler makes vectors of them. Sums keep sixteen
//! partial results and add them in a fixed order: the same bytes on every instruction set.

/// Partial results that a row sum keeps.
pub(crate) const LANES: usize = 16;

/// e^x within two units in the last place; 0 below -87 and infinity above 88.7. From: Cody & Waite 1980 (range
/// reduction); the polynomial is Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > 88.8 { 88.8 } else { x };
    let clamped = if clamped < -87.4 { -87.4 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4;
    let r = r - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    // 2^n in two factors, so that n = 128 does not overflow the exponent field before p, which is below 1 there.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let first = f32::from_bits(((half + 127) << 23) as u32);
    let second = f32::from_bits(((n - half + 127) << 23) as u32);
    let value = p * first * second;
    let value = if x < -87.4 { 0.0 } else { value };
    if x > 88.73 {
        f32::INFINITY
    } else if x.is_nan() {
        x
    } else {
        value
    }
}

/// 1 / (1 + e^-x)
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh by the sigmoid; absolute error below 2e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// The error function, absolute error below 3e-7. From: Abramowitz & Stegun 7.1.26 has 1.5e-7 in exact arithmetic.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t + 0.254_829_6) * t;
    let magnitude = 1.0 - p * exp(-a * a);
    if x < 0.0 { -magnitude } else { magnitude }
}

/// Adds the partial results in a fixed tree.
#[inline(always)]
pub(crate) fn add_lanes(lanes: [f32; LANES]) -> f32 {
    let mut sums = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// The sum of `term(i)` for i in `0..count`, by lanes.
#[inline(always)]
pub(crate) fn sum_over(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = count / LANES * LANES;
    let mut first = 0;
    while first < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
        first += LANES;
    }
    for index in whole..count {
        lanes[index - whole] += term(index);
    }
    add_lanes(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_their_f64_values() {
        for step in -8800..8800 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 3e-7 * expected + f64::from(f32::MIN_POSITIVE), "exp {x}");
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "tanh {x}");
        }
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        // erf(0.5), erf(1), erf(2) from tables.
        for (x, expected) in [(0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (-1.0, -0.842_700_8)] {
            assert!((erf(x) - expected).abs() < 4e-7, "erf {x}");
        }
    }

    #[test]
    fn row_sums_take_every_number_once() {
        for count in [0, 1, 15, 16, 17, 33, 257] {
            assert_eq!(sum_over(count, |i| i as f32), (0..count).sum::<usize>() as f32);
        }
    }
}
