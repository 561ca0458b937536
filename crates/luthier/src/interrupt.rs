//! Ctrl-C while something runs that can be stopped: the first one asks it to stop, a second one ends the program. Where
//! nothing runs, one ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// The exit code of a program that Ctrl-C ended.
const ENDED: i32 = 130;

/// The listener; there is one.
pub(crate) struct Interrupt {
    /// Whether the next Ctrl-C ends the program.
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let raised = Arc::new(AtomicBool::new(true));
        // The order matters: what was raised before ends the program, and only then it is raised.
        flag::register_conditional_shutdown(SIGINT, ENDED, Arc::clone(&raised)).context("Ctrl-C cannot be heard")?;
        flag::register(SIGINT, Arc::clone(&raised)).context("Ctrl-C cannot be heard")?;
        Ok(Self { raised })
    }

    /// Something begins that can be stopped.
    pub(crate) fn begin(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }

    /// Whether it should stop.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// It is over.
    pub(crate) fn end(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }
}
