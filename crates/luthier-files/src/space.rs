//! How much room a disk has.

use std::path::Path;

/// Bytes that can still be written where `path` is or will be; `None` where the system does not tell.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|folder| folder.exists() && !folder.as_os_str().is_empty());
    of_folder(there.unwrap_or(Path::new(".")))
}

#[cfg(unix)]
fn of_folder(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn of_folder(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_around_it() {
        let here = free_bytes(Path::new("."));
        let there = free_bytes(Path::new("not/there/yet"));
        assert_eq!(here.is_some(), cfg!(unix));
        assert_eq!(there.is_some(), cfg!(unix));
    }
}
