//! `luthier logits`: the numbers themselves, for comparing Luthier with other programs. A safetensors file with the ids of a
//! text and, after each of them, the logits of what follows.

use std::path::PathBuf;

use anyhow::Context;
use luthier_data::Specials;
use luthier_model::checkpoint::{Shard, TensorSpec, write_shard};
use luthier_model::{Decoder, Tuning};
use luthier_tensor::DType;

use crate::config::{check_adapter, check_model};
use crate::export::replay::{Prompts, logits};
use crate::machine::Processor;
use crate::model::Model;
use crate::{Environment, fail, print_text};

/// What follows `luthier logits`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct Arguments {
    /// A Hugging Face folder or a GGUF file
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// A PEFT adapter folder
    #[arg(long, value_name = "PATH")]
    pub(crate) adapter: Option<PathBuf>,
    /// A text, as it stands; nothing is added to its tokens
    #[arg(long, value_name = "TEXT", group = "input")]
    pub(crate) prompt: Option<String>,
    /// Token ids in place of a text
    #[arg(long, value_name = "ID,ID,...", value_delimiter = ',', group = "input")]
    pub(crate) ids: Vec<u32>,
    /// The prompts of an export's replay, as the model's chat template writes them
    #[arg(long, group = "input")]
    pub(crate) replay: bool,
    /// The file to write: `ids`, one a token, `logits`, a row a token, and `lengths`, the tokens of each text; all f32
    #[arg(long, value_name = "FILE.safetensors")]
    pub(crate) output: PathBuf,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: Option<u16>,
}

pub(crate) fn run(arguments: &Arguments, environment: &Environment) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    problems.extend(check_model(&arguments.model, "--model").err());
    problems.extend(arguments.adapter.as_deref().and_then(|adapter| check_adapter(adapter, "--adapter").err()));
    if !problems.is_empty() {
        return Err(fail(problems));
    }
    let model = Model::open(&arguments.model)?;
    let adapter = arguments.adapter.as_deref().map(luthier_files::read_adapter).transpose()?;
    let rows = match &arguments.prompt {
        Some(text) => vec![model.tokenizer()?.encode(text, Specials::None)?],
        None if arguments.replay => Prompts::new(&model, Some(&model.tokenizer()?), None)?.rows,
        None => vec![arguments.ids.clone()],
    };
    let ids = rows.concat();
    let vocabulary = model.checkpoint.model.decoder.vocabulary_size;
    anyhow::ensure!(!ids.is_empty(), "--prompt: the text has no token; expected some text");
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
        anyhow::bail!("there is no token {id}: the model knows {vocabulary}");
    }
    let device = Processor::choose(arguments.threads.map(usize::from), environment)?.device(None)?;
    let decoder = Decoder::new(&device, &model.checkpoint, &Tuning::Nothing, adapter.as_ref())?;
    let found: Vec<f32> = rows.iter().flat_map(|ids| logits(&device, &decoder, ids)).collect();
    let spec = |name: &str, dims: &[usize]| TensorSpec { name: name.into(), dtype: DType::F32, dims: dims.to_vec() };
    let tensors =
        vec![spec("ids", &[ids.len()]), spec("lengths", &[rows.len()]), spec("logits", &[ids.len(), vocabulary])];
    let file = arguments.output.file_name().context("--output: expected a file")?.to_string_lossy().into_owned();
    luthier_files::write_atomically(&arguments.output, |writer| {
        write_shard(&Shard { file, tensors }, writer, &mut |spec, writer| {
            let numbers: Vec<f32> = match spec.name.as_str() {
                "ids" => ids.iter().map(|id| *id as f32).collect(),
                "lengths" => rows.iter().map(|ids| ids.len() as f32).collect(),
                _ => found.clone(),
            };
            writer.write_all(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
        })
    })?;
    print_text(&format!("{} tokens, {vocabulary} logits each\n", ids.len()));
    Ok(())
}
