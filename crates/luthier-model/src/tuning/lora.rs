//! Low-rank adapters: W x + scale * B A x. From: Hu et al. 2021.

use luthier_tensor::{AdapterTerm, DType, Projection, Weight};

use super::Builder;
use super::random::uniform;
use crate::adapter::{LoraAdapter, LoraPair, TargetModules, matches_target, pattern_entry};
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

struct Planned<'c> {
    rank: usize,
    scale: f32,
    dropout: f32,
    pair: Option<&'c LoraPair>,
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
        let downs = self.device.empty(DType::F32, rank, width);
        let gradients = lora.map(|_| self.device.zeros(DType::F32, rank, width));
        let mut first = 0;
        for ((module, projection), planned) in modules.iter().zip(projections).zip(planned) {
            let Some(Planned { rank, scale, dropout, pair }) = planned else { continue };
            let out = projection.weight.value.rows();
            let down = downs.slice_rows(first, rank);
            let up = self.device.zeros(DType::F32, out, rank);
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
                    self.device.write_f32(&down, &uniform(seed, module, (width as f64).sqrt().recip(), rank * width));
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
            let site = self.site();
            projection.terms.push(AdapterTerm { dropout, site, ..AdapterTerm::new(down, up, scale) });
            self.adapted.push(module.clone());
            first += rank;
        }
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
        let Some(lora) = lora.filter(|lora| matches_target(module, &lora.targets) && !self.trains(module, None)) else {
            return Ok(None);
        };
        let rank = pattern_entry("rank_pattern", "rank_pattern", &lora.rank_pattern, module)?;
        let rank = rank.map_or(lora.rank, |rank| rank as usize);
        let alpha = pattern_entry("alpha_pattern", "alpha_pattern", &lora.alpha_pattern, module)?.unwrap_or(lora.alpha);
        let divisor = if lora.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Some(Planned { rank, scale: (alpha / divisor) as f32, dropout, pair: None }))
    }
}
