//! What the files of all adapters have in common.

use luthier_tensor::{DType, Tensor};

use crate::checkpoint::{Shard, TensorSpec};
use crate::error::Error;

/// The file with the settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A tensor as an adapter's file holds it.
#[derive(Clone, Debug)]
pub struct FileTensor {
    /// Such as `base_model.model.{module}.lora_A.weight`.
    pub name: String,
    /// Outermost first.
    pub dims: Vec<usize>,
    /// f32
    pub value: Tensor,
}

/// `adapter_model.safetensors` as [`write_shard`](crate::checkpoint::write_shard) takes it, of names and dimensions.
pub fn adapter_shard<'t>(tensors: impl IntoIterator<Item = (&'t str, &'t [usize])>) -> Shard {
    let spec = |(name, dims): (&str, &[usize])| TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.into() };
    let mut tensors: Vec<TensorSpec> = tensors.into_iter().map(spec).collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Shard { file: WEIGHTS_FILE.into(), tensors }
}

pub(super) fn refused(file: &str, reason: String) -> Error {
    Error::Adapter { file: file.to_owned(), reason }
}
