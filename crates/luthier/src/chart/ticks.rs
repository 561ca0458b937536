//! Round numbers for the axes.

/// About `count` round numbers within the range, and how many decimals tell them apart. The range must be finite and not
/// empty.
pub(super) fn of_range(low: f64, high: f64, count: usize) -> (Vec<f64>, usize) {
    let (distance, exponent) = round((high - low) / count as f64);
    // Counted in whole distances, so that no error adds up.
    let (first, last) = ((low / distance - 1e-9).ceil() as i64, (high / distance + 1e-9).floor() as i64);
    let decimals = (-exponent).clamp(0, 12) as usize;
    ((first..=last).map(|number| number as f64 * distance).collect(), decimals)
}

/// About `count` round whole numbers from 0 to `most`.
pub(super) fn of_count(most: f64, count: usize) -> Vec<f64> {
    let distance = round(most / count as f64).0.max(1.0);
    (0..=(most / distance).floor() as u64).map(|number| number as f64 * distance).collect()
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `number`, and that power.
fn round(number: f64) -> (f64, i32) {
    let exponent = number.log10().floor() as i32;
    let power = 10f64.powi(exponent);
    let steps = [1.0, 2.0, 5.0].into_iter().find(|steps| steps * power >= number * (1.0 - 1e-9));
    match steps {
        Some(steps) => (steps * power, exponent),
        None => (10.0 * power, exponent + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_round() {
        assert_eq!(of_range(0.93, 3.1, 7), (vec![1.0, 1.5, 2.0, 2.5, 3.0], 1));
        assert_eq!(of_range(0.0, 1000.0, 5), (vec![0.0, 200.0, 400.0, 600.0, 800.0, 1000.0], 0));
        let (small, decimals) = of_range(0.001, 0.0024, 7);
        assert_eq!((small.len(), decimals), (8, 4));
        assert_eq!(of_count(4.0, 9), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(of_count(1000.0, 9), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(of_count(1.0, 9), [0.0, 1.0]);
    }
}
