//! Several adapters of one model at once: all of them in memory, any of them in use. Low-rank ones that are in use together
//! add up, each by its weight: W + sum of weight * scale * B A. That is the exact sum, as PEFT's `add_weighted_adapter` makes it
//! with `cat`. Of prefixes, prompts and bottleneck adapters one can be in use at a time.

use std::sync::Arc;

use super::Adapter;
use crate::error::Error;

/// An adapter, and how much it counts.
#[derive(Clone, Copy, Debug)]
pub struct Loaded<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// Factor of what it adds; 1 where it is used as it was trained.
    pub weight: f32,
}

impl<'a> Loaded<'a> {
    /// As it was trained.
    pub fn new(adapter: &'a Adapter) -> Self {
        Self { adapter, weight: 1.0 }
    }
}

/// Which of the loaded adapters are in use, by their place in the list; `None`: all.
pub type Chosen = Option<Arc<[u32]>>;

/// Whether an adapter is in use.
pub(crate) fn is_chosen(chosen: &Chosen, number: u32) -> bool {
    chosen.as_ref().is_none_or(|chosen| chosen.contains(&number))
}

/// Whether adapters that are loaded as `all` can be in use together.
///
/// # Errors
/// A sentence with the names of two that cannot.
pub fn check_together(all: &[Loaded<'_>], chosen: &Chosen) -> Result<(), Error> {
    let used = all.iter().enumerate().filter(|(number, _)| is_chosen(chosen, *number as u32));
    let mut alone = used.clone().filter(|(_, loaded)| loaded.adapter.stands_beside().is_some());
    let refused = |reason: String| Err(Error::Adapter { file: "the adapters".to_owned(), reason });
    if let (Some((_, one)), Some((_, other))) = (alone.next(), alone.next()) {
        let (one, other) = (one.adapter.description(), other.adapter.description());
        return refused(format!("{one} and {other} cannot be in use together; choose one of them"));
    }
    if let Some((_, loaded)) = used.clone().find(|(_, one)| one.weight != 1.0 && one.adapter.stands_beside().is_some())
    {
        let what = loaded.adapter.description();
        return refused(format!("{what} has no weight: only low-rank adapters are added with weights"));
    }
    Ok(())
}
