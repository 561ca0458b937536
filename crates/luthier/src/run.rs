//! A run before its first step, as training and bench share it: the model is opened, the data tokenised, the memory
//! planned, and the device made.

use anyhow::Context;
use luthier_model::adapter::{AdapterSettings, TargetModules};
use luthier_model::{Decoder, LoraAdapter, LoraSettings, Tuning};
use luthier_tensor::{Device, Isa, Observer, Precision};
use luthier_train::{MemoryPlan, OptimiserSettings, Schedule, ScheduleKind, Step, TrainerSettings, plan_memory};

use crate::config::{self, FreezeLayers, Method, Recomputation, Stage, Targets, TrainConfig};
use crate::machine::{ProcessMemory, Processor, available_bytes};
use crate::model::Model;
use crate::rows::{self, RowSteps};
use crate::{Environment, eprint_line};

/// Tokens of a part where nothing else is said: more make no part faster, and fewer pack each weight more often.
const TOKEN_BUDGET: usize = 1536;
/// Share of the free memory that a plan may take.
const MEMORY_SHARE: f64 = 0.8;
/// Largest steps that the plan computes, by each of two measures.
const PLANNED_STEPS: usize = 64;

/// Everything that a run needs.
pub(crate) struct Run {
    pub(crate) model: Model,
    pub(crate) device: Device,
    pub(crate) decoder: Decoder,
    pub(crate) steps: RowSteps,
    pub(crate) trainer: TrainerSettings,
    pub(crate) isa: Isa,
    pub(crate) tuning: Tuning,
    /// What the adapter that is trained on says of itself.
    pub(crate) continued: Option<AdapterSettings>,
    /// What the process will hold at its peak; `None` where the system does not tell what it holds now.
    pub(crate) predicted_bytes: Option<u64>,
}

impl Run {
    /// Prepares a run and says on the way what it found.
    pub(crate) fn prepare(
        config: &TrainConfig,
        environment: &Environment,
        observer: Option<Box<dyn Observer>>,
    ) -> anyhow::Result<Self> {
        // Before the model is mapped: its pages are counted with its weights.
        let own_file_bytes = ProcessMemory::now().map_or(0, |memory| memory.file_bytes);
        let processor = Processor::choose(config.machine.threads, environment)?;
        let model = match config.model.from_scratch {
            true => Model::from_scratch(&config.model.model, config.machine.seed)?,
            false => Model::open(&config.model.model)?,
        };
        for note in &model.checkpoint.model.notes {
            eprint_line(&format!("note: {note}"));
        }
        let (precision, reason) = processor.precision(config.machine.precision);
        let adapter = config.model.adapter.as_deref().map(luthier_files::read_adapter).transpose()?;
        let tuning = tuning(&config.method, config.machine.seed, &model, adapter.as_ref())?;
        let (tokenized, notes) = rows::read(&model, config.stage, &config.data)?;
        for note in notes {
            eprint_line(&format!("note: {note}"));
        }
        for sentence in rows::sentences(&tokenized.report, config.data.cutoff_len) {
            eprint_line(&format!("data: {sentence}"));
        }
        check_ids(&tokenized, model.checkpoint.model.decoder.vocabulary_size)?;
        if tokenized.examples.is_empty() {
            anyhow::bail!("dataset: no row with a token to train is left; see the counts above");
        }
        // Documents of stage pt are put together before they are cut; conversations keep their rows.
        let packs = config.data.packing && config.stage == Stage::SupervisedFineTuning;
        let pack = packs.then_some(config.data.cutoff_len);
        let mut steps =
            RowSteps::new(tokenized.examples, &config.batch, config.machine.seed, config.data.shuffle, pack);
        warn_long_rows(&model, &steps);
        let schedule = schedule(config, steps.total);
        let drops = matches!(&tuning, Tuning::Lora(lora) if lora.dropout > 0.0);
        let mut trainer = TrainerSettings {
            precision,
            schedule,
            optimiser: optimiser(&config.optimiser),
            recomputed_layers: 0,
            dropout_seed: drops.then_some(config.machine.seed),
        };
        let plan = plan(config, &model, &tuning, adapter.as_ref(), &mut steps, &mut trainer)?;
        let before = ProcessMemory::now().map(|now| ProcessMemory { file_bytes: own_file_bytes, ..now });
        let device = processor.device(observer)?;
        let predicted_bytes = before
            .map(|before| predict(&before, &plan, &model, device.scratch_bytes(precision, &model.layout()) as u64));
        let decoder = Decoder::new(&device, &model.checkpoint, &tuning, adapter.as_ref())?;
        let trained = decoder.parameters().count();
        check_targets(&tuning, &decoder)?;
        check_saved_modules(&tuning, &decoder)?;
        eprint_line(&format!(
            "model: {} ({}), {} of {} numbers trained",
            model.files.label,
            model.checkpoint.model.decoder.model_type,
            thousands(trained),
            thousands(numbers_of(&model)),
        ));
        let name = match precision {
            Precision::F32 => "fp32",
            Precision::Bf16 => "bf16",
        };
        eprint_line(&format!("machine: {} threads, {}; {name} ({reason})", processor.threads, processor.isa.name()));
        eprint_line(&format!(
            "plan: {} steps in parts of at most {} tokens, {} layers recomputed, {:.2} GB of memory",
            steps.total,
            steps.token_budget,
            trainer.recomputed_layers,
            predicted_bytes.unwrap_or(plan.peak_bytes as u64) as f64 / 1e9
        ));
        let continued = adapter.map(|adapter| adapter.settings);
        Ok(Self { model, device, decoder, steps, trainer, isa: processor.isa, tuning, continued, predicted_bytes })
    }
}

/// Sets token budget and recomputed layers so that the run fits the free memory.
fn plan(
    config: &TrainConfig,
    model: &Model,
    tuning: &Tuning,
    adapter: Option<&LoraAdapter>,
    steps: &mut RowSteps,
    trainer: &mut TrainerSettings,
) -> anyhow::Result<MemoryPlan> {
    let layers = model.checkpoint.model.decoder.layers.len();
    let always = config.machine.recomputation == Recomputation::Always;
    trainer.recomputed_layers = if always { layers } else { 0 };
    steps.token_budget = config.batch.token_budget.unwrap_or(TOKEN_BUDGET);
    let limit = available_bytes().map(|bytes| (bytes as f64 * MEMORY_SHARE) as usize);
    if limit.is_none() {
        eprint_line("note: this system does not tell how much memory is free; the plan is not compared with it");
    }
    let weights: usize = model.checkpoint.tensors.values().map(|tensor| tensor.bytes().len()).sum();
    loop {
        let step = Step {
            precision: trainer.precision,
            recomputed_layers: trainer.recomputed_layers,
            dropout_seed: trainer.dropout_seed,
            learning_rate: trainer.schedule.learning_rate,
        };
        let largest = steps.largest(PLANNED_STEPS);
        let found = plan_memory(
            &model.checkpoint,
            tuning,
            adapter,
            trainer.optimiser,
            &step,
            largest.iter().map(Vec::as_slice),
        )?;
        let needed = found.peak_bytes + weights;
        let Some(limit) = limit.filter(|limit| needed > *limit) else { return Ok(found) };
        if config.batch.token_budget.is_none() && steps.token_budget > steps.longest_row() {
            steps.token_budget = (steps.token_budget / 2).max(steps.longest_row());
        } else if config.machine.recomputation == Recomputation::Auto && trainer.recomputed_layers < layers {
            trainer.recomputed_layers = layers;
        } else {
            anyhow::bail!(
                "this run needs {:.1} GB for weights and tensors, and {:.1} GB of the free memory may be used; lower cutoff_len or \
                 token_budget, use finetuning_type: lora, or set gradient_checkpointing: true",
                needed as f64 / 1e9,
                limit as f64 / 1e9
            );
        }
    }
}

/// What the process will hold at most, from what it holds now.
fn predict(before: &ProcessMemory, plan: &MemoryPlan, model: &Model, scratch_bytes: u64) -> u64 {
    // Tensors lie in huge pages, so the last one is touched as a whole.
    const HUGE_PAGE: u64 = 2 << 20;
    // What the program's own code, its threads' stacks and small host buffers take once they are used.
    const PROGRAM: u64 = 16 << 20;
    let weights: u64 = model.checkpoint.tensors.values().map(|tensor| tensor.bytes().len() as u64).sum();
    let tensors = plan.peak_bytes as u64 + weights;
    let touched = before.file_bytes + before.anonymous_bytes;
    touched + tensors.next_multiple_of(HUGE_PAGE) + scratch_bytes + PROGRAM
}

fn tuning(method: &Method, seed: u64, model: &Model, adapter: Option<&LoraAdapter>) -> anyhow::Result<Tuning> {
    let count = model.checkpoint.model.decoder.layers.len();
    Ok(match method {
        Method::Full => Tuning::Full,
        Method::Freeze(layers) => {
            let wanted = match layers {
                FreezeLayers::First(wanted) | FreezeLayers::Last(wanted) => *wanted,
            };
            if wanted > count {
                anyhow::bail!("freeze_trainable_layers is {wanted}, but the model has {count} layers");
            }
            let layers = match layers {
                FreezeLayers::First(wanted) => 0..*wanted,
                FreezeLayers::Last(wanted) => count - wanted..count,
            };
            Tuning::Freeze { layers }
        }
        Method::Lora(lora) => {
            let mut settings = LoraSettings {
                rank: lora.rank,
                alpha: lora.alpha,
                dropout: lora.dropout as f32,
                rslora: lora.rank_stabilised,
                targets: match &lora.targets {
                    Targets::All => TargetModules::AllLinear,
                    Targets::Named(names) => TargetModules::Names(names.clone()),
                },
                saved_modules: lora.modules_to_save.clone(),
                seed,
            };
            if let Some(adapter) = adapter {
                let found = &adapter.settings;
                let given = |targets: &TargetModules| format!("{targets:?}");
                let differs = [
                    ("lora_rank", found.rank != settings.rank),
                    ("lora_alpha", found.alpha != settings.alpha),
                    ("lora_target", given(&found.target_modules) != given(&settings.targets)),
                    ("use_rslora", found.rslora != settings.rslora),
                    ("additional_target", found.modules_to_save != settings.saved_modules),
                ];
                let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
                if !names.is_empty() {
                    eprint_line(&format!("note: the adapter of adapter_name_or_path decides {}", names.join(", ")));
                }
                settings.rank = found.rank;
                settings.alpha = found.alpha;
                settings.rslora = found.rslora;
                settings.targets = found.target_modules.clone();
                settings.saved_modules.clone_from(&found.modules_to_save);
            }
            Tuning::Lora(settings)
        }
    })
}

fn schedule(config: &TrainConfig, total_steps: usize) -> Schedule {
    Schedule {
        kind: match config.schedule.kind {
            config::ScheduleKind::Constant => ScheduleKind::Constant,
            config::ScheduleKind::ConstantWithWarmup => ScheduleKind::ConstantWithWarmup,
            config::ScheduleKind::Linear => ScheduleKind::Linear,
            config::ScheduleKind::Cosine => ScheduleKind::Cosine,
        },
        learning_rate: config.optimiser.learning_rate,
        warmup_steps: config.schedule.warmup.steps(total_steps),
        total_steps,
    }
}

fn optimiser(settings: &config::OptimiserSettings) -> OptimiserSettings {
    OptimiserSettings {
        beta_1: settings.beta1,
        beta_2: settings.beta2,
        epsilon: settings.epsilon,
        weight_decay: settings.weight_decay,
        max_gradient_norm: settings.max_grad_norm,
    }
}

/// Whether the tensor `name` belongs to a module whose path ends with `module`, as PEFT matches `modules_to_save`.
fn is_part_of(name: &str, module: &str) -> bool {
    name.match_indices('.').any(|(end, _)| name[..end].ends_with(module))
}

/// Every name of `lora_target` must be a module that now has an adapter.
fn check_targets(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let Tuning::Lora(LoraSettings { targets, .. }) = tuning else { return Ok(()) };
    let adapted = decoder.adapted_modules();
    let has = |target: &str| {
        adapted
            .iter()
            .any(|module| module.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    };
    let stray = match targets {
        TargetModules::Names(names) => names.iter().find(|name| !has(name)).cloned(),
        _ => adapted.is_empty().then(|| "(the pattern)".to_owned()),
    };
    match stray {
        Some(stray) => anyhow::bail!(
            "lora_target: the model has no linear layer {stray:?}; expected names such as q_proj, down_proj, or all"
        ),
        None => Ok(()),
    }
}

/// Every name of `additional_target` must be a module that is now trained as a whole.
fn check_saved_modules(tuning: &Tuning, decoder: &Decoder) -> anyhow::Result<()> {
    let Tuning::Lora(lora) = tuning else { return Ok(()) };
    let whole: Vec<&str> = decoder
        .parameters()
        .iter()
        .map(|parameter| parameter.name.as_str())
        .filter(|name| !name.contains(".lora_"))
        .collect();
    let matches = |saved: &str| whole.iter().any(|name| is_part_of(name, saved));
    match lora.saved_modules.iter().find(|saved| !matches(saved)) {
        Some(stray) => anyhow::bail!(
            "additional_target: the model has no module {stray:?}; expected names such as embed_tokens, lm_head, norm"
        ),
        None => Ok(()),
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

fn warn_long_rows(model: &Model, steps: &RowSteps) {
    let longest = steps.longest_row();
    if let Some(most) = model.checkpoint.model.decoder.max_positions.filter(|most| longest > *most) {
        eprint_line(&format!(
            "warning: the longest row has {longest} tokens, and the model was made for {most}; lower cutoff_len"
        ));
    }
}

fn numbers_of(model: &Model) -> usize {
    model.checkpoint.tensors.values().map(|tensor| tensor.tensor().len()).sum()
}

/// `1234567` as `1,234,567`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
