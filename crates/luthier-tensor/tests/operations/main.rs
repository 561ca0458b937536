//! The operations as models use them, through the public interface.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

mod adapters;
mod arrange;
mod common;
mod finality;
mod gradients;
mod head;
mod input_maps;
mod invariance;
