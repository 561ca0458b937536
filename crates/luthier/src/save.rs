//! What a training leaves behind: an adapter folder as PEFT reads it, or a model folder as transformers reads it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use luthier_model::adapter::{CONFIG_FILE, WEIGHTS_FILE, adapter_shard};
use luthier_model::checkpoint::{INDEX_FILE, TensorSpec, WEIGHTS_FILE as MODEL_FILE, plan_shards, write_shard};
use luthier_tensor::{DType, Device, Tensor};

use crate::model::data_tokenizer;
use crate::run::Run;
use crate::{eprint_line, hub};

/// Wins over the template in `tokenizer_config.json`, for transformers too.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Bytes of one file of a saved model.
pub(crate) const SHARD_BYTES: u64 = 5_000_000_000;

/// Saves what was trained into the output folder and returns the names of the files.
pub(crate) fn save(run: &Run, base_model: &str, folder: &Path) -> Result<Vec<String>, Failure> {
    let names = write(run, base_model, folder)?;
    remove_older(folder, &names)?;
    Ok(names)
}

/// Writes what was trained into a folder that exists and returns the names of the files.
pub(crate) fn write(run: &Run, base_model: &str, folder: &Path) -> Result<Vec<String>, Failure> {
    let (base_model, revision) = hub::name_and_revision(base_model);
    match run.tuning.adapter_config(base_model, revision) {
        Some(config) => save_adapter(run, &config, folder),
        None => save_model(run, folder),
    }
}

/// Why something could not be saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Files(#[from] luthier_files::Error),
    #[error(transparent)]
    Model(#[from] luthier_model::Error),
    #[error(transparent)]
    Data(#[from] luthier_data::Error),
    #[error("{path}: could not {action}: {source}")]
    System { path: String, action: &'static str, source: std::io::Error },
}

impl Failure {
    /// Whether the same works once the disk has room.
    pub(crate) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Files(error) if error.is_full_disk())
    }
}

/// Takes away what an older run left under other names: a stale index or adapter would win over the new weights when the
/// folder is loaded.
fn remove_older(folder: &Path, kept: &[String]) -> Result<(), Failure> {
    let system = |path: &Path, action| {
        let path = path.display().to_string();
        move |source| Failure::System { path, action, source }
    };
    for entry in std::fs::read_dir(folder).map_err(system(folder, "list it"))? {
        let name = entry.map_err(system(folder, "list it"))?.file_name().to_string_lossy().into_owned();
        if is_ours(&name) && !kept.contains(&name) && folder.join(&name).is_file() {
            std::fs::remove_file(folder.join(&name)).map_err(system(&folder.join(&name), "remove it"))?;
            eprint_line(&format!("note: removed {name}, which an older run left in {}", folder.display()));
        }
    }
    Ok(())
}

/// Whether a file of this name is one that a training writes, and that a program would take beside newer ones.
fn is_ours(name: &str) -> bool {
    let shard = name.strip_prefix("model-").and_then(|name| name.strip_suffix(".safetensors"));
    let is_shard = shard.and_then(|numbers| numbers.split_once("-of-")).is_some_and(|(number, of)| {
        [number, of].iter().all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    is_shard || [WEIGHTS_FILE, CONFIG_FILE, INDEX_FILE, MODEL_FILE, "chat_template.jinja"].contains(&name)
}

fn save_adapter(run: &Run, config: &[u8], folder: &Path) -> Result<Vec<String>, Failure> {
    let tensors = run.decoder.adapter_tensors();
    let shard = adapter_shard(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice())));
    luthier_files::write_atomically(&folder.join(WEIGHTS_FILE), |writer| {
        write_shard(&shard, writer, &mut |spec, writer| match tensors.iter().find(|tensor| tensor.name == spec.name) {
            Some(tensor) => write_numbers(&run.device, &tensor.value, spec.dtype, writer),
            None => Err(std::io::Error::other(format!("no tensor {}", spec.name))),
        })
    })?;
    let mut names = vec![WEIGHTS_FILE.to_owned()];
    for (name, bytes) in tokenizer_files(run).chain([(CONFIG_FILE, config)]) {
        luthier_files::write_atomically(&folder.join(name), |writer| writer.write_all(bytes))?;
        names.push(name.to_owned());
    }
    Ok(names)
}

/// What was trained, by name.
fn trained(run: &Run) -> BTreeMap<&str, &Tensor> {
    run.decoder.parameters().iter().map(|parameter| (parameter.name.as_str(), &parameter.value)).collect()
}

/// The files of the base model that belong to its tokenizer, with the template that the rows were written with.
fn tokenizer_files(run: &Run) -> impl Iterator<Item = (&str, &[u8])> {
    let template = run.facts.template.as_ref().and_then(|template| template.replacement.as_deref());
    let own = move |name: &str| name == "config.json" || (template.is_some() && name == TEMPLATE_FILE);
    let files = run.model.files.companions().filter(move |(name, _)| !own(name));
    let files = files.map(|(name, bytes)| (name, (**bytes).as_ref()));
    files.chain(template.map(|template| (TEMPLATE_FILE, template.as_bytes())))
}

fn save_model(run: &Run, folder: &Path) -> Result<Vec<String>, Failure> {
    let trained = trained(run);
    // The storage that most of the base's numbers have; blocks of a GGUF file become bf16.
    let count = |dtype: DType| -> usize {
        let stored = run.model.checkpoint.tensors.values().filter(|tensor| tensor.dtype() == dtype);
        stored.map(|tensor| tensor.tensor().len()).sum()
    };
    let all: usize = run.model.checkpoint.tensors.values().map(|tensor| tensor.tensor().len()).sum();
    let dtype = [DType::F32, DType::F16].into_iter().find(|&dtype| 2 * count(dtype) > all).unwrap_or(DType::Bf16);
    let specs: Vec<TensorSpec> = run
        .model
        .checkpoint
        .tensors
        .iter()
        .map(|(name, tensor)| TensorSpec { name: name.clone(), dtype, dims: tensor.dims().to_vec() })
        .collect();
    let shards = plan_shards(specs, SHARD_BYTES)?;
    let config = run.model.checkpoint.config_json(dtype);
    let mut small: Vec<(&str, &[u8])> = tokenizer_files(run).collect();
    small.push(("config.json", &config));
    // A GGUF file has its tokenizer inside; the folder gets it as the files that Hugging Face knows.
    let found = run.model.checkpoint.gguf_tokenizer.as_ref();
    let positions = run.model.checkpoint.model.decoder.max_positions;
    let made = found.map(|found| data_tokenizer(found).to_json(positions)).transpose()?;
    if let Some((tokenizer, config)) = &made {
        small.extend([("tokenizer.json", tokenizer.as_slice()), ("tokenizer_config.json", config.as_slice())]);
    }
    let mut names: Vec<String> = small.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.extend(shards.iter().map(|shard| shard.file.clone()));
    if shards.len() > 1 {
        names.push(INDEX_FILE.to_owned());
    }
    luthier_files::write_model(folder, &small, &shards, &mut |spec, writer| {
        let stored = run.model.checkpoint.tensors.get(&spec.name);
        let tensor = trained.get(spec.name.as_str()).copied().or(stored.map(|stored| stored.tensor()));
        let Some(tensor) = tensor else { return Err(std::io::Error::other(format!("no tensor {}", spec.name))) };
        write_numbers(&run.device, tensor, spec.dtype, writer)
    })?;
    Ok(names)
}

/// Writes a tensor's numbers in another storage type, rounded once, some rows at a time.
pub(crate) fn write_numbers(
    device: &Device,
    tensor: &Tensor,
    dtype: DType,
    writer: &mut dyn Write,
) -> std::io::Result<()> {
    for_each_piece(device, tensor, &mut |numbers| {
        let bytes: Vec<u8> = match dtype {
            DType::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            DType::F16 if numbers.iter().any(|number| number.abs() > F16_MOST) => {
                return Err(std::io::Error::other(
                    "a number is too large for f16; export the base as bf16 and train that",
                ));
            }
            DType::F16 => numbers.iter().flat_map(|&number| luthier_tensor::f16_bits(number).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|&number| luthier_tensor::bf16_bits(number).to_le_bytes()).collect(),
        };
        writer.write_all(&bytes)
    })
}

/// The largest number of f16.
const F16_MOST: f32 = 65_504.0;

/// Gives a tensor's numbers to `take`, some rows at a time.
pub(crate) fn for_each_piece<E>(
    device: &Device,
    tensor: &Tensor,
    take: &mut dyn FnMut(&[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let rows = (1usize << 18).div_ceil(tensor.columns().max(1)).max(1);
    for first in (0..tensor.rows()).step_by(rows) {
        let part = tensor.slice_rows(first, rows.min(tensor.rows() - first));
        take(&device.download(&part))?;
    }
    Ok(())
}
