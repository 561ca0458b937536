//! The tokenizer of a Hugging Face folder as the metadata of a GGUF file: the way back of `gguf_tokenizer`.
//!
//! Byte-level BPE becomes `gpt2` with its merges, BPE with bytes as a last resort becomes `llama`, whose scores follow from
//! the merges. How text is split before the merges is recognised by the patterns themselves; a split that llama.cpp has no
//! name for is refused, because a wrong one gives wrong tokens in silence.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::Error;
use crate::gguf_tokenizer::{BYTE, CONTROL, GgufTokenizer, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use crate::pre_tokenizer::{DIGIT, GPT2, PreTokenizer};
use crate::tokenizer::Tokenizer;

impl GgufTokenizer {
    /// From the bytes of `tokenizer.json`, of `tokenizer_config.json`, and the tokenizer that was made of them. `rows` is
    /// the number of rows of the model's embedding; `pre` the name of the split, where it is not to be found out.
    ///
    /// Errors: a kind of tokenizer that is not written, a split without a name, more tokens than rows.
    pub fn from_json(
        tokenizer_json: &[u8],
        config: Option<&[u8]>,
        tokenizer: &Tokenizer,
        rows: usize,
        pre: Option<&str>,
    ) -> Result<Self, Error> {
        let json = parse("tokenizer.json", tokenizer_json)?;
        let config = config.map(|bytes| parse("tokenizer_config.json", bytes)).transpose()?.unwrap_or_default();
        let model = &json["model"];
        let kind = model["type"].as_str().unwrap_or(if model["merges"].is_array() { "BPE" } else { "unknown" });
        if kind != "BPE" {
            return problem(format!(
                "tokenizer.json: GGUF files are written of BPE tokenizers only, and this is {kind}"
            ));
        }
        let added = added_tokens(&json);
        let (tokens, mut token_types) = tokens(model, &added, rows)?;
        let merges = merges(model)?;
        let unknown_text = text_of(&config["unk_token"]).or(model["unk_token"].as_str());
        let id = |text: Option<&str>| text.and_then(|text| tokenizer.token_id(text));
        let unknown_id = id(unknown_text);
        let mut this = Self {
            begin_id: tokenizer.begin_id(),
            end_id: tokenizer.end_id(),
            padding_id: tokenizer.padding_id(),
            unknown_id,
            add_begin: Some(tokenizer.adds_begin()),
            add_end: Some(!tokenizer.added_after.is_empty()),
            chat_template: tokenizer.chat_template().map(str::to_owned),
            ..Self::default()
        };
        if is_byte_level(&json) {
            this.model = "gpt2".into();
            this.pre = Some(match pre {
                Some(name) => PreTokenizer::named(name).map(|_| name.to_owned())?,
                None => split_name(&json)?.to_owned(),
            });
            this.merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        } else if model["byte_fallback"] == true {
            this.model = "llama".into();
            this.pre = Some("default".into());
            this.scores = scores(&tokens, &merges);
            this.add_space_prefix = Some(puts_blank_first(&json));
            for (token, kind) in tokens.iter().zip(&mut token_types) {
                if token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
                    *kind = BYTE;
                }
            }
            if let Some(id) = unknown_id {
                token_types[id as usize] = UNKNOWN;
            }
        } else {
            return problem(
                "tokenizer.json: GGUF files are written of byte-level BPE, and of BPE with byte_fallback; this is neither"
                    .to_owned(),
            );
        }
        (this.tokens, this.token_types) = (tokens, token_types);
        Ok(this)
    }
}

fn problem<T>(problem: String) -> Result<T, Error> {
    Err(Error::Tokenizer { problem })
}

fn parse(file: &str, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer { problem: format!("{file}: {error}") })
}

/// A token of `tokenizer_config.json`: a text or an object with one.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// Id, text and whether it is special.
fn added_tokens(json: &Value) -> Vec<(usize, String, bool)> {
    let entry = |token: &Value| {
        let id = token["id"].as_u64()? as usize;
        Some((id, token["content"].as_str()?.to_owned(), token["special"] == true))
    };
    json["added_tokens"].as_array().into_iter().flatten().filter_map(entry).collect()
}

/// The text and the kind of every id. Rows of the embedding that no token has get a name that no text contains.
fn tokens(model: &Value, added: &[(usize, String, bool)], rows: usize) -> Result<(Vec<String>, Vec<i32>), Error> {
    let mut tokens: Vec<Option<String>> = vec![None; rows];
    let mut types = vec![UNUSED; rows];
    let vocabulary = model["vocab"].as_object().into_iter().flatten();
    let known = vocabulary.map(|(text, id)| (id.as_u64().unwrap_or(u64::MAX) as usize, text.clone(), NORMAL));
    let added =
        added.iter().map(|(id, text, special)| (*id, text.clone(), if *special { CONTROL } else { USER_DEFINED }));
    for (id, text, kind) in known.chain(added) {
        if id >= rows {
            return problem(format!(
                "tokenizer.json: token {text:?} has the id {id}, but the model knows {rows} tokens; the tokenizer belongs \
                 to another model"
            ));
        }
        tokens[id] = Some(text);
        types[id] = kind;
    }
    let named = tokens.into_iter().enumerate().map(|(id, text)| text.unwrap_or_else(|| format!("[PAD{id}]")));
    Ok((named.collect(), types))
}

/// The merges, which newer files have as pairs and older ones as texts.
fn merges(model: &Value) -> Result<Vec<(String, String)>, Error> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(pair) => Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    let merges = model["merges"].as_array().into_iter().flatten().map(pair).collect::<Option<Vec<_>>>();
    merges.map_or_else(|| problem("tokenizer.json: a merge is not two tokens".to_owned()), Ok)
}

/// SentencePiece's scores: what is merged earlier is more likely.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let last = merges.len();
    tokens.iter().map(|token| -(ranks.get(token).copied().unwrap_or(last) as f32)).collect()
}

/// The parts of a normalizer or pre-tokenizer, taken out of their sequences.
fn parts<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    match value["type"].as_str() {
        None => {}
        Some("Sequence") => {
            let lists = ["normalizers", "pretokenizers"].into_iter().filter_map(|key| value[key].as_array());
            lists.flatten().for_each(|part| parts(part, out));
        }
        Some(_) => out.push(value),
    }
}

fn parts_of<'v>(json: &'v Value, key: &str) -> Vec<&'v Value> {
    let mut out = Vec::new();
    parts(&json[key], &mut out);
    out
}

fn is_byte_level(json: &Value) -> bool {
    parts_of(json, "pre_tokenizer").iter().any(|part| part["type"] == "ByteLevel")
}

fn puts_blank_first(json: &Value) -> bool {
    let metaspace = |part: &&Value| {
        part["type"] == "Metaspace"
            && part["prepend_scheme"].as_str().map_or(part["add_prefix_space"] != false, |scheme| scheme != "never")
    };
    parts_of(json, "normalizer").iter().any(|part| part["type"] == "Prepend")
        || parts_of(json, "pre_tokenizer").iter().any(metaspace)
}

/// llama.cpp's name for how text is split before the merges.
fn split_name(json: &Value) -> Result<&'static str, Error> {
    let mut patterns: Vec<&str> = Vec::new();
    for part in parts_of(json, "pre_tokenizer") {
        match part["type"].as_str() {
            Some("Split") => {
                let isolated =
                    part["behavior"] == "Isolated" || (part["behavior"] == "Removed" && part["invert"] == true);
                let pattern = &part["pattern"];
                match pattern["Regex"].as_str().or_else(|| pattern["String"].as_str()) {
                    // What no alternative matches stays a piece anyway.
                    Some(pattern) if isolated && pattern.strip_suffix(r"|\s+") == Some(GPT2) => patterns.push(GPT2),
                    Some(pattern) if isolated => patterns.push(pattern),
                    _ => return unknown_split("a Split that does not isolate a pattern"),
                }
            }
            Some("Digits") if part["individual_digits"] == true => patterns.push(DIGIT),
            Some("ByteLevel") if part["add_prefix_space"] == true => {
                return unknown_split("a ByteLevel with add_prefix_space, which llama.cpp does not have");
            }
            Some("ByteLevel") if part["use_regex"] == false => {}
            Some("ByteLevel") => patterns.push(GPT2),
            other => return unknown_split(other.unwrap_or("something without a type")),
        }
    }
    let composes = parts_of(json, "normalizer").iter().any(|part| part["type"] == "NFC");
    let ignores_merges = json["model"]["ignore_merges"] == true;
    match PreTokenizer::name_of(&patterns, ignores_merges, composes) {
        Some(name) => Ok(name),
        None => unknown_split(&format!("the patterns {patterns:?} with ignore_merges {ignores_merges}")),
    }
}

fn unknown_split<T>(found: &str) -> Result<T, Error> {
    problem(format!(
        "tokenizer.json: the pre_tokenizer has {found}, for which llama.cpp has no name that is known here; give the name \
         with --pre (`tokenizer.ggml.pre` of a GGUF file of the same model), or export a Hugging Face folder"
    ))
}
