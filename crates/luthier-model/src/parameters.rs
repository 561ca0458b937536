//! The registry of trained parameters: one list in a stable order, the order of the forward pass. Optimisers, norms of
//! gradients, checkpoints and adapter files walk this list and nothing else.

use luthier_tensor::{DType, Device, Tensor, Weight};

/// A trained tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name in the file that training writes.
    pub name: String,
    /// f32 or bf16
    pub value: Tensor,
    /// f32, of the same shape; backward adds to it.
    pub gradient: Tensor,
    /// Dimensions in the file; a vector has one.
    pub dims: Vec<usize>,
    /// Weight decay applies. It leaves norms and biases alone.
    pub decays: bool,
}

/// All trained tensors.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// Registers a tensor and returns it as a trained weight. `value` is f32 or bf16, and the device's own.
    pub(crate) fn add(&mut self, device: &Device, name: String, dims: Vec<usize>, value: Tensor) -> Weight {
        let gradient = device.zeros(DType::F32, value.rows(), value.columns());
        self.add_with_gradient(name, dims, value, gradient)
    }

    /// As [`add`](Self::add), with a gradient that lies where the caller wants it.
    pub(crate) fn add_with_gradient(
        &mut self,
        name: String,
        dims: Vec<usize>,
        value: Tensor,
        gradient: Tensor,
    ) -> Weight {
        let lower = name.to_lowercase();
        let decays = !lower.contains("norm") && !lower.contains("bias");
        let weight = Weight { value: value.clone(), gradient: Some(gradient.clone()) };
        self.0.push(Parameter { name, value, gradient, dims, decays });
        weight
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.0.iter()
    }

    /// Numbers in all.
    pub fn count(&self) -> usize {
        self.0.iter().map(|parameter| parameter.value.len()).sum()
    }

    /// True when nothing is trained.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All gradients, in order.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.0.iter().map(|parameter| parameter.gradient.clone()).collect()
    }

    /// Sets all gradients to zero: the beginning of a step.
    pub fn zero_gradients(&self, device: &Device) {
        self.0.iter().for_each(|parameter| device.fill_zero(&parameter.gradient));
    }
}
