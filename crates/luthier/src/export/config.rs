//! What is to be exported, checked: from flags, or from a configuration with LLaMA-Factory's export keys ([`super::keys`]).

use std::path::{Path, PathBuf};

use luthier_model::checkpoint::GgufFileType;

use super::keys::Given;
use super::older::replaceable;
use crate::config::{check_adapter, check_model};
use crate::fail;
use crate::hub::{HubEnvironment, Wanted, locate};
use crate::settings::Problem;

/// What follows `luthier export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// LLaMA-Factory's export settings, one `key: value` a line, in place of --model, --adapter and --output
    #[arg(value_name = "CONFIG.yaml")]
    pub(crate) config: Option<PathBuf>,
    /// Settings that win over the file
    #[arg(value_name = "key=value", requires = "config")]
    pub(crate) overrides: Vec<String>,
    /// A Hugging Face folder, a GGUF file, or org/name of the Hugging Face hub (org/name@revision, org/name:file.gguf)
    #[arg(long, value_name = "PATH", required_unless_present = "config", conflicts_with = "config")]
    pub(crate) model: Option<PathBuf>,
    /// A PEFT adapter folder, which is merged into the model
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(crate) adapter: Option<PathBuf>,
    /// A folder, or for GGUF a .gguf file
    #[arg(long, value_name = "PATH", required_unless_present = "config", conflicts_with = "config")]
    pub(crate) output: Option<PathBuf>,
    /// What is written [default: gguf where --output ends so, else hf]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// How numbers are stored [default: as the base stores most of its own; from GGUF to GGUF each tensor as it was, from a
    /// quantised base to a folder bf16]
    #[arg(long, value_enum)]
    pub(crate) outtype: Option<OutType>,
    /// Most bytes of one safetensors file, such as 5GB or 500MB [default: 5GB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "config")]
    pub(crate) max_shard_size: Option<u64>,
    /// A named chat template, of `luthier template list`, instead of the model's own
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) template: Option<String>,
    /// llama.cpp's name of how the tokenizer splits text, where it cannot be found out
    #[arg(long, value_name = "NAME")]
    pub(crate) pre: Option<String>,
    /// Write an Ollama Modelfile beside a GGUF file
    #[arg(long)]
    pub(crate) modelfile: bool,
    /// Replace what is at the output already
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Merge into the base as its files have it, even where the adapter was trained on a quantised one (QLoRA)
    #[arg(long)]
    pub(crate) unquantised_base: bool,
    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) threads: Option<u16>,
}

/// What kind of files is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A Hugging Face folder: safetensors, configuration, tokenizer
    Hf,
    /// One GGUF file, for llama.cpp and Ollama
    Gguf,
}

/// A storage type as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutType {
    F32,
    F16,
    Bf16,
    /// 8 bits in blocks of 32; these and those below are for GGUF only
    #[value(name = "q8_0")]
    Q8_0,
    /// 6 bits in blocks of 256
    #[value(name = "q6_k")]
    Q6K,
    /// 5 bits in blocks of 256, 6 where it matters most
    #[value(name = "q5_k_m")]
    Q5KM,
    /// 5 bits in blocks of 32 with a minimum
    #[value(name = "q5_1")]
    Q5_1,
    /// 5 bits in blocks of 32
    #[value(name = "q5_0")]
    Q5_0,
    /// 4 bits in blocks of 256, 6 where it matters most: what is downloaded most often
    #[value(name = "q4_k_m")]
    Q4KM,
    /// 4 bits in blocks of 32 with a minimum
    #[value(name = "q4_1")]
    Q4_1,
    /// 4 bits in blocks of 32
    #[value(name = "q4_0")]
    Q4_0,
}

impl OutType {
    pub(crate) fn file_type(self) -> GgufFileType {
        let [f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_1, q5_0, q4_k_m, q4_1, q4_0] = GgufFileType::ALL;
        match self {
            Self::F32 => f32,
            Self::F16 => f16,
            Self::Bf16 => bf16,
            Self::Q8_0 => q8_0,
            Self::Q6K => q6_k,
            Self::Q5KM => q5_k_m,
            Self::Q5_1 => q5_1,
            Self::Q5_0 => q5_0,
            Self::Q4KM => q4_k_m,
            Self::Q4_1 => q4_1,
            Self::Q4_0 => q4_0,
        }
    }
}

/// Where the files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A folder of its own.
    Folder(PathBuf),
    /// A `.gguf` file in a folder that may hold others.
    File(PathBuf),
}

impl Target {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::File(path) => path,
        }
    }

    /// What the exported model is called.
    pub(crate) fn name(&self) -> String {
        let name = match self {
            Self::Folder(path) => path.file_name(),
            Self::File(path) => path.file_stem(),
        };
        name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// An export that can begin.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExportConfig {
    /// The model's name on the hub that it was taken from.
    pub(crate) hub_name: Option<String>,
    pub(crate) model: PathBuf,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) template: Option<String>,
    pub(crate) target: Target,
    pub(crate) format: Format,
    pub(crate) outtype: Option<OutType>,
    pub(crate) shard_bytes: u64,
    pub(crate) pre: Option<String>,
    pub(crate) modelfile: bool,
    pub(crate) overwrite: bool,
    pub(crate) threads: Option<usize>,
    /// What was given and has no effect.
    pub(crate) notices: Vec<String>,
}

impl ExportConfig {
    /// From the command line, and the file that it names.
    ///
    /// # Errors
    /// Everything that is wrong, each as a whole sentence.
    pub(crate) fn read(arguments: &Arguments, environment: &HubEnvironment) -> anyhow::Result<Self> {
        let mut given = Given::default();
        match &arguments.config {
            Some(path) => given = Given::from_file(path, &arguments.overrides).map_err(fail)?,
            None => {
                given.model = arguments.model.clone();
                given.adapter = arguments.adapter.clone();
                given.output = arguments.output.clone();
                given.template = arguments.template.clone();
                given.shard_bytes = arguments.max_shard_size.unwrap_or(crate::save::SHARD_BYTES);
            }
        }
        let names = if arguments.config.is_some() { FILE_NAMES } else { FLAG_NAMES };
        let mut problems = Vec::new();
        let mut need = |path: Option<PathBuf>, name: &str, expected: &str| {
            path.unwrap_or_else(|| {
                problems.push(Problem(format!("{name} is missing; expected {expected}")));
                PathBuf::new()
            })
        };
        let model = need(given.model, names.model, "a Hugging Face folder, a GGUF file, or org/name of the hub");
        let output = need(given.output, names.output, "a folder, or for GGUF a .gguf file");
        if !problems.is_empty() {
            return Err(fail(problems));
        }
        let find =
            |name, path: &Path, wanted| locate(name, &path.display().to_string(), wanted, &given.hub, environment);
        let found = find(names.model, &model, Wanted::Model)?;
        let id = |path: &Path| path.display().to_string().split([':', '@']).next().unwrap_or_default().to_owned();
        let hub_name = (found != model).then(|| id(&model));
        let model = found;
        let adapter = given.adapter.as_deref().map(|path| find(names.adapter, path, Wanted::Adapter)).transpose()?;
        problems.extend(check_model(&model, names.model).err());
        problems.extend(adapter.as_deref().and_then(|adapter| check_adapter(adapter, names.adapter).err()));
        let is_file = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        let format = arguments.format.unwrap_or(if is_file { Format::Gguf } else { Format::Hf });
        let target = if is_file { Target::File(output) } else { Target::Folder(output) };
        let config = Self {
            hub_name,
            model,
            adapter,
            template: given.template,
            target,
            format,
            outtype: arguments.outtype,
            shard_bytes: given.shard_bytes,
            pre: arguments.pre.clone(),
            modelfile: arguments.modelfile,
            overwrite: arguments.overwrite,
            threads: arguments.threads.map(usize::from),
            notices: given.notices,
        };
        let mut notices = Vec::new();
        match config.format {
            Format::Gguf if arguments.max_shard_size.is_some() => {
                notices.push("--max-shard-size has no effect: a GGUF file is written as one".to_owned());
            }
            Format::Hf if config.pre.is_some() => {
                notices.push("--pre has no effect: only a GGUF file names how its tokenizer splits text".to_owned());
            }
            _ => {}
        }
        let config = Self { notices: [config.notices.clone(), notices].concat(), ..config };
        config.check(&names, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(fail(problems)) }
    }

    /// What the parts say together, and what is at the output.
    fn check(&self, names: &Names, problems: &mut Vec<Problem>) {
        let mut say = |sentence: String| problems.push(Problem(sentence));
        if self.format == Format::Hf {
            if let Target::File(path) = &self.target {
                let shown = path.display();
                say(format!("{}: {shown} ends with .gguf, but --format is hf; expected a folder", names.output));
            }
            if let Some(named) = self.outtype.map(OutType::file_type).filter(|named| named.is_quantised()) {
                say(format!(
                    "--outtype: {named} exists in GGUF files only; expected f32, f16 or bf16, or --format gguf"
                ));
            }
            if self.modelfile {
                say("--modelfile: Ollama reads GGUF files; expected --format gguf besides".to_owned());
            }
        }
        let same = |path: &Path| match (path.canonicalize(), self.target.path().canonicalize()) {
            (Ok(one), Ok(other)) => one.starts_with(other),
            _ => false,
        };
        let (output, shown) = (names.output, self.target.path().display());
        if same(&self.model) || self.adapter.as_deref().is_some_and(same) {
            say(format!("{output}: {shown} holds the model or the adapter itself; choose another path"));
            return;
        }
        if self.target.path().file_name().is_none() {
            say(format!("{output}: {shown} has no name of its own; expected a folder to be made, or a .gguf file"));
            return;
        }
        let there = match &self.target {
            Target::Folder(path) if path.is_file() => {
                say(format!("{output}: {shown} is a file; expected a folder, or a name that ends with .gguf"));
                return;
            }
            Target::File(path) if path.is_dir() => {
                say(format!("{output}: {shown} is a folder; expected a file"));
                return;
            }
            Target::Folder(path) => std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
            Target::File(path) => companions(path).iter().any(|path| path.exists()),
        };
        if there && !self.overwrite {
            say(format!("{output}: {shown} already exists; choose another path or give --overwrite"));
        } else if there && let Err(reason) = replaceable(&self.target) {
            say(format!("{output}: {shown} {reason}; choose another path"));
        }
    }
}

/// The file, its card and its Modelfile.
pub(crate) fn companions(file: &Path) -> [PathBuf; 3] {
    [file.to_owned(), file.with_extension("md"), file.with_extension("Modelfile")]
}

/// What the paths are called where they were given.
struct Names {
    model: &'static str,
    adapter: &'static str,
    output: &'static str,
}

const FLAG_NAMES: Names = Names { model: "--model", adapter: "--adapter", output: "--output" };
const FILE_NAMES: Names = Names { model: "model_name_or_path", adapter: "adapter_name_or_path", output: "export_dir" };

/// `5GB`, `500MB`, `1GiB`: bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let at = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => 0.0,
    };
    match number.parse::<f64>().map(|number| number * factor) {
        Ok(bytes) if (1.0..1e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err("expected a size with its unit, such as 5GB, 500MB or 2GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_storage_type_has_its_own_name() {
        for outtype in <OutType as clap::ValueEnum>::value_variants() {
            let value = clap::ValueEnum::to_possible_value(outtype).expect("none is skipped");
            assert_eq!(value.get_name(), outtype.file_type().name);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("5GB", 5_000_000_000), ("500MB", 500_000_000), ("2GiB", 2 << 30), ("1.5kb", 1500)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["5", "GB", "0MB", "-1GB", "5 TBs"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
