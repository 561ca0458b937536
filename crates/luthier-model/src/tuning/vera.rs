//! Two random matrices for all modules, and two trained vectors for each: W x + b * (B (d * (A x))). From: Kopiczko et al.
//! 2023 (VeRA).

use luthier_tensor::{AdapterTerm, DType, Projection, Tensor, Weight};

use super::Builder;
use crate::adapter::{FileTensor, VERA_DOWN, VERA_UP, VeraAdapter, VeraSettings, matches_target, vera_matrices};
use crate::error::Error;

/// The random matrices that all modules share: modules take the first columns of A and the first rows of B.
#[derive(Debug)]
pub(crate) struct Shared {
    down: Tensor,
    up: Tensor,
    /// A cut to a number of columns.
    cut: Vec<Tensor>,
}

impl<'c> Builder<'c> {
    pub(super) fn adapt_vera(
        &mut self,
        settings: &VeraSettings,
        adapter: Option<&'c VeraAdapter>,
        modules: &[String],
        projections: &mut [Projection],
    ) -> Result<(), Error> {
        for (module, projection) in modules.iter().zip(projections) {
            let saved = adapter.and_then(|adapter| adapter.modules.get(module));
            if saved.is_none() && (adapter.is_some() || !self.is_target(module, &settings.targets)) {
                continue;
            }
            let (out, width) = (projection.weight.value.rows(), projection.weight.value.columns());
            let (down, up) = self.shared_matrices(settings, adapter, module, (out, width))?;
            let vector = |length: usize, saved: Option<&Tensor>, start: f64, name: &str| {
                let vector = self.device.empty(DType::F32, 1, length);
                match saved {
                    Some(saved) if saved.len() != length => {
                        return Err(self.misfit(&format!("{module}.{name}"), &[saved.len()], &[length]));
                    }
                    Some(saved) => self.device.copy(&saved.reshape(1, length), &vector),
                    None => self.device.write_f32(&vector, &vec![start as f32; length]),
                }
                Ok(vector)
            };
            let b = vector(out, saved.map(|saved| &saved.b), 0.0, "vera_lambda_b")?;
            let d = vector(settings.rank, saved.map(|saved| &saved.d), settings.start, "vera_lambda_d")?;
            let b = self.own(&format!("{module}.vera_lambda_b"), vec![out], b);
            let d = self.own(&format!("{module}.vera_lambda_d"), vec![settings.rank], d);
            let site = self.site();
            let dropout = if self.tuning.is_adapter() { settings.dropout } else { 0.0 };
            let (rank_scale, out_scale) = (Some(d), Some(b));
            let (down, up) = (Weight::frozen(down), Weight::frozen(up));
            projection.terms.push(AdapterTerm {
                rank_scale,
                out_scale,
                dropout,
                site,
                ..AdapterTerm::new(down, up, 1.0)
            });
            self.adapted.push(module.clone());
        }
        Ok(())
    }

    /// A and B for a module of this shape.
    fn shared_matrices(
        &mut self,
        settings: &VeraSettings,
        adapter: Option<&'c VeraAdapter>,
        module: &str,
        (out, width): (usize, usize),
    ) -> Result<(Tensor, Tensor), Error> {
        if self.vera.is_none() {
            self.vera = Some(self.make_shared(settings, adapter));
        }
        let Some(shared) = &mut self.vera else { return Err(self.refused("no shared matrices".to_owned())) };
        if shared.down.columns() < width || shared.up.rows() < out {
            let found = [shared.up.rows(), shared.down.columns()];
            return Err(self.misfit(&format!("vera_A and vera_B, which `{module}` needs,"), &found, &[out, width]));
        }
        let down = match shared.cut.iter().find(|cut| cut.columns() == width) {
            Some(cut) => cut.clone(),
            None => {
                let numbers = self.device.download(&shared.down);
                let rows = numbers.chunks_exact(shared.down.columns()).flat_map(|row| &row[..width]);
                let cut = self.device.upload(&rows.copied().collect::<Vec<_>>(), settings.rank, width);
                shared.cut.push(cut.clone());
                cut
            }
        };
        Ok((down, shared.up.slice_rows(0, out)))
    }

    fn make_shared(&self, settings: &VeraSettings, adapter: Option<&'c VeraAdapter>) -> Shared {
        let (down, up) = match adapter.and_then(|adapter| adapter.matrices.as_ref()) {
            Some((down, up)) => (self.device.convert(down, DType::F32), self.device.convert(up, DType::F32)),
            None => {
                let targets = |module: &str| match adapter {
                    Some(adapter) => adapter.modules.contains_key(module),
                    None => matches_target(module, &settings.targets) && !self.trains_whole(module),
                };
                let (out, width) = self.largest_linear(targets);
                let (down, up) = vera_matrices(settings, out, width);
                (self.device.upload(&down, settings.rank, width), self.device.upload(&up, out, settings.rank))
            }
        };
        Shared { cut: vec![down.clone()], down, up }
    }
}

/// What the file holds besides vectors.
pub(crate) fn shared_tensors(shared: &Shared) -> [FileTensor; 2] {
    [(VERA_DOWN, &shared.down), (VERA_UP, &shared.up)].map(|(name, value)| FileTensor {
        name: name.to_owned(),
        dims: vec![value.rows(), value.columns()],
        value: value.clone(),
    })
}
