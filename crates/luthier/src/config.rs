//! The configuration of a training, checked: a [`TrainConfig`] cannot be wrong in itself. It is made once from
//! [`Settings`] and then passed on. What the settings must say together is in `check`, the look at the disk in `files`.

mod bottleneck;
mod check;
mod files;
mod freeze;
mod ia3;
mod levers;
mod lora;
mod method;
mod oft;
mod optimiser;
mod precision;
mod prompt;
mod quantisation;
mod schedule;
mod vera;

use std::path::PathBuf;

use luthier_data::{Interleave, RoleWeights, Truncation};
use luthier_train::LossScaling;

use luthier_model::checkpoint::Quantisation;

use crate::hub::HubSettings;
use crate::settings::Settings;
pub(crate) use bottleneck::{BottleneckSettings, BottleneckSize};
pub(crate) use files::{check_adapter, check_model, describe, gguf_files};
pub(crate) use ia3::Ia3Settings;
pub(crate) use levers::Levers;
pub(crate) use lora::{LoraSettings, Rounds, Targets};
pub(crate) use method::Method;
pub(crate) use oft::OftSettings;
pub(crate) use optimiser::OptimiserSettings;
pub(crate) use prompt::{NetworkSettings, PromptSettings, PromptStart};
pub(crate) use quantisation::read as quantisation;
pub(crate) use schedule::ScheduleSettings;
pub(crate) use vera::VeraSettings;

/// Everything that a training is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainConfig {
    /// What it was made of, for the record.
    pub(crate) given: Settings,
    pub(crate) stage: Stage,
    pub(crate) model: ModelSettings,
    pub(crate) method: Method,
    pub(crate) data: DataSettings,
    pub(crate) batch: BatchSettings,
    pub(crate) optimiser: OptimiserSettings,
    pub(crate) schedule: ScheduleSettings,
    pub(crate) machine: MachineSettings,
    pub(crate) levers: Levers,
    pub(crate) output: OutputSettings,
    /// `None`: nothing is set aside or given to evaluate on.
    pub(crate) evaluation: Option<EvaluationSettings>,
    pub(crate) saving: SavingSettings,
    /// Whether to stop before the first step.
    pub(crate) dry_run: bool,
    /// Sentences to print once before training: what was given and has no effect, and what was guessed.
    pub(crate) notices: Vec<String>,
    /// What differs from LLaMA-Factory and was not chosen, a sentence.
    pub(crate) differences: Option<String>,
}

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Replies to prompts.
    SupervisedFineTuning,
    /// Plain text.
    PreTraining,
}

/// Where the training starts from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelSettings {
    /// As it was named: a path, or `org/name` of a hub.
    pub(crate) name: String,
    /// A Hugging Face folder or a GGUF file, or the name of the built-in model; what was named until [`locate`](Self::locate) has found it.
    pub(crate) model: PathBuf,
    /// Whether the weights are drawn instead of read. Only with [`Method::Full`].
    pub(crate) from_scratch: bool,
    /// A PEFT folder whose adapter is trained on. Only with methods that make one.
    pub(crate) adapter: Option<PathBuf>,
    /// How the frozen matrices are stored; `None`: as in the files. Only with [`Method::Lora`].
    pub(crate) quantisation: Option<Quantisation>,
    /// Others, which add to the base and stay as they are.
    pub(crate) beside: Vec<PathBuf>,
    pub(crate) hub: HubSettings,
}

/// How turns become one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TemplateSettings {
    /// Name of a template; without one the model's own.
    pub(crate) name: Option<String>,
    /// The system message of conversations that have none.
    pub(crate) default_system: Option<String>,
    /// How tools are written.
    pub(crate) tool_format: Option<String>,
    /// Whether replies shall think, where that was set.
    pub(crate) enable_thinking: Option<bool>,
    /// Whether earlier thoughts stay in prompts.
    pub(crate) preserve_thinking: bool,
}

impl TemplateSettings {
    /// A template by its name alone.
    pub(crate) fn named(name: Option<&str>) -> Self {
        Self { name: name.map(str::to_owned), ..Self::default() }
    }
}

/// What is read and what of it is scored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DataSettings {
    /// Files or names of `folder`; never empty.
    pub(crate) datasets: Vec<String>,
    pub(crate) folder: PathBuf,
    pub(crate) template: TemplateSettings,
    /// Records read of each dataset.
    pub(crate) max_samples: Option<usize>,
    /// What records are drawn with where some are.
    pub(crate) seed: u64,
    pub(crate) mix: Mix,
    /// Whether the first broken record stops everything.
    pub(crate) strict: bool,
    /// Where broken records are kept; `None`: in the output folder.
    pub(crate) quarantine: Option<PathBuf>,
    /// Tokens that a row may have, 1 or more.
    pub(crate) cutoff_len: usize,
    /// What becomes of longer ones.
    pub(crate) truncation: Truncation,
    pub(crate) scored: Scored,
    /// How much messages count by their role; never with [`Scored::LastReply`] or [`Scored::Everything`] of conversations.
    pub(crate) role_weights: Option<RoleWeights>,
    /// Whether records are put together up to `cutoff_len`. They never see one another.
    pub(crate) packing: bool,
    pub(crate) order: RowOrder,
}

/// How several datasets become one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mix {
    /// One after another.
    Concat,
    Interleave {
        until: Interleave,
        /// How often each dataset is drawn, together 1; `None`: by turns.
        shares: Option<Vec<f64>>,
    },
}

/// The order in which an epoch goes through the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// That of the records.
    AsGiven,
    /// Another one each epoch.
    Shuffled,
    /// Another one each epoch, in which rows of like length are near one another.
    ByLength,
}

/// Which tokens of a conversation are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scored {
    Replies,
    LastReply,
    Everything,
}

/// How much is seen, and in what portions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchSettings {
    /// Rows of a batch, 1 or more; `None`: as many as memory holds.
    pub(crate) rows: Option<usize>,
    /// Batches of an optimiser step, 1 or more.
    pub(crate) accumulation: usize,
    pub(crate) length: RunLength,
    /// Tokens that go through the model at once; `None`: the planner decides.
    pub(crate) token_budget: Option<usize>,
}

/// When the training ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RunLength {
    /// More than 0.
    Epochs(f64),
    /// 1 or more.
    Steps(usize),
}

/// A number of steps, or a share of all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Span {
    Steps(usize),
    /// From 0 to 1.
    Share(f64),
}

impl Span {
    /// As transformers counts it: a share of the run is rounded up.
    pub(crate) fn steps(self, total: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            Self::Share(share) => (share * total as f64).ceil() as usize,
        }
    }
}

/// How the machine is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MachineSettings {
    pub(crate) precision: Precision,
    /// Only with [`Precision::F16`].
    pub(crate) loss_scaling: LossScaling,
    /// `None`: one for each core.
    pub(crate) threads: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) recomputation: Recomputation,
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// bf16 where the processor multiplies it, f32 elsewhere.
    Auto,
    F32,
    Bf16,
    /// Activations in f16, multiplied in f32.
    F16,
}

/// Whether a layer's activations are computed again in backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recomputation {
    /// Of so many layers as memory demands.
    Auto,
    Always,
    /// Of the feed-forward networks alone.
    FeedForward,
    Never,
}

/// What is left behind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OutputSettings {
    pub(crate) folder: PathBuf,
    /// Whether the folder was not given.
    pub(crate) guessed: bool,
    pub(crate) overwrite: bool,
    /// Steps between lines of the log.
    pub(crate) logging: Span,
    pub(crate) log_first_step: bool,
    /// Whether the loss is drawn.
    pub(crate) chart: bool,
    /// Where TensorBoard's files go; `None` for none.
    pub(crate) tensorboard: Option<PathBuf>,
}

/// What is evaluated on, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EvaluationSettings {
    pub(crate) source: EvaluationSource,
    pub(crate) when: When,
    /// Whether to evaluate before the first step too.
    pub(crate) at_start: bool,
    pub(crate) metric: Metric,
    /// Whether the best state is what is saved at the end.
    pub(crate) keeps_best: bool,
    /// Evaluations without a better one that end the run.
    pub(crate) patience: Option<usize>,
}

/// Where the rows of an evaluation come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EvaluationSource {
    /// A part of the rows: a share below 1, or a number of them.
    Part(Span),
    /// Files or names of the data folder; never empty.
    Datasets(Vec<String>),
}

/// When something is done that is done again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    Never,
    EachEpoch,
    Every(Span),
}

/// What makes one evaluation better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// The higher the better.
    Accuracy,
    /// The lower the better.
    Loss,
}

/// What is kept of a run on its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavingSettings {
    pub(crate) when: When,
    /// Whether the best evaluated state gets a checkpoint wherever it falls.
    pub(crate) best: bool,
    /// Checkpoints that stay, the best besides; `None`: all.
    pub(crate) limit: Option<usize>,
    pub(crate) resume: Resume,
    pub(crate) nonfinite: Nonfinite,
}

/// Where a run begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resume {
    No,
    /// The newest valid checkpoint of the output folder.
    Newest,
    From(PathBuf),
}

/// What follows a step whose loss or gradient is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nonfinite {
    Skip,
    Stop,
}
