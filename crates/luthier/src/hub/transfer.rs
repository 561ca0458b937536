//! What a person sees of a download: on a terminal a line that follows it, elsewhere a line when it begins.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::eprint_line;
use crate::wording::size;

/// How often the line is written anew.
const PAUSE: Duration = Duration::from_millis(100);

/// One file on its way.
pub(crate) struct Transfer {
    name: String,
    bytes: Option<u64>,
    arrived: u64,
    /// What was there before this connection, and when it began.
    start: (u64, Instant),
    shown: Option<Instant>,
    live: bool,
}

impl Transfer {
    pub(crate) fn new(name: &str, bytes: Option<u64>) -> Self {
        let live = io::stderr().is_terminal();
        let this = Self { name: name.to_owned(), bytes, arrived: 0, start: (0, Instant::now()), shown: None, live };
        if !live {
            let size = bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
            eprint_line(&format!("downloading {name}{size}"));
        }
        this
    }

    /// A connection begins after so many bytes that are there already.
    pub(crate) fn begin(&mut self, arrived: u64) {
        self.arrived = arrived;
        self.start = (arrived, Instant::now());
    }

    /// So many bytes more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.arrived += bytes;
        if self.live && self.shown.is_none_or(|shown| shown.elapsed() >= PAUSE) {
            self.shown = Some(Instant::now());
            let whole = self.bytes.map(|bytes| format!(" of {}", size(bytes))).unwrap_or_default();
            let mut output = io::stderr().lock();
            let _ = write!(output, "\r\x1b[2K{}: {}{whole}, {}/s", self.name, size(self.arrived), size(self.rate()));
            let _ = output.flush();
        }
    }

    /// Says one sentence, above the live line.
    pub(crate) fn say(&mut self, sentence: &str) {
        self.clear();
        eprint_line(sentence);
    }

    /// It is complete.
    pub(crate) fn finish(&mut self) {
        self.clear();
        if self.live {
            eprint_line(&format!("downloaded {} ({})", self.name, size(self.arrived)));
        }
    }

    fn rate(&self) -> u64 {
        ((self.arrived - self.start.0) as f64 / self.start.1.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    fn clear(&mut self) {
        if self.live && self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
        }
    }
}
