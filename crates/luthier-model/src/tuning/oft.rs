//! Rotations of what modules take, in blocks. From: Qiu et al. 2023 (OFT); Qiu et al. 2025 for the series and for rotating the
//! input in place of the weight.

use luthier_tensor::{DType, InputMap, InputMapKind, Projection};

use super::Builder;
use crate::adapter::{OftAdapter, OftSettings};
use crate::error::Error;

impl<'c> Builder<'c> {
    pub(super) fn adapt_oft(
        &mut self,
        settings: &OftSettings,
        adapter: Option<&'c OftAdapter>,
        modules: &[String],
        projections: &mut [Projection],
    ) -> Result<(), Error> {
        for (module, projection) in modules.iter().zip(projections) {
            let saved = adapter.and_then(|adapter| adapter.modules.get(module));
            if saved.is_none() && (adapter.is_some() || !self.is_target(module, &settings.targets)) {
                continue;
            }
            let width = projection.weight.value.columns();
            let block = settings.block_of(width);
            let (blocks, count) = (width / block, block * (block - 1) / 2);
            let angles = self.device.zeros(DType::F32, blocks, count);
            if let Some(saved) = saved {
                if (saved.rows(), saved.columns()) != (blocks, count) {
                    let name = format!("{module}.oft_R.weight");
                    return Err(self.misfit(&name, &[saved.rows(), saved.columns()], &[blocks, count]));
                }
                self.device.copy(saved, &angles);
            }
            let kind = if self.tuning.is_adapter() {
                let angles = self.own(&format!("{module}.oft_R.weight"), vec![blocks, count], angles);
                InputMapKind::Rotation { angles, block, series: settings.series }
            } else {
                InputMapKind::Made { rotations: self.device.rotations(&angles, block, settings.series) }
            };
            projection.input_map = Some(InputMap { kind, adapter: 0 });
            self.adapted.push(module.clone());
        }
        Ok(())
    }
}
