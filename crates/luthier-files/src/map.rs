//! Files as memory. Weights are not read, they are mapped: what is used is loaded by the operating system, and what is not
//! used costs nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use luthier_tensor::SharedBytes;

use crate::Error;

/// The content of a file, read-only. The file must not be shortened while the bytes are in use: the system would then end
/// the program. It is never written through the map.
///
/// # Errors
/// When there is no such file, or the system refuses to map it.
pub fn map(path: &Path) -> Result<SharedBytes, Error> {
    let file = File::open(path).map_err(Error::io(path, "open it"))?;
    let metadata = file.metadata().map_err(Error::io(path, "open it"))?;
    if !metadata.is_file() {
        return Err(Error::NoModel { path: path.to_owned(), reason: "it is not a file".into() });
    }
    if metadata.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the map is private and read-only, and its bytes are only ever taken as numbers and text that are checked, so
    // another program that changes the file meanwhile changes values but breaks no invariant of this one.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path, "map it"))?;
    Ok(Arc::new(map))
}
