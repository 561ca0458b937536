//! A model with its adapter folded in: W + scale * B A, in f32 on the numbers that the base stands for, whatever it stores
//! them in, and rounded once on the way out. One block of rows is in memory at a time.

use std::io::{self, Write};

use luthier_tensor::{DType, Device, Tensor};

use crate::adapter::{Adapter, LoraPair};
use crate::checkpoint::{Checkpoint, encode_on};
use crate::error::{Error, shape};

/// Numbers that are computed together.
const BLOCK: usize = 1 << 20;

/// A checkpoint, and what an adapter makes of it.
pub struct Merged<'c> {
    device: Device,
    checkpoint: &'c Checkpoint,
    adapter: Option<&'c Adapter>,
}

impl<'c> Merged<'c> {
    /// Checks that the adapter belongs to the model.
    ///
    /// # Errors
    /// When it names a tensor that the model does not have, or one of another shape, or would split head and embedding.
    pub fn new(device: &Device, checkpoint: &'c Checkpoint, adapter: Option<&'c Adapter>) -> Result<Self, Error> {
        if let Some(why) = adapter.and_then(Adapter::stands_beside) {
            let reason = format!("it cannot be merged: {why}; load it beside the base model, with --adapter");
            return Err(Error::Adapter { file: "the adapter".to_owned(), reason });
        }
        let merged = Self { device: device.clone(), checkpoint, adapter };
        for (module, pair) in adapter.and_then(Adapter::lora).iter().flat_map(|lora| &lora.modules) {
            let name = format!("{module}.weight");
            let base = merged.base(&name)?;
            let (found, expected) = ([pair.b.rows(), pair.a.columns()], [base.rows(), base.columns()]);
            if found != expected {
                return Err(merged.misfit(&format!("the update of `{name}`"), &found, &expected));
            }
        }
        for (name, saved) in adapter.iter().flat_map(|adapter| adapter.saved_modules()) {
            let base = merged.base(name)?;
            let vector = checkpoint.tensors[name].dims().len() == 1 && saved.len() == base.len();
            let (found, expected) = ([saved.rows(), saved.columns()], [base.rows(), base.columns()]);
            if !vector && found != expected {
                return Err(merged.misfit(&format!("its `{name}`"), &found, &expected));
            }
        }
        let embedding = format!("{}.weight", checkpoint.model.names.embedding);
        if checkpoint.model.decoder.tied_head && merged.saved(&embedding).is_some() {
            let reason = format!(
                "the head is the embedding matrix, but the adapter saves `{embedding}` alone, which PEFT takes for the embedding \
                 and not for the head; a merged model has one matrix for both"
            );
            return Err(Error::Adapter { file: checkpoint.label.clone(), reason });
        }
        Ok(merged)
    }

    fn base(&self, name: &str) -> Result<&'c Tensor, Error> {
        let reason = || Error::Adapter {
            file: self.checkpoint.label.clone(),
            reason: format!("the adapter is for another model: this one has no tensor `{name}`"),
        };
        self.checkpoint.tensors.get(name).map(|stored| stored.tensor()).ok_or_else(reason)
    }

    fn misfit(&self, what: &str, found: &[usize], expected: &[usize]) -> Error {
        let (found, expected) = (shape(found), shape(expected));
        let reason = format!("the adapter is for another model: {what} has shape {found}; expected {expected}");
        Error::Adapter { file: self.checkpoint.label.clone(), reason }
    }

    /// Whether the adapter changes a tensor.
    pub fn changes(&self, name: &str) -> bool {
        self.pair(name).is_some() || self.saved(name).is_some()
    }

    /// Whether a tensor is written in `dtype` as it stands.
    pub fn copies(&self, name: &str, dtype: DType) -> bool {
        !self.changes(name) && self.checkpoint.tensors[name].dtype() == dtype
    }

    fn saved(&self, name: &str) -> Option<&'c Tensor> {
        self.adapter.and_then(|adapter| adapter.saved_modules().get(name))
    }

    fn pair(&self, name: &str) -> Option<(&'c LoraPair, f32)> {
        let adapter = self.adapter?.lora()?;
        let pair = adapter.modules.get(name.strip_suffix(".weight")?)?;
        Some((pair, adapter.scale_of(pair)))
    }

    /// Rows `first .. first + count` of a tensor of the model; a vector is one row.
    ///
    /// # Panics
    /// When there is no such tensor or row: callers take both from the checkpoint.
    pub fn rows(&self, name: &str, first: usize, count: usize) -> Vec<f32> {
        let base = self.checkpoint.tensors[name].tensor();
        let tensor = match self.saved(name) {
            Some(saved) => saved.reshape(base.rows(), base.columns()),
            None => base.clone(),
        };
        let mut values = self.device.download(&tensor.slice_rows(first, count));
        let Some((pair, scale)) = self.pair(name) else { return values };
        let down = self.device.download(&pair.a);
        let up = self.device.download(&pair.b.slice_rows(first, count));
        let width = pair.a.columns();
        let mut update = vec![0.0f32; width];
        for (row, up) in values.chunks_exact_mut(width).zip(up.chunks_exact(pair.rank)) {
            update.fill(0.0);
            for (factor, down) in up.iter().zip(down.chunks_exact(width)) {
                update.iter_mut().zip(down).for_each(|(sum, number)| *sum += factor * number);
            }
            row.iter_mut().zip(&update).for_each(|(value, update)| *value += scale * update);
        }
        values
    }

    /// Writes a tensor's numbers in `dtype`, all rows as they come or those of `order` in its order. The places of a
    /// vector count as its rows. What the adapter leaves alone and is stored so already is copied byte for byte.
    ///
    /// # Errors
    /// When writing fails, or a number has no place in `dtype`.
    pub fn write(&self, name: &str, order: Option<&[u32]>, dtype: DType, writer: &mut dyn Write) -> io::Result<()> {
        let stored = &self.checkpoint.tensors[name];
        if self.copies(name, dtype) {
            let Some(order) = order else { return writer.write_all(stored.bytes()) };
            let places = if stored.dims().len() == 1 { stored.tensor().columns() } else { stored.tensor().rows() };
            let width = stored.bytes().len().checked_div(places).unwrap_or(0);
            return order
                .iter()
                .try_for_each(|row| writer.write_all(&stored.bytes()[*row as usize * width..][..width]));
        }
        let mut put = |values: &[f32]| {
            let bytes = encode_on(&self.device, values, dtype);
            writer.write_all(&bytes.map_err(|error| io::Error::other(format!("tensor `{name}`: {error}")))?)
        };
        let (rows, columns) = (stored.tensor().rows(), stored.tensor().columns());
        let block = BLOCK.div_ceil(columns.max(1));
        match order {
            Some(order) if stored.dims().len() == 1 => {
                let all = self.rows(name, 0, 1);
                put(&order.iter().map(|&place| all[place as usize]).collect::<Vec<_>>())
            }
            Some(order) => order.chunks(block).try_for_each(|order| {
                let first = order.iter().min().map_or(0, |&row| row as usize);
                let last = order.iter().max().map_or(0, |&row| row as usize);
                let span = self.rows(name, first, last + 1 - first);
                let row = |row: &u32| &span[(*row as usize - first) * columns..][..columns];
                put(&order.iter().flat_map(row).copied().collect::<Vec<_>>())
            }),
            None => {
                (0..rows).step_by(block).try_for_each(|first| put(&self.rows(name, first, block.min(rows - first))))
            }
        }
    }
}
