//! `luthier expand`: a model with added blocks that computes the same, as a Hugging Face folder. The new blocks alone are then
//! trained (`use_llama_pro: true`), so that the model learns without losing what it knew. What was written is read back and
//! compared with the model before it gets its name. From: Wu et al. 2024, "LLaMA Pro"; LLaMA-Factory's
//! `scripts/llama_pro.py`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use luthier_model::checkpoint::{Checkpoint, TensorSpec, plan_shards};
use luthier_model::{Decoder, Merged, Tuning};
use luthier_tensor::DType;

use crate::config::check_model;
use crate::export::parse_size;
use crate::export::replay::{Prompts, Replay};
use crate::export::stored_as;
use crate::hub::{HubSettings, Wanted, locate};
use crate::machine::Processor;
use crate::model::{Model, data_tokenizer};
use crate::outcome::Outcome;
use crate::settings::Problem;
use crate::{Environment, eprint_line, fail, print_text, signals};

/// What follows `luthier expand`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A Hugging Face folder, a GGUF file, or org/name of the Hugging Face hub
    #[arg(long, value_name = "PATH", alias = "model_name_or_path", alias = "model-name-or-path")]
    model: PathBuf,
    /// How many blocks are added: one after each group of layers, all of the same size
    #[arg(long, value_name = "N", alias = "num_expand", value_parser = clap::value_parser!(u16).range(1..=4096))]
    num_expand: u16,
    /// The folder to make
    #[arg(long, value_name = "PATH", alias = "output_dir", alias = "output-dir")]
    output: PathBuf,
    /// How numbers are stored [default: each tensor as the model stores it; bf16 for a quantised one]
    #[arg(long, value_enum)]
    outtype: Option<OutType>,
    /// Most bytes of one safetensors file, such as 5GB or 500MB [default: 5GB]
    #[arg(long, value_name = "SIZE", alias = "shard_size", alias = "shard-size", value_parser = parse_size)]
    max_shard_size: Option<u64>,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

/// A storage type of safetensors as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OutType {
    F32,
    F16,
    Bf16,
}

impl OutType {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::Bf16,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<Outcome> {
    let named = arguments.model.display().to_string();
    check_output(&arguments.output).map_err(|problem| fail(vec![problem]))?;
    let path = locate("--model", &named, Wanted::Model, &HubSettings::default(), &environment.hub)?;
    check_model(&path, "--model").map_err(|problem| fail(vec![problem]))?;
    let device = Processor::choose(arguments.threads.map(usize::from), environment)?.device(None)?;
    let model = Model::open(&path)?;
    let (before, added) = (model.checkpoint.model.decoder.layers.len(), usize::from(arguments.num_expand));
    anyhow::ensure!(
        before.is_multiple_of(added),
        "--num-expand is {added}; expected a divisor of the {before} layers of the model"
    );
    let expanded = model.checkpoint.expanded(added)?;
    let output = arguments.output.display();
    let place = match before / added {
        1 => "after each layer comes a copy of it".to_owned(),
        group => format!("after each {group} layers comes a copy of the last of them"),
    };
    eprint_line(&format!("expanding {before} layers to {}: {place}, which adds nothing yet", before + added));
    let shard_bytes = arguments.max_shard_size.unwrap_or(crate::save::SHARD_BYTES);
    let outtype = arguments.outtype.map(OutType::dtype);
    let base = stored_as(&expanded);
    if base.block_len() > 1 {
        let to = outtype.unwrap_or(DType::Bf16);
        let exact = if to == DType::F32 { "" } else { ", which rounds them (--outtype f32 does not)" };
        eprint_line(&format!(
            "numbers: the base is quantised to {base}; its numbers are decoded and stored as {to}{exact}"
        ));
    }
    let files = Files::plan(&model, &expanded, outtype, shard_bytes)?;
    files.check_space(&arguments.output)?;
    eprint_line(&format!("writing {output}: {:.2} GB in {} tensors", files.bytes as f64 / 1e9, expanded.tensors.len()));

    signals::listen("stopping; nothing was written")?;
    let mut replay = Replay::default();
    let written = luthier_files::write_folder_atomically(&arguments.output, |folder| -> anyhow::Result<()> {
        let merged = Merged::new(&device, &expanded, None)?;
        luthier_files::write_model(folder, &files.small(), &files.shards, &mut |spec, writer| {
            signals::check()?;
            merged.write(&spec.name, None, spec.dtype, writer)
        })?;
        let found = Model::open(folder).context("what was written cannot be read back")?;
        let tokenizer = model.tokenizer().ok();
        let prompts = Prompts::new(&model, tokenizer.as_ref(), None)?;
        let decoder = |checkpoint| Decoder::new(&device, checkpoint, &Tuning::Nothing, None);
        let (before, after) = (decoder(&model.checkpoint)?, decoder(&found.checkpoint)?);
        replay = Replay::run(&device, (&before, None), &after, &prompts)?;
        Ok(())
    });
    if written.is_err() && signals::is_asked() {
        eprint_line("stopped: nothing was written");
        return Ok(Outcome::Stopped);
    }
    written?;
    let same = match replay.largest_difference {
        0.0 => "the same logits as before".to_owned(),
        difference => format!("logits that differ from those before by {difference:.1e} at most"),
    };
    print_text(&format!(
        "expanded to {output}: {same}, at {} positions of {} prompts\n\
         train the added blocks alone with:\n  model_name_or_path: {output}\n  finetuning_type: freeze\n  \
         freeze_trainable_layers: {added}\n  use_llama_pro: true\n",
        replay.positions, replay.prompts
    ));
    Ok(Outcome::Saved)
}

/// Nothing that is there is replaced.
fn check_output(output: &Path) -> Result<(), Problem> {
    let shown = output.display();
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    match output.exists() && !is_empty(output) {
        true => Err(Problem(format!("--output: {shown} already exists; choose another path"))),
        false => Ok(()),
    }
}

/// The files of the expanded model.
struct Files {
    small: Vec<(String, Vec<u8>)>,
    shards: Vec<luthier_model::checkpoint::Shard>,
    bytes: u64,
}

impl Files {
    /// Numbers stay as they are stored where no type is given; blocks of a GGUF file become bf16.
    fn plan(model: &Model, expanded: &Checkpoint, outtype: Option<DType>, shard_bytes: u64) -> anyhow::Result<Self> {
        let plain = |dtype: DType| outtype.unwrap_or(if dtype.block_len() == 1 { dtype } else { DType::Bf16 });
        let specs = expanded.tensors.iter().map(|(name, tensor)| TensorSpec {
            name: name.clone(),
            dtype: plain(tensor.dtype()),
            dims: tensor.dims().to_vec(),
        });
        let shards = plan_shards(specs.collect(), shard_bytes)?;
        let companions = model.files.companions();
        let mut small: Vec<(String, Vec<u8>)> =
            companions.map(|(name, bytes)| (name.to_owned(), (**bytes).as_ref().to_vec())).collect();
        small.push(("config.json".into(), expanded.config_json(plain(stored_as(expanded)))));
        // A GGUF file has its tokenizer inside; the folder gets it as the files that Hugging Face knows.
        if let Some(found) = &expanded.gguf_tokenizer {
            let (tokenizer, config) = data_tokenizer(found).to_json(expanded.model.decoder.max_positions)?;
            small.push(("tokenizer.json".into(), tokenizer));
            small.push(("tokenizer_config.json".into(), config));
        }
        let numbers: u64 = shards.iter().flat_map(|shard| &shard.tensors).map(TensorSpec::bytes).sum();
        let bytes = numbers + small.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        Ok(Self { small, shards, bytes })
    }

    fn small(&self) -> Vec<(&str, &[u8])> {
        self.small.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
    }

    fn check_space(&self, output: &Path) -> anyhow::Result<()> {
        match luthier_files::free_bytes(output).filter(|free| *free < self.bytes) {
            Some(free) => anyhow::bail!(
                "{}: the model needs {:.2} GB, and the disk has room for {:.2} GB; make room or choose another disk",
                output.display(),
                self.bytes as f64 / 1e9,
                free as f64 / 1e9
            ),
            None => Ok(()),
        }
    }
}
