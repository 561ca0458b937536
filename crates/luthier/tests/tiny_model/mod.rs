//! The fixture `llama` with a tokenizer: a token for each ASCII character, some words that only the model says, and a chat
//! template of one line.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// Writes the model into a folder, which is made.
pub fn write(folder: &Path) {
    std::fs::create_dir_all(folder).expect("made");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("models/llama").join(name), folder.join(name)).expect("copied");
    }
    let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).expect("written");
    write("tokenizer.json", &tokenizer());
    write("tokenizer_config.json", &tokenizer_config());
}

const SPECIAL: [&str; 3] = ["<pad>", "<s>", "</s>"];

fn tokenizer() -> Value {
    let mut vocabulary = Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.insert(token, id.into());
    };
    SPECIAL.iter().for_each(|token| add((*token).to_owned()));
    (33..127u8).for_each(|byte| add(char::from(byte).to_string()));
    // A blank and a line feed, as byte-level tokenizers write them.
    ["\u{120}", "\u{10a}"].iter().for_each(|token| add((*token).to_owned()));
    (99..128).for_each(|id| add(format!("\u{120}w{id}")));
    let special: Vec<Value> = SPECIAL
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
            })
        })
        .collect();
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
        }
    })
}

/// `s:`, `u:` and `a:` begin the messages of system, user and assistant; a system message `refuse` is refused.
fn tokenizer_config() -> Value {
    let template = "{% for message in messages %}{% if message['content'] == 'refuse' %}\
                    {{ raise_exception('no, thanks') }}{% endif %}\
                    {{ message['role'][0] + ':' + message['content'] + '\\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'a:' }}{% endif %}";
    json!({ "bos_token": "<s>", "eos_token": "</s>", "chat_template": template })
}
