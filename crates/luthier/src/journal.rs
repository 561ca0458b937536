//! The journal of a run: every event with the second at which it happened. A checkpoint keeps it, and a run that goes on
//! replays it, so that the log, the chart and every other reader stand where they stood.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use luthier_train::Event;
use serde::{Deserialize, Serialize};

/// An event and when it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Seconds of training before it, those of earlier sittings included.
    pub(crate) elapsed_seconds: f64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// Writes entries, one line each.
pub(crate) fn write(entries: &[Entry], writer: &mut dyn Write) -> io::Result<()> {
    entries.iter().try_for_each(|entry| {
        serde_json::to_writer(&mut *writer, entry)?;
        writer.write_all(b"\n")
    })
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// The line that is no entry.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let entry = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}: it is no event", path.display(), index + 1))
    };
    text.lines().enumerate().map(entry).collect()
}
