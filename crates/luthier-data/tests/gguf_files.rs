//! A tokenizer goes from a GGUF file to a Hugging Face folder and back, and gives the same ids on the way.

mod common;

use common::{gguf, sentence_piece};
use luthier_data::{GgufTokenizer, Specials, Tokenizer};
use serde_json::{Value, json};

const TEXTS: [&str; 6] =
    ["hello hello<|im_end|>\n", "hi hi!é", " two  blanks\n\n 1 23", "今天 naïve", "<s>hi</s>hi", "it's 12345 o'clock"];

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn from_files(tokenizer: &[u8], config: &[u8]) -> Tokenizer {
    Tokenizer::from_json(tokenizer, Some(config), None).expect("the files are read")
}

/// The ids of all texts, as plain text and in pieces.
fn ids(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for text in TEXTS {
        all.push(tokenizer.encode(text, Specials::Add).expect("encodes"));
        all.extend(tokenizer.encode_pieces(&["hi!", text, "hi"]).expect("encodes"));
    }
    all
}

#[track_caller]
fn round_trip(gguf: &GgufTokenizer) -> GgufTokenizer {
    let original = Tokenizer::from_gguf(gguf).expect("the tokenizer builds");
    let (tokenizer, config) = gguf.to_json(Some(2048)).expect("it is written");
    let files = from_files(&tokenizer, &config);
    assert_eq!(ids(&files), ids(&original));
    assert_eq!(files.chat_template(), original.chat_template());
    assert_eq!((files.begin_id(), files.end_ids()), (original.begin_id(), original.end_ids()));
    assert_eq!(json(&config)["model_max_length"], 2048);
    let rows = gguf.tokens.len();
    let back = GgufTokenizer::from_json(&tokenizer, Some(&config), &files, rows, None).expect("it is written");
    assert_eq!(ids(&Tokenizer::from_gguf(&back).expect("the tokenizer builds")), ids(&original));
    back
}

#[test]
fn byte_level_goes_there_and_back() {
    let original = gguf();
    let back = round_trip(&original);
    assert_eq!(
        (&back.tokens, &back.token_types, &back.merges),
        (&original.tokens, &original.token_types, &original.merges)
    );
    assert_eq!((back.model.as_str(), back.pre.as_deref()), ("gpt2", Some("gpt-2")));
    assert_eq!((back.begin_id, back.end_id, back.add_begin), (Some(1), Some(2), Some(false)));
    for pre in ["llama-bpe", "qwen2", "deepseek-v3", "tekken", "stablelm2", "default"] {
        let back = round_trip(&GgufTokenizer { pre: Some(pre.to_owned()), add_begin: Some(true), ..gguf() });
        assert_eq!((back.pre.as_deref(), back.add_begin), (Some(pre), Some(true)));
    }
}

#[test]
fn sentence_piece_goes_there_and_back() {
    let gguf = sentence_piece();
    for prefix in [None, Some(false)] {
        let original = GgufTokenizer { add_space_prefix: prefix, ..gguf.clone() };
        let back = round_trip(&original);
        assert_eq!((&back.tokens, &back.token_types), (&original.tokens, &original.token_types));
        assert_eq!((back.model.as_str(), back.add_space_prefix), ("llama", Some(prefix.is_none())));
        assert_eq!((back.add_begin, back.unknown_id), (Some(true), Some(0)));
    }
}

#[test]
fn rows_without_a_token_are_filled_up_and_too_few_rows_refused() {
    let (tokenizer, config) = gguf().to_json(None).expect("it is written");
    let files = from_files(&tokenizer, &config);
    let back = GgufTokenizer::from_json(&tokenizer, Some(&config), &files, 270, None).expect("it is written");
    assert_eq!((back.tokens.len(), back.tokens[269].as_str(), back.token_types[269]), (270, "[PAD269]", 5));
    let error = GgufTokenizer::from_json(&tokenizer, Some(&config), &files, 100, None).expect_err("it is refused");
    assert!(
        error.to_string().ends_with("but the model knows 100 tokens; the tokenizer belongs to another model"),
        "{error}"
    );
}

/// SmolLM and StarCoder split digits off, then split as GPT-2.
#[test]
fn splits_are_recognised_by_their_structure() {
    let (tokenizer, config) = gguf().to_json(None).expect("it is written");
    let files = from_files(&tokenizer, &config);
    let named = |pre_tokenizer: Value, pre: Option<&str>| {
        let mut changed = json(&tokenizer);
        changed["pre_tokenizer"] = pre_tokenizer;
        let bytes = changed.to_string().into_bytes();
        let found = GgufTokenizer::from_json(&bytes, Some(&config), &files, 300, pre);
        found.map(|found| found.pre.unwrap_or_default()).map_err(|error| error.to_string())
    };
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let sequence = |parts: Vec<Value>| json!({ "type": "Sequence", "pretokenizers": parts });
    assert_eq!(named(byte_level.clone(), None), Ok("gpt-2".to_owned()));
    assert_eq!(named(sequence(vec![digits, byte_level.clone()]), None), Ok("refact".to_owned()));
    let odd = json!({ "type": "Split", "pattern": { "Regex": "x+" }, "behavior": "Isolated", "invert": false });
    let odd = sequence(vec![odd, byte_level]);
    assert_eq!(
        named(odd.clone(), None).expect_err("it is refused"),
        "tokenizer: tokenizer.json: the pre_tokenizer has the patterns [\"x+\", \"'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| \
         ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)\"] with ignore_merges false, for which llama.cpp has no name \
         that is known here; give the name with --pre (`tokenizer.ggml.pre` of a GGUF file of the same model), or export a \
         Hugging Face folder"
    );
    assert_eq!(named(odd.clone(), Some("qwen2")), Ok("qwen2".to_owned()));
    assert!(named(odd, Some("nobody")).expect_err("it is refused").contains("\"nobody\""));
}

#[test]
fn other_kinds_are_refused() {
    let files = common::tokenizer();
    let unigram = json!({ "model": { "type": "Unigram", "vocab": [] } }).to_string();
    let error = GgufTokenizer::from_json(unigram.as_bytes(), None, &files, 300, None).expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        "tokenizer: tokenizer.json: GGUF files are written of BPE tokenizers only, and this is Unigram"
    );
}
