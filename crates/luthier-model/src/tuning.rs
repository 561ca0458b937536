//! What is trained: everything, the last layers, or low-rank adapters on chosen modules. A function from that choice and a
//! checkpoint to weights, each frozen or registered as a parameter.

use std::ops::Range;

use luthier_tensor::{AdapterTerm, DType, Device, Projection, Tensor, Weight};

use crate::adapter::{LoraAdapter, LoraPair, TargetModules, matches_target};
use crate::checkpoint::{Checkpoint, StoredTensor};
use crate::error::{Error, shape};
use crate::parameters::Parameters;

/// What training changes.
#[derive(Clone, Debug)]
pub enum Tuning {
    /// Nothing: generation and evaluation.
    Nothing,
    /// Every tensor.
    Full,
    /// The tensors of some layers.
    Freeze {
        /// The layers that are trained.
        layers: Range<usize>,
    },
    /// Low-rank adapters. From: Hu et al. 2021.
    Lora(LoraSettings),
}

/// Which adapters, and how they start.
#[derive(Clone, Debug)]
pub struct LoraSettings {
    /// Rank of each adapter.
    pub rank: usize,
    /// Numerator of its factor.
    pub alpha: f64,
    /// Share of an adapter's input that is dropped in training.
    pub dropout: f32,
    /// The factor is alpha / sqrt(rank) instead of alpha / rank. From: Kalajdzievski 2023.
    pub rslora: bool,
    /// Modules that get one.
    pub targets: TargetModules,
    /// Modules that are trained as a whole and saved with the adapter.
    pub saved_modules: Vec<String>,
    /// Seed of the starting values.
    pub seed: u64,
}

/// Makes weights of a checkpoint's tensors.
pub(crate) struct Builder<'c> {
    device: Device,
    checkpoint: &'c Checkpoint,
    tuning: &'c Tuning,
    adapter: Option<&'c LoraAdapter>,
    pub(crate) parameters: Parameters,
    /// The adapted modules, in the order of the forward pass.
    pub(crate) adapted: Vec<String>,
    sites: u64,
    /// Of trained matrices.
    pub(crate) storage: DType,
}

impl<'c> Builder<'c> {
    pub(crate) fn new(
        device: &Device,
        checkpoint: &'c Checkpoint,
        tuning: &'c Tuning,
        adapter: Option<&'c LoraAdapter>,
    ) -> Self {
        Self {
            device: device.clone(),
            checkpoint,
            tuning,
            adapter,
            parameters: Parameters::default(),
            adapted: Vec::new(),
            sites: 0,
            storage: DType::F32,
        }
    }

    fn stored(&self, name: &str) -> Result<&'c StoredTensor, Error> {
        self.checkpoint.tensors.get(name).ok_or_else(|| Error::MissingTensors {
            label: self.checkpoint.label.clone(),
            count: 1,
            names: format!("`{name}`"),
            hint: "the configuration demands it".into(),
        })
    }

    /// Whether the tensors of a module are trained as a whole; `layer` is its layer's number.
    fn trains(&self, module: &str, layer: Option<usize>) -> bool {
        match self.tuning {
            Tuning::Nothing => false,
            Tuning::Full => true,
            Tuning::Freeze { layers } => layer.is_some_and(|layer| layers.contains(&layer)),
            Tuning::Lora(lora) => is_saved(module, &lora.saved_modules),
        }
    }

    /// What a tensor starts from: the adapter's own, where it has one, else the checkpoint's.
    fn source(&self, name: &str, stored: &'c StoredTensor) -> Result<&'c Tensor, Error> {
        let Some(saved) = self.adapter.and_then(|adapter| adapter.saved_modules.get(name)) else {
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
    fn misfit(&self, name: &str, found: &[usize], expected: &[usize]) -> Error {
        Error::Adapter {
            file: self.checkpoint.label.clone(),
            reason: format!(
                "the adapter is for another model: its `{name}` has shape {}; expected {}",
                shape(found),
                shape(expected)
            ),
        }
    }

    fn file_name(&self, name: &str) -> String {
        match self.tuning {
            Tuning::Lora(_) => format!("base_model.model.{name}"),
            _ => name.to_owned(),
        }
    }

    /// A matrix: mapped when frozen, a copy when trained or replaced by the adapter's own.
    fn matrix(&mut self, name: &str, module: &str, layer: Option<usize>) -> Result<Weight, Error> {
        let stored = self.stored(name)?;
        let source = self.source(name, stored)?;
        if self.trains(module, layer) {
            let value = self.device.convert(source, self.storage);
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

    /// Projections of one input, with their adapters. The `down` matrices of the group lie one below the other, so that
    /// one product serves them all.
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
        self.adapt(modules, &mut projections)?;
        Ok(projections)
    }

    fn adapt(&mut self, modules: &[String], projections: &mut [Projection]) -> Result<(), Error> {
        let lora = match self.tuning {
            Tuning::Lora(lora) => Some(lora),
            _ => None,
        };
        let width = projections.first().map_or(0, |projection| projection.weight.value.columns());
        let planned: Vec<Option<Planned>> = modules.iter().map(|module| self.plan(module, lora)).collect();
        let rank: usize = planned.iter().flatten().map(|planned| planned.rank).sum();
        if rank == 0 {
            return Ok(());
        }
        let downs = self.device.empty(self.storage, rank, width);
        let gradients = lora.map(|_| self.device.zeros(DType::F32, rank, width));
        let mut first = 0;
        for ((module, projection), planned) in modules.iter().zip(projections).zip(planned) {
            let Some(Planned { rank, scale, dropout, pair }) = planned else { continue };
            let out = projection.weight.value.rows();
            let down = downs.slice_rows(first, rank);
            let up = self.device.zeros(self.storage, out, rank);
            match pair {
                Some(pair) => {
                    if pair.a.columns() != width {
                        let name = format!("{module}.lora_A.weight");
                        return Err(self.misfit(&name, &[rank, pair.a.columns()], &[rank, width]));
                    }
                    if pair.b.rows() != out {
                        let name = format!("{module}.lora_B.weight");
                        return Err(self.misfit(&name, &[pair.b.rows(), rank], &[out, rank]));
                    }
                    self.device.copy(&pair.a, &down);
                    self.device.copy(&pair.b, &up);
                }
                None => {
                    let seed = lora.map_or(0, |lora| lora.seed);
                    self.device.write_numbers(&down, &starting_values(seed, module, rank, width));
                }
            }
            let (down, up) = match &gradients {
                Some(gradients) => {
                    let gradient = gradients.slice_rows(first, rank);
                    let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
                    let (a, b) = (self.file_name(&a), self.file_name(&b));
                    let down = self.parameters.add_with_gradient(a, vec![rank, width], down, gradient);
                    (down, self.parameters.add(&self.device, b, vec![out, rank], up))
                }
                None => (Weight::frozen(down), Weight::frozen(up)),
            };
            self.sites += 1;
            projection.terms.push(AdapterTerm { dropout, site: mix(self.sites), ..AdapterTerm::new(down, up, scale) });
            self.adapted.push(module.clone());
            first += rank;
        }
        Ok(())
    }

    fn plan(&self, module: &str, lora: Option<&LoraSettings>) -> Option<Planned<'c>> {
        let dropout = lora.map_or(0.0, |lora| lora.dropout);
        if let Some(adapter) = self.adapter {
            let planned = |pair: &'c LoraPair| {
                let scale = adapter.scale_of(pair);
                Planned { rank: pair.rank, scale, dropout, pair: Some(pair) }
            };
            return adapter.modules.get(module).map(planned);
        }
        // A module that is trained as a whole gets no adapter besides, as in PEFT.
        let lora = lora.filter(|lora| matches_target(module, &lora.targets) && !self.trains(module, None))?;
        let divisor = if lora.rslora { (lora.rank as f64).sqrt() } else { lora.rank as f64 };
        Some(Planned { rank: lora.rank, scale: (lora.alpha / divisor) as f32, dropout, pair: None })
    }
}

struct Planned<'c> {
    rank: usize,
    scale: f32,
    dropout: f32,
    pair: Option<&'c LoraPair>,
}

/// Whether `modules_to_save` names the module, or one that it is a part of. As in PEFT a name matches the end of a path
/// wherever it begins: `norm` is every norm.
pub(crate) fn is_saved(module: &str, saved: &[String]) -> bool {
    let ends = module.match_indices('.').map(|(end, _)| end).chain([module.len()]);
    ends.into_iter().any(|end| saved.iter().any(|name| module[..end].ends_with(name.as_str())))
}

/// Uniform in +-1 / sqrt(width), as PEFT starts `lora_A`: a function of seed, module and index alone.
fn starting_values(seed: u64, module: &str, rank: usize, width: usize) -> Vec<f32> {
    let name = stream(seed, module);
    let bound = 1.0 / (width as f64).sqrt();
    (0..rank * width)
        .map(|index| {
            let random = mix(name ^ mix(index as u64)) >> 11;
            ((random as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * bound) as f32
        })
        .collect()
}

/// The beginning of the random numbers that belong to a name.
pub(crate) fn stream(seed: u64, name: &str) -> u64 {
    name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
