//! Memory that is given when it is needed and taken back when it is not: gradients of weights. A tensor over it exists all
//! the time and tells it from all others; its numbers are zero when it comes. It can also be paused: then backward treats
//! the weight as frozen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::{Block, Memory};
use crate::{DType, Device, Tensor};

pub(crate) struct Deferred {
    bytes: usize,
    block: Mutex<Option<Block>>,
    paused: AtomicBool,
}

impl Deferred {
    fn block(&self) -> MutexGuard<'_, Option<Block>> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Panics
    /// When there is no memory now: whoever computes with it has it given first.
    pub(crate) fn address(&self) -> *mut u8 {
        match &*self.block() {
            Some(block) => block.address(),
            None => panic!("a deferred tensor of {} bytes is used without memory", self.bytes),
        }
    }
}

impl Device {
    /// A tensor `[rows, columns]` without memory.
    pub fn deferred(&self, dtype: DType, rows: usize, columns: usize) -> Tensor {
        let bytes = dtype.bytes(columns).saturating_mul(rows);
        let deferred = Deferred { bytes, block: Mutex::new(None), paused: AtomicBool::new(false) };
        Tensor::from_memory(Memory::Deferred(deferred.into()), dtype, rows, columns)
    }

    /// Gives a deferred tensor its memory, all zero, where it has none. Other tensors have theirs.
    pub fn allocate(&self, tensor: &Tensor) {
        let Memory::Deferred(deferred) = tensor.memory() else { return };
        let mut block = deferred.block();
        if block.is_some() {
            return;
        }
        let fresh = self.arena().allocate(deferred.bytes);
        let is_zero = fresh.is_zero();
        *block = Some(fresh);
        drop(block);
        if !is_zero {
            self.fill_zero(tensor);
        }
    }

    /// Takes a deferred tensor's memory back.
    pub fn release(&self, tensor: &Tensor) {
        if let Memory::Deferred(deferred) = tensor.memory() {
            *deferred.block() = None;
        }
    }
}

impl Tensor {
    /// Whether it has memory now.
    pub fn is_allocated(&self) -> bool {
        match self.memory() {
            Memory::Deferred(deferred) => deferred.block().is_some(),
            Memory::Owned(_) | Memory::Shared(_) => true,
        }
    }

    /// Whether backward leaves it out. Only a deferred tensor can be.
    pub fn is_paused(&self) -> bool {
        matches!(self.memory(), Memory::Deferred(deferred) if deferred.paused.load(Ordering::Relaxed))
    }

    /// Makes backward leave it out, or not, from the next forward pass on.
    pub fn set_paused(&self, paused: bool) {
        if let Memory::Deferred(deferred) = self.memory() {
            deferred.paused.store(paused, Ordering::Relaxed);
        }
    }
}
