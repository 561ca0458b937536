//! `luthier export`: a model, with its adapter merged, as files that other programs read. Everything is written aside, read
//! back and compared with the unmerged model, and only then put in its place.

mod card;
mod config;
mod files;
mod keys;
mod modelfile;
mod older;
pub(crate) mod replay;

use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_model::checkpoint::{GgufFileType, GgufStorage};
use luthier_model::{Adapter, Decoder, Merged, Tuning};
use luthier_tensor::{DType, Device};

use crate::machine::Processor;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::quantised::trained_on;
use crate::{Environment, eprint_line, print_text, signals};
pub(crate) use config::{Arguments, parse_size};
use config::{ExportConfig, Format, Target};
pub(crate) use files::stored_as;
use files::{Files, Job};
pub(crate) use keys::HELP;
use replay::{Prompts, Replay};

/// Below this share of agreeing positions, in percent, the files are suspicious.
const EXPECTED_AGREEMENT_PERCENT: f64 = 90.0;

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let config = ExportConfig::read(arguments, &environment.hub)?;
    config.notices.iter().for_each(|notice| note(notice));
    let processor = Processor::choose(config.threads, environment)?;
    let model = open(&config, arguments.unquantised_base, &processor)?;
    model.checkpoint.model.notes.iter().for_each(|sentence| note(sentence));
    let adapter = config.adapter.as_deref().map(luthier_files::read_adapter).transpose()?;
    let device = processor.device(None)?;
    // The unmerged model is made first: it refuses an adapter of another model before anything is written.
    let before = Decoder::new(&device, &model.checkpoint, &Tuning::Nothing, adapter.as_ref())?;
    // What the adapter changes is the measure of what storing changes.
    let untuned =
        adapter.as_ref().map(|_| Decoder::new(&device, &model.checkpoint, &Tuning::Nothing, None)).transpose()?;
    let job = Job::new(&config, &model, Merged::new(&device, &model.checkpoint, adapter.as_ref())?)?;
    let prompts = Prompts::new(&model, job.tokenizer.as_ref(), job.named_template())?;
    prompts.note.iter().for_each(|sentence| note(sentence));
    let files = job.plan()?;
    describe(&config, &model, adapter.as_ref(), &job, &files);
    check_space(&config, &files)?;

    signals::listen("stopping; what was at the output stays as it was")?;
    let mut result = None;
    let fill = |folder: &Path| -> anyhow::Result<()> {
        job.write(&files, folder)?;
        let replay = read_back(&device, (&before, untuned.as_ref()), &prompts, &folder.join(&files.model))?;
        let modelfile = config.modelfile.then(|| job.modelfile(&files)).transpose()?;
        if let Some((name, text)) = &modelfile {
            luthier_files::write_atomically(&folder.join(name), |writer| writer.write_all(text.as_bytes()))?;
        }
        let card = card::text(&config, &model, adapter.as_ref(), &job, &files, (&replay, &prompts));
        luthier_files::write_atomically(&folder.join(&files.card), |writer| writer.write_all(card.as_bytes()))?;
        result = Some((replay, names(folder)?));
        Ok(())
    };
    let written = match &config.target {
        Target::Folder(path) => luthier_files::write_folder_atomically(path, fill),
        Target::File(path) => luthier_files::write_files_atomically(parent(path), &files.model, fill),
    };
    if written.is_err() && signals::is_asked() {
        eprint_line("stopped: nothing was exported");
        return Ok(Outcome::Stopped);
    }
    written?;
    let (replay, names) = result.context("nothing was written")?;
    report(&config, &prompts, &replay, &names, &job.stored_name);
    Ok(Outcome::Saved)
}

/// The base, with the numbers that the adapter was trained on: those of QLoRA are not the files' own.
fn open(config: &ExportConfig, unquantised: bool, processor: &Processor) -> anyhow::Result<Model> {
    let model = Model::open(&config.model)?;
    let trained_on = config.adapter.as_deref().and_then(trained_on);
    let Some(quantisation) = trained_on.filter(|_| files::stored_as(&model.checkpoint).block_len() == 1) else {
        return Ok(model);
    };
    let dtype = quantisation.dtype();
    if unquantised {
        note(&format!("the adapter was trained on the base in {dtype}, and is merged into other numbers, as wished"));
        return Ok(model);
    }
    note(&format!(
        "the adapter was trained on the base in {dtype} (run.json), so it is merged into these numbers; --unquantised-base merges \
         it into those of the files"
    ));
    model.with(Some(quantisation), processor.threads)
}

fn note(sentence: &str) {
    eprint_line(&format!("note: {sentence}"));
}

/// Says what will be done to the numbers: rounding and quantising are never silent.
fn describe(config: &ExportConfig, model: &Model, adapter: Option<&Adapter>, job: &Job<'_>, files: &Files) {
    let tensors = model.checkpoint.tensors.len();
    let changed = model.checkpoint.tensors.keys().filter(|name| job.merged.changes(name)).count();
    if adapter.is_some() {
        let to = match job.storage {
            GgufStorage::Named(named) => named.name,
            GgufStorage::AsBase => "the type that each has in the base",
        };
        eprint_line(&format!("merge: {changed} of {tensors} tensors change, in f32, rounded once to {to}"));
    }
    let base = files::stored_as(&model.checkpoint);
    eprint_line(&match job.storage {
        GgufStorage::AsBase => kept(job, files),
        GgufStorage::Named(to) => converted(base, to, files),
    });
    files.notes.iter().for_each(|sentence| note(sentence));
    let shown = config.target.path().display();
    eprint_line(&format!("writing {shown}: {:.2} GB in {} tensors", files.bytes as f64 / 1e9, files.tensor_count()));
}

/// What becomes of a base of which every tensor keeps its type.
fn kept(job: &Job<'_>, files: &Files) -> String {
    let made_anew: Vec<DType> =
        files.stored().filter(|(name, dtype)| !job.merged.copies(name, *dtype)).map(|(_, dtype)| dtype).collect();
    let copied = files.stored().count() - made_anew.len();
    match made_anew.is_empty() {
        true => format!("numbers: all {copied} tensors of the base are copied byte for byte"),
        false => {
            let verb = if made_anew.iter().any(|dtype| dtype.block_len() > 1) { "quantised" } else { "rounded" };
            format!(
                "numbers: {} are {verb} anew, each to the type that it had; the other {copied} are copied byte for byte",
                counted(made_anew.into_iter())
            )
        }
    }
}

/// What becomes of numbers that are to be stored in another way, or in the same.
fn converted(base: DType, to: GgufFileType, files: &Files) -> String {
    let what = match to.name {
        "q8_0" => "8 bits in blocks of 32 with one scale each".to_owned(),
        _ => counted(files.stored().map(|(_, dtype)| dtype)),
    };
    match (base.block_len() > 1, to.is_quantised()) {
        _ if base.name() == to.name => format!("numbers: {to}, as most of the base's"),
        (true, true) => {
            format!(
                "numbers: the base is quantised to {base}; its numbers are decoded and quantised anew to {to}: {what}"
            )
        }
        (true, false) => format!(
            "numbers: the base is quantised to {base}; its numbers are decoded and stored as {to}, which takes more room and \
             does not bring back what quantising lost"
        ),
        (false, true) => format!("numbers: quantised from {base} to {to}: {what}"),
        (false, false) => format!("numbers: rounded from {base} to {to}"),
    }
}

/// `12 q4_k, 3 f32`: how often each type occurs, the most frequent first.
fn counted(types: impl Iterator<Item = DType>) -> String {
    let mut counts: Vec<(DType, usize)> = Vec::new();
    for dtype in types {
        match counts.iter_mut().find(|(known, _)| *known == dtype) {
            Some((_, count)) => *count += 1,
            None => counts.push((dtype, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect::<Vec<_>>().join(", ")
}

fn check_space(config: &ExportConfig, files: &Files) -> anyhow::Result<()> {
    let path = config.target.path();
    if let Some(free) = luthier_files::free_bytes(path).filter(|free| *free < files.bytes) {
        anyhow::bail!(
            "{}: the export needs {:.2} GB, and the disk has room for {:.2} GB; make room or choose another disk",
            path.display(),
            files.bytes as f64 / 1e9,
            free as f64 / 1e9
        );
    }
    Ok(())
}

/// Loads what was written, as any user would, and compares it with the unmerged model.
fn read_back(
    device: &Device,
    before: (&Decoder, Option<&Decoder>),
    prompts: &Prompts,
    path: &Path,
) -> anyhow::Result<Replay> {
    const FAILED: &str = "what was written cannot be read back, so nothing was put in place";
    let exported = Model::open(path).context(FAILED)?;
    let after = Decoder::new(device, &exported.checkpoint, &Tuning::Nothing, None).context(FAILED)?;
    if prompts.has_tokenizer {
        let tokenizer = exported.tokenizer().context(FAILED)?;
        let again = Prompts::new(&exported, Some(&tokenizer), None).context(FAILED)?;
        let different = prompts.rows.iter().zip(&again.rows).filter(|(one, other)| one != other).count();
        if different > 0 || prompts.rows.len() != again.rows.len() {
            eprint_line(&format!(
                "warning: the exported tokenizer or chat template makes other tokens of {different} of {} prompts",
                prompts.rows.len()
            ));
        }
    }
    eprint_line(&format!("replaying {} prompts through both models", prompts.rows.len()));
    Ok(Replay::run(device, before, &after, prompts)?)
}

fn report(config: &ExportConfig, prompts: &Prompts, replay: &Replay, names: &[String], stored_name: &str) {
    let before = if config.adapter.is_some() { "the base with its adapter unmerged" } else { "the base" };
    let mut text = format!("exported to {}: {}\n", config.target.path().display(), names.join(", "));
    text += &format!("replay of {} prompts {}, {before} against the exported files:\n", replay.prompts, prompts.how);
    for (what, value) in replay.lines() {
        text += &format!("  {what:<26} {value}\n");
    }
    print_text(&text);
    if replay.broken != [0; 2] {
        let [before, after] = replay.broken;
        eprint_line(&format!(
            "warning: logits that are no finite numbers stand at {before} of {} positions of the model and at {after} of the \
             exported files; do not use these files: {}",
            replay.positions,
            if before > 0 {
                "the model or the adapter itself is damaged"
            } else {
                "its numbers do not fit what they are stored as; give --outtype bf16 or f32"
            }
        ));
    } else if let Some(by_adapter) = replay.outweighed() {
        eprint_line(&format!(
            "warning: storing as {stored_name} changes the logits by {:.4} in the mean, no less than the adapter's {by_adapter:.4}: \
             what was trained may be lost in it; store more bits with --outtype, or keep base and adapter apart",
            replay.mean_difference
        ));
    } else if replay.agreement_percent() < EXPECTED_AGREEMENT_PERCENT {
        eprint_line(&format!(
            "warning: the exported files agree with the model at {:.1} % of the positions only; store more bits with --outtype, \
             and do not trust these files without a look at their answers",
            replay.agreement_percent()
        ));
    }
    if config.format == Format::Gguf && config.modelfile {
        let folder = match &config.target {
            Target::Folder(path) => path.clone(),
            Target::File(path) => parent(path).to_owned(),
        };
        let name = names.iter().find(|name| name.ends_with("Modelfile")).cloned().unwrap_or_default();
        eprint_line(&format!("next: ollama create {} -f {}", config.target.name(), folder.join(name).display()));
    }
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// The folder that a file is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `model.gguf` beside its card.
fn file_name(path: &Path) -> PathBuf {
    path.file_name().map(PathBuf::from).unwrap_or_default()
}
