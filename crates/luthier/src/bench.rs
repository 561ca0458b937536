//! `luthier bench`: trains the steps of a configuration, writes nothing, and prints one line of JSON with what it
//! measured. `bench/versus_pytorch.py` reads that line.

use serde_json::{Map, Value, json};

use crate::config::TrainConfig;
use crate::{ConfigArguments, Environment, eprint_line, fail};

/// What follows `luthier bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

/// What a bench has measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    /// Tokens without padding, over the measured steps.
    pub(crate) real_tokens_per_second: f64,
    /// Tokens that were scored.
    pub(crate) trained_tokens_per_second: f64,
    /// Most memory that the process has held (`VmHWM`).
    pub(crate) peak_bytes: u64,
    /// Most memory that the engine has held.
    pub(crate) engine_peak_bytes: u64,
    /// The necessary multiply-adds of a step over what a loop in registers makes of the same instruction.
    pub(crate) share_of_peak: f64,
    /// From the start of the process to the end of the first forward.
    pub(crate) first_forward_seconds: f64,
    /// Duration of each measured step.
    pub(crate) step_seconds: Vec<f64>,
    /// Loss of the last step.
    pub(crate) loss: f64,
    /// Seconds a step by operation, longest first.
    pub(crate) operations: Vec<(String, f64)>,
    /// What was multiplied: `bf16` or `fp32`.
    pub(crate) precision: String,
    /// The instruction set.
    pub(crate) cpu: String,
}

impl Report {
    /// The line that is printed.
    pub(crate) fn to_json(&self) -> Value {
        let operations: Map<_, _> =
            self.operations.iter().map(|(name, seconds)| (name.clone(), json!(seconds))).collect();
        json!({
            "real_tokens_per_second": self.real_tokens_per_second,
            "trained_tokens_per_second": self.trained_tokens_per_second,
            "peak_bytes": self.peak_bytes,
            "engine_peak_bytes": self.engine_peak_bytes,
            "share_of_peak": self.share_of_peak,
            "first_forward_seconds": self.first_forward_seconds,
            "step_seconds": self.step_seconds,
            "loss": self.loss,
            "operations": operations,
            "precision": self.precision,
            "cpu": self.cpu,
        })
    }
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let config = TrainConfig::read(&arguments.config.config, &arguments.config.overrides).map_err(fail)?;
    config.check_model_files().map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let _ = environment;
    anyhow::bail!("the bench is not connected to the engine yet")
}
