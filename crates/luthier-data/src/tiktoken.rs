//! A tokenizer from a tiktoken file: a token in base64 and its rank on each line. The file says neither how text is split
//! before nor which special tokens there are; both follow from the family of the model (`model_type` of `config.json`) and
//! from `tokenizer_config.json`. An unknown family is an error: a wrong split gives wrong tokens in silence.

use std::collections::HashMap;

use serde_json::Value;

use crate::base64::decode_base64;
use crate::error::Error;
use crate::gguf_tokenizer::{CONTROL, GgufTokenizer, NORMAL, UNUSED};
use crate::tokenizer::Tokenizer;
use crate::tokenizer_json::configured_template;
use crate::tokenizer_model::add_tokens;

/// A family whose models come with tiktoken files.
struct Family {
    model_types: &'static [&'static str],
    /// The split, by its name in GGUF files.
    pre: &'static str,
    /// The special tokens that follow the file's, from code that comes with the models.
    special: fn() -> Vec<String>,
    begin: Option<&'static str>,
    end: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { model_types: &["qwen"], pre: "qwen2", special: qwen_special, begin: None, end: "<|endoftext|>" },
    Family {
        model_types: &["llama", "mllama"],
        pre: "llama-bpe",
        special: llama_special,
        begin: Some("<|begin_of_text|>"),
        end: "<|end_of_text|>",
    },
];

/// From: `tokenization_qwen.py` of Qwen-7B.
fn qwen_special() -> Vec<String> {
    let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
    named.into_iter().chain((0..205).map(|number| format!("<|extra_{number}|>"))).collect()
}

/// From: `llama/tokenizer.py` of Llama 3.
fn llama_special() -> Vec<String> {
    let reserved = |numbers: std::ops::Range<u32>| numbers.map(|number| format!("<|reserved_special_token_{number}|>"));
    let text = |text: &str| std::iter::once(text.to_owned());
    let begin = text("<|begin_of_text|>").chain(text("<|end_of_text|>")).chain(reserved(0..4));
    let header = text("<|start_header_id|>").chain(text("<|end_header_id|>")).chain(reserved(4..5));
    begin.chain(header).chain(text("<|eot_id|>")).chain(reserved(5..251)).collect()
}

/// How many ranks a file may leave out.
const MOST_MISSING: usize = 1000;
/// How many bytes of merges there may be for each byte of tokens, and beyond that. Real files have about three.
const MERGES_BYTES: usize = 100;
const MOST_MERGES_BYTES: usize = 1 << 20;
/// The longest token that a file may have, in bytes. The longest known ones are 128 blanks.
const LONGEST_TOKEN: usize = 1024;

/// Whether bytes look like a tiktoken file: some models call theirs `tokenizer.model`, as SentencePiece's are called.
pub fn is_tiktoken(bytes: &[u8]) -> bool {
    let end = bytes.iter().take(4096).position(|byte| *byte == b'\n').unwrap_or(bytes.len().min(4096));
    std::str::from_utf8(&bytes[..end]).is_ok_and(|line| read_line(line).is_some())
}

impl Tokenizer {
    /// From the bytes of a tiktoken file (`name` in messages), the `model_type` of `config.json`, `tokenizer_config.json`,
    /// and the text of `chat_template.jinja`, which wins over the configuration's template.
    ///
    /// Errors: lines that are no tokens; a family whose split is not known.
    pub fn from_tiktoken(
        name: &str,
        bytes: &[u8],
        model_type: Option<&str>,
        config: Option<&[u8]>,
        chat_template: Option<&str>,
    ) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Tokenizer { problem: format!("{name}: {problem}") };
        let family = FAMILIES.iter().find(|family| model_type.is_some_and(|found| family.model_types.contains(&found)));
        let Some(family) = family else {
            let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
            let found = model_type.map_or("there is no config.json beside it that says".to_owned(), |found| {
                format!("config.json says {found:?}, for which it is not known")
            });
            return Err(wrong(format!(
                "a tiktoken file does not say how text is split before; that follows from the model_type, and {found} \
                 (known: {}); convert it to tokenizer.json",
                known.join(", ")
            )));
        };
        let ranks = read_ranks(bytes).map_err(wrong)?;
        let config: Value = match config {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| Error::Tokenizer { problem: format!("tokenizer_config.json: {error}") })?,
        };
        let mut tokenizer = byte_level(&ranks).map_err(wrong)?;
        tokenizer.pre = Some(family.pre.to_owned());
        if config["added_tokens_decoder"].is_null() {
            tokenizer.token_types.resize(ranks.len() + (family.special)().len(), CONTROL);
            tokenizer.tokens.extend((family.special)());
        } else {
            add_tokens(&mut tokenizer, &config, &Value::Null)?;
        }
        let id = |key: &str, otherwise: Option<&str>| {
            let text = config[key].as_str().or_else(|| config[key]["content"].as_str()).or(otherwise)?;
            tokenizer.tokens.iter().position(|token| token == text).map(|id| id as u32)
        };
        let (begin, end, padding) =
            (id("bos_token", family.begin), id("eos_token", Some(family.end)), id("pad_token", None));
        (tokenizer.begin_id, tokenizer.end_id, tokenizer.padding_id) = (begin, end, padding);
        tokenizer.add_begin = Some(begin.is_some());
        tokenizer.chat_template = chat_template.map(str::to_owned).or_else(|| configured_template(&config));
        Self::from_gguf(&tokenizer)
    }
}

/// The bytes of each token; none where a rank is left out.
fn read_ranks(bytes: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "it is no text; expected a token in base64 and its rank on each line")?;
    let mut ranks: Vec<Option<Vec<u8>>> = Vec::new();
    let most = text.lines().count() + MOST_MISSING;
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = index + 1;
        let (token, rank) = read_line(line)
            .ok_or_else(|| format!("line {place} is no token; expected a token in base64, a blank and its rank"))?;
        if rank >= most {
            let lines = most - MOST_MISSING;
            return Err(format!(
                "line {place} has the rank {rank}, but there are only {lines} lines; expected less than {most}"
            ));
        }
        if token.len() > LONGEST_TOKEN {
            return Err(format!("line {place} has a token of {} bytes; expected at most {LONGEST_TOKEN}", token.len()));
        }
        if ranks.len() <= rank {
            ranks.resize(rank + 1, None);
        }
        if ranks[rank].replace(token).is_some() {
            return Err(format!("line {place} has the rank {rank}, which an earlier line has too"));
        }
    }
    if ranks.is_empty() { Err("it has no tokens".to_owned()) } else { Ok(ranks) }
}

fn read_line(line: &str) -> Option<(Vec<u8>, usize)> {
    let (token, rank) = line.trim_end().split_once(' ')?;
    let token = decode_base64(token).filter(|token| !token.is_empty())?;
    Some((token, rank.parse().ok()?))
}

/// The tokens in the letters of byte-level vocabularies, with the merges that give them: tiktoken merges two tokens where
/// both together are one, the least rank first, so that every way to put a token together is a merge.
/// Errors: there are too many ways, as a clause.
fn byte_level(ranks: &[Option<Vec<u8>>]) -> Result<GgufTokenizer, String> {
    let letters = letters();
    let written = |bytes: &[u8]| bytes.iter().map(|byte| letters[*byte as usize]).collect::<String>();
    let by_bytes: HashMap<&[u8], usize> =
        ranks.iter().enumerate().filter_map(|(rank, bytes)| Some((bytes.as_deref()?, rank))).collect();
    let mut found = GgufTokenizer { model: "gpt2".to_owned(), ..Default::default() };
    let mut left = MOST_MERGES_BYTES + ranks.iter().flatten().map(Vec::len).sum::<usize>() * MERGES_BYTES;
    for (rank, bytes) in ranks.iter().enumerate() {
        let Some(bytes) = bytes else {
            found.tokens.push(format!("<unused-id-{rank}>"));
            found.token_types.push(UNUSED);
            continue;
        };
        found.tokens.push(written(bytes));
        found.token_types.push(NORMAL);
        let ways = (1..bytes.len()).map(|at| bytes.split_at(at));
        let known = ways.filter(|(left, right)| by_bytes.contains_key(left) && by_bytes.contains_key(right));
        for (first, second) in known {
            left = left.checked_sub(bytes.len()).ok_or("its tokens can be put together in too many ways")?;
            found.merges.push(format!("{} {}", written(first), written(second)));
        }
    }
    Ok(found)
}

/// The letter that stands for each byte: itself where it can be seen, else one from 256 on.
fn letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut next = 256;
    for (byte, letter) in (0_u8..=255).zip(&mut letters) {
        *letter = match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or_default()
            }
        };
    }
    letters
}
