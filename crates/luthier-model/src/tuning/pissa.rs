//! A and B from the largest singular values of the weight, and what is left of the weight. From: Meng et al. 2024 (PiSSA);
//! the values by subspace iteration on a random start: Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1. All that is
//! large is a product on the device; the host turns a few rows.

use luthier_tensor::{DType, Device, Tensor};

use super::random::uniform;

/// Directions beyond those that are wanted: they make the wanted ones converge.
const OVERSAMPLING: usize = 10;
/// Rounds between two looks at how far the exact values are.
const ROUNDS: usize = 8;
/// Rounds after which exact values are as good as f32 makes them.
const MOST_ROUNDS: usize = 512;
/// How far a direction may be from an exact one, as a share of the largest singular value squared.
const NEAR: f64 = 2e-7;

/// How the singular values are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pissa {
    /// As exactly as f32 allows: PEFT's `pissa`.
    Exact,
    /// In so many rounds: PEFT's `pissa_niter_N`.
    Rounds(usize),
}

/// Writes A and B, so that `scale * B A` is the part of `weight` with the largest singular values, and returns the rest, in
/// bf16 where the weight is, else in f32. The largest number of each row of A is positive, since a singular vector has no sign.
pub(super) fn decompose(
    device: &Device,
    weight: &Tensor,
    scale: f32,
    pissa: &Pissa,
    (seed, name): (u64, &str),
    (down, up): (&Tensor, &Tensor),
) -> Tensor {
    let (rank, out, width) = (down.rows(), weight.rows(), weight.columns());
    let count = (rank + OVERSAMPLING).min(out).min(width);
    let mut right = Rows { numbers: uniform(seed, name, 1.0, count * width), width };
    right.orthonormalise(device);
    let most = match pissa {
        Pissa::Exact => MOST_ROUNDS,
        Pissa::Rounds(rounds) => *rounds,
    };
    let mut found = Singular::of(device, weight, &right);
    let mut done = 0;
    while done < most {
        let rounds = if *pissa == Pissa::Exact { ROUNDS } else { most };
        for _ in 0..rounds {
            let mut left = right.times_transposed(device, weight);
            left.orthonormalise(device);
            right = left.times(device, weight);
            right.orthonormalise(device);
        }
        done += rounds;
        found = Singular::of(device, weight, &right);
        if *pissa == Pissa::Exact && found.is_exact(device, weight, rank) {
            break;
        }
    }
    if device.has_data() {
        let (mut a, mut b) = (vec![0.0; rank * width], vec![0.0; out * rank]);
        for place in 0..rank {
            let right = found.right.row(place);
            let largest = right.iter().fold(0.0f32, |most, &value| if value.abs() > most.abs() { value } else { most });
            let factor = (found.values[place] / f64::from(scale)).sqrt().copysign(f64::from(largest)) as f32;
            a[place * width..(place + 1) * width].iter_mut().zip(right).for_each(|(a, value)| *a = factor * value);
            b[place..].iter_mut().step_by(rank).zip(found.left.row(place)).for_each(|(b, value)| *b = factor * value);
        }
        device.write_f32(down, &a);
        device.write_f32(up, &b);
    }
    let rest = device.minus_product(weight, up, down, scale);
    if weight.dtype() == DType::Bf16 { device.convert(&rest, DType::Bf16) } else { rest }
}

/// A few rows on the host.
struct Rows {
    numbers: Vec<f32>,
    width: usize,
}

impl Rows {
    fn row(&self, row: usize) -> &[f32] {
        &self.numbers[row * self.width..(row + 1) * self.width]
    }

    fn count(&self) -> usize {
        self.numbers.len() / self.width
    }

    /// Each row against each row of `weight`.
    fn times_transposed(&self, device: &Device, weight: &Tensor) -> Self {
        let rows = device.upload(&self.numbers, self.count(), self.width);
        Self { numbers: device.download(&device.product(&rows, weight, false)), width: weight.rows() }
    }

    fn times(&self, device: &Device, weight: &Tensor) -> Self {
        let rows = device.upload(&self.numbers, self.count(), self.width);
        Self { numbers: device.download(&device.product(&rows, weight, true)), width: weight.columns() }
    }

    /// By Gram and Schmidt, twice, since once leaves what rounding left.
    fn orthonormalise(&mut self, device: &Device) {
        if !device.has_data() {
            return;
        }
        for row in 0..self.count() {
            let (before, rest) = self.numbers.split_at_mut(row * self.width);
            let own = &mut rest[..self.width];
            for _ in 0..2 {
                for other in before.chunks_exact(self.width) {
                    let along = dot(own, other);
                    own.iter_mut().zip(other).for_each(|(own, other)| *own -= (along * f64::from(*other)) as f32);
                }
                let norm = dot(own, own).sqrt();
                if norm > 0.0 {
                    own.iter_mut().for_each(|own| *own = (f64::from(*own) / norm) as f32);
                }
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Singular values, the largest first, with their vectors.
struct Singular {
    values: Vec<f64>,
    left: Rows,
    right: Rows,
}

impl Singular {
    /// Within the rows of `right`, which are orthonormal: one-sided Jacobi rotations make their images orthogonal.
    fn of(device: &Device, weight: &Tensor, right: &Rows) -> Self {
        let images = right.times_transposed(device, weight);
        let count = right.count();
        if !device.has_data() {
            let right = Rows { numbers: right.numbers.clone(), width: right.width };
            return Self { values: vec![0.0; count], left: images, right };
        }
        let split = |rows: &Rows| -> Vec<Vec<f64>> {
            rows.numbers
                .chunks_exact(rows.width)
                .map(|row| row.iter().map(|&value| f64::from(value)).collect())
                .collect()
        };
        let (mut left, mut right_rows) = (split(&images), split(right));
        let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        for _ in 0..40 {
            let mut turned = false;
            for first in 0..count {
                for second in first + 1..count {
                    let (aa, bb) = (product(&left[first], &left[first]), product(&left[second], &left[second]));
                    let ab = product(&left[first], &left[second]);
                    if ab.abs() <= 1e-14 * (aa * bb).sqrt() {
                        continue;
                    }
                    turned = true;
                    let zeta = (bb - aa) / (2.0 * ab);
                    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                    for rows in [&mut left, &mut right_rows] {
                        let (before, after) = rows.split_at_mut(second);
                        for (a, b) in before[first].iter_mut().zip(&mut after[0]) {
                            (*a, *b) = (cosine * (*a - tangent * *b), cosine * (*b + tangent * *a));
                        }
                    }
                }
            }
            if !turned {
                break;
            }
        }
        let norms: Vec<f64> = left.iter().map(|row| product(row, row).sqrt()).collect();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
        let join = |rows: &[Vec<f64>], factor: &dyn Fn(usize) -> f64, width| {
            let row =
                |&place: &usize| rows[place].iter().map(move |value| value * factor(place)).map(|value| value as f32);
            Rows { numbers: order.iter().flat_map(row).collect(), width }
        };
        let inverse = |place: usize| if norms[place] > 0.0 { 1.0 / norms[place] } else { 0.0 };
        Self {
            values: order.iter().map(|&place| norms[place]).collect(),
            left: join(&left, &inverse, images.width),
            right: join(&right_rows, &|_| 1.0, right.width),
        }
    }

    /// Whether the first `rank` are singular vectors of the whole weight: W^T u = s v.
    fn is_exact(&self, device: &Device, weight: &Tensor, rank: usize) -> bool {
        let back = self.left.times(device, weight);
        let far = |place: usize| -> f64 {
            let pairs = back.row(place).iter().zip(self.right.row(place));
            pairs
                .map(|(&back, &right)| (f64::from(back) - self.values[place] * f64::from(right)).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        (0..rank).all(|place| far(place) <= NEAR * self.values[0])
    }
}
