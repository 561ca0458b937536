//! Fuzzing of everything that reads a file of a stranger: records, templates, tokenizers, weights. No input may make it
//! panic, take memory or time without end.
//!
//! A target is a function of bytes in [`targets`], so that cargo-fuzz or any other driver can call it too
//! (`fuzz_target!(|data: &[u8]| luthier_fuzz::targets::template(data))`). The driver here needs no nightly compiler: it
//! mutates seeds with a counted random number (input N of a target is the same on every machine), knows nothing of coverage,
//! and holds each input to a limit of time and memory. `cargo run --release -p luthier-fuzz -- TARGET --seconds 120` runs one; the tests run each
//! for some hundred inputs, and all of `regressions/`, where the inputs are kept that once broke something.

pub mod guard;
pub mod mutate;
mod seeds;
pub mod targets;

/// Something that reads bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is called with each input.
    pub run: fn(&[u8]),
    /// Inputs that are well, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The memory that an input may take, in bytes.
    pub most_bytes: usize,
}

/// What most inputs may take.
const USUAL: usize = 512 << 20;
/// Records: any file may hold half a gigabyte of them, which are kept.
const RECORDS: usize = 2 << 30;

/// All of them. A new one is a line here.
pub const TARGETS: [Target; 8] = [
    Target { name: "records", run: targets::records, seeds: seeds::records, most_bytes: RECORDS },
    Target { name: "dataset_info", run: targets::dataset_info, seeds: seeds::dataset_info, most_bytes: USUAL },
    Target { name: "template", run: targets::template, seeds: seeds::template, most_bytes: USUAL },
    Target { name: "tokenizer_json", run: targets::tokenizer_json, seeds: seeds::tokenizer_json, most_bytes: USUAL },
    Target { name: "tokenizer_model", run: targets::tokenizer_model, seeds: seeds::tokenizer_model, most_bytes: USUAL },
    Target { name: "tiktoken", run: targets::tiktoken, seeds: seeds::tiktoken, most_bytes: USUAL },
    Target { name: "gguf", run: targets::gguf, seeds: seeds::gguf, most_bytes: USUAL },
    Target { name: "safetensors", run: targets::safetensors, seeds: seeds::safetensors, most_bytes: USUAL },
];
