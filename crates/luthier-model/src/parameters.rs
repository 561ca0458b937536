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
    /// f32, of the same shape; backward adds to it. It has memory from the first step on.
    pub gradient: Tensor,
    /// Dimensions in the file; a vector has one.
    pub dims: Vec<usize>,
    /// Weight decay applies. It leaves norms and biases alone.
    pub decays: bool,
    /// Factor of the learning rate; 1 but where a method has another.
    pub rate: f64,
}

/// All trained tensors.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<Parameter>);

impl FromIterator<Parameter> for Parameters {
    fn from_iter<T: IntoIterator<Item = Parameter>>(parameters: T) -> Self {
        Self(parameters.into_iter().collect())
    }
}

impl Parameters {
    /// Registers a tensor and returns it as a trained weight. `value` is f32 or bf16, and the device's own.
    pub(crate) fn add(&mut self, device: &Device, name: String, dims: Vec<usize>, value: Tensor) -> Weight {
        let gradient = device.deferred(DType::F32, value.rows(), value.columns());
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
        self.0.push(Parameter { name, value, gradient, dims, decays, rate: 1.0 });
        weight
    }

    /// Gives what was registered last another factor of the learning rate.
    pub(crate) fn set_last_rate(&mut self, rate: f64) {
        if let Some(last) = self.0.last_mut() {
            last.rate = rate;
        }
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

    /// The one of this number.
    pub fn get(&self, index: usize) -> Option<&Parameter> {
        self.0.get(index)
    }

    /// Gives all gradients memory, but for those that are paused.
    pub fn allocate_gradients(&self, device: &Device) {
        self.trained_gradients().for_each(|gradient| device.allocate(gradient));
    }

    /// Sets all gradients to zero: the beginning of a step.
    pub fn zero_gradients(&self, device: &Device) {
        self.allocate_gradients(device);
        self.trained_gradients().for_each(|gradient| device.fill_zero(gradient));
    }

    /// Bytes that gradients take now.
    pub fn gradient_bytes(&self) -> usize {
        let there = self.0.iter().map(|parameter| &parameter.gradient).filter(|gradient| gradient.is_allocated());
        there.map(Tensor::bytes).sum()
    }

    fn trained_gradients(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().map(|parameter| &parameter.gradient).filter(|gradient| !gradient.is_paused())
    }
}
