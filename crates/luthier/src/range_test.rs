//! `luthier lr-find`: trains with a rate that grows from step to step until the loss breaks, draws the loss against the
//! rate, and names one that should do. Nothing of the model is kept, and no file of a training is touched.
//! From: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.

use luthier_train::{LossScale, Noise, Optimiser, Step, Steps, run_step};

use crate::chart::range::{self, RangePoint};
use crate::config::{RunLength, TrainConfig};
use crate::run::Run;
use crate::{ConfigArguments, Environment, eprint_line, fail, print_text, signals};

/// What follows `luthier lr-find`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier lr-find [CONFIG] [key=value | --key value | --key=value]...")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
}

const LOWEST: f64 = 1e-7;
const HIGHEST: f64 = 1.0;
/// Steps where max_steps does not say another number.
const STEPS: usize = 100;
/// Share of the last smoothed loss in the next.
const SMOOTHING: f64 = 0.8;
/// Times the lowest smoothed loss that end the test.
const BROKEN: f64 = 4.0;

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let mut config = TrainConfig::from_words(&arguments.config.words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    config.check_model_files().map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let run = Run::prepare(&config, environment, None, None)?;
    let count = match config.batch.length {
        RunLength::Steps(steps) => steps.max(10),
        RunLength::Epochs(_) => STEPS,
    };
    eprint_line(&format!("training up to {count} steps with rates from {LOWEST:e} to {HIGHEST:e}"));
    signals::listen("stopping after this step")?;
    let points = measure(&run, count);
    let folder = &config.output.folder;
    let Some(suggested) = suggest(&points) else {
        anyhow::bail!("the loss was not finite or never fell, so no rate can be named; look at the data and the model");
    };
    std::fs::create_dir_all(folder)?;
    range::draw(&points, suggested, folder)?;
    for name in range::FILE_NAMES {
        eprint_line(&format!("drew {}", folder.join(name).display()));
    }
    print_text(&format!("learning_rate: {suggested:.1e}\n"));
    Ok(())
}

/// The rate of step `step` of `count`.
fn rate(step: usize, count: usize) -> f64 {
    LOWEST * (HIGHEST / LOWEST).powf(step as f64 / (count - 1).max(1) as f64)
}

fn measure(run: &Run, count: usize) -> Vec<RangePoint> {
    let mut optimiser = Optimiser::new(&run.device, run.decoder.parameters(), run.trainer.optimiser.clone());
    let mut points: Vec<RangePoint> = Vec::new();
    let (mut mean, mut lowest) = (0.0, f64::INFINITY);
    let mut scale = run.trainer.loss_scaling.map(|scaling| (LossScale::new(&scaling), scaling));
    for index in 0..count {
        let (parts, _) = run.steps.step(index);
        let mut step = Step {
            precision: run.trainer.precision,
            recomputed: run.trainer.recomputed,
            dropout_seed: run.trainer.dropout_seed.map(|seed| seed.wrapping_add(index as u64)),
            learning_rate: rate(index, count),
            loss_scale: scale.map_or(1.0, |(scale, _)| scale.scale as f32),
            noise: run.trainer.noise.map(|noise| Noise { seed: noise.seed.wrapping_add(index as u64), ..noise }),
        };
        let numbers = loop {
            let numbers = run_step(&run.device, &run.decoder, &mut optimiser, &parts, &step).read(&run.device);
            // A scale that was too large changed nothing.
            match &mut scale {
                Some((scale, scaling)) if scale.is_overflow(scaling, numbers.loss, numbers.gradient_norm) => {
                    scale.fall(scaling);
                    step.loss_scale = scale.scale as f32;
                }
                _ => break numbers,
            }
        };
        if !numbers.loss.is_finite() || !numbers.gradient_norm.is_finite() {
            break;
        }
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * numbers.loss;
        let smoothed = mean / (1.0 - SMOOTHING.powi(index as i32 + 1));
        points.push(RangePoint { rate: step.learning_rate, loss: numbers.loss, smoothed });
        lowest = f64::min(lowest, smoothed);
        if smoothed > BROKEN * lowest || signals::is_asked() {
            break;
        }
    }
    points
}

/// Where the smoothed loss falls fastest, over the rate's logarithm; but at most a tenth of the rate with the lowest loss.
fn suggest(points: &[RangePoint]) -> Option<f64> {
    let lowest = points.iter().min_by(|one, other| one.smoothed.total_cmp(&other.smoothed))?;
    const SPAN: usize = 2;
    let slope = |index: usize| {
        let (before, after) = (&points[index - SPAN], &points[index + SPAN]);
        (after.smoothed - before.smoothed) / (after.rate / before.rate).ln()
    };
    // The beginning of the mean is noise.
    let places = (2 * SPAN..points.len().saturating_sub(SPAN)).filter(|&index| points[index].rate <= lowest.rate);
    let steepest =
        places.min_by(|&one, &other| slope(one).total_cmp(&slope(other))).filter(|&index| slope(index) < 0.0)?;
    Some(points[steepest].rate.min(lowest.rate / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_grow_by_a_factor_from_end_to_end() {
        assert_eq!(rate(0, 100), 1e-7);
        assert!((rate(99, 100) - 1.0).abs() < 1e-12);
        assert!((rate(2, 8) / rate(1, 8) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn the_steepest_fall_is_suggested_and_what_never_falls_is_not() {
        let curve = |loss: fn(f64) -> f64| {
            let point = |step: usize| {
                let rate = rate(step, 100);
                RangePoint { rate, loss: loss(rate.log10()), smoothed: loss(rate.log10()) }
            };
            (0..100).map(point).collect::<Vec<_>>()
        };
        // It falls around 1e-3, is lowest at about 1e-1, and breaks.
        let found =
            suggest(&curve(|log| 3.0 - 1.0 / (1.0 + (-4.0 * (log + 3.0)).exp()) + (4.0 * log).exp())).expect("one");
        assert!((5e-4..2e-3).contains(&found), "{found}");
        assert_eq!(suggest(&curve(|log| 3.0 + log)), None);
        assert_eq!(suggest(&[]), None);
    }
}
