//! What the machine is and what the process takes of it, as the operating system tells.

use anyhow::Context;
use luthier_tensor::{CpuOptions, Device, Isa, Observer, Precision};

use crate::Environment;
use crate::config;

/// Bytes of memory, as Linux tells them; `None` elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// The most that the process has held.
    pub(crate) peak_bytes: u64,
    /// What it holds now that no file backs.
    pub(crate) anonymous_bytes: u64,
    /// What it holds now of files.
    pub(crate) file_bytes: u64,
}

impl ProcessMemory {
    pub(crate) fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| kibibytes(&status, name);
        Some(Self { peak_bytes: field("VmHWM:")?, anonymous_bytes: field("RssAnon:")?, file_bytes: field("RssFile:")? })
    }
}

/// Memory that a new program could have, in bytes; `None` where the system does not tell. In a container it is what the
/// container may still take.
pub(crate) fn available_bytes() -> Option<u64> {
    let machine = kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // What the container holds of files can be given back, as the machine's own figure counts it.
    let files = || {
        let stat = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("file ")?.trim().parse::<u64>().ok())
    };
    let left = number("/sys/fs/cgroup/memory.max").and_then(|limit| {
        let used = number("/sys/fs/cgroup/memory.current")?.saturating_sub(files()?);
        Some(limit.saturating_sub(used))
    });
    Some(left.map_or(machine, |left| left.min(machine)))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Memory that a run leaves to the system when it takes more.
const LEFT_FOR_OTHERS: u64 = 256 << 20;

/// The processor as a run uses it.
pub(crate) struct Processor {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
}

impl Processor {
    pub(crate) fn choose(threads: Option<usize>, environment: &Environment) -> anyhow::Result<Self> {
        let isa = match &environment.cpu {
            Some(name) => Isa::named(name).map_err(|error| anyhow::anyhow!("{}: {error}", crate::CPU_VARIABLE))?,
            None => Isa::detect(),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { isa, threads: threads.unwrap_or_else(cores) })
    }

    /// A device that may take all memory that there is; only what is used becomes real.
    pub(crate) fn device(&self, observer: Option<Box<dyn Observer>>) -> anyhow::Result<Device> {
        // Half of the address space that a 64-bit process has is always free; what is real is limited by the plan.
        const WITHOUT_KNOWLEDGE: u64 = 1 << 40;
        let memory_bytes = available_bytes().unwrap_or(WITHOUT_KNOWLEDGE) as usize;
        let options = CpuOptions { threads: self.threads, isa: self.isa, memory_bytes, poison: false };
        let device = Device::cpu(options, observer).context("the processor cannot be used")?;
        // What a plan cannot know: another program that took the memory since.
        device.guard_memory(|more| available_bytes().is_none_or(|left| left > more as u64 + LEFT_FOR_OTHERS));
        Ok(device)
    }

    /// What is multiplied, and why.
    pub(crate) fn precision(&self, wanted: config::Precision) -> (Precision, &'static str) {
        match (wanted, self.isa.bf16_multiplies()) {
            (config::Precision::F32, _) => (Precision::F32, "as set"),
            (config::Precision::Bf16, true) => (Precision::Bf16, "as set"),
            (config::Precision::Bf16, false) => {
                (Precision::Bf16, "as set; this processor does not multiply bf16, so it saves memory but no time")
            }
            (config::Precision::F16, true) => {
                (Precision::F16, "as set; it is multiplied in fp32: bf16 is faster on this processor")
            }
            (config::Precision::F16, false) => (Precision::F16, "as set; it is multiplied in fp32"),
            (config::Precision::Auto, true) => (Precision::Bf16, "the processor multiplies bf16"),
            (config::Precision::Auto, false) => (Precision::F32, "the processor does not multiply bf16"),
        }
    }
}

/// All memory of the machine in bytes; `None` where the system does not tell.
pub(crate) fn total_bytes() -> Option<u64> {
    kibibytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// The processor's name; `None` where the system does not tell.
pub(crate) fn processor_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The operating system's name; without one the family that the program was built for.
pub(crate) fn system_name() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let named = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = named.map_or_else(|| std::env::consts::OS.to_owned(), |name| name.trim_matches('"').to_owned());
    match std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(kernel) => format!("{name}, Linux {}", kernel.trim()),
        Err(_) => name,
    }
}
