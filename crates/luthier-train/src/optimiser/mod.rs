//! Optimisers over the registry of parameters. A kind has a file of its own with what it keeps for a parameter and the
//! numbers of its step; the step itself is an operation of the device, which sees there whether the step counts. Only
//! blocks (`badam`) and averages (`schedule_free`) concern more than one parameter, and are kept here.

mod adafactor;
mod adam_mini;
mod adamw;
mod adamw_8bit;
mod badam;
mod lion;
mod low_rank;
mod muon;
mod names;
mod schedule_free;
mod settings;
mod sgd;

use luthier_model::{Parameter, Parameters};
use luthier_tensor::{Device, Gate, Tensor};

pub use settings::{
    AdafactorSettings, ApolloSettings, BadamSettings, BlockOrder, Clipping, GaloreSettings, LowRankSettings, Moments,
    MuonSettings, OptimiserKind, OptimiserSettings, ProjectedSide, PureBf16, ScheduleFreeSettings, SgdSettings,
    Targets,
};

/// What is kept for one parameter, and how it is stepped.
trait Rule: std::fmt::Debug {
    /// The state by name, in a stable order.
    fn state(&self) -> Vec<(&'static str, &Tensor)>;
    /// One step of the parameter.
    fn step(&mut self, device: &Device, parameter: &Parameter, now: &Now);
}

/// What a step knows besides the parameter.
#[derive(Clone, Copy, Debug)]
struct Now<'n> {
    gate: Gate<'n>,
    /// The parameter's number.
    index: usize,
    /// This parameter's rate.
    learning_rate: f64,
    /// This parameter's decay.
    weight_decay: f64,
    /// The step's number, from 1.
    step: u32,
    /// This iterate's share of the average, where one is kept.
    share: f64,
}

/// An optimiser with its state.
#[derive(Debug)]
pub struct Optimiser {
    settings: OptimiserSettings,
    /// By parameter; `None` where nothing steps it now.
    rules: Vec<Option<Box<dyn Rule>>>,
    /// By parameter: factor of the rate.
    factors: Vec<f64>,
    steps: u32,
    block: Option<usize>,
    average: schedule_free::Average,
}

impl Optimiser {
    /// A state of nothing for each parameter.
    pub fn new(device: &Device, parameters: &Parameters, settings: OptimiserSettings) -> Self {
        let factors = names::rate_factors(parameters, settings.layer_decay);
        let average = schedule_free::Average::new(&settings);
        let mut new = Self { settings, rules: Vec::new(), factors, steps: 0, block: None, average };
        match new.settings.kind {
            OptimiserKind::Badam(_) => new.change_block(device, parameters, 1),
            _ => {
                if !new.settings.in_backward {
                    parameters.allocate_gradients(device);
                }
                new.rules = parameters.iter().map(|parameter| Some(new.rule(device, parameter))).collect();
            }
        }
        new
    }

    fn rule(&self, device: &Device, parameter: &Parameter) -> Box<dyn Rule> {
        let (settings, moments) = (&self.settings, self.settings.moments);
        let adamw = || Box::new(adamw::AdamWState::new(device, parameter, moments, settings.pure_bf16));
        match &settings.kind {
            OptimiserKind::AdamW | OptimiserKind::Badam(_) => adamw(),
            OptimiserKind::AdamMini { head_dim } => match adam_mini::blocks(parameter, *head_dim) {
                Some(blocks) => Box::new(adam_mini::AdamMiniState::new(device, parameter, moments, blocks)),
                None => adamw(),
            },
            OptimiserKind::AdamW8Bit if parameter.value.len() < adamw_8bit::LEAST => adamw(),
            OptimiserKind::AdamW8Bit => Box::new(adamw_8bit::EightBitState::new(device, parameter, moments)),
            OptimiserKind::Adafactor(chosen) => Box::new(adafactor::AdafactorState::new(device, parameter, *chosen)),
            OptimiserKind::Lion => Box::new(lion::LionState::new(device, parameter, moments)),
            OptimiserKind::Sgd(chosen) => Box::new(sgd::SgdState::new(device, parameter, *chosen)),
            OptimiserKind::Muon(chosen) if names::is_hidden_matrix(parameter) => {
                Box::new(muon::MuonState::new(device, parameter, *chosen))
            }
            OptimiserKind::Muon(_) => adamw(),
            OptimiserKind::Galore(chosen) if chosen.low_rank.targets.include(parameter) => {
                Box::new(low_rank::GaloreState::new(device, parameter, moments, chosen, settings.seed))
            }
            OptimiserKind::Apollo(chosen) if chosen.low_rank.targets.include(parameter) => {
                Box::new(low_rank::ApolloState::new(device, parameter, moments, chosen, settings.seed))
            }
            OptimiserKind::Galore(_) | OptimiserKind::Apollo(_) => adamw(),
            OptimiserKind::ScheduleFree(_) => {
                Box::new(schedule_free::ScheduleFreeState::new(device, parameter, moments))
            }
        }
    }

    /// All state tensors with names, for a checkpoint: they, the parameters and the number of steps are what the next step
    /// depends on.
    pub fn state(&self, parameters: &Parameters) -> Vec<(String, Tensor)> {
        let of_rules = parameters.iter().zip(&self.rules).flat_map(|(parameter, rule)| {
            let state = rule.iter().flat_map(|rule| rule.state());
            state.map(|(name, tensor)| (format!("{}.{name}", parameter.name), tensor.clone())).collect::<Vec<_>>()
        });
        of_rules.chain(self.average.state(parameters)).collect()
    }

    /// Bytes of [`state`](Self::state).
    pub fn state_bytes(&self, parameters: &Parameters) -> usize {
        self.state(parameters).iter().map(|(_, tensor)| tensor.bytes()).sum()
    }

    /// Goes on after so many steps, of which `rate` gives the learning rates; the caller then writes the
    /// [`state`](Self::state).
    pub fn resume(&mut self, device: &Device, parameters: &Parameters, steps: usize, rate: impl Fn(usize) -> f64) {
        self.steps = steps as u32;
        if matches!(self.settings.kind, OptimiserKind::Badam(_)) {
            self.change_block(device, parameters, self.steps.max(1));
        }
        self.average.resume(device, parameters, steps, rate);
    }

    /// Whether parameters are stepped on the way back.
    pub fn steps_in_backward(&self) -> bool {
        self.settings.in_backward
    }

    /// What must be before a step's first part is computed: parameters that train, and the block that is stepped.
    pub fn prepare(&mut self, device: &Device, parameters: &Parameters) {
        self.average.hide(device, parameters);
        if matches!(self.settings.kind, OptimiserKind::Badam(_)) {
            self.change_block(device, parameters, self.steps + 1);
        }
    }

    /// The blocks that are stepped one after another; 1 where all parameters are one.
    pub fn blocks(&self, parameters: &Parameters) -> usize {
        match self.settings.kind {
            OptimiserKind::Badam(_) => badam::blocks(parameters).len().max(1),
            _ => 1,
        }
    }

    /// Makes block `block` the one that is stepped, whatever the step: for planning.
    pub fn visit(&mut self, device: &Device, parameters: &Parameters, block: usize) {
        if let OptimiserKind::Badam(chosen) = &mut self.settings.kind {
            *chosen = BadamSettings { start: Some(block), order: BlockOrder::Fixed, interval: None };
            self.change_block(device, parameters, self.steps + 1);
        }
    }

    /// One step; returns the norm of all gradients together before clipping, f32 `[1, 1]`, which is not finite when `loss`
    /// is not. Then no parameter and no state changes; the step counts all the same, unless it is
    /// taken back. Gradients are those of `loss_scale` times the loss, and are scaled down in passing.
    pub fn step(
        &mut self,
        device: &Device,
        parameters: &Parameters,
        loss: &Tensor,
        learning_rate: f64,
        loss_scale: f32,
    ) -> Tensor {
        let gradient_scale = 1.0 / loss_scale;
        self.begin(learning_rate);
        let stepped: Vec<Tensor> = parameters
            .iter()
            .zip(&self.rules)
            .filter(|(_, rule)| rule.is_some())
            .map(|(parameter, _)| parameter.gradient.clone())
            .collect();
        let norm = device.gradient_norm(&stepped, loss, gradient_scale);
        for (index, parameter) in parameters.iter().enumerate() {
            match self.settings.clipping {
                Clipping::PerTensor if self.settings.max_gradient_norm.is_some() && self.rules[index].is_some() => {
                    // The norm of all is not finite where any is not, so it decides for each.
                    let own = device.gradient_norm(std::slice::from_ref(&parameter.gradient), &norm, gradient_scale);
                    self.step_one(device, parameter, index, (&own, gradient_scale), learning_rate);
                }
                _ => self.step_one(device, parameter, index, (&norm, gradient_scale), learning_rate),
            }
        }
        norm
    }

    /// The last step changed nothing and does not count: the loss's scale had spoilt it. Only where no average is kept, as
    /// an average counts rates.
    pub(crate) fn take_back(&mut self) {
        self.steps -= 1;
    }

    /// The next step begins; [`step_final`](Self::step_final) follows for each parameter.
    pub(crate) fn begin(&mut self, learning_rate: f64) {
        self.steps += 1;
        self.average.begin_step(self.steps, learning_rate);
    }

    /// Steps the parameter of this number, whose gradient is final, and takes the gradient's memory back. Returns the norm of
    /// the gradient, f32 `[1, 1]`: where it is not finite this parameter does not change. `None` where nothing steps it.
    pub(crate) fn step_final(
        &mut self,
        device: &Device,
        parameters: &Parameters,
        index: usize,
        loss: &Tensor,
        (learning_rate, loss_scale): (f64, f32),
    ) -> Option<Tensor> {
        let parameter = parameters.get(index).filter(|_| self.rules[index].is_some())?;
        // Nothing was added where the loss does not depend on it.
        device.allocate(&parameter.gradient);
        let gradient_scale = 1.0 / loss_scale;
        let norm = device.gradient_norm(std::slice::from_ref(&parameter.gradient), loss, gradient_scale);
        self.step_one(device, parameter, index, (&norm, gradient_scale), learning_rate);
        device.release(&parameter.gradient);
        Some(norm)
    }

    fn step_one(
        &mut self,
        device: &Device,
        parameter: &Parameter,
        index: usize,
        (norm, gradient_scale): (&Tensor, f32),
        learning_rate: f64,
    ) {
        let (settings, step) = (&self.settings, self.steps);
        let step = match settings.kind {
            OptimiserKind::Badam(chosen) => badam::step_in_block(&chosen, step),
            _ => step,
        };
        let Some(rule) = &mut self.rules[index] else { return };
        let now = Now {
            gate: Gate { norm, max_norm: settings.max_gradient_norm.map(|limit| limit as f32), gradient_scale },
            index,
            learning_rate: learning_rate * self.factors[index],
            weight_decay: if parameter.decays { settings.weight_decay } else { 0.0 },
            step,
            share: self.average.share(),
        };
        rule.step(device, parameter, &now);
    }

    /// Makes the block of step `step`, from 1, the one that is stepped, with a new state.
    fn change_block(&mut self, device: &Device, parameters: &Parameters, step: u32) {
        let OptimiserKind::Badam(chosen) = self.settings.kind else { return };
        let blocks = badam::blocks(parameters);
        let block = badam::block(&chosen, blocks.len(), self.settings.seed, step);
        if self.block == Some(block) && badam::step_in_block(&chosen, step) > 1 {
            return;
        }
        self.block = Some(block);
        // The old state goes before the new one comes.
        self.rules = Vec::new();
        let members = blocks.get(block).cloned().unwrap_or_default();
        for (index, parameter) in parameters.iter().enumerate() {
            let is_member = members.contains(&index);
            parameter.gradient.set_paused(!is_member);
            if !is_member {
                device.release(&parameter.gradient);
            }
        }
        if !self.settings.in_backward {
            parameters.allocate_gradients(device);
        }
        self.rules = parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| members.contains(&index).then(|| self.rule(device, parameter)))
            .collect();
    }

    /// Makes the parameters what is evaluated and saved: where an average is kept, that; elsewhere they are it already.
    pub fn show(&mut self, device: &Device, parameters: &Parameters) {
        let iterates: Vec<Option<&Tensor>> = self
            .rules
            .iter()
            .map(|rule| rule.as_ref()?.state().into_iter().find(|(name, _)| *name == schedule_free::ITERATE))
            .map(|found| found.map(|(_, tensor)| tensor))
            .collect();
        self.average.show(device, parameters, &iterates);
    }
}
