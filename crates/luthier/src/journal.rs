//! The journal of a run: every event with the second at which it happened. A checkpoint keeps it, and a run that goes on
//! replays it, so that the log, the chart and every other reader stand where they stood.

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
