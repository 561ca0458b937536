//! A device: where tensors live and operations run. `cpu` computes; `meta` knows shapes only and counts, by the code that
//! will run, every allocation of the real run. An operation asks its device for outputs and then hands it the work, so
//! the two cannot differ in what they allocate. Nothing here reads a clock or an environment variable: time is taken by
//! an [`Observer`] that the caller brings.

use std::sync::Arc;

use crate::cpu::{Cpu, Isa};
use crate::memory::{Arena, Memory, OutOfMemory, Usage};
use crate::{DType, HeadLayout, Precision, Tensor};

/// Sees every operation begin and end. The caller brings one that has a clock.
pub trait Observer: Send + Sync {
    /// The operation of this name begins.
    fn begin(&self, operation: &'static str);
    /// It has ended.
    fn end(&self, operation: &'static str);
}

/// How a processor is used.
#[derive(Clone, Copy, Debug)]
pub struct CpuOptions {
    /// Threads that compute.
    pub threads: usize,
    /// The instructions they use.
    pub isa: Isa,
    /// The most memory that tensors may take; only what is used becomes real.
    pub memory_bytes: usize,
    /// Fill fresh memory with NaN: for tests.
    pub poison: bool,
}

/// Why a device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The operating system refused the address space.
    #[error("{bytes} bytes of address space for tensors were refused: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operating system refused a thread.
    #[error("{threads} threads could not be started: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

struct Inner {
    cpu: Option<Cpu>,
    threads: usize,
    arena: Arc<Arena>,
    observer: Option<Box<dyn Observer>>,
}

/// A device. A clone is a second handle.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

impl Device {
    /// The processor.
    ///
    /// # Errors
    /// When the system refuses the address space or the threads.
    pub fn cpu(options: CpuOptions, observer: Option<Box<dyn Observer>>) -> Result<Self, DeviceError> {
        let bytes = options.memory_bytes;
        let arena = Arena::reserve(bytes, options.poison).map_err(|source| DeviceError::Memory { bytes, source })?;
        let threads = options.threads.max(1);
        let cpu = Cpu::new(options.isa, threads)
            .map_err(|source| DeviceError::Threads { threads, reason: source.to_string() })?;
        Ok(Self(Arc::new(Inner { cpu: Some(cpu), threads, arena, observer })))
    }

    /// Shapes only.
    pub fn meta() -> Self {
        Self(Arc::new(Inner { cpu: None, threads: 0, arena: Arena::counting(), observer: None }))
    }

    /// Whether values can be read from its tensors.
    pub fn has_data(&self) -> bool {
        self.0.cpu.is_some()
    }

    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.0.arena
    }

    /// What its tensors take.
    pub fn usage(&self) -> Usage {
        self.0.arena.usage()
    }

    /// Asks `guard` whether the system has so many bytes more before the tensors of an [`attempt`](Self::attempt) take them.
    pub fn guard_memory(&self, guard: impl Fn(usize) -> bool + Send + Sync + 'static) {
        self.0.arena.set_guard(Box::new(guard));
    }

    /// Does `work`, which may run out of memory: then everything that it had allocated is free again, and what it had
    /// written into older tensors is half done.
    ///
    /// # Errors
    /// [`OutOfMemory`]. Outside of an attempt a lack of memory ends the program.
    pub fn attempt<R>(&self, work: impl FnOnce() -> R) -> Result<R, OutOfMemory> {
        let before = self.0.arena.set_attempting(true);
        // The caller is told what is half done; nothing else is shared with the work.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        self.0.arena.set_attempting(before);
        result.map_err(|thrown| match thrown.downcast_ref::<OutOfMemory>() {
            Some(lack) => *lack,
            None => std::panic::resume_unwind(thrown),
        })
    }

    /// Starts a new count of allocations and a new peak.
    pub fn reset_usage(&self) {
        self.0.arena.reset_usage();
    }

    /// A tensor `[rows, columns]` whose content is undefined.
    pub fn empty(&self, dtype: DType, rows: usize, columns: usize) -> Tensor {
        let block = self.0.arena.allocate(dtype.bytes(columns).saturating_mul(rows));
        Tensor::from_memory(Memory::Owned(Arc::new(block)), dtype, rows, columns)
    }

    /// A tensor of zeros.
    pub fn zeros(&self, dtype: DType, rows: usize, columns: usize) -> Tensor {
        let block = self.0.arena.allocate(dtype.bytes(columns).saturating_mul(rows));
        let is_zero = block.is_zero();
        let tensor = Tensor::from_memory(Memory::Owned(Arc::new(block)), dtype, rows, columns);
        if !is_zero {
            self.fill_zero(&tensor);
        }
        tensor
    }

    /// Sets every number to zero.
    pub fn fill_zero(&self, tensor: &Tensor) {
        self.run("fill", |cpu| cpu.fill_zero(tensor));
    }

    /// Sets every number of a u8 tensor.
    ///
    /// # Panics
    /// When it stores something else.
    pub fn fill_byte(&self, tensor: &Tensor, byte: u8) {
        assert_eq!(tensor.dtype(), DType::U8, "a byte for {tensor:?}");
        self.run("fill", |cpu| cpu.fill_byte(tensor, byte));
    }

    /// An f32 tensor of these numbers, row by row.
    ///
    /// # Panics
    /// When their count is not `rows * columns`.
    pub fn upload(&self, values: &[f32], rows: usize, columns: usize) -> Tensor {
        assert_eq!(values.len(), rows * columns, "values for a tensor of {rows} x {columns}");
        let tensor = self.empty(DType::F32, rows, columns);
        self.run("upload", |cpu| cpu.write(&tensor, bytes_of_f32(values)));
        tensor
    }

    /// A u32 tensor `[1, values.len()]`.
    pub fn upload_ids(&self, values: &[u32]) -> Tensor {
        let tensor = self.empty(DType::U32, 1, values.len());
        self.run("upload", |cpu| cpu.write(&tensor, bytes_of_u32(values)));
        tensor
    }

    /// Overwrites an f32 `target` with these numbers.
    ///
    /// # Panics
    /// When their count differs.
    pub fn write_f32(&self, target: &Tensor, values: &[f32]) {
        assert_eq!(target.dtype(), DType::F32, "numbers for {target:?}");
        self.write_bytes(target, bytes_of_f32(values));
    }

    /// As [`write_f32`](Self::write_f32), for a target in f32, bf16 or f16: rounded to the nearest.
    ///
    /// # Panics
    /// When their count differs.
    pub fn write_numbers(&self, target: &Tensor, values: &[f32]) {
        let bytes: Vec<u8> = match target.dtype() {
            DType::Bf16 => values.iter().flat_map(|&value| crate::bf16_bits(value).to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&value| crate::f16_bits(value).to_le_bytes()).collect(),
            _ => return self.write_f32(target, values),
        };
        self.write_bytes(target, &bytes);
    }

    /// Overwrites `target`, which is `F32`, `Bf16` or `F16`, with the numbers of `source`, of one shape in any storage type.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn copy(&self, source: &Tensor, target: &Tensor) {
        assert_eq!((source.rows(), source.columns()), (target.rows(), target.columns()), "{source:?} to {target:?}");
        self.run("copy", |cpu| cpu.convert(source, target));
    }

    /// Copies the key and value heads of `heads` `[tokens, layout.columns()]` to the rows from `first_row` on of a cache's
    /// `keys` and `values`, each `[capacity, key_value_heads * head_dim]` of the same storage type.
    pub fn store_keys(&self, heads: &Tensor, layout: &HeadLayout, keys: &Tensor, values: &Tensor, first_row: usize) {
        self.run("cache", |cpu| cpu.store_keys(heads, layout, keys, values, first_row));
    }

    /// Overwrites `target` with numbers in its storage type, given as bytes.
    ///
    /// # Panics
    /// When their count differs.
    pub fn write_bytes(&self, target: &Tensor, bytes: &[u8]) {
        assert_eq!(bytes.len(), target.bytes(), "bytes for {target:?}");
        self.run("upload", |cpu| cpu.write(target, bytes));
    }

    /// The numbers of `tensor` as f32, whatever their storage; zeros on the device without data.
    pub fn download(&self, tensor: &Tensor) -> Vec<f32> {
        let mut values = vec![0.0; tensor.len()];
        self.run("download", |cpu| cpu.read(tensor, &mut values));
        values
    }

    /// Finite numbers as blocks of `dtype`, one of [`DType::BLOCKS`], made by all threads; zeros on the device without data.
    ///
    /// # Panics
    /// When the blocks are not whole.
    pub fn encode(&self, values: &[f32], dtype: DType) -> Vec<u8> {
        let mut bytes = vec![0; dtype.bytes(values.len())];
        self.run("encode", |cpu| cpu.encode(dtype, values, &mut bytes));
        bytes
    }

    /// The numbers of a u32 `tensor`; zeros on the device without data.
    ///
    /// # Panics
    /// When it stores something else.
    pub fn download_ids(&self, tensor: &Tensor) -> Vec<u32> {
        assert_eq!(tensor.dtype(), DType::U32, "ids in {tensor:?}");
        let mut ids = vec![0; tensor.len()];
        self.run("download", |cpu| cpu.read_ids(tensor, &mut ids));
        ids
    }

    /// The numbers of `tensor` in its storage type, as bytes; zeros on the device without data.
    pub fn download_bytes(&self, tensor: &Tensor) -> Vec<u8> {
        let mut bytes = vec![0; tensor.bytes()];
        self.run("download", |cpu| cpu.read_bytes(tensor, &mut bytes));
        bytes
    }

    /// A copy in `dtype`, which is `F32`, `Bf16` or `F16`.
    pub fn convert(&self, tensor: &Tensor, dtype: DType) -> Tensor {
        let out = self.empty(dtype, tensor.rows(), tensor.columns());
        self.run("convert", |cpu| cpu.convert(tensor, &out));
        out
    }

    /// Bytes that kernels take besides tensors, at most; 0 on the device without data.
    pub fn scratch_bytes(&self, precision: Precision, layout: &HeadLayout) -> usize {
        self.0.cpu.as_ref().map_or(0, |cpu| cpu.scratch_bytes(precision.compute(), self.0.threads, layout))
    }

    /// Runs `rounds` rounds of the multiply-add instruction of a precision on registers alone, on every thread, and
    /// returns how many multiply-adds that were; 0 on the device without data. Timed, it gives the processor's peak.
    pub fn peak_loop(&self, precision: Precision, rounds: u64) -> u64 {
        self.0.cpu.as_ref().map_or(0, |cpu| cpu.peak_loop(precision.compute(), self.0.threads, rounds))
    }

    /// Runs `work` where there is data, between the observer's two calls.
    pub(crate) fn run(&self, operation: &'static str, work: impl FnOnce(&Cpu)) {
        let Some(cpu) = &self.0.cpu else { return };
        if let Some(observer) = &self.0.observer {
            observer.begin(operation);
            work(cpu);
            observer.end(operation);
        } else {
            work(cpu);
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.has_data() { "Device(cpu)" } else { "Device(meta)" })
    }
}

fn bytes_of_f32(values: &[f32]) -> &[u8] {
    crate::cpu::bytes_of(values)
}

fn bytes_of_u32(values: &[u32]) -> &[u8] {
    crate::cpu::bytes_of(values)
}
