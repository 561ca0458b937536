//! What is to be exported, checked: from flags, or from a configuration with LLaMA-Factory's export keys, which keep their
//! names and meaning.

use std::path::{Path, PathBuf};

use luthier_tensor::DType;

use crate::config::{check_adapter, check_model};
use crate::fail;
use crate::hub::{HubEnvironment, HubSettings, Token, Wanted, locate};
use crate::settings::file::{self, Raw};
use crate::settings::yaml;
use crate::settings::{self, Origin, Problem};

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
    /// How numbers are stored [default: as the base stores most of its own; bf16 for a quantised base]
    #[arg(long, value_enum)]
    pub(crate) outtype: Option<OutType>,
    /// Most bytes of one safetensors file, such as 5GB or 500MB
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = parse_size, conflicts_with = "config")]
    pub(crate) max_shard_size: u64,
    /// llama.cpp's name of how the tokenizer splits text, where it cannot be found out
    #[arg(long, value_name = "NAME")]
    pub(crate) pre: Option<String>,
    /// Write an Ollama Modelfile beside a GGUF file
    #[arg(long)]
    pub(crate) modelfile: bool,
    /// Replace what is at the output already
    #[arg(long)]
    pub(crate) overwrite: bool,
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
    /// 8 bits in blocks of 32; GGUF only
    #[value(name = "q8_0")]
    Q8_0,
}

impl OutType {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::Bf16,
            Self::Q8_0 => DType::Q8_0,
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
                given.shard_bytes = arguments.max_shard_size;
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
        let is_file = output.extension().is_some_and(|extension| extension == "gguf");
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
            if self.outtype == Some(OutType::Q8_0) {
                say("--outtype: q8_0 exists in GGUF files only; expected f32, f16 or bf16, or --format gguf".to_owned());
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
        let found = match &self.target {
            Target::Folder(path) if path.is_file() => {
                say(format!("{output}: {shown} is a file; expected a folder, or a name that ends with .gguf"));
                return;
            }
            Target::File(path) if path.is_dir() => {
                say(format!("{output}: {shown} is a folder; expected a file"));
                return;
            }
            Target::Folder(path) => entries(path),
            Target::File(path) => companions(path).into_iter().filter(|path| path.exists()).map(name_of).collect(),
        };
        match found.iter().find(|name| matches!(self.target, Target::Folder(_)) && !is_of_an_export(name)) {
            Some(foreign) if self.overwrite => {
                say(format!("{output}: {shown} holds {foreign}, which no export writes; choose another folder"));
            }
            _ if !self.overwrite && !found.is_empty() => {
                say(format!("{output}: {shown} already exists; choose another path or give --overwrite"));
            }
            _ => {}
        }
    }
}

/// The file, its card and its Modelfile.
pub(crate) fn companions(file: &Path) -> [PathBuf; 3] {
    [file.to_owned(), file.with_extension("md"), file.with_extension("Modelfile")]
}

fn name_of(path: PathBuf) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| name_of(entry.path())).collect();
    names.sort_unstable();
    names
}

/// Whether an export could have written a file of this name.
fn is_of_an_export(name: &str) -> bool {
    let ends = [".safetensors", ".json", ".jinja", ".gguf", ".md", ".txt", ".model"];
    ends.iter().any(|end| name.ends_with(end)) || matches!(name, "Modelfile" | "LICENSE")
}

/// What the paths are called where they were given.
struct Names {
    model: &'static str,
    adapter: &'static str,
    output: &'static str,
}

const FLAG_NAMES: Names = Names { model: "--model", adapter: "--adapter", output: "--output" };
const FILE_NAMES: Names = Names { model: "model_name_or_path", adapter: "adapter_name_or_path", output: "export_dir" };

/// What was said, before it is known to make sense.
#[derive(Default)]
struct Given {
    model: Option<PathBuf>,
    adapter: Option<PathBuf>,
    output: Option<PathBuf>,
    template: Option<String>,
    hub: HubSettings,
    shard_bytes: u64,
    notices: Vec<String>,
}

const PICKLES: &str = "it writes pickles, which can execute code while they are loaded; safetensors are written";
const NO_QUANTISING: &str =
    "models are not quantised with data yet; --format gguf --outtype q8_0 stores 8 bits without";

impl Given {
    fn from_file(path: &Path, overrides: &[String]) -> Result<Self, Vec<Problem>> {
        let shown = path.display().to_string();
        let entries = file::read(path).map_err(|error| {
            let line = if error.line > 0 { format!(", line {}", error.line) } else { String::new() };
            vec![Problem(format!("{shown}{line}: {}", error.sentence))]
        })?;
        let mut pairs: Vec<(String, Raw, Origin)> = Vec::new();
        for entry in entries {
            pairs.push((entry.key, entry.value, Origin::File { path: shown.clone(), line: entry.line }));
        }
        let mut problems = Vec::new();
        for text in overrides {
            match text.split_once('=') {
                Some((key, value)) => {
                    pairs.retain(|(given, ..)| given != key.trim());
                    pairs.push((key.trim().to_owned(), yaml::read_value(value), Origin::CommandLine));
                }
                None => problems.push(Problem(format!("command line: {text:?} is not of the form key=value"))),
            }
        }
        let mut given = Self { shard_bytes: 5_000_000_000, ..Self::default() };
        for (key, raw, origin) in pairs {
            if let Err(sentence) = given.take(&key, &raw) {
                problems.push(Problem(format!("{origin}: {sentence}")));
            }
        }
        if problems.is_empty() { Ok(given) } else { Err(problems) }
    }

    fn take(&mut self, key: &str, raw: &Raw) -> Result<(), String> {
        let text = match raw {
            Raw::Null => return Ok(()),
            Raw::Text(text) => text.trim().to_owned(),
            Raw::List(items) => items.join(","),
            Raw::Nested => String::new(),
        };
        let switched_on = || matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on");
        match key {
            "model_name_or_path" => self.model = Some(text.into()),
            "adapter_name_or_path" if text.contains(',') => {
                return Err(format!(
                    "{key} names several adapters; expected one: export with the first, then the result with the second"
                ));
            }
            "adapter_name_or_path" => self.adapter = Some(text.into()),
            "template" => self.template = Some(text),
            "model_revision" => self.hub.revision = Some(text),
            "cache_dir" => self.hub.cache = Some(text.into()),
            "hf_hub_token" => self.hub.token = Token::new(&text),
            "export_dir" => self.output = Some(text.into()),
            "export_size" => match text.parse::<f64>() {
                Ok(size) if size > 0.0 && size < 1e9 => self.shard_bytes = (size * 1e9) as u64,
                _ => return Err(format!("{key} is {raw}; expected gigabytes of one file, more than 0")),
            },
            "export_device" => match text.as_str() {
                "cpu" | "auto" => {}
                _ => return Err(format!("{key} is {raw}; expected cpu or auto")),
            },
            "export_legacy_format" if switched_on() => return Err(format!("{key} is refused: {PICKLES}")),
            "export_legacy_format" => {}
            "export_quantization_bit" => return Err(format!("{key} is refused: {NO_QUANTISING}")),
            "export_hub_model_id" => {
                self.notices.push(format!("{key} has no effect: nothing is uploaded; the folder can be, as it is"));
            }
            "quantization_bit" => {
                return Err(format!(
                    "{key} is refused: an adapter is merged into the unquantised numbers; remove the line"
                ));
            }
            _ if key.starts_with("export_quantization_") => {
                self.notices.push(format!("{key} has no effect: it only matters with export_quantization_bit"));
            }
            "trust_remote_code" => self.notices.push(format!("{key} has no effect: no code of a model is ever run")),
            "finetuning_type" => {
                self.notices.push(format!("{key} has no effect: the adapter's own files say what it is"));
            }
            _ if settings::find(key).is_some() => {
                self.notices.push(format!("{key} has no effect in an export"));
            }
            _ => {
                let near = nearest(key).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
                return Err(format!(
                    "there is no setting {key:?} of an export{near} (`luthier export --help` lists all)"
                ));
            }
        }
        Ok(())
    }
}

const KEYS: [&str; 9] = [
    "model_name_or_path",
    "adapter_name_or_path",
    "template",
    "export_dir",
    "export_size",
    "export_device",
    "export_legacy_format",
    "export_hub_model_id",
    "export_quantization_bit",
];

fn nearest(key: &str) -> Option<&'static str> {
    let likeness = |name: &&str| strsim::normalized_damerau_levenshtein(&key.to_lowercase().replace('-', "_"), name);
    let best = KEYS.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) >= 0.6).then_some(best)
}

/// What follows the options in the help.
pub(crate) const HELP: &str = "\
Settings in CONFIG.yaml are those of LLaMA-Factory's examples/merge_lora:
  model_name_or_path, adapter_name_or_path, export_dir   as --model, --adapter, --output
  template <name>              the chat template of a model that has none of its own
  export_size <gigabytes>      as --max-shard-size [5]
  export_device <cpu|auto>     accepted
  export_legacy_format <false> true is refused: it writes pickles
  export_quantization_bit      refused
  export_hub_model_id          accepted without effect
";

/// `5GB`, `500MB`, `1GiB`: bytes.
fn parse_size(text: &str) -> Result<u64, String> {
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
    fn sizes() {
        for (text, bytes) in [("5GB", 5_000_000_000), ("500MB", 500_000_000), ("2GiB", 2 << 30), ("1.5kb", 1500)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["5", "GB", "0MB", "-1GB", "5 TBs"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[track_caller]
    fn take(key: &str, value: &str) -> Result<Given, String> {
        let mut given = Given::default();
        given.take(key, &yaml::read_value(value)).map(|()| given)
    }

    #[test]
    fn the_keys_of_llama_factory() {
        assert_eq!(take("export_size", "2").map(|given| given.shard_bytes), Ok(2_000_000_000));
        assert!(take("export_device", "cpu").is_ok());
        assert!(take("export_legacy_format", "false").is_ok());
        assert_eq!(take("trust_remote_code", "true").map(|given| given.notices.len()), Ok(1));
        assert_eq!(take("cutoff_len", "5").map(|given| given.notices.len()), Ok(1));
        let refusal = |key: &str, value: &str| take(key, value).err().unwrap_or_default();
        assert!(refusal("export_legacy_format", "true").contains("pickles"));
        assert!(refusal("export_quantization_bit", "4").contains("q8_0"));
        assert!(refusal("adapter_name_or_path", "a,b").contains("several adapters"));
        assert!(refusal("export_dri", "x").contains("did you mean \"export_dir\"?"));
    }
}
