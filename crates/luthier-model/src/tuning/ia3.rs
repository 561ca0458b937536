//! Vectors that scale what modules give, and what feed-forward modules take. From: Liu et al. 2022 (IA3).

use luthier_tensor::{DType, InputMap, InputMapKind, Projection, RowScale, RowScaleKind, Weight};

use super::Builder;
use crate::adapter::{Ia3Adapter, Ia3Settings, matches_target};
use crate::error::Error;

impl<'c> Builder<'c> {
    pub(super) fn adapt_ia3(
        &mut self,
        settings: &Ia3Settings,
        adapter: Option<&'c Ia3Adapter>,
        modules: &[String],
        projections: &mut [Projection],
    ) -> Result<(), Error> {
        for (module, projection) in modules.iter().zip(projections) {
            let saved = adapter.and_then(|adapter| adapter.modules.get(module));
            if saved.is_none() && (adapter.is_some() || !self.is_target(module, &settings.targets)) {
                continue;
            }
            let feed_forward = matches_target(module, &settings.feedforward);
            let weight = &projection.weight.value;
            let length = if feed_forward { weight.columns() } else { weight.rows() };
            let dims = if feed_forward { vec![1, length] } else { vec![length, 1] };
            let vector = self.device.empty(DType::F32, 1, length);
            match saved {
                Some(saved) if saved.len() != length => {
                    return Err(self.misfit(&format!("{module}.ia3_l"), &[saved.len()], &[length]));
                }
                Some(saved) => self.device.copy(&saved.reshape(1, length), &vector),
                None => self.device.write_f32(&vector, &vec![1.0; length]),
            }
            let vector = self.own(&format!("{module}.ia3_l"), dims, vector);
            if feed_forward {
                projection.input_map = Some(InputMap { kind: InputMapKind::Scale { vector }, adapter: 0 });
            } else {
                projection.row_scale = Some(RowScale { kind: RowScaleKind::BiasToo, ..RowScale::new(vector) });
            }
            self.adapted.push(module.clone());
        }
        Ok(())
    }

    /// A tensor of an adapter: trained where that is what is tuned.
    pub(super) fn own(&mut self, name: &str, dims: Vec<usize>, value: luthier_tensor::Tensor) -> Weight {
        if !self.tuning.is_adapter() {
            return Weight::frozen(value);
        }
        let name = self.file_name(name);
        self.parameters.add(&self.device, name, dims, value)
    }
}
