//! The operations that models are written in. Each is a forward that allocates its outputs from the device, and a
//! backward that it records; a decoder layer is about six of them.

mod arrange;
mod attention;
mod embedding;
mod head;
mod linear;
mod norm;
mod rotary;

pub use attention::{AttentionOptions, KeyValues};
pub use head::{HeadOptions, HeadOutputs, HeadRequest, OUTPUTS, TopK};
pub use linear::{
    AdapterRows, AdapterTerm, InputMap, InputMapKind, LinearInput, Projection, Residual, RotationSeries, RowScale,
    RowScaleKind,
};
pub use norm::Norm;
pub use rotary::{HeadNormWeights, RotaryTables};
