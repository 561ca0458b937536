//! Training: batches in, a tuned model out. The loop is in `trainer`, one page; what a step computes is in `step`. Progress
//! leaves as typed [`Event`]s; this crate prints nothing and reads no file.

mod event;
mod micro_batch;
mod optimiser;
mod plan;
mod schedule;
mod step;
mod trainer;

pub use event::{EvaluationEvent, Event, StepEvent};
pub use micro_batch::{MicroBatch, Row};
pub use optimiser::{Optimiser, OptimiserSettings};
pub use plan::{MemoryPlan, plan_memory};
pub use schedule::{Schedule, ScheduleKind};
pub use step::{Step, StepNumbers, StepResult, accumulate, accumulate_announcing, evaluate, run_step};
pub use trainer::{Control, Steps, Summary, Trainer, TrainerSettings};
