//! Ctrl-C and SIGTERM: the first asks for a stop, which the work that is under way sees when it can keep its state; the
//! second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::eprint_line;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code of a program that a signal has ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Begins to listen; `sentence` is said when a stop is asked for. Until this is called a signal ends the program.
pub(crate) fn listen(sentence: &'static str) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        eprint_line(sentence);
    })
    .context("signals cannot be listened to")
}

/// An error where a stop was asked for, for work that is left by failing.
pub(crate) fn check() -> std::io::Result<()> {
    if is_asked() { Err(std::io::Error::other("it was stopped")) } else { Ok(()) }
}

/// Begins to listen for work that comes again and again: between [`begin`] and [`end`] the first signal asks for a stop, at
/// other times one ends the program.
pub(crate) fn listen_in_between() -> anyhow::Result<()> {
    end();
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    })
    .context("signals cannot be listened to")
}

/// A piece of work begins that can be stopped.
pub(crate) fn begin() {
    ASKED.store(false, Ordering::SeqCst);
}

/// It is over.
pub(crate) fn end() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Whether a stop was asked for.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
