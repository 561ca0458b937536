//! The checkpoints of a run: `checkpoint-STEP` in the output folder, each a sealed folder with the adapter or model as it
//! is saved at the end, and what the next step depends on besides: masters and the optimiser's state as they are, the
//! progress, the journal, and how the run was laid out (token budget, recomputed layers, instruction set), so that a run
//! that goes on gives the same bytes as one that was never left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use luthier_model::checkpoint::{Shard, StoredTensor, TensorSpec, read_state, write_shard};
use luthier_model::{Parameters, Recomputed};
use luthier_tensor::{DType, Device, Tensor};
use luthier_train::{Optimiser, Progress};
use serde::{Deserialize, Serialize};

use crate::eprint_line;
use crate::journal::{self, Entry};
use crate::run::Run;
use crate::save::{self, Failure};

const PREFIX: &str = "checkpoint-";
const STATE_FILE: &str = "training_state.json";
const TENSORS_FILE: &str = "training_state.safetensors";
const JOURNAL_FILE: &str = "journal.jsonl";
/// Raised when a checkpoint of an older program cannot be continued.
const FORMAT: u32 = 1;

/// What a checkpoint knows besides tensors and journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    pub(crate) progress: Progress,
    pub(crate) layout: Layout,
}

/// What must be the same in every sitting of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// Tokens of one part.
    pub(crate) token_budget: usize,
    pub(crate) recomputed_layers: usize,
    /// Of them the feed-forward network alone.
    #[serde(default)]
    pub(crate) feed_forward_only: bool,
    /// Rows of a batch.
    #[serde(default)]
    pub(crate) batch_rows: Option<usize>,
    /// The instruction set: another adds in another order.
    pub(crate) cpu: String,
    /// `bf16`, `fp16` or `fp32`.
    pub(crate) precision: String,
    /// Of the rows and their order.
    pub(crate) data: String,
    /// Method, optimiser and schedule, for comparison.
    pub(crate) settings: BTreeMap<String, String>,
}

impl Layout {
    pub(crate) fn recomputed(&self) -> Recomputed {
        Recomputed { layers: self.recomputed_layers, feed_forward_only: self.feed_forward_only }
    }
}

/// The checkpoints of an output folder.
pub(crate) struct Checkpoints<'r> {
    pub(crate) folder: &'r Path,
    /// How many are kept; `None`: all.
    pub(crate) limit: Option<usize>,
    pub(crate) base_model: &'r str,
    /// Those of an older run in the folder, which stay until this run has something to show.
    pub(crate) older: Vec<usize>,
}

impl Checkpoints<'_> {
    /// Writes one, and removes those that are too many: never the newest, nor the best.
    pub(crate) fn write(
        &self,
        run: &Run,
        progress: &Progress,
        optimiser: &Optimiser,
        journal: &[Entry],
    ) -> Result<PathBuf, Failure> {
        let path = self.path(progress.step);
        let state = State { format: FORMAT, progress: progress.clone(), layout: run.layout() };
        luthier_files::write_sealed(&path, |folder| -> Result<(), Failure> {
            save::write(run, self.base_model, folder)?;
            write_tensors(&run.device, run.decoder.parameters(), optimiser, &folder.join(TENSORS_FILE))?;
            luthier_files::write_atomically(&folder.join(JOURNAL_FILE), |writer| journal::write(journal, writer))?;
            let text = format!("{:#}\n", serde_json::json!(state));
            luthier_files::write_atomically(&folder.join(STATE_FILE), |writer| writer.write_all(text.as_bytes()))?;
            Ok(())
        })?;
        self.prune(progress);
        Ok(path)
    }

    /// Removes the checkpoints of the older run, of which a later resuming would know nothing; returns how many.
    pub(crate) fn remove_older(&mut self, newest: Option<usize>) -> usize {
        let older: Vec<usize> = self.older.drain(..).filter(|step| Some(*step) != newest).collect();
        for step in older.iter().rev() {
            let path = self.path(*step);
            if let Err(error) = std::fs::remove_dir_all(&path) {
                eprint_line(&format!("warning: {} of an older run cannot be removed: {error}", path.display()));
            }
        }
        older.len()
    }

    fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step}"))
    }

    fn prune(&self, progress: &Progress) {
        let Some(limit) = self.limit else { return };
        let best = progress.best.map(|best| best.step);
        let mut steps: Vec<usize> = steps_of(self.folder).into_iter().filter(|step| Some(*step) != best).collect();
        // Newer ones than this belong to another time line: a run that was continued from before them.
        steps.retain(|step| *step != progress.step);
        let kept = limit.saturating_sub(1);
        for step in steps.iter().rev().skip(kept) {
            let path = self.path(*step);
            if let Err(error) = std::fs::remove_dir_all(&path) {
                eprint_line(&format!("warning: {} is one too many, but cannot be removed: {error}", path.display()));
            }
        }
    }
}

/// The steps that have a checkpoint, in order, valid or not.
fn steps_of(folder: &Path) -> Vec<usize> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let step = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok();
    let mut steps: Vec<usize> = entries.filter_map(step).collect();
    steps.sort_unstable();
    steps
}

/// Whether a folder holds checkpoints of a run.
pub(crate) fn has_any(folder: &Path) -> bool {
    !steps_of(folder).is_empty()
}

/// The steps of checkpoints that Luthier wrote into a folder.
pub(crate) fn ours(folder: &Path) -> Vec<usize> {
    let is_ours = |step: &usize| folder.join(format!("{PREFIX}{step}")).join(luthier_files::SEAL_FILE).exists();
    steps_of(folder).into_iter().filter(is_ours).collect()
}

/// Removes the checkpoints after `step`: the run goes on from there, and would not meet them again.
pub(crate) fn remove_later(folder: &Path, step: usize) -> anyhow::Result<()> {
    // The newest first: what a kill leaves is then still a part of the time line.
    for later in ours(folder).into_iter().rev().filter(|later| *later > step) {
        let path = folder.join(format!("{PREFIX}{later}"));
        std::fs::remove_dir_all(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        eprint_line(&format!("note: removed {}, which lies after the checkpoint that is continued", path.display()));
    }
    Ok(())
}

/// A checkpoint that was found whole.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) state: State,
    pub(crate) journal: Vec<Entry>,
}

/// The newest valid checkpoint of a folder; those that are damaged are named and passed over.
pub(crate) fn newest(folder: &Path) -> anyhow::Result<Option<Found>> {
    for step in steps_of(folder).into_iter().rev() {
        match open(&folder.join(format!("{PREFIX}{step}"))) {
            Ok(found) => return Ok(Some(found)),
            Err(error) if matches!(error.downcast_ref(), Some(luthier_files::Error::Damaged { .. })) => {
                eprint_line(&format!("warning: this checkpoint is passed over: {error:#}"));
            }
            // What is whole but cannot be read now may be readable later: nothing may be built over it.
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Opens a checkpoint and makes sure that it is whole.
pub(crate) fn open(path: &Path) -> anyhow::Result<Found> {
    if !path.is_dir() {
        bail!("resume_from_checkpoint: {} is no folder; expected a checkpoint such as checkpoint-100", path.display());
    }
    luthier_files::check_sealed(path)?;
    let file = path.join(STATE_FILE);
    let text = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let state: State = serde_json::from_slice(&text).with_context(|| {
        format!("{}: it is not the state of a training that this version of Luthier knows", file.display())
    })?;
    if state.format != FORMAT {
        bail!("{}: its format is {}, and this version of Luthier knows {FORMAT}", file.display(), state.format);
    }
    let journal = journal::read(&path.join(JOURNAL_FILE))?;
    Ok(Found { path: path.to_owned(), state, journal })
}

impl Found {
    /// Writes masters and moments into a trainer's tensors.
    pub(crate) fn restore(
        &self,
        device: &Device,
        parameters: &Parameters,
        optimiser: Option<&Optimiser>,
    ) -> anyhow::Result<()> {
        let file = self.path.join(TENSORS_FILE);
        let label = file.display().to_string();
        let stored = read_state(&label, &luthier_files::map(&file)?)?;
        let stored: BTreeMap<String, StoredTensor> = stored.into_iter().collect();
        let mut count = 0;
        for (name, target) in &tensors(parameters, optimiser) {
            let tensor = stored.get(name).with_context(|| {
                format!(
                    "{label}: it has no tensor {name}; a run is continued with the method and model that it began with"
                )
            })?;
            if tensor.tensor().len() != target.len() {
                bail!("{label}: {name} has {} numbers, the run {}", tensor.tensor().len(), target.len());
            }
            if tensor.tensor().dtype() != target.dtype() && target.dtype() == DType::U8 {
                bail!("{label}: {name} is {}, and the run has {}", tensor.tensor().dtype(), target.dtype());
            }
            match target.dtype() {
                DType::U8 => device.write_bytes(target, tensor.bytes()),
                _ => device.copy(&tensor.tensor().reshape(target.rows(), target.columns()), target),
            }
            count += 1;
        }
        if optimiser.is_some() && count != stored.len() {
            bail!(
                "{label}: it has {} tensors, the run {count}; a run is continued with the method that it began with",
                stored.len()
            );
        }
        Ok(())
    }
}

/// Masters and the optimiser's state with their names in the file.
fn tensors(parameters: &Parameters, optimiser: Option<&Optimiser>) -> Vec<(String, Tensor)> {
    let masters = parameters.iter().map(|parameter| (parameter.name.clone(), parameter.value.clone()));
    masters.chain(optimiser.into_iter().flat_map(|optimiser| optimiser.state(parameters))).collect()
}

fn write_tensors(
    device: &Device,
    parameters: &Parameters,
    optimiser: &Optimiser,
    path: &Path,
) -> Result<(), luthier_files::Error> {
    let by_name: BTreeMap<String, Tensor> = tensors(parameters, Some(optimiser)).into_iter().collect();
    let spec = |(name, tensor): (&String, &Tensor)| TensorSpec {
        name: name.clone(),
        dtype: tensor.dtype(),
        dims: vec![tensor.rows(), tensor.columns()],
    };
    let shard = Shard { file: TENSORS_FILE.to_owned(), tensors: by_name.iter().map(spec).collect() };
    luthier_files::write_atomically(path, |writer| {
        write_shard(&shard, writer, &mut |spec, writer| match by_name.get(&spec.name) {
            Some(tensor) if tensor.dtype() == DType::U8 => writer.write_all(&device.download_bytes(tensor)),
            Some(tensor) => save::write_numbers(device, tensor, tensor.dtype(), writer),
            None => Err(std::io::Error::other(format!("no tensor {}", spec.name))),
        })
    })
}
