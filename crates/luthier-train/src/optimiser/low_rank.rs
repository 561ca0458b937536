//! GaLore and APOLLO: moments of what a projection leaves of the gradient.

use luthier_model::Parameter;
use luthier_tensor::{Apollo, DType, Device, Galore, LowMoments, ProjectionSource, Side, Tensor};

use super::{ApolloSettings, GaloreSettings, Moments, Now, ProjectedSide, Rule, names};

/// What both keep.
#[derive(Debug)]
struct LowRank {
    moments: Moments,
    side: Side,
    interval: u32,
    seed: u64,
    mean: Tensor,
    mean_square: Tensor,
    /// Singular vectors; `None` where the projection is random.
    projection: Option<Tensor>,
}

impl LowRank {
    fn new(
        device: &Device,
        parameter: &Parameter,
        moments: Moments,
        (rank, interval, seed): (usize, usize, u64),
        side: ProjectedSide,
        keeps_projection: bool,
    ) -> Self {
        let value = &parameter.value;
        let is_tall = value.rows() >= value.columns();
        let side = match side {
            ProjectedSide::Shorter => {
                if is_tall {
                    Side::Right
                } else {
                    Side::Left
                }
            }
            ProjectedSide::Longer => {
                if is_tall {
                    Side::Left
                } else {
                    Side::Right
                }
            }
            ProjectedSide::Right => Side::Right,
            ProjectedSide::Left => Side::Left,
        };
        let rank = rank.min(value.rows()).min(value.columns());
        let zeros = |(rows, columns)| device.zeros(DType::F32, rows, columns);
        let remains = side.remains(value, rank);
        Self {
            moments,
            side,
            interval: u32::try_from(interval).unwrap_or(u32::MAX).max(1),
            seed,
            mean: zeros(remains),
            mean_square: zeros(remains),
            projection: keeps_projection.then(|| zeros(side.projection(value, rank))),
        }
    }

    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let moments = [("mean", &self.mean), ("mean_square", &self.mean_square)];
        moments.into_iter().chain(self.projection.iter().map(|projection| ("projection", projection))).collect()
    }

    fn numbers(&self, now: &Now) -> LowMoments {
        LowMoments {
            learning_rate: now.learning_rate as f32,
            beta_1: self.moments.beta_1 as f32,
            beta_2: self.moments.beta_2 as f32,
            epsilon: self.moments.epsilon as f32,
            weight_decay: now.weight_decay as f32,
            step: now.step,
        }
    }

    fn source(&self, parameter: &Parameter, now: &Now) -> ProjectionSource<'_> {
        let before = now.step - 1;
        let stream = names::stream(self.seed, &parameter.name, u64::from(before / self.interval));
        match &self.projection {
            Some(kept) => ProjectionSource::Singular { kept, due: before.is_multiple_of(self.interval), stream },
            None => ProjectionSource::Random { stream },
        }
    }
}

#[derive(Debug)]
pub(super) struct GaloreState {
    low: LowRank,
    scale: f64,
}

impl GaloreState {
    pub(super) fn new(
        device: &Device,
        parameter: &Parameter,
        moments: Moments,
        settings: &GaloreSettings,
        seed: u64,
    ) -> Self {
        let chosen = &settings.low_rank;
        let numbers = (chosen.rank, chosen.interval, seed);
        Self { low: LowRank::new(device, parameter, moments, numbers, settings.side, true), scale: chosen.scale }
    }
}

impl Rule for GaloreState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        self.low.state()
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let low = &self.low;
        let rule = Galore { moments: low.numbers(now), scale: self.scale as f32 };
        let place = (low.side, low.source(parameter, now));
        let moments = [&low.mean, &low.mean_square];
        device.galore(&rule, now.gate, &parameter.gradient, &parameter.value, place, moments);
    }
}

#[derive(Debug)]
pub(super) struct ApolloState {
    low: LowRank,
    settings: ApolloSettings,
    /// Of the last step, before its rate.
    norm: Tensor,
}

impl ApolloState {
    pub(super) fn new(
        device: &Device,
        parameter: &Parameter,
        moments: Moments,
        settings: &ApolloSettings,
        seed: u64,
    ) -> Self {
        let chosen = &settings.low_rank;
        let numbers = (chosen.rank, chosen.interval, seed);
        let low = LowRank::new(device, parameter, moments, numbers, ProjectedSide::Shorter, !settings.random);
        Self { low, settings: settings.clone(), norm: device.zeros(DType::F32, 1, 1) }
    }
}

impl Rule for ApolloState {
    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let mut state = self.low.state();
        state.push(("norm", &self.norm));
        state
    }

    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now) {
        let low = &self.low;
        let rule = Apollo {
            moments: low.numbers(now),
            scale: self.settings.low_rank.scale as f32,
            by_channel: self.settings.by_channel,
            scale_front: self.settings.scale_front,
        };
        let place = (low.side, low.source(parameter, now));
        let state = ([&low.mean, &low.mean_square], &self.norm);
        device.apollo(&rule, now.gate, &parameter.gradient, &parameter.value, place, state);
    }
}
