//! Low-rank adapters: W x + scale * B A x. From: Hu et al. 2021. With a magnitude for each row they are DoRA; with A and B
//! taken from W they are PiSSA.

use luthier_tensor::{AdapterTerm, DType, Projection, RowScale, RowScaleKind, Tensor, Weight};

use super::Builder;
use super::pissa::{Pissa, decompose};
use super::random::uniform;
use crate::adapter::{FileTensor, LoraAdapter, LoraPair, TargetModules, matches_target, pattern_entry};
use crate::error::Error;

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
    /// The rows of the sum have a trained magnitude. From: Liu et al. 2024.
    pub dora: bool,
    /// A and B start from the weight. From: Meng et al. 2024.
    pub pissa: Option<Pissa>,
    /// How much faster B and vectors learn than A. From: Hayou et al. 2024 (LoRA+).
    pub up_rate: f64,
    /// Modules that get one.
    pub targets: TargetModules,
    /// Modules that are trained as a whole and saved with the adapter.
    pub saved_modules: Vec<String>,
    /// Ranks of modules that have another one: regular expressions for ends of paths, the first that matches.
    pub rank_pattern: Vec<(String, f64)>,
    /// The same of their alphas.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Seed of the starting values.
    pub seed: u64,
}

impl LoraSettings {
    /// LoRA of this rank on every linear module but the head, its factor 2.
    pub fn of_rank(rank: usize) -> Self {
        Self {
            rank,
            alpha: 2.0 * rank as f64,
            dropout: 0.0,
            rslora: false,
            dora: false,
            pissa: None,
            up_rate: 1.0,
            targets: TargetModules::AllLinear,
            saved_modules: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            seed: 0,
        }
    }
}

struct Planned<'c> {
    rank: usize,
    scale: f32,
    dropout: f32,
    pair: Option<&'c LoraPair>,
}

/// Where A and B of a module began: PiSSA's conversion subtracts it.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) down: Tensor,
    pub(crate) up: Tensor,
    module: String,
}

impl<'c> Builder<'c> {
    /// The `down` matrices of the group lie one below the other, so that one product serves them all.
    pub(super) fn adapt_lora(
        &mut self,
        lora: Option<&LoraSettings>,
        adapter: Option<&'c LoraAdapter>,
        modules: &[String],
        projections: &mut [Projection],
    ) -> Result<(), Error> {
        let width = projections.first().map_or(0, |projection| projection.weight.value.columns());
        let planned: Vec<Option<Planned>> =
            modules.iter().map(|module| self.plan_lora(lora, adapter, module)).collect::<Result<_, _>>()?;
        let rank: usize = planned.iter().flatten().map(|planned| planned.rank).sum();
        if rank == 0 {
            return Ok(());
        }
        // What is loaded and stays as it is is not rounded.
        let storage = if lora.is_some() { self.storage } else { DType::F32 };
        let downs = self.device.empty(storage, rank, width);
        let gradients = lora.map(|_| self.device.zeros(DType::F32, rank, width));
        let mut first = 0;
        for ((module, projection), planned) in modules.iter().zip(projections).zip(planned) {
            let Some(planned) = planned else { continue };
            let (rank, out) = (planned.rank, projection.weight.value.rows());
            let down = downs.slice_rows(first, rank);
            let up = self.device.zeros(storage, out, rank);
            self.start_lora(lora, module, projection, &planned, (&down, &up))?;
            let (down, up) = match &gradients {
                Some(gradients) => {
                    let gradient = gradients.slice_rows(first, rank);
                    let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
                    let (a, b) = (self.file_name(&a), self.file_name(&b));
                    let down = self.parameters.add_with_gradient(a, vec![rank, width], down, gradient);
                    let up = self.parameters.add(&self.device, b, vec![out, rank], up);
                    self.parameters.set_last_rate(lora.map_or(1.0, |lora| lora.up_rate));
                    (down, up)
                }
                None => (Weight::frozen(down), Weight::frozen(up)),
            };
            let site = self.site();
            let term = AdapterTerm { dropout: planned.dropout, site, ..AdapterTerm::new(down, up, planned.scale) };
            projection.terms.push(term);
            let saved = planned.pair.and_then(|pair| pair.magnitude.as_ref());
            if saved.is_some() || (planned.pair.is_none() && lora.is_some_and(|lora| lora.dora)) {
                self.add_magnitudes(lora, module, projection, saved)?;
            }
            self.adapted.push(module.clone());
            first += rank;
        }
        Ok(())
    }

    /// Writes where A and B start: from an adapter, from the weight, or from random numbers and zero.
    fn start_lora(
        &mut self,
        lora: Option<&LoraSettings>,
        module: &str,
        projection: &mut Projection,
        planned: &Planned<'c>,
        (down, up): (&Tensor, &Tensor),
    ) -> Result<(), Error> {
        let (rank, width, out) = (planned.rank, down.columns(), up.rows());
        if let Some(pair) = planned.pair {
            if pair.a.columns() != width {
                let name = format!("{module}.lora_A.weight");
                return Err(self.misfit(&name, &[rank, pair.a.columns()], &[rank, width]));
            }
            if pair.b.rows() != out {
                let name = format!("{module}.lora_B.weight");
                return Err(self.misfit(&name, &[pair.b.rows(), rank], &[out, rank]));
            }
            self.device.copy(&pair.a, down);
            self.device.copy(&pair.b, up);
            return Ok(());
        }
        let Some(lora) = lora else { return Ok(()) };
        let Some(pissa) = &lora.pissa else {
            self.device.write_numbers(down, &uniform(lora.seed, module, (width as f64).sqrt().recip(), rank * width));
            return Ok(());
        };
        let weight = &projection.weight.value;
        if rank > width.min(out) {
            return Err(self.refused(format!(
                "PiSSA takes A and B from the weight, and `{module}` of shape [{out}, {width}] has no {rank} directions; choose \
                 a lower lora_rank"
            )));
        }
        if weight.dtype().block_len() > 1 {
            return Err(self.refused(format!(
                "PiSSA changes the weights, and those of `{module}` are quantised to {}: what is left of them could not be stored \
                 so; train plain LoRA, or take a base in f32, bf16 or f16",
                weight.dtype()
            )));
        }
        let residual = decompose(&self.device, weight, planned.scale, pissa, (lora.seed, module), (down, up));
        projection.weight = Weight::frozen(residual);
        let [down, up] = [down, up].map(|tensor| self.device.convert(tensor, DType::F32));
        self.starts.push(Start { down, up, module: module.to_owned() });
        Ok(())
    }

    /// DoRA's magnitudes. Where nothing is trained they are divided by their norms once.
    fn add_magnitudes(
        &mut self,
        lora: Option<&LoraSettings>,
        module: &str,
        projection: &mut Projection,
        saved: Option<&Tensor>,
    ) -> Result<(), Error> {
        let out = projection.weight.value.rows();
        let squares = self.device.row_squares(&projection.weight.value);
        let start = match saved {
            Some(saved) if saved.len() != out => {
                return Err(self.misfit(&format!("{module}.lora_magnitude_vector"), &[saved.len()], &[out]));
            }
            Some(saved) => self.device.convert(&saved.reshape(1, out), DType::F32),
            // B is zero: the norms of the weight itself.
            None => {
                let start = self.device.empty(DType::F32, 1, out);
                let norms: Vec<f32> = self.device.download(&squares).iter().map(|square| square.sqrt()).collect();
                self.device.write_f32(&start, &norms);
                start
            }
        };
        let kind = RowScaleKind::Magnitudes { squares };
        projection.row_scale = Some(if let Some(lora) = lora {
            let name = self.file_name(&format!("{module}.lora_magnitude_vector"));
            let vector = self.parameters.add(&self.device, name, vec![out], start);
            self.parameters.set_last_rate(lora.up_rate);
            RowScale { kind, ..RowScale::new(vector) }
        } else {
            projection.row_scale = Some(RowScale { kind, ..RowScale::new(Weight::frozen(start)) });
            RowScale::new(Weight::frozen(projection.row_factors(&self.device)))
        });
        Ok(())
    }

    fn plan_lora(
        &self,
        lora: Option<&LoraSettings>,
        adapter: Option<&'c LoraAdapter>,
        module: &str,
    ) -> Result<Option<Planned<'c>>, Error> {
        let dropout = lora.map_or(0.0, |lora| lora.dropout);
        if let Some(adapter) = adapter {
            let planned = |pair: &'c LoraPair| {
                let scale = adapter.scale_of(pair);
                Planned { rank: pair.rank, scale, dropout, pair: Some(pair) }
            };
            return Ok(adapter.modules.get(module).map(planned));
        }
        // A module that is trained as a whole gets no adapter besides, as in PEFT.
        let Some(lora) = lora.filter(|lora| matches_target(module, &lora.targets) && !self.trains_whole(module)) else {
            return Ok(None);
        };
        let rank = pattern_entry("rank_pattern", "rank_pattern", &lora.rank_pattern, module)?;
        let rank = rank.map_or(lora.rank, |rank| rank as usize);
        let alpha = pattern_entry("alpha_pattern", "alpha_pattern", &lora.alpha_pattern, module)?.unwrap_or(lora.alpha);
        let divisor = if lora.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Some(Planned { rank, scale: (alpha / divisor) as f32, dropout, pair: None }))
    }
}

/// PiSSA's A and B as plain LoRA on the weights that were given: `[A; A0]` and `[B, -B0]`, of twice the rank. From: PEFT
/// 0.18.1, `tuners/lora/model.py`, `subtract_mutated_init`.
pub(crate) fn converted(
    device: &luthier_tensor::Device,
    starts: &[Start],
    tensors: Vec<FileTensor>,
) -> Vec<FileTensor> {
    let of = |name: &str| starts.iter().find(|start| name.contains(&format!("model.{}.lora_", start.module)));
    let twice = |tensor: FileTensor| {
        let Some(start) = of(&tensor.name) else { return tensor };
        let FileTensor { name, value, .. } = tensor;
        let (rows, columns) = (value.rows(), value.columns());
        let mut numbers = device.download(&value);
        let (rows, columns, numbers) = if name.ends_with(".lora_A.weight") {
            numbers.extend(device.download(&start.down));
            (2 * rows, columns, numbers)
        } else {
            let first = device.download(&start.up);
            let side_by_side = numbers.chunks_exact(columns).zip(first.chunks_exact(columns));
            let joined =
                side_by_side.flat_map(|(now, first)| now.iter().copied().chain(first.iter().map(|value| -value)));
            (rows, 2 * columns, joined.collect())
        };
        let value = device.upload(&numbers, rows, columns);
        FileTensor { name, dims: vec![rows, columns], value }
    };
    tensors.into_iter().map(twice).collect()
}
