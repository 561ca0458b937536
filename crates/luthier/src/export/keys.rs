//! LLaMA-Factory's keys of an export, as its `examples/merge_lora` use them: each does what it says, is accepted and has no
//! effect, or is refused with the reason.

use std::path::{Path, PathBuf};

use crate::hub::{HubSettings, Token};
use crate::settings::file::{self, Raw};
use crate::settings::yaml;
use crate::settings::{self, Origin, Problem};

/// What was said, before it is known to make sense.
#[derive(Default)]
pub(super) struct Given {
    pub(super) model: Option<PathBuf>,
    pub(super) adapter: Option<PathBuf>,
    pub(super) output: Option<PathBuf>,
    pub(super) template: Option<String>,
    pub(super) hub: HubSettings,
    pub(super) shard_bytes: u64,
    pub(super) notices: Vec<String>,
}

const PICKLES: &str = "it writes pickles, which can execute code while they are loaded; safetensors are written";
const NO_QUANTISING: &str = "GPTQ, which quantises with data, is not built in; --format gguf --outtype q4_k_m stores 4 bits without, q8_0 8 bits";

impl Given {
    pub(super) fn from_file(path: &Path, overrides: &[String]) -> Result<Self, Vec<Problem>> {
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
        let mut given = Self { shard_bytes: crate::save::SHARD_BYTES, ..Self::default() };
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
            Raw::Map(_) | Raw::Nested => String::new(),
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
  template <name>              a named chat template, instead of the model's own
  export_size <gigabytes>      as --max-shard-size [5]
  export_device <cpu|auto>     accepted
  export_legacy_format <false> true is refused: it writes pickles
  export_quantization_bit      refused
  export_hub_model_id          accepted without effect
";

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(refusal("export_quantization_bit", "4").contains("q4_k_m"));
        assert!(refusal("adapter_name_or_path", "a,b").contains("several adapters"));
        assert!(refusal("export_dri", "x").contains("did you mean \"export_dir\"?"));
    }
}
