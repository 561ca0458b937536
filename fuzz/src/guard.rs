//! The limits of an input: an allocator that counts, and a watch that ends the process when time or memory runs out. The input
//! that was running is written to a file first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator with a count of what is in use and a cap on it.
pub struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static CAP: AtomicUsize = AtomicUsize::new(usize::MAX);
static OVER: AtomicBool = AtomicBool::new(false);

impl Counting {
    fn take(size: usize) {
        let before = IN_USE.fetch_add(size, Ordering::Relaxed);
        if before.saturating_add(size) > CAP.load(Ordering::Relaxed) {
            OVER.store(true, Ordering::Relaxed);
            // The watch ends the process; this allocation never happens.
            loop {
                std::thread::park_timeout(Duration::from_secs(1));
            }
        }
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting changes no pointer and no layout, and a call that is
// over the cap does not return.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::take(size.saturating_sub(layout.size()));
        IN_USE.fetch_sub(layout.size().saturating_sub(size), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What an input may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time.
    pub seconds: f64,
    /// Memory beyond what was in use before it, where the allocator is [`Counting`].
    pub bytes: usize,
}

/// The input that is running.
struct Running {
    input: Vec<u8>,
    began: Instant,
    limit: Duration,
    place: Option<PathBuf>,
}

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// Why an input failed.
pub type Failure = String;

/// Starts the watch. It looks every few milliseconds, and where an input is over its limits it writes it to its place, says
/// so through `say`, and ends the process with `code`.
pub fn watch(code: i32, say: fn(&str)) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(5));
            let running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(running) = running.as_ref() else { continue };
            let over = OVER.load(Ordering::Relaxed);
            if over || running.began.elapsed() > running.limit {
                // What is left of the memory is for the message.
                CAP.store(usize::MAX, Ordering::Relaxed);
                let what = if over { "memory" } else { "time" };
                let place = running.place.as_ref().filter(|place| std::fs::write(place, &running.input).is_ok());
                let place = place.map_or_else(String::new, |place| format!("; it is kept as {}", place.display()));
                say(&format!("an input of {} bytes took more {what} than it may{place}", running.input.len()));
                std::process::exit(code);
            }
        }
    });
}

/// Runs an input within limits. Errors: it panicked.
pub fn run(target: fn(&[u8]), input: &[u8], limits: Limits, place: Option<PathBuf>) -> Result<(), Failure> {
    let running =
        Running { input: input.to_vec(), began: Instant::now(), limit: Duration::from_secs_f64(limits.seconds), place };
    set(Some(running));
    CAP.store(IN_USE.load(Ordering::Relaxed).saturating_add(limits.bytes), Ordering::Relaxed);
    let result = std::panic::catch_unwind(|| target(input));
    CAP.store(usize::MAX, Ordering::Relaxed);
    set(None);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

fn set(running: Option<Running>) {
    *RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = running;
}
