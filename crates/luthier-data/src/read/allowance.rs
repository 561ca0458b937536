//! How much a file may turn out to hold. Runs, dictionaries and compression make a few bytes stand for any number of values, so
//! what is made of a file is counted, and ends where it is out of all proportion to its size. What tools write stays far below:
//! text shrinks to a tenth or a hundredth, and a million rows that are all the same are within what any file may hold.

use std::cell::Cell;

use serde_json::Value;

/// What a file of any size may hold, in bytes.
const LEAST: usize = 512 << 20;
/// What each byte of a file may stand for beyond that.
const PER_BYTE: usize = 1000;
/// What a row counts as, beside its values: it is handed on.
const ROW: usize = 64;
/// What a value of it counts as, beside its text.
const CELL: usize = 32;

/// What is left for a file.
pub(crate) struct Allowance {
    left: Cell<usize>,
}

impl Allowance {
    /// For a file of so many bytes.
    pub(crate) fn of(file_bytes: usize) -> Self {
        Self { left: Cell::new(LEAST.saturating_add(file_bytes.saturating_mul(PER_BYTE))) }
    }

    /// What is given.
    #[cfg(test)]
    pub(crate) fn just(left: usize) -> Self {
        Self { left: Cell::new(left) }
    }

    /// More of the file was read.
    pub(crate) fn grow(&self, file_bytes: usize) {
        self.left.set(self.left.get().saturating_add(file_bytes.saturating_mul(PER_BYTE)));
    }

    /// The bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.left.get()
    }

    /// Counts bytes, before they are made. Errors: they are too many, as a clause.
    pub(crate) fn bytes(&self, count: usize) -> Result<(), String> {
        let left = self.left.get().checked_sub(count).ok_or_else(|| {
            format!(
                "it unpacks to more than {PER_BYTE} times its size and {} MB; expected records, which do not shrink as much",
                LEAST >> 20
            )
        })?;
        self.left.set(left);
        Ok(())
    }

    /// Counts values that are kept until their rows are made, with the bytes of each.
    pub(crate) fn values(&self, count: usize, bytes: usize) -> Result<(), String> {
        self.bytes(count.saturating_mul(size_of::<Value>().saturating_add(bytes)))
    }

    /// Counts rows.
    pub(crate) fn rows(&self, count: usize) -> Result<(), String> {
        self.bytes(count.saturating_mul(ROW))
    }

    /// Counts a value of a row, with the name that it has there.
    pub(crate) fn cells(&self, count: usize, name: &str) -> Result<(), String> {
        self.bytes(count.saturating_mul(CELL.saturating_add(name.len())))
    }
}
