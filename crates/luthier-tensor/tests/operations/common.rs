//! What the tests of the operations share: a device whose fresh memory is NaN, random numbers, and the check of a gradient
//! against central differences of a plain f64 version of the same operation.

use luthier_tensor::{CpuOptions, DType, Device, Isa, Tensor, Weight};

/// The instruction set that `LUTHIER_CPU` names, else the best that this processor has.
pub(crate) fn isa() -> Isa {
    match std::env::var("LUTHIER_CPU") {
        Ok(name) => Isa::named(&name).expect("LUTHIER_CPU names a set that this processor has"),
        Err(_) => Isa::detect(),
    }
}

pub(crate) fn device(threads: usize) -> Device {
    Device::cpu(CpuOptions { threads, isa: isa(), memory_bytes: 1 << 30, poison: true }, None).unwrap()
}

/// Numbers in -1..1 from a fixed sequence.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // f32 exactly, so that the engine and the f64 version start from the same numbers.
        f64::from(((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0)
    }

    pub(crate) fn matrix(&mut self, rows: usize, columns: usize) -> Matrix {
        Matrix { rows, columns, values: (0..rows * columns).map(|_| self.next()).collect() }
    }
}

/// A matrix of the f64 version.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f64>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, values: vec![0.0; rows * columns] }
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    pub(crate) fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..][..self.columns]
    }

    pub(crate) fn set(&mut self, row: usize, column: usize, value: f64) {
        self.values[row * self.columns + column] = value;
    }

    /// `self other^T`
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.columns);
        let mut out = Self::zeros(self.rows, other.rows);
        for row in 0..self.rows {
            for column in 0..other.rows {
                let sum = self.row(row).iter().zip(other.row(column)).map(|(a, b)| a * b).sum();
                out.set(row, column, sum);
            }
        }
        out
    }

    pub(crate) fn upload(&self, device: &Device) -> Tensor {
        let values: Vec<f32> = self.values.iter().map(|&value| value as f32).collect();
        device.upload(&values, self.rows, self.columns)
    }

    pub(crate) fn trained(&self, device: &Device) -> Weight {
        Weight { value: self.upload(device), gradient: Some(device.zeros(DType::F32, self.rows, self.columns)) }
    }
}

/// Compares forward with the f64 version's, and each gradient with central differences of `sum(out * upstream)` by it.
pub(crate) fn check(
    name: &str,
    inputs: &[Matrix],
    plain: impl Fn(&[Matrix]) -> Matrix,
    upstream: &Matrix,
    output: &[f32],
    gradients: &[Vec<f32>],
) {
    let expected = plain(inputs);
    assert_eq!(expected.values.len(), output.len(), "{name}: size of the output");
    for (index, (expected, &found)) in expected.values.iter().zip(output).enumerate() {
        let far = (expected - f64::from(found)).abs();
        assert!(far <= 2e-5 * expected.abs().max(1.0), "{name}: output {index} is {found}, expected {expected}");
    }
    let loss = |inputs: &[Matrix]| -> f64 {
        plain(inputs).values.iter().zip(&upstream.values).map(|(out, by)| out * by).sum()
    };
    let mut moved = inputs.to_vec();
    for (which, gradient) in gradients.iter().enumerate() {
        assert_eq!(inputs[which].values.len(), gradient.len(), "{name}: size of gradient {which}");
        let largest = gradient.iter().fold(1e-3f64, |a, &b| a.max(f64::from(b.abs())));
        for (index, &found) in gradient.iter().enumerate() {
            const STEP: f64 = 1e-5;
            let middle = inputs[which].values[index];
            moved[which].values[index] = middle + STEP;
            let above = loss(&moved);
            moved[which].values[index] = middle - STEP;
            let below = loss(&moved);
            moved[which].values[index] = middle;
            let expected = (above - below) / (2.0 * STEP);
            let far = (expected - f64::from(found)).abs();
            assert!(
                far <= 5e-5 * largest.max(1.0),
                "{name}: gradient {which} at {index} is {found}, differences say {expected}"
            );
        }
    }
}
