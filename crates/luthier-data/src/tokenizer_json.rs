//! A tokenizer from the files of a Hugging Face folder.

use serde_json::Value;
use tokenizers::pattern::Pattern;
use tokenizers::utils::SysRegex;

use crate::base64::decode_base64;
use crate::charsmap::check_charsmap;
use crate::error::Error;
use crate::tokenizer::{Tokenizer, guarded, ids};

impl Tokenizer {
    /// From the bytes of `tokenizer.json`, of `tokenizer_config.json`, and the text of `chat_template.jinja`, which
    /// wins over the configuration's template.
    ///
    /// Errors: a file that does not parse.
    pub fn from_json(tokenizer: &[u8], config: Option<&[u8]>, chat_template: Option<&str>) -> Result<Self, Error> {
        let problem = |file: &str, error: String| Error::Tokenizer { problem: format!("{file}: {error}") };
        let mut value: Value =
            serde_json::from_slice(tokenizer).map_err(|error| problem("tokenizer.json", error.to_string()))?;
        check(&value)?;
        // Cutting and filling up are others' business, and neither may happen unsaid.
        for key in ["truncation", "padding"] {
            if let Some(setting) = value.get_mut(key) {
                *setting = Value::Null;
            }
        }
        let build = |bytes: &[u8]| {
            let built = guarded(|| Ok(tokenizers::Tokenizer::from_bytes(bytes)));
            built?.map_err(|error| problem("tokenizer.json", error.to_string()))
        };
        let start = build(value.to_string().as_bytes())?;
        let mut prefix = Prefix::default();
        prefix.remove(&mut value["normalizer"]);
        prefix.remove(&mut value["pre_tokenizer"]);
        let continuing = if prefix.removed { Some(build(value.to_string().as_bytes())?) } else { None };
        let config: Value = match config {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| problem("tokenizer_config.json", error.to_string()))?
            }
            None => Value::Null,
        };
        let id = |key: &str| {
            let text = config[key].as_str().or_else(|| config[key]["content"].as_str());
            text.and_then(|text| start.token_to_id(text))
        };
        let (begin_id, end_id, padding_id) = (id("bos_token"), id("eos_token"), id("pad_token"));
        let (before, after) = added_around(&start)?;
        let chat_template = chat_template.map(str::to_owned).or_else(|| configured_template(&config));
        let mut this = Self::new(start, continuing, prefix.special_starts, begin_id, end_id, padding_id);
        (this.added_before, this.added_after, this.chat_template) = (before, after, chat_template);
        Ok(this)
    }
}

/// Refuses parts that the library takes as they are and then fails at.
fn check(json: &Value) -> Result<(), Error> {
    let model = &json["model"];
    if let Some(prefix) = model["continuing_subword_prefix"].as_str()
        && let Some(merges) = model["merges"].as_array()
    {
        let right = |merge: &Value| match merge {
            Value::String(text) => text.split_once(' ').map(|(_, right)| right.starts_with(prefix)),
            merge => merge[1].as_str().map(|right| right.starts_with(prefix)),
        };
        if let Some(merge) = merges.iter().find(|merge| right(merge) == Some(false)) {
            let problem = format!("tokenizer.json: the merge {merge} goes on without the prefix {prefix:?}");
            return Err(Error::Tokenizer { problem });
        }
    }
    let mut parts = Vec::new();
    all_parts(&json["normalizer"], &mut parts);
    all_parts(&json["decoder"], &mut parts);
    all_parts(&json["post_processor"], &mut parts);
    for part in parts {
        let problem = |problem: &str| Err(Error::Tokenizer { problem: format!("tokenizer.json: {problem}") });
        match kind(part) {
            "Precompiled" => {
                let Some(table) = part["precompiled_charsmap"].as_str().and_then(decode_base64) else {
                    return problem("the precompiled_charsmap is no base64");
                };
                check_charsmap(&table)?;
            }
            "TemplateProcessing" => {
                let pieces = ["single", "pair"].into_iter().filter_map(|key| part[key].as_array()).flatten();
                let mut names = pieces.filter_map(|piece| piece["SpecialToken"]["id"].as_str());
                if let Some(name) = names.find(|name| part["special_tokens"].get(*name).is_none()) {
                    return problem(&format!("the post_processor puts {name:?} around a text, which its tokens lack"));
                }
                let mut single = part["single"].as_array().into_iter().flatten();
                if single.any(|piece| piece["Sequence"]["id"] == "B") {
                    return problem("the post_processor puts a second text around a single one");
                }
            }
            "Strip" if part["start"].as_u64() > Some(0) && part["stop"].as_u64() > Some(0) => {
                return problem("a Strip decoder takes from both ends, which can be more than there is");
            }
            _ => {}
        }
    }
    let mut parts = Vec::new();
    all_parts(&json["normalizer"], &mut parts);
    parts.retain(|part| part["normalizers"].is_null());
    let empty = |part: &&&Value| part["pattern"]["Regex"].as_str().is_some_and(matches_nothing);
    if parts.split_last().is_some_and(|(_, before)| before.iter().any(|part| empty(&part))) {
        let problem = "tokenizer.json: a Replace normalizer has a pattern that matches where there is nothing, and others follow it";
        return Err(Error::Tokenizer { problem: problem.to_owned() });
    }
    let chains: [&[&str]; 3] = [&["normalizer", "pre_tokenizer"], &["decoder"], &["post_processor"]];
    for chain in chains {
        let mut parts = Vec::new();
        chain.iter().for_each(|key| all_parts(&json[key], &mut parts));
        let growth = parts.iter().fold(1, |all: usize, part| all.saturating_mul(growth(part)));
        if growth > MOST_GROWTH {
            let chain = chain.join(" and ");
            let problem = format!(
                "tokenizer.json: the parts of {chain} make more than {MOST_GROWTH} letters of one, one after another"
            );
            return Err(Error::Tokenizer { problem });
        }
    }
    Ok(())
}

/// What a part is. The library takes one for what its keys say, where it has another type or none.
fn kind(part: &Value) -> &str {
    const KEYS: [(&str, &str); 5] = [
        ("precompiled_charsmap", "Precompiled"),
        ("single", "TemplateProcessing"),
        ("trim_offsets", "ByteLevel"),
        ("stop", "Strip"),
        ("pattern", "Replace"),
    ];
    let found =
        KEYS.iter().find(|(key, kind)| part.get(key).is_some() && (*kind != "Replace" || part["content"].is_string()));
    found.map_or_else(|| part["type"].as_str().unwrap_or_default(), |(_, kind)| kind)
}

/// The most letters that a letter may become in parts that follow one another: a few of those that double what they get would
/// fill the memory. Real files have one or two that do.
const MOST_GROWTH: usize = 1 << 12;

/// The most letters that a part makes of one.
fn growth(part: &Value) -> usize {
    let letters = |text: &Value| text.as_str().map_or(0, |text| text.chars().count());
    match kind(part) {
        // A letter for each byte.
        "ByteLevel" | "NFD" => 4,
        // The compatibility forms' longest; tables are made of them.
        "NFKC" | "NFKD" | "Precompiled" => 18,
        "Replace" => match &part["pattern"]["Regex"] {
            Value::String(pattern) => letters(&part["content"]).max(1) + usize::from(matches_nothing(pattern)),
            _ => letters(&part["content"]).div_ceil(letters(&part["pattern"]["String"]).max(1)).max(1),
        },
        "TemplateProcessing" => {
            let single = part["single"].as_array().into_iter().flatten();
            single.filter(|piece| !piece["Sequence"].is_null()).count().max(1)
        }
        _ => 1,
    }
}

/// Whether a pattern matches an empty text somewhere. One that does not compile is somebody else's to refuse.
fn matches_nothing(pattern: &str) -> bool {
    const TEXTS: [&str; 4] = ["", " a  B.\n\t", "1é ▁今", "aa--  "];
    let Ok(pattern) = SysRegex::new(pattern) else { return false };
    let empty = |text: &&str| {
        let found = (&pattern).find_matches(text).unwrap_or_default();
        found.into_iter().any(|((from, to), matched)| matched && from == to)
    };
    TEXTS.iter().any(empty)
}

/// A part and the parts within it.
fn all_parts<'v>(part: &'v Value, out: &mut Vec<&'v Value>) {
    for list in ["normalizers", "pretokenizers", "decoders", "processors"] {
        part[list].as_array().into_iter().flatten().for_each(|part| all_parts(part, out));
    }
    out.push(part);
}

/// Takes out of a `tokenizer.json` what puts a blank before the first word.
#[derive(Default)]
struct Prefix {
    removed: bool,
    special_starts: bool,
}

impl Prefix {
    fn remove(&mut self, part: &mut Value) {
        for list in ["normalizers", "pretokenizers"] {
            if let Some(parts) = part.get_mut(list).and_then(Value::as_array_mut) {
                parts.retain(|part| part["type"] != "Prepend" || self.found(true));
                parts.iter_mut().for_each(|part| self.remove(part));
            }
        }
        match part["type"].as_str() {
            Some("Prepend") => {
                self.found(true);
                *part = Value::Null;
            }
            Some("Metaspace") => {
                let scheme = part["prepend_scheme"].as_str();
                let old = scheme.is_none() && part["add_prefix_space"].as_bool() != Some(false);
                if old || matches!(scheme, Some("always" | "first")) {
                    self.found(scheme != Some("first"));
                    part["prepend_scheme"] = "never".into();
                    part["add_prefix_space"] = false.into();
                }
            }
            Some("ByteLevel") if part["add_prefix_space"] == true => {
                self.found(true);
                part["add_prefix_space"] = false.into();
            }
            _ => {}
        }
    }

    /// Notes a prefix; false, so that `retain` drops it.
    fn found(&mut self, special_starts: bool) -> bool {
        self.removed = true;
        self.special_starts |= special_starts;
        false
    }
}

/// What the post-processor puts before and after a text.
fn added_around(tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let plain = ids(tokenizer, "a")?;
    let full = guarded(|| Ok(tokenizer.encode_fast("a", true)?.get_ids().to_vec()))?;
    let at = full.windows(plain.len().max(1)).position(|window| window == plain);
    Ok(at.map(|at| (full[..at].to_vec(), full[at + plain.len()..].to_vec())).unwrap_or_default())
}

/// `chat_template`: one text, or a list of named ones of which `default` is meant.
pub(crate) fn configured_template(config: &Value) -> Option<String> {
    match &config["chat_template"] {
        Value::String(template) => Some(template.clone()),
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}
