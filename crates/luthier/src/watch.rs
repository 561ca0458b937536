//! A watch over chat templates while they are rendered. The engine's fuel bounds what a template does, except with text that it
//! nests in lists: written, that may take hours and all memory. Then the program ends and says so, since such a template is
//! either broken or means harm.

use std::sync::Once;
use std::time::{Duration, Instant};

use crate::eprint_line;
use crate::wording::size;

const LONGEST: Duration = Duration::from_secs(20);
const MOST_BYTES: u64 = 2 << 30;

/// Starts the watch, once.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            let mut seen: Option<(u64, Instant, u64)> = None;
            loop {
                std::thread::sleep(Duration::from_millis(50));
                let running = luthier_data::rendering();
                seen = match (running, seen) {
                    (Some(number), Some(seen)) if seen.0 == number => Some(seen),
                    (Some(number), _) => Some((number, Instant::now(), resident_bytes())),
                    (None, _) => None,
                };
                let Some((_, began, before)) = seen else { continue };
                let grown = resident_bytes().saturating_sub(before);
                let problem = match () {
                    () if began.elapsed() > LONGEST => format!("did not end after {} seconds", LONGEST.as_secs()),
                    () if grown > MOST_BYTES => format!("took more than {} of memory", size(MOST_BYTES)),
                    () => continue,
                };
                eprint_line(&format!(
                    "error: the chat template {problem} for one conversation; use another one with `template`"
                ));
                std::process::exit(1);
            }
        });
    });
}

/// What this process has in memory; 0 where the system does not say.
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0) * PAGE
}
