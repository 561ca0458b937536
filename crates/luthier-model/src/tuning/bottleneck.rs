//! Bottleneck adapters: their tensors. `down` starts as PEFT starts `lora_A` and `up` at zero, so that training begins at the
//! base model itself.

use luthier_tensor::{DType, Projection, Weight};

use super::random::uniform;
use super::{Builder, Tuning};
use crate::adapter::{Adapter, BottleneckAdapter, BottleneckConfig, Placement};
use crate::bottleneck::Bottleneck;
use crate::error::Error;

/// Which bottleneck adapters, and how they start.
#[derive(Clone, Debug)]
pub struct BottleneckSettings {
    /// As `adapter_config.json` says it.
    pub config: BottleneckConfig,
    /// Seed of the starting values.
    pub seed: u64,
}

/// A block of a layer that an adapter can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Attention,
    FeedForward,
}

/// Where an adapter's numbers come from.
struct Source<'s> {
    /// It is trained.
    settings: Option<&'s BottleneckSettings>,
    /// It was read.
    adapter: Option<&'s BottleneckAdapter>,
}

impl Block {
    fn module(self, layer: usize) -> String {
        match self {
            Self::Attention => format!("layers.{layer}.attention_adapter"),
            Self::FeedForward => format!("layers.{layer}.feed_forward_adapter"),
        }
    }
}

impl<'c> Builder<'c> {
    /// What follows a block of a layer: what is trained, and what adapters hold.
    pub(crate) fn bottlenecks(&mut self, block: Block, layer: usize) -> Result<Vec<Bottleneck>, Error> {
        let settings = match self.tuning {
            Tuning::Bottleneck(settings) => Some(settings),
            _ => None,
        };
        let mut found = Vec::new();
        let adapter = self.adapter.and_then(Adapter::bottleneck);
        if let Some(config) = settings.map(|settings| &settings.config).or(adapter.map(|adapter| &adapter.config)) {
            let source = Source { settings, adapter };
            found.extend(self.bottleneck(block, layer, config, &source, self.number)?);
        }
        for (number, loaded) in self.beside.clone() {
            let Some(adapter) = loaded.adapter.bottleneck() else { continue };
            let source = Source { settings: None, adapter: Some(adapter) };
            found.extend(self.bottleneck(block, layer, &adapter.config, &source, number)?);
        }
        Ok(found)
    }

    fn bottleneck(
        &mut self,
        block: Block,
        layer: usize,
        config: &BottleneckConfig,
        source: &Source<'_>,
        number: u32,
    ) -> Result<Option<Bottleneck>, Error> {
        if config.placement == Placement::Pfeiffer && block == Block::Attention {
            return Ok(None);
        }
        let (hidden, inner) = (self.checkpoint.model.decoder.hidden_size, config.size);
        let module = block.module(layer);
        let down = self.adapter_layer(&format!("{module}.down"), inner, hidden, source)?;
        let up = self.adapter_layer(&format!("{module}.up"), hidden, inner, source)?;
        self.adapted.push(module);
        Ok(Some(Bottleneck { number, down, up, activation: config.activation }))
    }

    fn adapter_layer(
        &mut self,
        name: &str,
        output: usize,
        input: usize,
        source: &Source<'_>,
    ) -> Result<Projection, Error> {
        let weight = self.adapter_tensor(&format!("{name}.weight"), output, input, source)?;
        let bias = self.adapter_tensor(&format!("{name}.bias"), 1, output, source)?;
        Ok(Projection { bias: Some(bias), ..Projection::new(weight) })
    }

    fn adapter_tensor(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        source: &Source<'_>,
    ) -> Result<Weight, Error> {
        let value = match (source.adapter, source.settings) {
            (Some(adapter), _) => {
                let found = adapter.tensors.get(name).ok_or_else(|| self.misfit(name, &[], &[rows, columns]))?;
                let is_vector = rows == 1 && found.len() == columns;
                if !is_vector && (found.rows(), found.columns()) != (rows, columns) {
                    return Err(self.misfit(name, &[found.rows(), found.columns()], &[rows, columns]));
                }
                self.device.convert(&found.reshape(rows, columns), DType::F32)
            }
            (None, Some(settings)) if name.ends_with(".down.weight") => {
                let bound = (columns as f64).sqrt().recip();
                self.device.upload(&uniform(settings.seed, name, bound, rows * columns), rows, columns)
            }
            (None, _) => self.device.zeros(DType::F32, rows, columns),
        };
        if source.settings.is_none() {
            return Ok(Weight::frozen(value));
        }
        let dims = if name.ends_with(".bias") { vec![columns] } else { vec![rows, columns] };
        Ok(self.parameters.add(&self.device, name.to_owned(), dims, value))
    }
}
