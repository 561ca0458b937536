//! What a training came to, in the files of transformers' `Trainer`, under its names: `train_results.json`,
//! `eval_results.json`, `all_results.json` and `trainer_state.json`. They are functions of the journal and of what
//! [`Results`] says; what is not known is left out and never guessed.

use std::path::Path;

use luthier_train::{EvaluationEvent, Event, StepEvent};
use serde_json::{Map, Value, json};

use crate::config::Metric;
use crate::journal::Entry;
use crate::progress::Window;

/// What the files are made of.
pub(crate) struct Results<'r> {
    /// The whole journal of the run.
    pub(crate) entries: &'r [Entry],
    /// Steps between lines of the log.
    pub(crate) logging_steps: usize,
    pub(crate) log_first_step: bool,
    /// Steps between evaluations and between checkpoints, where they are counted in steps.
    pub(crate) evaluation_steps: Option<usize>,
    pub(crate) saving_steps: Option<usize>,
    /// Epochs that were asked for.
    pub(crate) epochs: f64,
    /// Rows of one part of a step, as `per_device_train_batch_size` says.
    pub(crate) batch_rows: usize,
    /// Rows that were trained, once for each time.
    pub(crate) trained_rows: usize,
    pub(crate) metric: Metric,
    /// The folder of the best checkpoint, where one is kept.
    pub(crate) best_checkpoint: Option<&'r Path>,
    /// The evaluation of what was saved.
    pub(crate) evaluation: Option<EvaluationEvent>,
}

impl Results<'_> {
    /// Writes the files into an output folder that exists. Without an evaluation, that of an older run is removed.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let train = self.train();
        let evaluation = self.evaluation.map(|event| self.evaluated(&event));
        let mut all = train.clone();
        all.extend(evaluation.clone().unwrap_or_default());
        let state = self.state(&train);
        let files = [
            ("train_results.json", Some(train)),
            ("eval_results.json", evaluation),
            ("all_results.json", Some(all)),
            ("trainer_state.json", Some(state)),
        ];
        for (name, object) in files {
            let path = folder.join(name);
            match object {
                Some(object) => {
                    let text = pretty(object);
                    luthier_files::write_atomically(&path, |writer| writer.write_all(text.as_bytes()))?;
                }
                None if path.exists() => std::fs::remove_file(&path)?,
                None => {}
            }
        }
        Ok(())
    }

    fn steps(&self) -> impl Iterator<Item = &StepEvent> {
        self.entries.iter().filter_map(|entry| match &entry.event {
            Event::Step(step) => Some(step),
            _ => None,
        })
    }

    fn evaluations(&self) -> impl Iterator<Item = &EvaluationEvent> {
        self.entries.iter().filter_map(|entry| match &entry.event {
            Event::Evaluation(evaluation) => Some(evaluation),
            _ => None,
        })
    }

    fn tokens(&self) -> usize {
        self.steps().map(|step| step.tokens).sum()
    }

    fn train(&self) -> Map<String, Value> {
        let seconds = self.entries.last().map_or(0.0, |entry| entry.elapsed_seconds);
        let finite = || self.steps().filter(|step| step.is_finite());
        let trained = finite().map(StepEvent::weight).sum::<f64>();
        let loss = finite().map(|step| step.loss * step.weight()).sum::<f64>() / trained;
        let each_second = |count: usize| rounded(count as f64 / seconds, 3);
        object(json!({
            "epoch": self.steps().last().map(|step| step.epoch),
            "num_input_tokens_seen": self.tokens(),
            "train_loss": loss,
            "train_runtime": rounded(seconds, 4),
            "train_samples_per_second": each_second(self.trained_rows),
            "train_steps_per_second": each_second(self.steps().count()),
            "train_tokens_per_second": each_second(self.tokens()),
        }))
    }

    fn evaluated(&self, event: &EvaluationEvent) -> Map<String, Value> {
        object(json!({
            "epoch": event.epoch,
            "eval_accuracy": event.accuracy,
            "eval_loss": event.loss,
            "eval_perplexity": event.perplexity(),
        }))
    }

    fn state(&self, train: &Map<String, Value>) -> Map<String, Value> {
        let best = self.evaluations().filter(|event| event.is_best).last();
        let last = self.steps().last();
        let mut history = self.history();
        let mut summary = train.clone();
        summary.insert("step".to_owned(), json!(last.map_or(0, |step| step.step)));
        history.push(Value::Object(summary));
        let fields = json!({
            "best_global_step": best.map(|event| event.step),
            "best_metric": best.map(|event| match self.metric {
                Metric::Accuracy => event.accuracy,
                Metric::Loss => event.loss,
            }),
            "best_model_checkpoint": self.best_checkpoint.map(|path| path.display().to_string()),
            "epoch": last.map(|step| step.epoch),
            "eval_steps": self.evaluation_steps,
            "global_step": last.map_or(0, |step| step.step),
            "is_hyper_param_search": false,
            "is_local_process_zero": true,
            "is_world_process_zero": true,
            "log_history": history,
            "logging_steps": self.logging_steps,
            "max_steps": last.map_or(0, |step| step.total_steps),
            "num_input_tokens_seen": self.tokens(),
            "num_train_epochs": self.epochs.ceil() as u64,
            "save_steps": self.saving_steps,
            "stateful_callbacks": {},
            "total_flos": 0,
            "train_batch_size": self.batch_rows,
            "trial_name": null,
            "trial_params": null,
        });
        // Here a field that is not known is null, as transformers writes it.
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The lines of the log and the evaluations.
    fn history(&self) -> Vec<Value> {
        let mut window = Window::new(self.logging_steps, self.log_first_step);
        let line = |entry: &Entry| match &entry.event {
            Event::Step(step) => {
                let (line, due) = window.push(step, entry.elapsed_seconds);
                due.then(|| {
                    object(json!({
                        "epoch": line.epoch,
                        "grad_norm": line.gradient_norm,
                        "learning_rate": line.learning_rate,
                        "loss": line.loss,
                        "step": line.step,
                    }))
                })
            }
            Event::Evaluation(event) => {
                window.evaluate(event, entry.elapsed_seconds);
                let mut fields = self.evaluated(event);
                fields.insert("step".to_owned(), json!(event.step));
                Some(fields)
            }
            Event::Overflow(_) | Event::Warning { .. } => None,
        };
        self.entries.iter().filter_map(line).map(Value::Object).collect()
    }
}

/// The fields that have a value: a number that is not finite has none.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

fn pretty(object: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(object))
}

fn rounded(number: f64, decimals: i32) -> f64 {
    let power = 10f64.powi(decimals);
    (number * power).round() / power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tests::{evaluation, event, journal};

    fn results(entries: &[Entry]) -> Results<'_> {
        Results {
            entries,
            logging_steps: 2,
            log_first_step: false,
            evaluation_steps: Some(2),
            saving_steps: None,
            epochs: 2.0,
            batch_rows: 1,
            trained_rows: 18,
            metric: Metric::Accuracy,
            best_checkpoint: Some(Path::new("out/checkpoint-2")),
            evaluation: Some(evaluation(2, 1.25, 0.625)),
        }
    }

    fn read(folder: &Path, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).expect("a file")).expect("JSON")
    }

    #[test]
    fn the_files_are_those_of_transformers() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = journal();
        results(&journal).write(folder.path()).expect("written");
        let train = json!({
            "epoch": 2.0, "num_input_tokens_seen": 4000, "train_loss": 1.25, "train_runtime": 9.0,
            "train_samples_per_second": 2.0, "train_steps_per_second": 0.444, "train_tokens_per_second": 444.444,
        });
        assert_eq!(read(folder.path(), "train_results.json"), train);
        let evaluated = json!({
            "epoch": 1.0, "eval_accuracy": 0.625, "eval_loss": 1.25, "eval_perplexity": 1.25f64.exp(),
        });
        assert_eq!(read(folder.path(), "eval_results.json"), evaluated);
        assert_eq!(read(folder.path(), "all_results.json")["train_loss"], 1.25);
        let state = read(folder.path(), "trainer_state.json");
        assert_eq!((&state["best_metric"], &state["best_global_step"]), (&json!(0.625), &json!(2)));
        assert_eq!(state["best_model_checkpoint"], "out/checkpoint-2");
        assert_eq!(
            (&state["global_step"], &state["max_steps"], &state["save_steps"]),
            (&json!(4), &json!(4), &Value::Null)
        );
        let history = state["log_history"].as_array().expect("a list");
        assert_eq!(history.len(), 4);
        let first = json!({"epoch": 1.0, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 1.5, "step": 2});
        assert_eq!((&history[0], &history[1]["eval_loss"]), (&first, &json!(1.25)));
        assert_eq!((&history[3]["train_loss"], &history[3]["step"]), (&json!(1.25), &json!(4)));
    }

    #[test]
    fn what_is_not_known_is_left_out_and_no_older_evaluation_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("eval_results.json"), "{}").expect("written");
        let entries = [Entry { elapsed_seconds: 1.0, event: Event::Step(event(1, f64::NAN)) }];
        Results { evaluation: None, best_checkpoint: None, ..results(&entries) }.write(folder.path()).expect("written");
        assert!(!folder.path().join("eval_results.json").exists());
        assert_eq!(read(folder.path(), "train_results.json").get("train_loss"), None);
        assert_eq!(read(folder.path(), "trainer_state.json")["best_metric"], Value::Null);
        Results { evaluation: None, ..results(&[]) }.write(folder.path()).expect("an empty journal is written");
    }
}
