//! Threads and the partition of work. A kernel is a number of tasks; threads take the next one until none is left, so a
//! slow core delays by one task only. Which thread runs a task never changes a number: no task reads what another writes.
//!
//! A training step starts some thousands of kernels of 20 microseconds and more, so a start must cost little: workers
//! spin for a moment before they sleep, the caller works too, and it waits only for workers that did begin.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Pauses (of roughly 40 ns) before a worker without work goes to sleep.
const SPINS_BEFORE_SLEEP: usize = 1000;
/// Pauses before a caller that waits for the last workers offers its core to others.
const SPINS_BEFORE_YIELD: usize = 10_000;

/// A fixed set of threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the caller whose tasks are running.
    turn: Mutex<()>,
}

/// The bit of `Shared::state` that says workers may begin; the bits below count the workers that did, the bits above
/// number the job.
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const GENERATION_SHIFT: u32 = 32;

struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The task function of a caller that is still inside [`Pool::run`], and how many tasks there are.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: `job` is written only by the caller that holds `turn`, while no worker is inside and the job is closed; workers
// read it only between entering an open job and leaving it. Everything else is atomic or locked.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` function and is used only while its caller waits.
unsafe impl Send for Shared {}

thread_local! {
    /// True while this thread runs a task: what it starts then runs on this thread alone.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Threads in all, the caller's included; 0 counts as 1.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job { task: &|_| (), tasks: 0 }),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("luthier-cpu-{index}"));
            pool.workers.push(thread.spawn(move || shared.work())?);
        }
        Ok(pool)
    }

    /// Threads that run tasks, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(0)` to `task(tasks - 1)`, each once, in any order and at the same time. Inside a task it runs them one
    /// after the other. A panic in a task leaves this call once every thread has stopped.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() || IN_TASK.get() {
            return (0..tasks).for_each(task);
        }
        let turn = lock(&self.turn);
        let task: &(dyn Fn(usize) + Sync) = &task;
        // SAFETY: only the lifetime is forgotten; this function returns when no worker is inside the job any more.
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let shared = &*self.shared;
        // SAFETY: we hold `turn`, and the previous job was closed and left by all before its caller gave `turn` back.
        unsafe { *shared.job.get() = Job { task, tasks } };
        shared.next.store(0, Ordering::Relaxed);
        let generation = (shared.state.load(Ordering::Relaxed) >> GENERATION_SHIFT).wrapping_add(1);
        shared.state.store(generation << GENERATION_SHIFT | OPEN, Ordering::SeqCst);
        for worker in self.workers.iter().take(tasks - 1) {
            worker.thread().unpark();
        }
        shared.take_tasks(Job { task, tasks });
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0;
        while shared.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Calls `task` on ranges of at most `grain` rows that together are `0..rows`.
    pub(crate) fn run_rows(&self, rows: usize, grain: usize, task: impl Fn(std::ops::Range<usize>) + Sync) {
        self.run(rows.div_ceil(grain), |index| task(index * grain..rows.min((index + 1) * grain)));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its tasks throw, so there is no panic to pass on.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self) {
        let mut last = 0;
        let mut spins = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let state = self.state.load(Ordering::Acquire);
            let generation = state >> GENERATION_SHIFT;
            if state & OPEN == 0 || generation == last {
                spins += 1;
                if spins < SPINS_BEFORE_SLEEP {
                    std::hint::spin_loop();
                } else {
                    // The token of an `unpark` that came after the reading above makes this return at once.
                    std::thread::park();
                    spins = 0;
                }
                continue;
            }
            if self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                // SAFETY: we are counted inside an open job, so its caller waits and does not touch `job`.
                self.take_tasks(unsafe { *self.job.get() });
                self.state.fetch_sub(1, Ordering::AcqRel);
                last = generation;
                spins = 0;
            }
        }
    }

    fn take_tasks(&self, job: Job) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            IN_TASK.set(true);
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= job.tasks {
                    break;
                }
                // SAFETY: the caller of this job waits inside `Pool::run`, where the function lives.
                unsafe { (*job.task)(index) };
            }
        }));
        IN_TASK.set(false);
        if let Err(panic) = outcome {
            self.next.store(job.tasks, Ordering::Relaxed);
            *lock(&self.panic) = Some(panic);
        }
    }
}

/// A panic while holding one of these locks leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Slots of scratch memory that a thread has; the last is the GEMM driver's.
const SLOTS: usize = 8;
/// The slot that [`gemm`](super::gemm) uses.
pub(crate) const GEMM_SLOT: usize = SLOTS - 1;
/// Scratch starts on a page, so that packed panels never share one with anything else.
const SCRATCH_ALIGNMENT: usize = 4096;

thread_local! {
    static SCRATCH: RefCell<[Option<Scratch>; SLOTS]> = const { RefCell::new([const { None }; SLOTS]) };
}

/// Memory whose content is undefined: it is written before it is read, and never zeroed.
struct Scratch {
    address: *mut u8,
    layout: Layout,
}

impl Scratch {
    fn new(bytes: usize) -> Self {
        let Ok(layout) = Layout::from_size_align(bytes.max(1), SCRATCH_ALIGNMENT) else {
            panic!("{bytes} bytes of scratch memory exceed the address space")
        };
        // SAFETY: the layout has at least one byte.
        let address = unsafe { alloc(layout) };
        if address.is_null() {
            handle_alloc_error(layout);
        }
        Self { address, layout }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed once.
        unsafe { dealloc(self.address, self.layout) };
    }
}

/// Lends this thread's scratch memory `slot`, at least `bytes` long, on a page boundary and with undefined content, to
/// `body`. It grows and never shrinks. A second loan of a slot inside `body` is other memory.
pub(crate) fn with_scratch<R>(slot: usize, bytes: usize, body: impl FnOnce(*mut f32) -> R) -> R {
    let taken = SCRATCH.with_borrow_mut(|slots| slots[slot].take());
    let memory = taken.filter(|memory| memory.layout.size() >= bytes).unwrap_or_else(|| Scratch::new(bytes));
    let result = body(memory.address.cast());
    SCRATCH.with_borrow_mut(|slots| slots[slot] = Some(memory));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).expect("threads");
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_small_jobs_neither_hang_nor_lose_tasks() {
        let pool = Pool::new(3).expect("threads");
        let total = AtomicUsize::new(0);
        for round in 0..20_000 {
            pool.run(1 + round % 5, |_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
            if round % 1000 == 0 {
                // Long enough that the workers sleep.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        assert_eq!(total.load(Ordering::Relaxed), 20_000 / 5 * 15);
    }

    #[test]
    fn rows_are_covered_without_overlap() {
        let pool = Pool::new(2).expect("threads");
        let rows: Vec<AtomicUsize> = (0..101).map(|_| AtomicUsize::new(0)).collect();
        pool.run_rows(rows.len(), 8, |range| {
            for row in &rows[range] {
                row.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(rows.iter().all(|row| row.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_works_on() {
        let pool = Pool::new(2).expect("threads");
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(50, |task| assert_ne!(task, 7, "task seven"))));
            assert!(outcome.is_err());
            let total = AtomicUsize::new(0);
            pool.run(50, |task| {
                total.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(total.load(Ordering::Relaxed), 49 * 50 / 2);
        }
    }

    #[test]
    fn a_task_and_another_thread_may_start_tasks() {
        let pool = Pool::new(2).expect("threads");
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, |_| {
                            pool.run(3, |_| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 2 * 100 * 12);
    }

    #[test]
    fn scratch_is_kept_and_grows() {
        let first = with_scratch(0, 100, |address| address as usize);
        assert_eq!(with_scratch(0, 50, |address| address as usize), first);
        assert_eq!(first % SCRATCH_ALIGNMENT, 0);
        with_scratch(0, 1 << 20, |outer| {
            with_scratch(0, 100, |inner| assert_ne!(outer, inner));
        });
    }
}
