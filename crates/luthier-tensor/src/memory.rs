//! Memory of tensors. A device owns one arena: a range of addresses from which every engine allocation is cut, first fit
//! from the low end. The bookkeeping needs no memory behind the addresses, so the device without data runs the very same
//! code, and its peak is the peak of the real run, fragmentation included. Freed memory is used again before new pages
//! are touched: in the steady state of training the operating system is never asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use memmap2::{MmapMut, MmapOptions};

use crate::deferred::Deferred;
use crate::tensor::SharedBytes;

/// Every allocation starts on a multiple of this, wider than any vector.
const ALIGNMENT: usize = 256;

/// What an arena has handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use now.
    pub live_bytes: usize,
    /// The highest address ever in use, from the arena's start: the memory that the process really holds for tensors.
    pub peak_bytes: usize,
    /// Allocations since the device was made or since [`reset`](crate::Device::reset_usage).
    pub allocations: usize,
}

/// A device could not give memory within [`Device::attempt`](crate::Device::attempt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// What was asked for.
    pub bytes: usize,
    /// What all tensors would have taken.
    pub needed_bytes: usize,
}

/// Whether the system has memory for so many bytes more.
pub(crate) type Guard = Box<dyn Fn(usize) -> bool + Send + Sync>;

/// Growth of the arena that is worth asking the guard about; it is asked for so much at least.
const GUARDED_STEP: usize = 64 << 20;

/// Addresses in use and free.
#[derive(Debug, Default)]
struct Book {
    /// Free ranges below `end`, start to length; neighbours are always merged.
    free: BTreeMap<usize, usize>,
    /// Everything from here on has never been used, or is free again.
    end: usize,
    /// Everything from here on has never been used: its pages are zero.
    untouched: usize,
    /// Up to here the guard has said yes.
    granted: usize,
    usage: Usage,
}

impl Book {
    fn take(&mut self, bytes: usize) -> usize {
        self.usage.allocations += 1;
        self.usage.live_bytes += bytes;
        let hole = self.free.iter().find(|&(_, &length)| length >= bytes).map(|(&start, &length)| (start, length));
        if let Some((start, length)) = hole {
            self.free.remove(&start);
            if length > bytes {
                self.free.insert(start + bytes, length - bytes);
            }
            return start;
        }
        let start = self.end;
        self.end += bytes;
        self.untouched = self.untouched.max(self.end);
        self.usage.peak_bytes = self.usage.peak_bytes.max(self.end);
        start
    }

    fn give_back(&mut self, start: usize, bytes: usize) {
        self.usage.live_bytes -= bytes;
        let (mut start, mut bytes) = (start, bytes);
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.free.remove(&before);
            (start, bytes) = (before, bytes + length);
        }
        if let Some(length) = self.free.remove(&(start + bytes)) {
            bytes += length;
        }
        if start + bytes == self.end {
            self.end = start;
        } else {
            self.free.insert(start, bytes);
        }
    }
}

/// The memory of one device.
pub(crate) struct Arena {
    book: Mutex<Book>,
    base: *mut u8,
    capacity: usize,
    poison: bool,
    /// Whether somebody catches what [`Arena::allocate`] throws.
    attempting: AtomicBool,
    guard: OnceLock<Guard>,
    /// Keeps the addresses from `base` on mapped; `None` on the device without data.
    _pages: Option<MmapMut>,
}

// SAFETY: the pages are plain bytes without thread affinity; a kernel's partition decides which thread writes which part.
unsafe impl Send for Arena {}
// SAFETY: as above; the bookkeeping is behind a mutex.
unsafe impl Sync for Arena {}

impl Arena {
    /// `capacity` bytes of address space; pages become memory when first written. With `poison` every allocation starts
    /// as NaN, so that a test sees what is read before it is written.
    pub(crate) fn reserve(capacity: usize, poison: bool) -> std::io::Result<Arc<Self>> {
        let mut pages = MmapOptions::new().len(capacity.max(ALIGNMENT)).no_reserve_swap().map_anon()?;
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // a kernel without huge pages refuses, and nothing is lost
        let base = pages.as_mut_ptr();
        Ok(Arc::new(Self {
            book: Mutex::default(),
            base,
            capacity,
            poison,
            attempting: AtomicBool::new(false),
            guard: OnceLock::new(),
            _pages: Some(pages),
        }))
    }

    /// An arena that counts and has no memory.
    pub(crate) fn counting() -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::default(),
            base: std::ptr::null_mut(),
            capacity: usize::MAX / 2,
            poison: false,
            attempting: AtomicBool::new(false),
            guard: OnceLock::new(),
            _pages: None,
        })
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `guard` before the arena takes more of the system's memory; only the first guard counts.
    pub(crate) fn set_guard(&self, guard: Guard) {
        drop(self.guard.set(guard));
    }

    /// From now on a lack of memory is thrown as [`OutOfMemory`] instead of ending the program; returns what was before.
    pub(crate) fn set_attempting(&self, attempting: bool) -> bool {
        self.attempting.swap(attempting, Ordering::Relaxed)
    }

    /// # Panics
    /// When the address space that the device was given is used up: the caller compared the plan with it before. Within an
    /// attempt it throws [`OutOfMemory`] instead, then too when the guard says that the system has no more.
    pub(crate) fn allocate(self: &Arc<Self>, bytes: usize) -> Block {
        assert!(bytes <= self.capacity, "the device's memory of {} bytes is used up", self.capacity);
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut book = self.book();
        let (untouched, peak) = (book.untouched, book.usage.peak_bytes);
        let offset = book.take(bytes);
        let end = book.end;
        let attempting = self.attempting.load(Ordering::Relaxed);
        let fits = end <= self.capacity && (!attempting || self.is_granted(&mut book));
        if !fits {
            book.give_back(offset, bytes);
            // What was not given was never used.
            book.usage.peak_bytes = peak;
            book.untouched = untouched;
            drop(book);
            assert!(attempting, "the device's memory of {} bytes is used up", self.capacity);
            std::panic::resume_unwind(Box::new(OutOfMemory { bytes, needed_bytes: end }));
        }
        drop(book);
        let is_zero = offset >= untouched && !self.poison;
        let block = Block { arena: Arc::clone(self), offset, bytes, is_zero };
        if self.poison {
            // SAFETY: the block was just handed out to nobody else and lies within the mapped pages.
            unsafe { block.address().write_bytes(0xff, bytes) };
        }
        block
    }

    fn is_granted(&self, book: &mut Book) -> bool {
        let Some(guard) = self.guard.get() else { return true };
        if book.end <= book.granted {
            return true;
        }
        let more = (book.end - book.granted).max(GUARDED_STEP);
        let granted = guard(more);
        if granted {
            book.granted += more;
        }
        granted
    }

    pub(crate) fn usage(&self) -> Usage {
        self.book().usage
    }

    /// Starts a new count of allocations and a new peak at what is in use now.
    pub(crate) fn reset_usage(&self) {
        let mut book = self.book();
        book.usage.allocations = 0;
        book.usage.peak_bytes = book.end;
    }
}

/// One allocation; dropping it gives the addresses back.
pub(crate) struct Block {
    arena: Arc<Arena>,
    offset: usize,
    bytes: usize,
    /// Nothing was ever written to these pages, so they still hold the zeros that the system gave.
    is_zero: bool,
}

impl Block {
    pub(crate) fn is_zero(&self) -> bool {
        self.is_zero
    }

    pub(crate) fn address(&self) -> *mut u8 {
        self.arena.base.wrapping_add(self.offset)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.book().give_back(self.offset, self.bytes);
    }
}

/// Where a tensor's bytes are.
#[derive(Clone)]
pub(crate) enum Memory {
    /// In a device's arena.
    Owned(Arc<Block>),
    /// In a device's arena, now and then.
    Deferred(Arc<Deferred>),
    /// Somebody else's bytes, read only.
    Shared(SharedBytes),
}

impl Memory {
    pub(crate) fn address(&self) -> *const u8 {
        match self {
            Self::Owned(block) => block.address(),
            Self::Deferred(deferred) => deferred.address(),
            Self::Shared(bytes) => (**bytes).as_ref().as_ptr(),
        }
    }

    pub(crate) fn is_writable(&self) -> bool {
        matches!(self, Self::Owned(_) | Self::Deferred(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_ranges_merge_and_are_used_again() {
        let arena = Arena::counting();
        let blocks: Vec<_> = (0..4).map(|_| arena.allocate(256)).collect();
        let [first, second, third, fourth] = <[Block; 4]>::try_from(blocks).ok().unwrap();
        drop(second);
        drop(third);
        let merged = arena.allocate(512);
        assert_eq!(merged.offset, 256);
        drop((first, merged, fourth));
        assert_eq!(arena.usage(), Usage { live_bytes: 0, peak_bytes: 1024, allocations: 5 });
        assert_eq!(arena.book().end, 0);
        assert!(arena.book().free.is_empty());
    }

    #[test]
    fn a_guard_is_asked_in_large_steps_and_only_within_attempts() {
        static ASKED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let arena = Arena::counting();
        arena.set_guard(Box::new(|bytes| {
            ASKED.lock().unwrap().push(bytes);
            ASKED.lock().unwrap().len() < 3
        }));
        drop(arena.allocate(1 << 30));
        assert!(ASKED.lock().unwrap().is_empty());
        arena.set_attempting(true);
        let blocks: Vec<_> = (0..4).map(|_| arena.allocate(GUARDED_STEP / 4)).collect();
        let larger = arena.allocate(2 * GUARDED_STEP);
        assert_eq!(*ASKED.lock().unwrap(), [GUARDED_STEP, 2 * GUARDED_STEP]);
        let before = arena.usage();
        let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(arena.allocate(256)))).unwrap_err();
        let expected = OutOfMemory { bytes: 256, needed_bytes: 3 * GUARDED_STEP + 256 };
        assert_eq!(thrown.downcast_ref(), Some(&expected));
        assert_eq!(arena.usage(), Usage { allocations: before.allocations + 1, ..before });
        drop((blocks, larger));
        assert!(!arena.book().free.is_empty() || arena.book().end == 0);
    }

    #[test]
    fn poisoned_memory_is_nan() {
        let arena = Arena::reserve(1 << 20, true).unwrap();
        let block = arena.allocate(4);
        // SAFETY: the block has at least four bytes, all written by the poison.
        assert!(unsafe { block.address().cast::<f32>().read() }.is_nan());
    }
}
