//! The page before the start: what will be trained on what, how much memory, time and disk it takes, and whether a row
//! looks as it should. `luthier train` shows it and goes on, `dry_run` stops after it, `luthier plan` is it alone.

use luthier_data::{Example, Tokenizer};
use luthier_model::Tuning;
use luthier_model::adapter::Placement;
use luthier_train::{Event, MemoryPlan, OptimiserKind, Steps, Trained, memory_warning, rate_warning};

use crate::config::{Stage, TrainConfig, When};
use crate::estimate::{Estimate, estimate};
use crate::fit::PROGRAM;
use crate::machine::available_bytes;
use crate::manifest::memory_bytes;
use crate::method::trained_part;
use crate::run::{Run, numbers_of, precision_name};
use crate::wording::duration;
use crate::wording::size;
use crate::wording::thousands;

/// What a run will take.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Plan {
    pub(crate) memory: Memory,
    pub(crate) steps: usize,
    pub(crate) token_budget: usize,
    pub(crate) recomputed_layers: usize,
    pub(crate) step_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) disk_bytes: u64,
    pub(crate) free_disk_bytes: Option<u64>,
}

/// The process's memory by part, in bytes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Memory {
    /// The whole process at its peak.
    pub(crate) total_bytes: u64,
    /// The base model as the file has it, mapped.
    pub(crate) weight_bytes: u64,
    /// Masters of what is trained.
    pub(crate) trained_bytes: u64,
    pub(crate) gradient_bytes: u64,
    /// What the optimiser keeps.
    pub(crate) moment_bytes: u64,
    /// What the largest part keeps for its way back, and its temporaries.
    pub(crate) activation_bytes: u64,
    /// The program, packing buffers and data.
    pub(crate) program_bytes: u64,
    /// What the system could give now.
    pub(crate) available_bytes: Option<u64>,
}

impl Plan {
    /// Plans the run from step `first` on; measures a few rows for the time.
    pub(crate) fn of(config: &TrainConfig, run: &Run, first: usize) -> Self {
        let Estimate { seconds, step_seconds, .. } = estimate(run, first, evaluations(config, run, first));
        let (disk_bytes, _) = disk(config, run);
        Self {
            memory: memory(run),
            steps: run.steps.total,
            token_budget: run.steps.token_budget(),
            recomputed_layers: run.trainer.recomputed.layers,
            step_seconds,
            seconds,
            disk_bytes,
            free_disk_bytes: luthier_files::free_bytes(&config.output.folder),
        }
    }

    /// The plan as lines of the page.
    fn lines(&self, config: &TrainConfig, run: &Run) -> Vec<String> {
        let memory = &self.memory;
        let free = |bytes: Option<u64>| bytes.map_or_else(String::new, |bytes| format!(" ({} free)", size(bytes)));
        let recomputed = match self.recomputed_layers {
            0 => String::new(),
            layers if run.trainer.recomputed.feed_forward_only => {
                format!(", the feed-forward networks of {layers} layers computed again on the way back")
            }
            layers => format!(", {layers} layers computed again on the way back"),
        };
        let (_, files) = disk(config, run);
        let mut lines = vec![
            format!(
                "steps: {} of {} rows, in parts of at most {} tokens{recomputed}",
                self.steps,
                run.steps.rows_per_step(),
                self.token_budget
            ),
            format!("memory: {}{}: {}", size(memory.total_bytes), free(memory.available_bytes), memory.parts()),
            format!("time: about {}, {:.2} s a step", duration(self.seconds), self.step_seconds),
            format!("disk: {}{}: {files}", size(self.disk_bytes), free(self.free_disk_bytes)),
        ];
        if let Some(other) = &run.facts.in_fp32 {
            let activations = |plan: &MemoryPlan| plan.peak_bytes.saturating_sub(plan.resident_bytes) as f64;
            let (here, there) = (activations(&run.facts.plan), activations(other));
            lines.push(format!(
                "fp16: activations take {} where fp32 would take {}, {:.0} % less",
                size(here as u64),
                size(there as u64),
                100.0 * (1.0 - here / there.max(1.0))
            ));
        }
        lines
    }
}

impl Memory {
    fn parts(&self) -> String {
        let named = [
            ("weights", self.weight_bytes),
            ("trained", self.trained_bytes),
            ("gradients", self.gradient_bytes),
            ("moments", self.moment_bytes),
            ("activations", self.activation_bytes),
            ("program", self.program_bytes),
        ];
        named.map(|(name, bytes)| format!("{name} {}", size(bytes))).join(", ")
    }
}

/// The whole page, with what to be warned of last.
pub(crate) fn page(config: &TrainConfig, run: &Run, plan: &Plan) -> Vec<String> {
    let mut page = lines(config, run);
    page.extend(plan.lines(config, run));
    let trained = if run.tuning.is_adapter() { Trained::Adapter } else { Trained::Weights };
    let all_memory = memory_bytes().unwrap_or(0);
    let warnings = [
        // Weights that are drawn have everything to learn: usual rates are others.
        rate_warning(trained, run.facts.rate.value).filter(|_| !config.model.from_scratch),
        memory_warning(plan.memory.total_bytes, all_memory),
    ];
    for warning in warnings.into_iter().flatten() {
        if let Event::Warning { name, message } = warning {
            page.push(format!("warning: {name}: {message}"));
        }
    }
    if let Some(free) = plan.free_disk_bytes.filter(|free| plan.disk_bytes > *free) {
        page.push(format!(
            "warning: disk_too_small: {} are needed and {} free; set save_total_limit, or make room",
            size(plan.disk_bytes),
            size(free)
        ));
    }
    page
}

/// How the base is stored, where that is not as in its files.
fn quantised(run: &Run) -> Option<String> {
    let made = || run.model.checkpoint.tensors.values().filter(|tensor| tensor.was_quantised());
    let first = made().next()?;
    let (bytes, numbers) = made()
        .fold((0, 0), |(bytes, numbers), tensor| (bytes + tensor.memory_bytes(), numbers + tensor.tensor().len()));
    let bits = 8.0 * bytes as f64 / numbers.max(1) as f64;
    Some(format!(
        "linear layers of the base: {}, {bits:.2} bits a number; embedding, head and norms as in the files",
        first.dtype()
    ))
}

/// Model, method, data and machine, one line each.
fn lines(config: &TrainConfig, run: &Run) -> Vec<String> {
    let facts = &run.facts;
    let trained = run.decoder.parameters().count();
    let all = numbers_of(&run.model);
    let share = 100.0 * trained as f64 / all as f64;
    let mut lines = vec![
        format!(
            "model: {} ({}), {} numbers",
            run.model.files.label,
            run.model.checkpoint.model.decoder.model_type,
            thousands(all)
        ),
        format!("method: {}, {} numbers trained ({share:.2} %)", method(config, run), thousands(trained)),
    ];
    lines.extend(quantised(run));
    let optimiser = &run.trainer.optimiser;
    if optimiser.kind != OptimiserKind::AdamW || optimiser.in_backward {
        let when = if optimiser.in_backward { ", on the way back" } else { "" };
        lines.push(format!("optimiser: {}{when}", optimiser.kind.describe()));
    }
    lines.extend(facts.rate.reason.iter().map(|reason| format!("rate: {reason}")));
    let [rows, tokens, scored] = run.steps.totals();
    lines.push(format!(
        "data: {} rows, {} tokens, {} of them trained ({:.0} %); the longest row has {}",
        thousands(rows),
        thousands(tokens),
        thousands(scored),
        100.0 * scored as f64 / tokens.max(1) as f64,
        run.steps.longest_row()
    ));
    let losses = crate::rows::losses(&facts.report, &config.data.datasets, config.data.cutoff_len);
    lines.extend(losses.into_iter().map(|loss| format!("data: {loss}")));
    lines.extend(run.steps.packing());
    if config.evaluation.is_some() {
        let [rows, tokens, scored] = run.steps.evaluation_totals();
        lines.push(format!(
            "evaluation: {} rows, {} tokens, {} of them scored, {} times",
            thousands(rows),
            thousands(tokens),
            thousands(scored),
            evaluations(config, run, 0)
        ));
    }
    if let Some(tokenizer) = &facts.tokenizer {
        lines.extend(proof(
            config,
            run.steps.first(),
            facts.template.as_ref().map(|template| template.name.as_str()),
            tokenizer,
        ));
    }
    let name = precision_name(run.trainer.precision);
    lines.push(format!("machine: {} threads, {}; {name} ({})", facts.threads, run.isa.name(), facts.precision_reason));
    if config.output.guessed {
        lines.push(format!("note: output_dir is not given: it is {}", config.output.folder.display()));
    }
    lines.extend(config.differences.iter().map(|differences| format!("note: {differences}")));
    lines
}

fn method(config: &TrainConfig, run: &Run) -> String {
    let dropped = |dropout: f32| if dropout > 0.0 { format!(", dropout {dropout}") } else { String::new() };
    match &run.tuning {
        Tuning::Lora(lora) => {
            let name = match (lora.dora, &lora.pissa) {
                (true, _) => "DoRA",
                (_, Some(_)) => "PiSSA",
                _ => "LoRA",
            };
            let saved = lora.pissa.map(|_| format!(", saved as LoRA of rank {} for the base as it was", 2 * lora.rank));
            let saved = saved.unwrap_or_default();
            format!("{name} of rank {}, alpha {}{}{saved}", lora.rank, lora.alpha, dropped(lora.dropout))
        }
        Tuning::Prompt(prompt) => {
            let tokens = prompt.config.virtual_tokens;
            let network = match prompt.config.network_width {
                Some(width) => format!(", made by a network of width {width}"),
                None => String::new(),
            };
            format!("a {} of {tokens} virtual tokens{network}", prompt.config.kind.noun())
        }
        Tuning::Bottleneck(bottleneck) => {
            let place = match bottleneck.config.placement {
                Placement::Houlsby => "attention and feed-forward",
                Placement::Pfeiffer => "feed-forward",
            };
            format!("bottleneck adapters of size {} after {place}", bottleneck.config.size)
        }
        Tuning::Ia3(_) => "IA3".to_owned(),
        Tuning::Vera(vera) => format!("VeRA of rank {}{}", vera.rank, dropped(vera.dropout)),
        Tuning::Oft(oft) if oft.block > 0 => format!("OFT in blocks of {}", oft.block),
        Tuning::Oft(oft) => format!("OFT in {} blocks", oft.blocks),
        Tuning::Freeze { .. } => trained_part(&config.method, run.model.checkpoint.model.decoder.layers.len()),
        Tuning::Full => "all weights".to_owned(),
        Tuning::Nothing => "nothing".to_owned(),
    }
}

/// How the first row looks, what of it is trained, and what ends its reply.
fn proof(config: &TrainConfig, row: &Example, template: Option<&str>, tokenizer: &Tokenizer) -> Vec<String> {
    let mut lines = Vec::new();
    if config.stage == Stage::SupervisedFineTuning {
        let last = row.trained.iter().rposition(|&trained| trained);
        let special = row
            .ids
            .iter()
            .zip(&row.trained)
            .rev()
            .find(|(id, trained)| **trained && (tokenizer.is_special(**id) || tokenizer.end_ids().contains(id)));
        let end = match special.and_then(|(id, _)| tokenizer.token(*id)) {
            Some(token) => format!("replies end with {token}, which is trained"),
            None if last.is_some() => "warning: the reply of this row does not end with a trained end token".to_owned(),
            None => "this row has no trained token".to_owned(),
        };
        lines.push(format!("template: {}; {end}", template.unwrap_or("none")));
    }
    lines.push(format!("first row (⟦trained⟧): {}", shown(row, tokenizer)));
    lines
}

/// The text of a row with its trained parts in brackets, on one line, the middle of a long one left out.
fn shown(row: &Example, tokenizer: &Tokenizer) -> String {
    const MOST: usize = 480;
    let mut text = String::new();
    let mut first = 0;
    while first < row.ids.len() {
        let trained = row.trained[first];
        let length = row.trained[first..].iter().take_while(|&&other| other == trained).count();
        let part = tokenizer.decode(&row.ids[first..first + length]).unwrap_or_default();
        let part = part.replace('\n', "\\n");
        text.push_str(&if trained { format!("⟦{part}⟧") } else { part });
        first += length;
    }
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= MOST {
        return text;
    }
    let (head, tail) = (&letters[..MOST / 2], &letters[letters.len() - MOST / 2..]);
    format!("{} … {}", head.iter().collect::<String>(), tail.iter().collect::<String>())
}

fn memory(run: &Run) -> Memory {
    let trained_bytes: u64 = run.decoder.parameters().iter().map(|parameter| parameter.value.bytes() as u64).sum();
    let weight_bytes: u64 = run.model.checkpoint.tensors.values().map(|tensor| tensor.memory_bytes() as u64).sum();
    let peak = run.facts.plan.peak_bytes as u64;
    let total_bytes = run.predicted_bytes.unwrap_or(peak + weight_bytes + run.facts.scratch_bytes + PROGRAM);
    let plan = &run.facts.plan;
    let (gradient_bytes, moment_bytes) = (plan.gradient_bytes as u64, plan.state_bytes as u64);
    let activation_bytes = peak.saturating_sub(trained_bytes + gradient_bytes + moment_bytes);
    Memory {
        total_bytes,
        weight_bytes,
        trained_bytes,
        gradient_bytes,
        moment_bytes,
        activation_bytes,
        program_bytes: total_bytes.saturating_sub(weight_bytes + peak),
        available_bytes: available_bytes(),
    }
}

/// How often the model will be evaluated from step `first` on.
fn evaluations(config: &TrainConfig, run: &Run, first: usize) -> usize {
    let Some(evaluation) = &config.evaluation else { return 0 };
    let total = run.steps.total;
    let between = |steps: usize| total.div_ceil(steps.max(1)).saturating_sub(first / steps.max(1));
    let between = match evaluation.when {
        When::Never => 0,
        When::EachEpoch => between(run.steps.per_epoch()),
        When::Every(span) => between(span.steps(total)),
    };
    between + usize::from(evaluation.at_start && first == 0)
}

/// Bytes that a run will have on the disk at most, and what they are.
fn disk(config: &TrainConfig, run: &Run) -> (u64, String) {
    let parameters = run.decoder.parameters().count() as u64;
    let result = match run.tuning.is_adapter() {
        true => 4 * run.decoder.adapter_tensors().iter().map(|tensor| tensor.value.len() as u64).sum::<u64>(),
        false => {
            let half =
                run.model.checkpoint.tensors.values().map(|tensor| tensor.tensor().len() as u64 * 2).sum::<u64>();
            let stored = run.model.checkpoint.tensors.values().map(|tensor| tensor.bytes().len() as u64).sum();
            half.max(stored)
        }
    };
    let companions: u64 = run.model.files.companions().map(|(_, bytes)| (**bytes).as_ref().len() as u64).sum();
    let result = result + companions;
    // Masters and the optimiser's state, and the journal: a line a step, half of them on the average.
    let checkpoint = result + 4 * parameters + run.facts.plan.state_bytes as u64 + 100 * run.steps.total as u64;
    let total = run.steps.total;
    let saves = match config.saving.when {
        When::Never => 0,
        When::EachEpoch => total / run.steps.per_epoch().max(1),
        When::Every(span) => total / span.steps(total).max(1),
    };
    let saves = saves + if config.saving.best { evaluations(config, run, 0) } else { 0 };
    // The older ones go only when the new one is whole, and the best stays besides.
    let kept = config.saving.limit.map_or(saves, |limit| saves.min(limit + 2)) as u64;
    let files = match kept {
        0 => format!("the result {}", size(result)),
        _ => format!("the result {}, at most {kept} checkpoints of {}", size(result), size(checkpoint)),
    };
    (result + kept * checkpoint, files)
}
