//! `luthier env`: what a report of a problem needs to say about the machine, and nothing that is secret.

use std::sync::OnceLock;

use luthier_tensor::Isa;

use crate::machine::{Processor, available_bytes, processor_name, system_name, total_bytes};
use crate::{CPU_VARIABLE, Environment, hub, print_text};

/// The version, and the commit that it was built from where the build was told (`LUTHIER_COMMIT`).
pub(crate) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| match option_env!("LUTHIER_COMMIT").filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    })
}

pub(crate) fn run(environment: &Environment) -> anyhow::Result<()> {
    let processor = Processor::choose(None, environment)?;
    let unknown = || "unknown".to_owned();
    let gigabytes = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| format!("{:.1} GB", bytes as f64 / 1e9));
    let yes_or_no = |is: bool| if is { "yes" } else { "no" };
    let sets: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let reason = match environment.cpu {
        Some(_) => format!("{CPU_VARIABLE} says so"),
        None => "the best of them".to_owned(),
    };
    let bf16 = if processor.isa.bf16_multiplies() { "multiplied as it is" } else { "multiplied as fp32" };
    let folder = std::env::current_dir().ok();
    let hub = &environment.hub;
    let rows = [
        ("version", version().to_owned()),
        ("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        ("build", if cfg!(debug_assertions) { "debug: much slower than release" } else { "release" }.to_owned()),
        ("system", system_name()),
        ("processor", processor_name().unwrap_or_else(unknown)),
        ("threads", format!("{} (one for each core that the process may use)", processor.threads)),
        ("instruction sets", sets.join(", ")),
        ("used", format!("{}, {reason}; bf16 is {bf16}", processor.isa.name())),
        ("memory", format!("{}, {} free", gigabytes(total_bytes()), gigabytes(available_bytes()))),
        (
            "disk",
            match &folder {
                Some(folder) => {
                    format!("{} free for {}", gigabytes(luthier_files::free_bytes(folder)), folder.display())
                }
                None => unknown(),
            },
        ),
        ("models from", hub.endpoint.clone().unwrap_or_else(|| hub::ENDPOINT.to_owned())),
        ("models kept in", hub.cache.as_ref().map_or_else(unknown, |cache| cache.display().to_string())),
        ("token", yes_or_no(hub.any_token().is_some()).to_owned()),
        ("offline", yes_or_no(hub.offline).to_owned()),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let text: String = rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
    print_text(&text);
    Ok(())
}
