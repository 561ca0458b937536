//! Dataset records, chat templates, tokenising and packing.
