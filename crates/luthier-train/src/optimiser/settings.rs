//! Which optimiser, and its numbers.

use luthier_model::{Parameter, Parameters};
use luthier_tensor::{DType, Rounding};

use super::names;

/// What does not change from step to step.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimiserSettings {
    /// Which optimiser.
    pub kind: OptimiserKind,
    /// Of the kinds that keep moments.
    pub moments: Moments,
    /// Decay of the parameters themselves; norms and biases are left alone.
    pub weight_decay: f64,
    /// Limit of the norm of gradients; `None` for none.
    pub max_gradient_norm: Option<f64>,
    /// What that norm is of.
    pub clipping: Clipping,
    /// The rate of each layer is so many times that of the layer above.
    pub layer_decay: Option<f64>,
    /// Parameters are stepped on the way back, and gradients forgotten. Then [`Clipping::Together`] has no limit.
    pub in_backward: bool,
    /// Trained matrices and their moments are kept in bf16; `None`: everything in f32. Only with [`OptimiserKind::AdamW`].
    pub pure_bf16: Option<PureBf16>,
    /// Of random projections and orders.
    pub seed: u64,
}

/// How a state in bf16 is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PureBf16 {
    /// How it is rounded.
    pub rounding: Rounding,
    /// Where the random numbers of rounding come from.
    pub seed: u64,
}

/// Which gradients are clipped together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clipping {
    /// All of them.
    #[default]
    Together,
    /// Those of each parameter.
    PerTensor,
}

/// Which optimiser.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimiserKind {
    /// Loshchilov & Hutter 2019.
    AdamW,
    /// Zhang et al. 2024.
    AdamMini {
        /// Numbers of a head: its rows of queries and keys share a rate.
        head_dim: usize,
    },
    /// Dettmers et al. 2021.
    AdamW8Bit,
    /// Shazeer & Stern 2018.
    Adafactor(AdafactorSettings),
    /// Chen et al. 2023.
    Lion,
    /// Gradient descent, with or without momentum.
    Sgd(SgdSettings),
    /// Jordan et al. 2024, for matrices within the model; AdamW for all else.
    Muon(MuonSettings),
    /// Zhao et al. 2024, for the targets; AdamW for all else.
    Galore(GaloreSettings),
    /// Zhu et al. 2024, for the targets; AdamW for all else.
    Apollo(ApolloSettings),
    /// Luo et al. 2024: AdamW on one layer after another.
    Badam(BadamSettings),
    /// Defazio et al. 2024.
    ScheduleFree(ScheduleFreeSettings),
}

impl OptimiserKind {
    /// What it is called, with the numbers that matter most.
    pub fn describe(&self) -> String {
        let low_rank = |name: &str, low: &LowRankSettings| format!("{name} of rank {}", low.rank);
        match self {
            Self::AdamW => "AdamW".to_owned(),
            Self::AdamMini { .. } => "Adam-mini".to_owned(),
            Self::AdamW8Bit => "AdamW with moments of 8 bits".to_owned(),
            Self::Adafactor(_) => "Adafactor".to_owned(),
            Self::Lion => "Lion".to_owned(),
            Self::Sgd(sgd) => format!("SGD with momentum {}", sgd.momentum),
            Self::Muon(_) => "Muon, and AdamW for what is no matrix within the model".to_owned(),
            Self::Galore(galore) => low_rank("GaLore", &galore.low_rank),
            Self::Apollo(apollo) => low_rank("APOLLO", &apollo.low_rank),
            Self::Badam(badam) => match badam.interval {
                Some(interval) => format!("BAdam, another layer after {interval} steps"),
                None => "BAdam on one layer".to_owned(),
            },
            Self::ScheduleFree(_) => "schedule-free AdamW, whose average is evaluated and saved".to_owned(),
        }
    }

    /// Whether it steps anything of these parameters by its own rule.
    pub fn has_targets(&self, parameters: &Parameters) -> bool {
        parameters.iter().any(|parameter| match self {
            Self::Galore(galore) => galore.low_rank.targets.include(parameter),
            Self::Apollo(apollo) => apollo.low_rank.targets.include(parameter),
            Self::Badam(_) => names::layer(&parameter.name).is_some(),
            _ => true,
        })
    }
}

/// How means of gradients are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Decay of the mean.
    pub beta_1: f64,
    /// Decay of the mean square.
    pub beta_2: f64,
    /// Added to the root of the mean square.
    pub epsilon: f64,
}

impl OptimiserSettings {
    /// AdamW without decay or limit.
    pub fn adamw(beta_1: f64, beta_2: f64, epsilon: f64) -> Self {
        Self {
            kind: OptimiserKind::AdamW,
            moments: Moments { beta_1, beta_2, epsilon },
            weight_decay: 0.0,
            max_gradient_norm: None,
            clipping: Clipping::Together,
            layer_decay: None,
            in_backward: false,
            pure_bf16: None,
            seed: 0,
        }
    }

    /// What trained matrices are kept in; vectors are f32 always.
    pub fn storage(&self) -> DType {
        if self.pure_bf16.is_some() { DType::Bf16 } else { DType::F32 }
    }
}

/// As `transformers.Adafactor` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSettings {
    /// Added to each squared gradient.
    pub epsilon: f64,
    /// The least scale of a parameter.
    pub least_scale: f64,
    /// The root mean square that an update may have.
    pub clip_threshold: f64,
    /// The decay of squares is 1 - step^this.
    pub decay_rate: f64,
    /// Decay of a mean of updates; `None`: none is kept.
    pub beta_1: Option<f64>,
    /// The rate is times the parameter's root mean square.
    pub scale_parameter: bool,
    /// The rate follows from the step alone.
    pub relative_step: bool,
    /// Such a rate begins lower.
    pub warmup_init: bool,
}

impl Default for AdafactorSettings {
    /// As transformers' trainer sets them.
    fn default() -> Self {
        Self {
            epsilon: 1e-30,
            least_scale: 1e-3,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta_1: None,
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
        }
    }
}

/// As `torch.optim.SGD` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SgdSettings {
    /// Decay of the sum of gradients; 0 for none.
    pub momentum: f64,
    /// Share of a gradient that does not reach the sum.
    pub dampening: f64,
    /// Looks ahead.
    pub nesterov: bool,
}

/// As `torch.optim.Muon` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonSettings {
    /// Decay of the mean.
    pub momentum: f64,
    /// Looks ahead.
    pub nesterov: bool,
    /// Steps of the Newton-Schulz iteration.
    pub iterations: usize,
    /// The rate is times 0.2 sqrt(max(rows, columns)), so that AdamW's rates fit (Liu et al. 2025); otherwise times
    /// sqrt(max(1, rows / columns)).
    pub matches_adamw: bool,
}

impl Default for MuonSettings {
    fn default() -> Self {
        Self { momentum: 0.95, nesterov: true, iterations: 5, matches_adamw: true }
    }
}

/// What GaLore and APOLLO have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankSettings {
    /// The matrices that are projected.
    pub targets: Targets,
    /// Vectors of a projection.
    pub rank: usize,
    /// Steps after which a projection is made anew.
    pub interval: usize,
    /// Factor of what comes back.
    pub scale: f64,
}

/// GaLore's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct GaloreSettings {
    /// As APOLLO's.
    pub low_rank: LowRankSettings,
    /// Which side is projected.
    pub side: ProjectedSide,
}

/// Which side of a matrix is projected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectedSide {
    /// The shorter one.
    Shorter,
    /// The longer one.
    Longer,
    /// The columns.
    Right,
    /// The rows.
    Left,
}

/// APOLLO's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ApolloSettings {
    /// As GaLore's.
    pub low_rank: LowRankSettings,
    /// Random projections; otherwise the singular vectors of GaLore.
    pub random: bool,
    /// A factor for each channel; otherwise one for a matrix.
    pub by_channel: bool,
    /// Scale before the growth of the norm is limited.
    pub scale_front: bool,
}

/// BAdam's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadamSettings {
    /// The first block; `None`: as the order has it.
    pub start: Option<usize>,
    /// Which block follows.
    pub order: BlockOrder,
    /// Steps of a block; `None`: it never changes.
    pub interval: Option<u32>,
}

/// Which block follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOrder {
    /// The next one up.
    Ascending,
    /// The next one down.
    Descending,
    /// Another order in each round.
    Random,
    /// The same one.
    Fixed,
}

/// Schedule-free AdamW's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleFreeSettings {
    /// The weight of an iterate in the average is the step to this power,
    pub power: f64,
    /// times the largest rate so far to this power.
    pub rate_power: f64,
}

impl Default for ScheduleFreeSettings {
    fn default() -> Self {
        Self { power: 0.0, rate_power: 2.0 }
    }
}

/// Matrices by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Each linear layer within the model.
    All,
    /// Those whose name has one of these in it.
    Named(Vec<String>),
}

impl Targets {
    /// Whether the parameter is among them.
    pub fn include(&self, parameter: &Parameter) -> bool {
        match self {
            Self::All => names::is_hidden_matrix(parameter),
            Self::Named(names) => {
                parameter.dims.len() == 2 && names.iter().any(|name| parameter.name.contains(name.as_str()))
            }
        }
    }
}
