//! `luthier train`: a configuration in, a tuned model out.

use std::time::Instant;

use anyhow::Context;
use luthier_train::{Control, Event, Trainer};

use crate::config::TrainConfig;
use crate::machine::ProcessMemory;
use crate::progress::duration;
use crate::run::Run;
use crate::save::save;
use crate::terminal::Terminal;
use crate::trainer_log::TrainerLog;
use crate::{ConfigArguments, Environment, eprint_line, fail};

/// What follows `luthier train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let config = TrainConfig::read(&arguments.config.config, &arguments.config.overrides).map_err(fail)?;
    config.check_files().map_err(fail)?;
    train(&config, environment)
}

/// Trains as a configuration says whose files were checked.
pub(crate) fn train(config: &TrainConfig, environment: &Environment) -> anyhow::Result<()> {
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let run = Run::prepare(config, environment, None)?;
    let output = &config.output;
    std::fs::create_dir_all(&output.folder)
        .with_context(|| format!("output_dir: {} cannot be made", output.folder.display()))?;
    let every = output.logging.steps(run.steps.total);
    let mut terminal = Terminal::new(every, output.log_first_step);
    let log = TrainerLog::create(&output.folder, every, output.log_first_step)
        .with_context(|| format!("output_dir: the log in {} cannot be written", output.folder.display()))?;
    let start = Instant::now();
    let mut log = Some(log);
    let mut last_is_finite = true;
    let mut trainer = Trainer::new(&run.device, &run.decoder, run.trainer);
    let summary = trainer.run(&run.steps, &mut |event| {
        match event {
            Event::Step(step) => {
                let seconds = start.elapsed().as_secs_f64();
                terminal.step(&step, seconds);
                last_is_finite = step.loss.is_finite() && step.gradient_norm.is_finite();
                // A full disk must not cost the training: the log ends, and the run goes on.
                if let Some(Err(error)) = log.as_mut().map(|log| log.step(&step, seconds)) {
                    terminal.say(&format!("warning: log: trainer_log.jsonl cannot be written any more: {error}"));
                    log = None;
                }
            }
            Event::Evaluation(_) => {}
            Event::Warning { name, message } => terminal.say(&format!("warning: {name}: {message}")),
        }
        Control::Continue
    });
    if summary.skipped_steps < summary.steps && !last_is_finite {
        anyhow::bail!(
            "the last steps had no finite loss or gradient, so the model is broken and was not saved; lower learning_rate \
             or look for broken records"
        );
    }
    if summary.skipped_steps == summary.steps {
        anyhow::bail!(
            "no step of {} had a finite loss and gradient, so nothing was learned and nothing was saved; check the model \
             (its weights may hold NaN) and lower learning_rate",
            summary.steps
        );
    }
    let base = config.model.model.display().to_string();
    let names = save(&run, &base, &output.folder)?;
    let seconds = start.elapsed().as_secs_f64();
    eprint_line(&format!(
        "trained {} steps in {}: mean loss {:.4}, {:.0} tokens/s, {} steps left out",
        summary.steps,
        duration(seconds),
        summary.mean_loss,
        summary.tokens as f64 / seconds,
        summary.skipped_steps
    ));
    if let (Some(memory), Some(predicted)) = (ProcessMemory::now(), run.predicted_bytes) {
        eprint_line(&format!(
            "memory: {:.3} GB at the peak, {:.3} GB planned",
            memory.peak_bytes as f64 / 1e9,
            predicted as f64 / 1e9
        ));
    }
    eprint_line(&format!("saved to {}: {}", output.folder.display(), names.join(", ")));
    Ok(())
}
