//! `luthier plan`: the memory, time and disk that a training will take, without training. The weights are mapped and a few
//! rows computed once, so that the time is measured, not guessed.

use crate::config::TrainConfig;
use crate::datasets;
use crate::preflight::{self, Plan};
use crate::run::Run;
use crate::settings::words;
use crate::{ConfigArguments, Environment, eprint_line, fail, print_text};

/// What follows `luthier plan`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "luthier plan [--json] [CONFIG] [key=value | --key value | --key=value]...")]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Print the plan as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let mut words = arguments.config.words.clone();
    let json = words::take_flag(&mut words, "json") || arguments.json;
    let mut config = TrainConfig::from_words(&words).map_err(fail)?;
    config.model.locate(&environment.hub)?;
    config.check_model_files().map_err(fail)?;
    for notice in &config.notices {
        eprint_line(&format!("note: {notice}"));
    }
    let run = Run::prepare(&config, environment, None, None)?;
    if let Some(path) = &config.data.quarantine {
        datasets::quarantine(path, &run.facts.broken)?.iter().for_each(|note| eprint_line(&format!("note: {note}")));
    }
    let plan = Plan::of(&config, &run, 0);
    if json {
        print_text(&format!("{}\n", serde_json::to_string(&plan)?));
        return Ok(());
    }
    let page = preflight::page(&config, &run, &plan);
    print_text(&page.into_iter().map(|line| line + "\n").collect::<String>());
    Ok(())
}
