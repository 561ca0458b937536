//! The targets: each reads its input as the program would, and goes on as far as the program would before it computes.

use std::sync::Arc;

use luthier_data::{
    ChatTemplate, Dataset, GgufTokenizer, Message, ReadOptions, Role, SpecialTexts, Specials, TemplateOptions,
    Tokenizer,
};
use luthier_model::Checkpoint;
use luthier_model::checkpoint::{self, ModelFiles};
use luthier_tensor::SharedBytes;
use serde_json::Value;

/// What stands between the parts of an input that has several.
pub const BORDER: u8 = 0;

/// A text to encode, with what tokenizers trip over.
const TEXT: &str = "Hi  the\r\n\n re're 12345 é e\u{301} 今日は 👩‍👩‍👧 <s>x</s> ▁a\0\u{fdd0} <|im_end|>   ";

fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == BORDER);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// A data file. The first byte says which name it has.
pub fn records(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    const ENDINGS: [&str; 7] = ["json", "jsonl", "txt", "csv", "tsv", "parquet", "arrow"];
    let name = format!("data.{}", ENDINGS[usize::from(*first) % ENDINGS.len()]);
    if let Ok(dataset) = Dataset::parse(&name, rest, None, false) {
        assert_eq!(dataset.records.len(), dataset.origins.len(), "each record has its place");
    }
}

/// A `dataset_info.json`, whose datasets are opened.
pub fn dataset_info(input: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let place = |name: &str| folder.path().join(name);
    let data = r#"[{"instruction": "a", "output": "b", "messages": [{"role": "user", "content": "c"}]}]"#;
    if std::fs::write(place("dataset_info.json"), input).is_ok() && std::fs::write(place("data.json"), data).is_ok() {
        let entries: Value = serde_json::from_slice(input).unwrap_or_default();
        let names = entries.as_object().into_iter().flat_map(|entries| entries.keys());
        for name in names.map(String::as_str).chain(["none"]).take(8) {
            let file = entries[name]["file_name"].as_str().unwrap_or("data.json");
            // No other file of this machine.
            if !file.starts_with('/') && !file.contains("..") && !name.contains(['/', '.']) {
                let options = ReadOptions { folder: folder.path(), strict: false, max_samples: None, seed: 0 };
                drop(Dataset::open(name, &options));
            }
        }
    }
}

/// A chat template, then a conversation as a JSON list of messages.
pub fn template(input: &[u8]) {
    let [source, conversation] = parts(input);
    let texts = SpecialTexts { begin: Some("<s>".to_owned()), end: Some("</s>".to_owned()) };
    let source = String::from_utf8_lossy(source);
    let options = TemplateOptions { now_unix_seconds: Some(1_709_210_096), ..TemplateOptions::default() };
    let Ok(template) = ChatTemplate::from_jinja("fuzz", &source, texts, &options) else { return };
    let listed: Vec<Value> = serde_json::from_slice(conversation).unwrap_or_default();
    let mut messages: Vec<Message> = listed
        .iter()
        .filter_map(|message| {
            let role = match message["role"].as_str()? {
                "system" => Role::System,
                "assistant" => Role::Assistant,
                _ => Role::User,
            };
            Some(Message::new(role, message["content"].as_str()?))
        })
        .collect();
    if messages.is_empty() {
        messages = vec![Message::new(Role::User, "How are you?"), Message::new(Role::Assistant, "Well.\n")];
    }
    let tools =
        [serde_json::json!({"type": "function", "function": {"name": "f", "parameters": {"a": [1, null, 0.5]}}})];
    for (tools, prompt) in [(&tools[..0], true), (&tools[..], false)] {
        if let Ok(rendered) = template.render(&messages, tools, prompt) {
            for range in rendered.generation {
                assert!(rendered.text.get(range).is_some(), "a reply lies in the text");
            }
        }
    }
}

/// A `tokenizer.json`, then a `tokenizer_config.json`, then a text.
pub fn tokenizer_json(input: &[u8]) {
    let [json, config, text] = parts(input);
    let config = Some(config).filter(|config| !config.is_empty());
    if let Ok(tokenizer) = Tokenizer::from_json(json, config, None) {
        encode(&tokenizer, &String::from_utf8_lossy(text));
        drop(GgufTokenizer::from_json(json, config, &tokenizer, 1 << 10, None));
    }
}

/// A SentencePiece file.
pub fn tokenizer_model(input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_sentence_piece(input, None, None, None) {
        encode(&tokenizer, TEXT);
    }
}

/// A tiktoken file, then a `tokenizer_config.json`.
pub fn tiktoken(input: &[u8]) {
    let [ranks, config] = parts(input);
    let config = Some(config).filter(|config| !config.is_empty());
    if let Ok(tokenizer) = Tokenizer::from_tiktoken("q.tiktoken", ranks, Some("qwen"), config, None) {
        encode(&tokenizer, TEXT);
    }
}

fn vocabulary_of(vocabulary: GgufTokenizer) {
    if let Ok(tokenizer) = Tokenizer::from_gguf(&vocabulary) {
        encode(&tokenizer, TEXT);
        drop(vocabulary.to_json(None));
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) {
    for text in [TEXT, text] {
        if let Ok(ids) = tokenizer.encode(text, Specials::Add) {
            drop(tokenizer.decode(&ids));
            let mut stream = tokenizer.stream();
            for id in &ids {
                drop(stream.push(*id));
            }
            drop(stream.finish());
        }
    }
    drop(tokenizer.encode_pieces(&["Hi ", " there", "", "</s>", " x"]));
    drop(tokenizer.decode(&[0, 1, 5, 1 << 20]));
}

/// A GGUF file: its vocabulary, then its weights.
pub fn gguf(input: &[u8]) {
    if let Ok(found) = checkpoint::GgufTokenizer::parse("fuzz.gguf", input) {
        vocabulary_of(GgufTokenizer {
            model: found.model,
            pre: found.pre,
            tokens: found.tokens,
            token_types: found.token_types,
            merges: found.merges,
            scores: found.scores,
            begin_id: found.bos,
            end_id: found.eos,
            unknown_id: found.unknown,
            padding_id: found.padding,
            add_begin: found.add_bos,
            add_end: found.add_eos,
            add_space_prefix: found.add_space_prefix,
            charsmap: found.charsmap,
            ..GgufTokenizer::default()
        });
    }
    model(&[("fuzz.gguf", input)]);
}

/// A `model.safetensors`, then, behind its own length in eight bytes at the end, the `config.json`.
pub fn safetensors(input: &[u8]) {
    let Some((rest, length)) = input.split_last_chunk::<8>() else { return };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX).min(rest.len());
    let (weights, config) = rest.split_at(rest.len() - length);
    model(&[("config.json", config), ("model.safetensors", weights)]);
}

fn model(files: &[(&str, &[u8])]) {
    let shared = |bytes: &[u8]| -> SharedBytes { Arc::new(bytes.to_vec()) };
    let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), shared(bytes))).collect();
    if let Ok(checkpoint) = Checkpoint::from_files(&ModelFiles { label: "fuzz".to_owned(), files }) {
        for tensor in checkpoint.tensors.values() {
            assert!(tensor.tensor().len() < 1 << 40, "a tensor lies in its file");
        }
    }
}
