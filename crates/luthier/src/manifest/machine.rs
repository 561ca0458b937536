//! The machine as a manifest describes it; what the system does not tell is left out.

use serde_json::{Value, json};

/// What computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineRecord {
    processor: Option<String>,
    instruction_set: String,
    threads: usize,
    memory_bytes: Option<u64>,
}

impl MachineRecord {
    /// This machine, as a run uses it.
    pub(crate) fn of(instruction_set: &str, threads: usize) -> Self {
        let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = field(&about, &["model name", "Model", "Hardware"]).map(str::to_owned);
        Self { processor, instruction_set: instruction_set.to_owned(), threads, memory_bytes: memory_bytes() }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "instruction_set": self.instruction_set,
            "threads": self.threads,
            "memory_bytes": self.memory_bytes,
            "system": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
        })
    }
}

/// All memory of the machine; `None` where the system does not tell.
pub(crate) fn memory_bytes() -> Option<u64> {
    let about = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(field(&about, &["MemTotal"])?.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// The value of the first of some names in lines of `name: value`.
fn field<'t>(text: &'t str, names: &[&str]) -> Option<&'t str> {
    names.iter().find_map(|wanted| {
        let pair = |line: &'t str| line.split_once(':').filter(|(name, _)| name.trim() == *wanted);
        text.lines().find_map(pair).map(|(_, value)| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: A Processor @ 3 GHz\nMemTotal:       1024 kB\n";
        assert_eq!(field(text, &["model name"]), Some("A Processor @ 3 GHz"));
        assert_eq!(field(text, &["Hardware", "MemTotal"]), Some("1024 kB"));
        assert_eq!(field(text, &["name"]), None);
    }
}
