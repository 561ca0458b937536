//! Adapters that are not low-rank, as the engine takes them.

use luthier_model::adapter::{Ia3Settings, OftSettings, TargetModules, VeraSettings};
use luthier_model::{Adapter, Tuning};
use luthier_tensor::RotationSeries;

use super::lora::targets;
use crate::config::Method;
use crate::eprint_line;

/// As PEFT's default: the series of five terms.
const SERIES: RotationSeries = RotationSeries::Terms(5);

/// An adapter that is trained on decides its own form; how much is dropped is decided anew.
pub(super) fn tuning(method: &Method, adapter: Option<&Adapter>) -> Tuning {
    let wanted = match method {
        Method::Ia3(ia3) => Tuning::Ia3(Ia3Settings {
            targets: targets(&ia3.targets),
            feedforward: TargetModules::Names(ia3.feedforward.clone()),
            saved_modules: ia3.modules_to_save.clone(),
        }),
        Method::Vera(vera) => Tuning::Vera(VeraSettings {
            rank: vera.rank,
            start: vera.start,
            key: vera.key,
            saves_matrices: vera.saves_matrices,
            dropout: vera.dropout as f32,
            targets: targets(&vera.targets),
            saved_modules: vera.modules_to_save.clone(),
        }),
        Method::Oft(oft) => Tuning::Oft(OftSettings {
            blocks: oft.blocks,
            block: oft.block,
            series: SERIES,
            targets: targets(&oft.targets),
            saved_modules: oft.modules_to_save.clone(),
        }),
        _ => return Tuning::Nothing,
    };
    let Some(adapter) = adapter else { return wanted };
    let mut found = Tuning::of(adapter);
    if let (Tuning::Vera(found), Tuning::Vera(wanted)) = (&mut found, &wanted) {
        found.dropout = wanted.dropout;
    }
    let form = |tuning: &Tuning| format!("{:?}", tuning.adapter_config(String::new(), None));
    if form(&found) != form(&wanted) {
        eprint_line("note: the adapter of adapter_name_or_path decides its own form");
    }
    found
}
