//! What a template may take, beside the fuel, the recursion and the output that the engine limits itself: chains of operators
//! in its source, and the depth of what it builds, which both become recursion of the engine.
//!
//! Templates are compiled and rendered on threads of their own, whose stacks hold the deepest that the limits allow. What a
//! template does with text that it nests in lists (twice in each of forty lists, then written) has no bound but time; so each
//! rendering is counted while it runs, and a program that wants one looks at [`rendering`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The most signs (operators, brackets, dots) of one tag: real templates have some hundred.
const MOST_SIGNS: usize = 4000;
/// Numbers that the engine computes with.
const MOST_DIGITS: usize = 18;
/// Address space; only what is touched is memory. A nested list takes a hundred bytes a level, and the fuel is the number of
/// levels that can be built.
const STACK_BYTES: usize = 512 << 20;

/// Checks a template's source. Errors: a tag with more signs than any that is meant well, as the rest of a sentence.
pub(crate) fn check_source(source: &str) -> Result<(), String> {
    let bytes = source.as_bytes();
    let mut at = 0;
    while let Some(found) = source.get(at..).and_then(|rest| rest.find(['{'])) {
        let begin = at + found;
        at = begin + 1;
        let end: &[u8] = match bytes.get(at) {
            Some(b'{') => b"}}",
            Some(b'%') => b"%}",
            Some(b'#') => {
                at = source[begin..].find("#}").map_or(source.len(), |end| begin + end + 2);
                continue;
            }
            _ => continue,
        };
        at += 1;
        let (mut signs, mut digits, mut quote) = (0_usize, 0_usize, None);
        while at < bytes.len() {
            digits = if quote.is_none() && bytes[at].is_ascii_digit() { digits + 1 } else { 0 };
            if digits > MOST_DIGITS {
                let line = source[..begin].matches('\n').count() + 1;
                return Err(format!("has a number of more than {MOST_DIGITS} digits (line {line})"));
            }
            match (quote, bytes[at]) {
                (Some(_), b'\\') => at += 1,
                (Some(open), byte) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
                (None, _) if bytes[at..].starts_with(end) => break,
                (None, byte) if byte.is_ascii_punctuation() && byte != b'_' => signs += 1,
                // `not not not`
                (None, b' ') if bytes[..at].ends_with(b"not") => signs += 1,
                (None, _) => {}
            }
            at += 1;
        }
        if signs > MOST_SIGNS {
            let line = source[..begin].matches('\n').count() + 1;
            return Err(format!("has {signs} signs in one tag (line {line}); the most is {MOST_SIGNS}"));
        }
        while at < bytes.len() && !source.is_char_boundary(at) {
            at += 1;
        }
    }
    Ok(())
}

/// Runs something on a thread of its own with a large stack. A pool of such threads would not do: whoever waits for one as a
/// worker of another pool begins other work meanwhile, one conversation inside another, until its own stack is full.
pub(crate) fn confined<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    // It is taken by the thread that begins; without one (no address space for the stack) it is still there.
    let work = Mutex::new(Some(run));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let done = std::thread::scope(|scope| {
        let begun = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || take().map(|run| run()));
        begun.ok().map(std::thread::ScopedJoinHandle::join)
    });
    match done {
        Some(Ok(Some(value))) => value,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        _ => match take() {
            Some(run) => run(),
            None => unreachable!("what was taken was run"),
        },
    }
}

static RUNNING: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The number of the rendering that has been running for the longest time, where one is running. Numbers are never given
/// twice, so that two looks at different times tell whether it is the same one.
pub fn rendering() -> Option<u64> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
}

/// Counts a rendering as long as it lives.
pub(crate) struct Counted(u64);

impl Counted {
    pub(crate) fn begin() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signs_of_one_tag_count() {
        let tag = |signs: usize| format!("text {{{{ x{} }}}}\n", ".a".repeat(signs));
        assert_eq!(check_source(&tag(3000).repeat(5)), Ok(()));
        assert_eq!(
            check_source(&(tag(3) + &tag(5000))),
            Err("has 5000 signs in one tag (line 2); the most is 4000".to_owned())
        );
        let text =
            format!("{{{{ '{}' }}}}{{% if x %}}{}{{# {} #}}", "\\'.-".repeat(5000), "-".repeat(9000), "-".repeat(9000));
        assert_eq!(check_source(&text), Ok(()));
        assert_eq!(check_source("{{ 'é' }} {"), Ok(()));
        assert!(check_source(&format!("{{# {{{{ ' #}}{{{{ {} }}}}", "-".repeat(5000))).is_err());
        assert!(check_source(&format!("{{{{ {}1 }}}}", "not ".repeat(5000))).is_err());
        assert!(check_source(&format!("{{{{ {}", "-".repeat(5000))).is_err());
        assert_eq!(
            check_source("{{ x[::-9223372036854775808] }}"),
            Err("has a number of more than 18 digits (line 1)".to_owned())
        );
    }
}
