//! From a method and a checkpoint to weights, each frozen or registered as a parameter. What adapters add to a projection
//! is made by the file of each method.

use luthier_tensor::{DType, Device, Projection, Tensor, Weight};

use super::lora::Start;
use super::vera::Shared;
use super::{Tuning, is_saved, mix};
use crate::adapter::{Adapter, Loaded, TargetModules, matches_target};
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
    /// Where PiSSA's matrices began.
    pub(crate) starts: Vec<Start>,
    /// VeRA's random matrices, from their first use on.
    pub(crate) vera: Option<Shared>,
    sites: u64,
    /// Of trained matrices.
    pub(crate) storage: DType,
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
            starts: Vec::new(),
            vera: None,
            sites: 0,
            storage: DType::F32,
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
            let is_sum = match adapter {
                Adapter::Lora(lora) => !lora.config.dora,
                Adapter::Prompt(_) | Adapter::Bottleneck(_) => true,
                Adapter::Ia3(_) | Adapter::Vera(_) | Adapter::Oft(_) => false,
            };
            if !is_sum {
                return Err(self.refused(format!(
                    "{what} changes the base's own product, so it is not loaded beside others: only LoRA adapters, prefixes, \
                     prompts and bottleneck adapters are; load it alone, or merge it into the base with luthier export"
                )));
            }
        }
        let is_sum = match self.tuning {
            Tuning::Lora(lora) => !lora.dora && lora.pissa.is_none(),
            Tuning::Ia3(_) | Tuning::Vera(_) | Tuning::Oft(_) => false,
            Tuning::Prompt(_) | Tuning::Bottleneck(_) | Tuning::Nothing | Tuning::Full | Tuning::Freeze { .. } => true,
        };
        if !self.beside.is_empty() && !is_sum {
            return Err(self.refused(
                "what is trained changes the base's own product, so no adapter stays in the base beside it: merge the others \
                 into the base with luthier export first"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn stored(&self, name: &str) -> Result<&'c StoredTensor, Error> {
        self.checkpoint.tensors.get(name).ok_or_else(|| Error::MissingTensors {
            label: self.checkpoint.label.clone(),
            count: 1,
            names: format!("`{name}`"),
            hint: "the configuration demands it".into(),
        })
    }

    /// Whether a tensor of a module is trained as it is.
    fn trains(&self, name: &str, module: &str) -> bool {
        match self.tuning {
            Tuning::Nothing => false,
            Tuning::Full => true,
            Tuning::Freeze { tensors } => tensors.contains(name),
            _ => self.trains_whole(module),
        }
    }

    /// Whether an adapter trains the module as a whole.
    pub(super) fn trains_whole(&self, module: &str) -> bool {
        is_saved(module, self.tuning.saved_modules())
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

    /// A matrix: mapped when frozen, a copy when trained or replaced by the adapter's own.
    fn matrix(&mut self, name: &str, module: &str) -> Result<Weight, Error> {
        let stored = self.stored(name)?;
        let source = self.source(name, stored)?;
        if self.trains(name, module) {
            let value = self.device.convert(source, self.storage);
            let file_name = self.file_name(name);
            return Ok(self.parameters.add(&self.device, file_name, stored.dims().to_vec(), value));
        }
        Ok(Weight::frozen(source.clone()))
    }

    /// The embedding or the head: `{module}.weight`.
    pub(crate) fn table(&mut self, module: &str) -> Result<Weight, Error> {
        self.matrix(&format!("{module}.weight"), module)
    }

    /// A norm's weight: f32, always the device's own.
    pub(crate) fn vector(&mut self, module: &str) -> Result<Weight, Error> {
        self.vector_tensor(&format!("{module}.weight"), module)
    }

    fn vector_tensor(&mut self, name: &str, module: &str) -> Result<Weight, Error> {
        let stored = self.stored(name)?;
        let source = self.source(name, stored)?;
        let value = self.device.convert(&source.reshape(1, source.len()), DType::F32);
        if self.trains(name, module) {
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
    pub(crate) fn projections(&mut self, modules: &[String]) -> Result<Vec<Projection>, Error> {
        let mut projections = Vec::with_capacity(modules.len());
        for module in modules {
            let weight = self.matrix(&format!("{module}.weight"), module)?;
            let bias_name = format!("{module}.bias");
            let bias = match self.checkpoint.tensors.contains_key(&bias_name) {
                true => Some(self.vector_tensor(&bias_name, module)?),
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
            (Some(Adapter::Ia3(adapter)), _) => self.adapt_ia3(&adapter.settings, Some(adapter), modules, projections),
            (Some(Adapter::Vera(adapter)), tuning) => {
                let settings = if let Tuning::Vera(settings) = tuning { settings } else { &adapter.settings };
                self.adapt_vera(settings, Some(adapter), modules, projections)
            }
            (Some(Adapter::Oft(adapter)), _) => self.adapt_oft(&adapter.settings, Some(adapter), modules, projections),
            (None, Tuning::Lora(lora)) => self.adapt_lora(Some(lora), None, modules, projections),
            (None, Tuning::Ia3(settings)) => self.adapt_ia3(settings, None, modules, projections),
            (None, Tuning::Vera(settings)) => self.adapt_vera(settings, None, modules, projections),
            (None, Tuning::Oft(settings)) => self.adapt_oft(settings, None, modules, projections),
            // These stand beside the projections, not in them.
            (Some(Adapter::Prompt(_) | Adapter::Bottleneck(_)), _) => Ok(()),
            (None, Tuning::Prompt(_) | Tuning::Bottleneck(_)) => Ok(()),
            (None, Tuning::Nothing | Tuning::Full | Tuning::Freeze { .. }) => Ok(()),
        }
    }

    /// Whether a method adapts a module; one that is trained as a whole gets no adapter besides, as in PEFT.
    pub(super) fn is_target(&self, module: &str, targets: &TargetModules) -> bool {
        matches_target(module, targets) && !self.trains_whole(module)
    }

    /// The most outputs and the most inputs of the linear modules that `takes` takes.
    pub(super) fn largest_linear(&self, takes: impl Fn(&str) -> bool) -> (usize, usize) {
        let names = &self.checkpoint.model.names;
        let linear = self.checkpoint.tensors.iter().filter_map(|(name, stored)| {
            let module = name.strip_suffix(".weight")?;
            let is_linear = stored.dims().len() == 2 && ![names.embedding, names.head].contains(&module);
            (is_linear && takes(module)).then(|| stored.tensor())
        });
        linear.fold((0, 0), |most, tensor| (most.0.max(tensor.rows()), most.1.max(tensor.columns())))
    }

    /// The method cannot be used with this model.
    pub(super) fn refused(&self, reason: String) -> Error {
        Error::Adapter { file: self.checkpoint.label.clone(), reason }
    }
}
