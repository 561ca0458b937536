//! The disk side of Luthier: what must survive is written here, what is large is mapped here, and nothing else opens a
//! model's files. It reads no pickle: a `.bin` or `.pt` file can execute code while it is loaded, so it is refused.

mod error;
mod map;
mod model;
mod sealed;
mod sha256;
mod space;
mod write;

pub use error::Error;
pub use map::{map, release};
pub use model::{COMPANIONS, read_adapter, read_model, read_model_without_weights, read_tokenizer};
pub use sealed::{SEAL_FILE, check_sealed, write_sealed};
pub use sha256::{hexadecimal, sha256_of_file};
pub use space::free_bytes;
pub use write::{
    check_writable, remove_unfinished, write_atomically, write_files_atomically, write_folder_atomically, write_model,
};
