//! A model with its adapter folded in, in f32 on the numbers that the base stands for, whatever it stores them in, and rounded
//! once on the way out: W + scale * B A, with its rows scaled (DoRA), W scaled (IA3), rotated (OFT). One block of rows is in
//! memory at a time.

use std::io::{self, Write};

use luthier_tensor::{DType, Device, Tensor};

use crate::adapter::{Adapter, LoraPair, VeraVectors, matches_target, vera_matrices};
use crate::checkpoint::{Checkpoint, encode_on};
use crate::error::{Error, shape};

/// Numbers that are computed together.
const BLOCK: usize = 1 << 20;

/// A checkpoint, and what an adapter makes of it.
pub struct Merged<'c> {
    device: Device,
    checkpoint: &'c Checkpoint,
    adapter: Option<&'c Adapter>,
    /// VeRA's random matrices.
    random: Option<(Tensor, Tensor)>,
}

/// What is done to a tensor.
enum Change<'c> {
    /// A pair of matrices is added, and the rows may have magnitudes.
    Pair(&'c LoraPair, f32),
    /// Rows are scaled; a vector's places count as rows.
    Rows(&'c Tensor),
    /// Columns are scaled.
    Columns(&'c Tensor),
    /// Random matrices between two vectors are added.
    Vectors(&'c VeraVectors),
    /// Columns are rotated, a block at a time.
    Rotation(&'c Tensor, usize),
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
        let mut merged = Self { device: device.clone(), checkpoint, adapter, random: None };
        for module in adapter.iter().flat_map(|adapter| adapter.modules()) {
            merged.check(module)?;
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
        merged.random = merged.random_matrices()?;
        Ok(merged)
    }

    /// Whether what the adapter has for a module fits its weight.
    fn check(&self, module: &str) -> Result<(), Error> {
        let name = format!("{module}.weight");
        let base = self.base(&name)?;
        let (out, width) = (base.rows(), base.columns());
        let (found, expected) = match self.change(&name) {
            None => return Ok(()),
            Some(Change::Pair(pair, _)) => {
                let magnitudes = pair.magnitude.as_ref().map(Tensor::len).filter(|length| *length != out);
                ([magnitudes.unwrap_or(pair.b.rows()), pair.a.columns()], [out, width])
            }
            Some(Change::Rows(vector)) => ([vector.len(), width], [out, width]),
            Some(Change::Columns(vector)) => ([out, vector.len()], [out, width]),
            Some(Change::Vectors(vectors)) => ([vectors.b.len(), width], [out, width]),
            Some(Change::Rotation(angles, block)) => {
                let expected = [width / block, block * (block - 1) / 2];
                ([angles.rows(), angles.columns()], expected)
            }
        };
        if found == expected {
            return Ok(());
        }
        Err(self.misfit(&format!("the update of `{name}`"), &found, &expected))
    }

    /// VeRA's matrices, from the file or as they are drawn for these modules.
    fn random_matrices(&self) -> Result<Option<(Tensor, Tensor)>, Error> {
        let Some(Adapter::Vera(vera)) = self.adapter else { return Ok(None) };
        let mut most = (0, 0);
        for module in vera.modules.keys() {
            let base = self.base(&format!("{module}.weight"))?;
            most = (most.0.max(base.rows()), most.1.max(base.columns()));
        }
        let rank = vera.settings.rank;
        let (down, up) = match &vera.matrices {
            Some((down, up)) => (down.clone(), up.clone()),
            None => {
                let (down, up) = vera_matrices(&vera.settings, most.0, most.1);
                (self.device.upload(&down, rank, most.1), self.device.upload(&up, most.0, rank))
            }
        };
        if up.rows() < most.0 || down.columns() < most.1 {
            let found = [up.rows(), down.columns()];
            return Err(self.misfit("the pair of its vera_B and vera_A", &found, &[most.0, most.1]));
        }
        Ok(Some((down, up)))
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
        self.change(name).is_some() || self.saved(name).is_some()
    }

    /// Whether a tensor is written in `dtype` as it stands.
    pub fn copies(&self, name: &str, dtype: DType) -> bool {
        !self.changes(name) && self.checkpoint.tensors[name].dtype() == dtype
    }

    fn saved(&self, name: &str) -> Option<&'c Tensor> {
        self.adapter.and_then(|adapter| adapter.saved_modules().get(name))
    }

    fn change(&self, name: &str) -> Option<Change<'c>> {
        // IA3 scales what a module gives with its bias.
        if let (Adapter::Ia3(ia3), Some(module)) = (self.adapter?, name.strip_suffix(".bias")) {
            let vector = ia3.modules.get(module)?;
            return (!matches_target(module, &ia3.settings.feedforward)).then_some(Change::Rows(vector));
        }
        let module = name.strip_suffix(".weight")?;
        match self.adapter? {
            Adapter::Lora(lora) => {
                let pair = lora.modules.get(module)?;
                Some(Change::Pair(pair, lora.scale_of(pair)))
            }
            Adapter::Ia3(ia3) => {
                let vector = ia3.modules.get(module)?;
                let feed_forward = matches_target(module, &ia3.settings.feedforward);
                Some(if feed_forward { Change::Columns(vector) } else { Change::Rows(vector) })
            }
            Adapter::Vera(vera) => vera.modules.get(module).map(Change::Vectors),
            Adapter::Oft(oft) => {
                let width = self.checkpoint.tensors.get(name)?.tensor().columns();
                oft.modules.get(module).map(|angles| Change::Rotation(angles, oft.settings.block_of(width)))
            }
            // Refused by `new`.
            Adapter::Prompt(_) | Adapter::Bottleneck(_) => None,
        }
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
        let width = base.columns();
        match self.change(name) {
            None => {}
            Some(Change::Pair(pair, scale)) => {
                let (down, up) = (self.device.download(&pair.a), self.numbers(&pair.b, first, count));
                add_products(&mut values, &up, &down, pair.rank, scale);
                if let Some(magnitude) = &pair.magnitude {
                    let magnitude = &self.device.download(magnitude)[first..first + count];
                    for (row, magnitude) in values.chunks_exact_mut(width).zip(magnitude) {
                        let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
                        let factor = f64::from(*magnitude) / norm;
                        row.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
                    }
                }
            }
            Some(Change::Rows(vector)) if self.checkpoint.tensors[name].dims().len() == 1 => {
                values.iter_mut().zip(self.device.download(vector)).for_each(|(value, factor)| *value *= factor);
            }
            Some(Change::Rows(vector)) => {
                let factors = &self.device.download(vector)[first..first + count];
                for (row, factor) in values.chunks_exact_mut(width).zip(factors) {
                    row.iter_mut().for_each(|value| *value *= factor);
                }
            }
            Some(Change::Columns(vector)) => {
                let factors = self.device.download(vector);
                for row in values.chunks_exact_mut(width) {
                    row.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
                }
            }
            Some(Change::Vectors(vectors)) => {
                if let Some((down, up)) = &self.random {
                    let (b, d) = (self.device.download(&vectors.b), self.device.download(&vectors.d));
                    let mut up = self.numbers(up, first, count);
                    for (row, b) in up.chunks_exact_mut(d.len()).zip(&b[first..first + count]) {
                        row.iter_mut().zip(&d).for_each(|(up, d)| *up *= b * d);
                    }
                    let down = self.device.download(down);
                    let cut = down.chunks_exact(down.len() / d.len()).flat_map(|row| &row[..width]);
                    add_products(&mut values, &up, &cut.copied().collect::<Vec<_>>(), d.len(), 1.0);
                }
            }
            Some(Change::Rotation(angles, block)) => {
                if let Some(Adapter::Oft(oft)) = self.adapter {
                    let angles = self.device.convert(angles, DType::F32);
                    let rotations = self.device.download(&self.device.rotations(&angles, block, oft.settings.series));
                    rotate_back(&mut values, &rotations, width, block);
                }
            }
        }
        values
    }

    fn numbers(&self, matrix: &Tensor, first: usize, count: usize) -> Vec<f32> {
        self.device.download(&matrix.slice_rows(first, count))
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

/// `values += scale * up down`, row by row.
fn add_products(values: &mut [f32], up: &[f32], down: &[f32], rank: usize, scale: f32) {
    let width = down.len() / rank;
    let mut update = vec![0.0f32; width];
    for (row, up) in values.chunks_exact_mut(width).zip(up.chunks_exact(rank)) {
        update.fill(0.0);
        for (factor, down) in up.iter().zip(down.chunks_exact(width)) {
            update.iter_mut().zip(down).for_each(|(sum, number)| *sum += factor * number);
        }
        row.iter_mut().zip(&update).for_each(|(value, update)| *value += scale * update);
    }
}

/// Each row times the transposed rotation of each block: x R W^T is x (W R^T)^T.
fn rotate_back(values: &mut [f32], rotations: &[f32], width: usize, block: usize) {
    let mut turned = vec![0.0f32; block];
    for row in values.chunks_exact_mut(width) {
        for (part, rotation) in row.chunks_exact_mut(block).zip(rotations.chunks_exact(block * block)) {
            for (turned, along) in turned.iter_mut().zip(rotation.chunks_exact(block)) {
                *turned = part.iter().zip(along).map(|(value, along)| value * along).sum();
            }
            part.copy_from_slice(&turned);
        }
    }
}
