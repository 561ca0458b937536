//! Training: batches in, a tuned model out. The loop is in `trainer`, one page; what a step computes is in `step`. Progress
//! leaves as typed [`Event`]s; this crate prints nothing and reads no file.

mod due;
mod evaluation;
mod event;
mod loss_scale;
mod micro_batch;
mod monitor;
mod optimiser;
mod plan;
mod progress;
mod schedule;
mod step;
mod trainer;
mod warnings;

pub use due::{Due, Nonfinite};
pub use evaluation::{Evaluating, Metric, Scores, evaluate_all};
pub use event::{EvaluationEvent, Event, OverflowEvent, StepEvent};
pub use loss_scale::{LossScale, LossScaling};
pub use micro_batch::{MicroBatch, Row};
pub use monitor::Monitor;
pub use optimiser::{
    AdafactorSettings, ApolloSettings, BadamSettings, BlockOrder, Clipping, GaloreSettings, LowRankSettings, Moments,
    MuonSettings, Optimiser, OptimiserKind, OptimiserSettings, ProjectedSide, PureBf16, ScheduleFreeSettings,
    SgdSettings, Targets,
};
pub use plan::{MemoryPlan, plan_memory};
pub use progress::{Best, Progress};
pub use schedule::{Schedule, ScheduleKind, Slope, StableDecay};
pub use step::{
    Noise, Step, StepNumbers, StepResult, accumulate, accumulate_announcing, accumulate_freeing, evaluate, run_step,
    try_step,
};
pub use trainer::{Control, End, Listener, Steps, Trainer, TrainerSettings};
pub use warnings::{Trained, adapter_warning, memory_warning, rate_warning};
