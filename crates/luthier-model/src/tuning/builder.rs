//! From a method and a checkpoint to weights, each frozen or registered as a parameter. What adapters add to a projection
//! is made by the file of each method.

use luthier_tensor::{DType, Device, Projection, Tensor, Weight};

use super::{Tuning, is_saved, mix};
use crate::adapter::{Adapter, Loaded};
use crate::checkpoint::{Checkpoint, StoredTensor};
use crate::error::{Error, shape};
use crate::parameters::Parameters;

/// Makes weights of a checkpoint's tensors.
pub(crate) struct Builder<'c> {
    pub(super) device: Device,
    pub(super) checkpoint: &'c Checkpoint,
    pub(super) tuning: &'c Tuning,
    /// The one that is trained, or that alone is loaded.
    pub(super) adapter: Option<&'c Adapter>,
    /// Its place in the list of loaded ones.
    pub(super) number: u32,
    /// The others, with their places.
    pub(super) beside: Vec<(u32, Loaded<'c>)>,
    pub(crate) parameters: Parameters,
    /// The adapted modules, in the order of the forward pass.
    pub(crate) adapted: Vec<String>,
    sites: u64,
}

impl<'c> Builder<'c> {
    pub(crate) fn new(
        device: &Device,
        checkpoint: &'c Checkpoint,
        tuning: &'c Tuning,
        loaded: &[Loaded<'c>],
    ) -> Result<Self, Error> {
        let mut beside: Vec<(u32, Loaded<'c>)> = (0..).zip(loaded.iter().copied()).collect();
        let alone = matches!(loaded, [one] if one.weight == 1.0);
        let main = if alone || tuning.is_adapter() { beside.pop() } else { None };
        let builder = Self {
            device: device.clone(),
            checkpoint,
            tuning,
            adapter: main.map(|(_, main)| main.adapter),
            number: main.map_or(0, |(number, _)| number),
            beside,
            parameters: Parameters::default(),
            adapted: Vec::new(),
            sites: 0,
        };
        builder.check_beside()?;
        Ok(builder)
    }

    /// Whether several adapters can be loaded together.
    fn check_beside(&self) -> Result<(), Error> {
        for (_, Loaded { adapter, .. }) in &self.beside {
            let what = adapter.description();
            if let Some(name) = adapter.saved_modules().keys().next() {
                return Err(self.refused(format!(
                    "{what} holds `{name}` as a whole, which is neither added nor switched; load it alone, or merge it into the \
                     base with luthier export"
                )));
            }
            if self.tuning.is_adapter() && adapter.stands_beside().is_some() {
                return Err(self.refused(format!(
                    "{what} cannot stay in the base while another adapter is trained: only low-rank adapters can"
                )));
            }
            match adapter {
                Adapter::Lora(_) | Adapter::Prompt(_) | Adapter::Bottleneck(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn refused(&self, reason: String) -> Error {
        Error::Adapter { file: self.checkpoint.label.clone(), reason }
    }

    pub(super) fn stored(&self, name: &str) -> Result<&'c StoredTensor, Error> {
        self.checkpoint.tensors.get(name).ok_or_else(|| Error::MissingTensors {
            label: self.checkpoint.label.clone(),
            count: 1,
            names: format!("`{name}`"),
            hint: "the configuration demands it".into(),
        })
    }

    /// Whether the tensors of a module are trained as a whole; `layer` is its layer's number.
    pub(super) fn trains(&self, module: &str, layer: Option<usize>) -> bool {
        match self.tuning {
            Tuning::Nothing => false,
            Tuning::Full => true,
            Tuning::Freeze { layers } => layer.is_some_and(|layer| layers.contains(&layer)),
            tuning => is_saved(module, tuning.saved_modules()),
        }
    }

    /// What a tensor starts from: the adapter's own, where it has one, else the checkpoint's.
    fn source(&self, name: &str, stored: &'c StoredTensor) -> Result<&'c Tensor, Error> {
        let Some(saved) = self.adapter.and_then(|adapter| adapter.saved_modules().get(name)) else {
            return Ok(stored.tensor());
        };
        let base = stored.tensor();
        // A vector is one row here and may be one column there.
        let vector = stored.dims().len() == 1 && saved.len() == base.len();
        if !vector && (saved.rows(), saved.columns()) != (base.rows(), base.columns()) {
            return Err(self.misfit(name, &[saved.rows(), saved.columns()], &[base.rows(), base.columns()]));
        }
        Ok(saved)
    }

    /// The adapter's tensor `name` does not fit this model.
    pub(super) fn misfit(&self, name: &str, found: &[usize], expected: &[usize]) -> Error {
        Error::Adapter {
            file: self.checkpoint.label.clone(),
            reason: format!(
                "the adapter is for another model: its `{name}` has shape {}; expected {}",
                shape(found),
                shape(expected)
            ),
        }
    }

    pub(super) fn file_name(&self, name: &str) -> String {
        if self.tuning.is_adapter() { format!("base_model.model.{name}") } else { name.to_owned() }
    }

    /// A matrix: mapped when frozen, an f32 copy when trained or replaced by the adapter's own.
    fn matrix(&mut self, name: &str, module: &str, layer: Option<usize>) -> Result<Weight, Error> {
        let stored = self.stored(name)?;
        let source = self.source(name, stored)?;
        if self.trains(module, layer) {
            let value = self.device.convert(source, DType::F32);
            let file_name = self.file_name(name);
            return Ok(self.parameters.add(&self.device, file_name, stored.dims().to_vec(), value));
        }
        Ok(Weight::frozen(source.clone()))
    }

    /// The embedding or the head: `{module}.weight`.
    pub(crate) fn table(&mut self, module: &str) -> Result<Weight, Error> {
        self.matrix(&format!("{module}.weight"), module, None)
    }

    /// A norm's weight: f32, always the device's own.
    pub(crate) fn vector(&mut self, module: &str, layer: Option<usize>) -> Result<Weight, Error> {
        self.vector_tensor(&format!("{module}.weight"), module, layer)
    }

    fn vector_tensor(&mut self, name: &str, module: &str, layer: Option<usize>) -> Result<Weight, Error> {
        let stored = self.stored(name)?;
        let source = self.source(name, stored)?;
        let value = self.device.convert(&source.reshape(1, source.len()), DType::F32);
        if self.trains(module, layer) {
            let file_name = self.file_name(name);
            return Ok(self.parameters.add(&self.device, file_name, stored.dims().to_vec(), value));
        }
        Ok(Weight::frozen(value))
    }

    /// A number for each place where random numbers are drawn.
    pub(super) fn site(&mut self) -> u64 {
        self.sites += 1;
        mix(self.sites)
    }

    /// Projections of one input, with what adapters add to them.
    pub(crate) fn projections(&mut self, modules: &[String], layer: usize) -> Result<Vec<Projection>, Error> {
        let mut projections = Vec::with_capacity(modules.len());
        for module in modules {
            let weight = self.matrix(&format!("{module}.weight"), module, Some(layer))?;
            let bias_name = format!("{module}.bias");
            let bias = match self.checkpoint.tensors.contains_key(&bias_name) {
                true => Some(self.vector_tensor(&bias_name, module, Some(layer))?),
                false => None,
            };
            projections.push(Projection { bias, ..Projection::new(weight) });
        }
        for (number, loaded) in self.beside.clone() {
            let Adapter::Lora(lora) = loaded.adapter else { continue };
            let before: Vec<usize> = projections.iter().map(|projection| projection.terms.len()).collect();
            self.adapt_lora(None, Some(lora), modules, &mut projections)?;
            for (projection, before) in projections.iter_mut().zip(before) {
                for term in &mut projection.terms[before..] {
                    (term.adapter, term.scale) = (number, term.scale * loaded.weight);
                }
            }
        }
        let before: Vec<usize> = projections.iter().map(|projection| projection.terms.len()).collect();
        self.adapt(modules, &mut projections)?;
        for (projection, before) in projections.iter_mut().zip(before) {
            projection.terms[before..].iter_mut().for_each(|term| term.adapter = self.number);
        }
        Ok(projections)
    }

    /// An adapter's own kind decides, else that of the method.
    fn adapt(&mut self, modules: &[String], projections: &mut [Projection]) -> Result<(), Error> {
        match (self.adapter, self.tuning) {
            (Some(Adapter::Lora(adapter)), Tuning::Lora(lora)) => {
                self.adapt_lora(Some(lora), Some(adapter), modules, projections)
            }
            (Some(Adapter::Lora(adapter)), _) => self.adapt_lora(None, Some(adapter), modules, projections),
            (None, Tuning::Lora(lora)) => self.adapt_lora(Some(lora), None, modules, projections),
            // These stand beside the projections, not in them.
            (Some(Adapter::Prompt(_) | Adapter::Bottleneck(_)), _) => Ok(()),
            (
                None,
                Tuning::Prompt(_) | Tuning::Bottleneck(_) | Tuning::Nothing | Tuning::Full | Tuning::Freeze { .. },
            ) => Ok(()),
        }
    }
}
