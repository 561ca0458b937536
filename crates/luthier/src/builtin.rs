//! The built-in model: a chat model of 2.6 million numbers that is a part of the program, so that there is always one to
//! try things with. Wherever a model is named, `builtin` names it; a folder of that name is `./builtin`. How it was made
//! and what it knows is told in `builtin/README.md`; it is no use for anything but trying.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use luthier_model::checkpoint::{ModelFiles, WEIGHTS_FILE};
use luthier_tensor::SharedBytes;

/// What it is called.
pub(crate) const NAME: &str = "builtin";

/// Bytes on a cache line, so that the weights are used where they are.
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../builtin/model/model.safetensors"));
static SMALL_FILES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!("../../../builtin/model/config.json")),
    ("tokenizer.json", include_bytes!("../../../builtin/model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../builtin/model/tokenizer_config.json")),
];

/// Whether a path is the name of the built-in model.
pub(crate) fn is_named(path: &Path) -> bool {
    path == Path::new(NAME)
}

/// Its files, as if they were read from a folder.
pub(crate) fn files() -> ModelFiles {
    let small = SMALL_FILES.iter().map(|(name, bytes)| ((*name).to_owned(), Arc::new(*bytes) as SharedBytes));
    let weights = (WEIGHTS_FILE.to_owned(), Arc::new(&WEIGHTS.0) as SharedBytes);
    let files: BTreeMap<String, SharedBytes> = small.chain([weights]).collect();
    ModelFiles { label: NAME.to_owned(), files }
}
