//! `luthier bench`: trains the steps of a configuration, writes nothing, and prints one line of JSON with what it
//! measured. `bench/versus_pytorch.py` reads that line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use luthier_tensor::Observer;
use luthier_train::{Control, Due, Event, Listener, Optimiser, Progress, Steps, Trainer};
use serde_json::{Map, Value, json};

use crate::config::TrainConfig;
use crate::machine::ProcessMemory;
use crate::run::{Run, precision_name};
use crate::work::multiply_adds;
use crate::{ConfigArguments, Environment, eprint_line, fail, print_text, started};

/// What follows `luthier bench`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier bench [CONFIG] [key=value | --key value | --key=value]...")]
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
    /// What the plan said before the start that the process would hold.
    pub(crate) predicted_bytes: u64,
    /// Most memory that the engine has held.
    pub(crate) engine_peak_bytes: u64,
    /// The necessary multiply-adds of a step over what a loop in registers makes of the same instruction.
    pub(crate) share_of_peak: f64,
    /// That loop's speed, a multiply-add counted as two.
    pub(crate) peak_gflops: f64,
    /// From the start of the process to the beginning of the first forward.
    pub(crate) first_forward_seconds: f64,
    /// From the start of the process to the end of the first forward, which touches memory and weights for the first time.
    pub(crate) first_forward_end_seconds: f64,
    /// Duration of each measured step.
    pub(crate) step_seconds: Vec<f64>,
    /// Duration of every step, those that are not measured too; the first counts from its first operation.
    pub(crate) all_step_seconds: Vec<f64>,
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
            "predicted_bytes": self.predicted_bytes,
            "engine_peak_bytes": self.engine_peak_bytes,
            "share_of_peak": self.share_of_peak,
            "peak_gflops": self.peak_gflops,
            "first_forward_seconds": self.first_forward_seconds,
            "first_forward_end_seconds": self.first_forward_end_seconds,
            "step_seconds": self.step_seconds,
            "all_step_seconds": self.all_step_seconds,
            "loss": self.loss,
            "operations": operations,
            "precision": self.precision,
            "cpu": self.cpu,
        })
    }
}

/// Steps before those that are measured: the first touches memory for the first time.
const WARM_UP: usize = 2;
/// Rounds of the loop that finds the processor's peak, a few milliseconds each; the fastest counts.
const PEAK_ROUNDS: u64 = 1 << 18;

/// Where the time goes, operation by operation.
#[derive(Default)]
struct Clock {
    began: Option<Instant>,
    by_operation: BTreeMap<&'static str, Duration>,
    first_forward: Option<Instant>,
    first_backward: Option<Instant>,
}

/// The clock that the device is watched with.
#[derive(Clone, Default)]
struct SharedClock(Arc<Mutex<Clock>>);

impl SharedClock {
    fn lock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for SharedClock {
    fn begin(&self, operation: &'static str) {
        let mut clock = self.lock();
        let now = Instant::now();
        if operation == "embedding" {
            clock.first_forward.get_or_insert(now);
        } else if operation.ends_with("backward") {
            clock.first_backward.get_or_insert(now);
        }
        clock.began = Some(now);
    }

    fn end(&self, operation: &'static str) {
        let mut clock = self.lock();
        let passed = clock.began.map_or(Duration::ZERO, |began| began.elapsed());
        *clock.by_operation.entry(operation).or_default() += passed;
    }
}

/// Counts what the measured steps do.
struct Stopwatch {
    clock: SharedClock,
    ends: Vec<Instant>,
    tokens: usize,
    trained: usize,
    loss: f64,
}

impl Listener for Stopwatch {
    type Error = std::convert::Infallible;

    fn event(&mut self, event: &Event) -> Control {
        if let Event::Step(step) = event {
            self.loss = step.loss;
            if self.ends.len() + 1 == WARM_UP {
                self.clock.lock().by_operation.clear();
            }
            if self.ends.len() >= WARM_UP {
                self.tokens += step.tokens;
                self.trained += step.trained_tokens;
            }
            self.ends.push(Instant::now());
        }
        Control::Continue
    }

    fn save(&mut self, _: &Progress, _: &Optimiser) -> Result<(), Self::Error> {
        Ok(())
    }
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let mut config = TrainConfig::from_words(&arguments.config.words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    config.check_model_files().map_err(fail)?;
    if !has_weights(&config.model.model) {
        // Speed and memory do not depend on what the weights are.
        eprint_line("note: the model has no weights, so they are drawn at random");
        config.model.from_scratch = true;
    }
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let clock = SharedClock::default();
    let run = Run::prepare(&config, environment, Some(Box::new(clock.clone())), None)?;
    if run.steps.total <= WARM_UP {
        anyhow::bail!(
            "the run has {} steps; expected more than {WARM_UP}, which are not measured (see max_steps)",
            run.steps.total
        );
    }
    let mut peak = peak_multiply_adds(&run);
    let mut settings = run.trainer.clone();
    (settings.evaluating, settings.saving) = (None, Due::Never);
    let mut stopwatch = Stopwatch { clock: clock.clone(), ends: Vec::new(), tokens: 0, trained: 0, loss: f64::NAN };
    let mut trainer = Trainer::new(&run.device, &run.decoder, settings);
    let Ok(_) = trainer.run(&run.steps, &mut stopwatch);
    let Stopwatch { ends, tokens, trained, loss, .. } = stopwatch;
    if ends.len() <= WARM_UP {
        anyhow::bail!("the run ended after {} steps, since they were not finite", ends.len());
    }
    let work: f64 = (WARM_UP..ends.len()).map(|step| multiply_adds(&run, &run.steps.step(step).0)).sum();
    // Clocks change with heat and neighbours: the better of before and after is what the processor can do.
    peak = peak.max(peak_multiply_adds(&run));
    let step_seconds: Vec<f64> = ends[WARM_UP - 1..].windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let seconds: f64 = step_seconds.iter().sum();
    let clock = clock.lock();
    let begins = clock.first_forward.into_iter().chain(ends.iter().copied());
    let all_step_seconds = begins.zip(&ends).map(|(begin, end)| (*end - begin).as_secs_f64()).collect();
    let measured = step_seconds.len() as f64;
    let mut operations: Vec<(String, f64)> =
        clock.by_operation.iter().map(|(name, time)| ((*name).to_owned(), time.as_secs_f64() / measured)).collect();
    operations.sort_by(|a, b| b.1.total_cmp(&a.1));
    let report = Report {
        real_tokens_per_second: tokens as f64 / seconds,
        trained_tokens_per_second: trained as f64 / seconds,
        peak_bytes: ProcessMemory::now().map_or(0, |memory| memory.peak_bytes),
        predicted_bytes: run.predicted_bytes.unwrap_or(0),
        engine_peak_bytes: run.device.usage().peak_bytes as u64,
        share_of_peak: work / seconds / peak,
        peak_gflops: 2.0 * peak / 1e9,
        first_forward_seconds: since_start(clock.first_forward),
        first_forward_end_seconds: since_start(clock.first_backward),
        step_seconds,
        all_step_seconds,
        loss,
        operations,
        precision: precision_name(run.trainer.precision).to_owned(),
        cpu: run.isa.name().to_owned(),
    };
    print_text(&format!("{}\n", report.to_json()));
    Ok(())
}

/// Whether a model is more than its configuration.
fn has_weights(model: &Path) -> bool {
    let entries = std::fs::read_dir(model).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_weights = |path: PathBuf| {
        let weights = ["safetensors", "bin", "gguf", "pt", "pth"];
        path.extension().is_some_and(|end| weights.iter().any(|known| end.eq_ignore_ascii_case(known)))
    };
    !model.is_dir() || entries.into_iter().any(is_weights)
}

fn since_start(moment: Option<Instant>) -> f64 {
    moment.map_or(f64::NAN, |moment| (moment - started()).as_secs_f64())
}

/// Multiply-adds a second that the processor can do on registers alone.
fn peak_multiply_adds(run: &Run) -> f64 {
    let once = || {
        let start = Instant::now();
        run.device.peak_loop(run.trainer.precision, PEAK_ROUNDS) as f64 / start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| once()).fold(0.0, f64::max)
}
