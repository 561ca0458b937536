//! Files as memory. Weights are not read, they are mapped: what is used is loaded by the operating system, and what is not
//! used costs nothing.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

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
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|map| map.strong_count() > 0);
    maps.push(Arc::downgrade(&map));
    Ok(map)
}

/// The maps that may still be in use.
static MAPS: Mutex<Vec<Weak<memmap2::Mmap>>> = Mutex::new(Vec::new());

/// Lets go of the memory behind `bytes`, a part of a mapped file that will not be read soon: whoever reads it again gets it from
/// the file. Of bytes that are not of a map, nothing happens.
pub fn release(bytes: &[u8]) {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    for map in maps.iter().filter_map(Weak::upgrade) {
        let inside = map.as_ptr_range();
        let range = bytes.as_ptr_range();
        if inside.start <= range.start && range.end <= inside.end {
            #[cfg(unix)]
            {
                let offset = range.start.addr() - inside.start.addr();
                // SAFETY: the map is of a file and read-only, so pages that go come back with the same bytes.
                let let_go =
                    unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, bytes.len()) };
                let _ = let_go; // an advice: where it is refused, the memory stays
            }
            return;
        }
    }
}
