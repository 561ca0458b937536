//! A run before its first step, as training and bench share it: the model is opened, the data tokenised, the memory
//! planned, and the device made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use luthier_data::{BrokenRecord, Report, Tokenized, Tokenizer};
use luthier_model::adapter::Loaded;
use luthier_model::checkpoint::StoredTensor;
use luthier_model::{Decoder, Recomputed, Tuning};
use luthier_tensor::{Device, Isa, Observer, Precision};
use luthier_train::{
    Due, Evaluating, MemoryPlan, Metric, Noise, Nonfinite, OptimiserKind, OptimiserSettings, PureBf16, Schedule, Step,
    Steps, TrainerSettings, accumulate_freeing,
};

use crate::checkpoint::Layout;
use crate::config::{self, DataSettings, EvaluationSettings, EvaluationSource, Mix, Stage, TrainConfig, When};
use crate::datasets;
use crate::fit::{Fitted, Planner, Restored, predict};
use crate::machine::{ProcessMemory, Processor};
use crate::method::{check_blocks, check_saved_modules, check_targets, tuning};
use crate::model::Model;
use crate::rate::{self, ChosenRate};
use crate::rows::{self, Order, RowSteps, Rows, UsedTemplate, Wanted};
use crate::{Environment, eprint_line};

/// Keep the random numbers of different purposes apart.
const NOISE: u64 = 0x6e65_6674;
const ROUNDING: u64 = 0x72_6f75_6e64;

/// Everything that a run needs.
pub(crate) struct Run {
    pub(crate) model: Model,
    pub(crate) device: Device,
    pub(crate) decoder: Decoder,
    pub(crate) steps: RowSteps,
    pub(crate) trainer: TrainerSettings,
    pub(crate) isa: Isa,
    pub(crate) tuning: Tuning,
    /// What the process will hold at its peak; `None` where the system does not tell what it holds now.
    pub(crate) predicted_bytes: Option<u64>,
    pub(crate) facts: Facts,
    /// Rows of a batch.
    pub(crate) batch_rows: usize,
    /// Of the rows and their order.
    data: String,
    /// What decides the result besides the rows, as text.
    settings: BTreeMap<String, String>,
}

/// What was found on the way to a run, for the page before the start.
pub(crate) struct Facts {
    pub(crate) threads: usize,
    pub(crate) precision_reason: &'static str,
    pub(crate) plan: MemoryPlan,
    /// The same run in fp32, where that is of interest.
    pub(crate) in_fp32: Option<MemoryPlan>,
    pub(crate) rate: ChosenRate,
    pub(crate) scratch_bytes: u64,
    /// What happened to the rows that are trained.
    pub(crate) report: Report,
    /// `None` where the records were tokens already.
    pub(crate) tokenizer: Option<Tokenizer>,
    /// The chat template.
    pub(crate) template: Option<UsedTemplate>,
    /// The files of the rows that are trained, and of those that are evaluated on where they have their own.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) evaluation_files: Vec<PathBuf>,
    /// Records that could not be read, with the names of their datasets.
    pub(crate) broken: Vec<(String, BrokenRecord)>,
}

impl Run {
    /// Prepares a run and says on the way what it found.
    pub(crate) fn prepare(
        config: &TrainConfig,
        environment: &Environment,
        observer: Option<Box<dyn Observer>>,
        resumed: Option<&Layout>,
    ) -> anyhow::Result<Self> {
        // Before the model is mapped: its pages are counted with its weights.
        let own_file_bytes = ProcessMemory::now().map_or(0, |memory| memory.file_bytes);
        let environment = &same_processor(environment, resumed);
        let processor = Processor::choose(config.machine.threads, environment)?;
        let model = Model::stored(config, processor.threads)?;
        for note in &model.checkpoint.model.notes {
            eprint_line(&format!("note: {note}"));
        }
        let (precision, reason) = match (config.machine.precision, resumed.map(|layout| layout.precision.as_str())) {
            (config::Precision::Auto, Some("bf16")) => (Precision::Bf16, "as in the checkpoint"),
            (config::Precision::Auto, Some("fp16")) => (Precision::F16, "as in the checkpoint"),
            (config::Precision::Auto, Some(_)) => (Precision::F32, "as in the checkpoint"),
            (wanted, _) => processor.precision(wanted),
        };
        if let Some(layout) = resumed.filter(|layout| layout.precision != precision_name(precision)) {
            eprint_line(&format!(
                "warning: the checkpoint was computed in {}: the result will differ",
                layout.precision
            ));
        }
        let adapter = config.model.adapter.as_deref().map(luthier_files::read_adapter).transpose()?;
        let tuning = tuning(&config.method, config.machine.seed, &model, adapter.as_ref())?;
        let beside = config.model.beside.iter().map(|path| luthier_files::read_adapter(path));
        let beside = beside.collect::<Result<Vec<_>, _>>()?;
        say_beside(config);
        let loaded: Vec<Loaded<'_>> = beside.iter().chain(&adapter).map(Loaded::new).collect();
        let data = &config.data;
        let (rows, evaluation) = read_rows(config, &model)?;
        let Rows { tokenized, tokenizer, template, files, mut broken, .. } = rows;
        let Rows { tokenized: evaluation, files: evaluation_files, broken: more, .. } = evaluation;
        broken.extend(more);
        let report = tokenized.report.clone();
        // Documents of stage pt are put together before they are cut; conversations keep their rows.
        let packs = data.packing && config.stage == Stage::SupervisedFineTuning;
        let pack = packs.then_some(data.cutoff_len);
        let order = Order { batch: &config.batch, seed: config.machine.seed, order: data.order, pack };
        let mut steps = RowSteps::new(tokenized, &data.datasets, evaluation.examples, &order);
        let settings = deciding(config);
        let rate = rate::choose(config, &model);
        if let Some(floor) = config.schedule.floor.filter(|floor| *floor >= rate.value) {
            anyhow::bail!(
                "lr_scheduler_kwargs: the rate is to end at {floor}, and the highest is {}; expected less",
                rate.value
            );
        }
        let optimiser = optimiser(config, &model);
        let drops = tuning.dropout() > 0.0;
        let planner = Planner { model: &model, tuning: &tuning, adapters: &loaded };
        let settings_of = |steps: &RowSteps| TrainerSettings {
            precision,
            schedule: schedule(config, rate.value, steps.total),
            optimiser: optimiser.clone(),
            recomputed: Recomputed::default(),
            noise: config.levers.noise_alpha.map(|alpha| Noise { alpha, seed: config.machine.seed ^ NOISE }),
            dropout_seed: drops.then_some(config.machine.seed),
            evaluating: config.evaluation.as_ref().map(|evaluation| evaluating(evaluation, steps.total)),
            saving: due(config.saving.when, steps.total),
            keeps_best: config.saving.best,
            loss_scaling: (precision == Precision::F16).then_some(config.machine.loss_scaling),
            nonfinite: match config.saving.nonfinite {
                config::Nonfinite::Skip => Nonfinite::Skip,
                config::Nonfinite::Stop => Nonfinite::Stop,
            },
        };
        match (config.batch.rows, resumed.and_then(|layout| layout.batch_rows)) {
            (Some(_), _) => {}
            (None, Some(rows)) => steps.set_batch_rows(rows),
            (None, None) => {
                let mut trainer = settings_of(&steps);
                planner.fill_batch(config, &mut steps, &mut trainer)?;
            }
        }
        if let Some(layout) = resumed {
            check_layout(&steps, &settings, layout)?;
        }
        let mut trainer = settings_of(&steps);
        let Fitted { plan, in_fp32 } = planner.fit(config, &steps, &mut trainer, resumed)?;
        // Weights that were drawn or quantised lie in memory already; they too are counted with the model.
        let made = |tensor: &&StoredTensor| config.model.from_scratch || tensor.was_quantised();
        let tensors = model.checkpoint.tensors.values().filter(made);
        let drawn: u64 = tensors.map(|tensor| tensor.memory_bytes() as u64).sum();
        let before = ProcessMemory::now().map(|now| ProcessMemory {
            file_bytes: own_file_bytes,
            anonymous_bytes: now.anonymous_bytes.saturating_sub(drawn),
            ..now
        });
        let device = processor.device(observer)?;
        let scratch_bytes = device.scratch_bytes(precision, &model.layout()) as u64;
        let decoder = Decoder::with_storage(&device, &model.checkpoint, &tuning, &loaded, optimiser.storage())?;
        if config.batch.rows.is_none() && resumed.is_none() && !optimiser.in_backward {
            confirm(&device, &decoder, &steps, &trainer);
        }
        warn_long_rows(&model, &steps, decoder.prompt_rows());
        check_targets(&tuning, &decoder)?;
        check_saved_modules(&tuning, &decoder)?;
        if !trainer.optimiser.kind.has_targets(decoder.parameters()) {
            anyhow::bail!(
                "{}: none of the tensors that are trained is one of its targets; expected other targets (galore_target, \
                 apollo_target, optim_target_modules) or another method",
                trainer.optimiser.kind.describe()
            );
        }
        let trained: u64 = decoder.parameters().iter().map(|parameter| parameter.value.bytes() as u64).sum();
        let restored = match (resumed, config.evaluation.as_ref().is_some_and(|evaluation| evaluation.keeps_best)) {
            (Some(_), _) => Restored::Everything { trained },
            (None, true) => Restored::Best { trained },
            (None, false) => Restored::Nothing,
        };
        let predicted_bytes = before.map(|before| predict(&before, &plan, &model, scratch_bytes, &tuning, restored));
        check_blocks(&trainer.optimiser, &decoder)?;
        Ok(Self {
            model,
            device,
            decoder,
            trainer,
            isa: processor.isa,
            tuning,
            predicted_bytes,
            facts: Facts {
                threads: processor.threads,
                precision_reason: reason,
                plan,
                in_fp32,
                rate,
                scratch_bytes,
                report,
                tokenizer,
                template,
                files,
                evaluation_files,
                broken,
            },
            data: steps.fingerprint(),
            batch_rows: config.batch.rows.unwrap_or(steps.rows_per_step().div_ceil(config.batch.accumulation)),
            steps,
            settings,
        })
    }

    /// What every sitting of this run must have in common.
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            token_budget: self.steps.token_budget(),
            recomputed_layers: self.trainer.recomputed.layers,
            feed_forward_only: self.trainer.recomputed.feed_forward_only,
            batch_rows: Some(self.batch_rows),
            cpu: self.isa.name().to_owned(),
            precision: precision_name(self.trainer.precision).to_owned(),
            data: self.data.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// Says what becomes of several adapters.
fn say_beside(config: &TrainConfig) {
    let (Some(trained), false) = (&config.model.adapter, config.model.beside.is_empty()) else { return };
    let others: Vec<String> = config.model.beside.iter().map(|path| path.display().to_string()).collect();
    let others = others.join(", ");
    eprint_line(&format!(
        "note: {} is trained on and saved; {others} adds to the base and stays as it is, which is what LLaMA-Factory's merging \
         computes, without its rounding. The result is made for both: load it with --adapter {others},OUTPUT",
        trained.display()
    ));
}

/// `bf16`, `fp16` or `fp32`.
pub(crate) fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "fp32",
        Precision::Bf16 => "bf16",
        Precision::F16 => "fp16",
    }
}

/// Reads the rows to train and those to evaluate on, and says what was found.
fn read_rows(config: &TrainConfig, model: &Model) -> anyhow::Result<(Rows, Rows)> {
    let data = &config.data;
    let read = |names: &[String], data: &DataSettings| -> anyhow::Result<Rows> {
        let rows = rows::read(model, config.model.adapter.as_deref(), config.stage, names, data, Wanted::Tokens)?;
        for note in &rows.notes {
            eprint_line(&format!("note: {note}"));
        }
        check_ids(&rows.tokenized, model.checkpoint.model.decoder.vocabulary_size)?;
        Ok(rows)
    };
    let mut training = read(&data.datasets, data)?;
    if training.tokenized.examples.is_empty() {
        let losses = rows::losses(&training.tokenized.report, &data.datasets, data.cutoff_len).join("; ");
        anyhow::bail!("dataset: no row with a token to train is left: {losses}");
    }
    let evaluation = match config.evaluation.as_ref().map(|evaluation| &evaluation.source) {
        None => Rows::of(Tokenized::default()),
        Some(EvaluationSource::Datasets(names)) => {
            // All of it counts, whatever of the other is drawn.
            let rows = read(names, &DataSettings { mix: Mix::Concat, ..data.clone() })?;
            let losses = rows::losses(&rows.tokenized.report, names, data.cutoff_len);
            losses.iter().for_each(|loss| eprint_line(&format!("note: eval_dataset: {loss}")));
            rows
        }
        Some(EvaluationSource::Part(size)) => {
            let tokenized = std::mem::take(&mut training.tokenized);
            let (kept, evaluation) = rows::set_aside(tokenized, *size, config.machine.seed)?;
            training.tokenized = kept;
            Rows::of(evaluation)
        }
    };
    if config.evaluation.is_some() && evaluation.tokenized.examples.is_empty() {
        anyhow::bail!("eval_dataset: no row with a token to score is left");
    }
    let also = datasets::also_evaluated(&training.tokenized.examples, &evaluation.tokenized.examples);
    if also > 0 {
        let rows = training.tokenized.examples.len();
        eprint_line(&format!(
            "note: {also} of {rows} rows to train also stand among those to evaluate on, which will look better than it is"
        ));
    }
    Ok((training, evaluation))
}

/// The environment with the instruction set of the checkpoint, where the machine has it and the user wants no other.
fn same_processor(environment: &Environment, resumed: Option<&Layout>) -> Environment {
    let mut same = environment.clone();
    let Some(layout) = resumed else { return same };
    if environment.cpu.is_none() && Isa::named(&layout.cpu).is_ok() {
        same.cpu = Some(layout.cpu.clone());
    } else if environment.cpu.as_ref() != Some(&layout.cpu) {
        eprint_line(&format!(
            "warning: the checkpoint was computed with {}, which is not used now: the result will differ in the last bits",
            layout.cpu
        ));
    }
    same
}

fn due(when: When, total_steps: usize) -> Due {
    match when {
        When::Never => Due::Never,
        When::EachEpoch => Due::EachEpoch,
        When::Every(span) => Due::Every(span.steps(total_steps).max(1)),
    }
}

fn evaluating(settings: &EvaluationSettings, total_steps: usize) -> Evaluating {
    Evaluating {
        due: due(settings.when, total_steps),
        at_start: settings.at_start,
        metric: match settings.metric {
            config::Metric::Accuracy => Metric::Accuracy,
            config::Metric::Loss => Metric::Loss,
        },
        patience: settings.patience,
    }
}

/// What decides the result besides the rows, as text: a run that goes on says what of it has changed.
fn deciding(config: &TrainConfig) -> BTreeMap<String, String> {
    let named = [
        ("the base model", config.model.name.clone()),
        ("the method", format!("{:?}", config.method)),
        ("the quantisation", config.model.quantisation.map_or_else(String::new, |found| format!("{found:?}"))),
        ("the optimiser", format!("{:?}", config.optimiser)),
        ("the schedule", format!("{:?}", config.schedule)),
        ("the length", format!("{:?}", config.batch.length)),
        ("the seed", config.machine.seed.to_string()),
        ("the rounding or the noise", format!("{:?}", config.levers)),
    ];
    named.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

/// Whether the run is the one that the checkpoint is of: other rows or another method make it another run.
fn check_layout(steps: &RowSteps, now: &BTreeMap<String, String>, layout: &Layout) -> anyhow::Result<()> {
    if steps.fingerprint() != layout.data {
        anyhow::bail!(
            "resume_from_checkpoint: the rows of the steps are not those of the checkpoint: dataset, template, cutoff_len, \
             batch size or seed have changed; set them back, or begin a new run (adapter_name_or_path goes on with an adapter)"
        );
    }
    for (name, text) in now {
        if layout.settings.get(name).is_some_and(|before| before != text) {
            eprint_line(&format!("warning: {name} is not that of the checkpoint: the run goes on with the new one"));
        }
    }
    Ok(())
}

fn schedule(config: &TrainConfig, learning_rate: f64, total_steps: usize) -> Schedule {
    Schedule {
        kind: config.schedule.kind(learning_rate),
        learning_rate,
        warmup_steps: config.schedule.warmup.steps(total_steps),
        total_steps,
    }
}

fn optimiser(config: &TrainConfig, model: &Model) -> OptimiserSettings {
    let settings = &config.optimiser;
    OptimiserSettings {
        kind: match &settings.kind {
            OptimiserKind::AdamMini { .. } => OptimiserKind::AdamMini { head_dim: model.layout().head_dim },
            kind => kind.clone(),
        },
        weight_decay: settings.weight_decay,
        max_gradient_norm: settings.max_grad_norm,
        pure_bf16: config.levers.pure_bf16.map(|rounding| PureBf16 { rounding, seed: config.machine.seed ^ ROUNDING }),
        clipping: settings.clipping,
        layer_decay: settings.layer_decay,
        in_backward: settings.in_backward,
        seed: config.machine.seed,
        ..OptimiserSettings::adamw(settings.beta1, settings.beta2, settings.epsilon)
    }
}

fn check_ids(tokenized: &luthier_data::Tokenized, vocabulary: usize) -> anyhow::Result<()> {
    let found = tokenized.examples.iter().position(|example| example.ids.iter().any(|&id| id as usize >= vocabulary));
    let Some(row) = found else { return Ok(()) };
    let largest = tokenized.examples[row].ids.iter().max().context("a row without tokens")?;
    anyhow::bail!(
        "row {} has token {largest}, but the model knows {vocabulary} tokens; the tokenizer belongs to another model",
        row + 1
    )
}

/// Makes sure that the longest rows fit before the first step, and takes smaller parts where they do not.
fn confirm(device: &Device, decoder: &Decoder, steps: &RowSteps, trainer: &TrainerSettings) {
    let step = Step {
        precision: trainer.precision,
        recomputed: trainer.recomputed,
        dropout_seed: trainer.dropout_seed,
        noise: trainer.noise,
        ..Step::default()
    };
    let parameters = decoder.parameters();
    let release = || parameters.iter().for_each(|parameter| device.release(&parameter.gradient));
    let by_block = matches!(trainer.optimiser.kind, OptimiserKind::Badam(_));
    let tried = || {
        if !by_block {
            parameters.allocate_gradients(device);
        }
        accumulate_freeing(device, decoder, &[steps.fullest()], &step, &mut |index, _| {
            if let Some(parameter) = parameters.get(index).filter(|_| by_block) {
                device.release(&parameter.gradient);
            }
        });
    };
    while device.attempt(tried).is_err() {
        release();
        let Some(budget) = steps.halve_budget() else { break };
        eprint_line(&format!("note: the longest rows do not fit at once: parts have at most {budget} tokens"));
    }
    release();
}

fn warn_long_rows(model: &Model, steps: &RowSteps, prompt_rows: usize) {
    let longest = steps.longest_row() + prompt_rows;
    if let Some(most) = model.checkpoint.model.decoder.max_positions.filter(|most| longest > *most) {
        eprint_line(&format!(
            "warning: the longest row has {longest} tokens, and the model was made for {most}; lower cutoff_len"
        ));
    }
}

pub(crate) fn numbers_of(model: &Model) -> usize {
    model.checkpoint.tensors.values().map(|tensor| tensor.tensor().len()).sum()
}
