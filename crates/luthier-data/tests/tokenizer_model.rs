//! `tokenizer.model`: small models written byte by byte here. The ids are those of the Python package sentencepiece 0.2.3
//! on the same bytes.

use luthier_data::{Specials, Tokenizer};

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7F) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

fn integer(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn message(number: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn piece(text: &str, score: f32, kind: u64) -> Vec<u8> {
    let score = [varint(2 << 3 | 5), score.to_le_bytes().to_vec()].concat();
    message(1, &[message(1, text.as_bytes()), score, integer(3, kind)].concat())
}

const UNIGRAM: u64 = 1;
const BPE: u64 = 2;

fn model(kind: u64, bytes: bool, remove_extra: bool) -> Vec<u8> {
    let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<sep>", 4)];
    let normal = ["▁a", "ab", "▁ab", "bc", "abc", "▁", "a", "b", "c", "▁▁"];
    let mut model: Vec<u8> = special.into_iter().flat_map(|(text, kind)| piece(text, 0.0, kind)).collect();
    model.extend(normal.into_iter().zip(1_u8..).flat_map(|(text, rank)| piece(text, -f32::from(rank), 1)));
    if bytes {
        model.extend((0..=255).flat_map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6)));
    }
    model.extend(message(2, &integer(3, kind)));
    model.extend(message(3, &[integer(3, 1), integer(4, u64::from(remove_extra))].concat()));
    model
}

fn read(model: &[u8], config: &str) -> Result<Tokenizer, String> {
    Tokenizer::from_sentence_piece(model, Some(config.as_bytes()), None, None).map_err(|error| error.to_string())
}

#[track_caller]
fn check(model: &[u8], expected: [&[u32]; 5]) {
    let tokenizer = read(model, "{}").expect("the model reads");
    for (text, ids) in ["abc abc", "  a  b ", "a<sep>b", "aéb", "abcabc"].into_iter().zip(expected) {
        assert_eq!(tokenizer.encode(text, Specials::None).expect("it encodes"), ids, "{text:?}");
    }
}

#[test]
fn unigram() {
    check(&model(UNIGRAM, false, false), [&[4, 7, 4, 7], &[13, 4, 13, 11, 9], &[4, 3, 11], &[4, 0, 11], &[4, 7, 8]]);
    check(&model(UNIGRAM, true, true), [&[4, 7, 4, 7], &[4, 9, 11], &[4, 3, 11], &[4, 209, 183, 11], &[4, 7, 8]]);
}

#[test]
fn pairs() {
    check(&model(BPE, false, true), [&[6, 12, 6, 12], &[4, 9, 11], &[4, 3, 11], &[4, 0, 11], &[6, 12, 8]]);
    let kept: [&[u32]; 5] = [&[6, 12, 6, 12], &[13, 4, 13, 11, 9], &[4, 3, 11], &[4, 209, 183, 11], &[6, 12, 8]];
    check(&model(BPE, true, false), kept);
    let tokenizer = read(&model(BPE, true, false), "{}").expect("the model reads");
    for text in ["abc abc", "  a  b ", "aéb\n", "🚀"] {
        let ids = tokenizer.encode(text, Specials::Add).expect("it encodes");
        assert_eq!(ids[0], 1, "a begin token is added");
        assert_eq!(tokenizer.decode(&ids[1..]).expect("it decodes"), text);
    }
}

#[test]
fn the_configuration_adds_tokens() {
    let config = r#"{"added_tokens_decoder": {"14": {"content": "<|end|>", "special": true}, "2": {"content": "</s>",
        "special": true}}, "eos_token": {"content": "<|end|>"}, "add_bos_token": false, "chat_template": "T"}"#;
    let tokenizer = read(&model(BPE, false, false), config).expect("the model reads");
    assert_eq!(tokenizer.encode("abc<|end|>ab", Specials::Add).expect("it encodes"), [6, 12, 14, 6]);
    assert_eq!((tokenizer.end_id(), tokenizer.is_special(14), tokenizer.chat_template()), (Some(14), true, Some("T")));
    // Without the old ways of transformers, no blank goes before what follows a special token.
    let new = config.replacen('{', r#"{"legacy": false, "#, 1);
    let tokenizer = read(&model(BPE, false, false), &new).expect("the model reads");
    assert_eq!(tokenizer.encode("abc<|end|>ab", Specials::Add).expect("it encodes"), [6, 12, 14, 5]);
}

#[test]
fn what_is_no_model_is_refused() {
    let whole = model(UNIGRAM, true, true);
    for length in 0..whole.len() {
        // A model that is cut between two fields is a shorter model; it must not panic either.
        if let Ok(tokenizer) = read(&whole[..length], "{}") {
            tokenizer.encode("abc é", Specials::Add).expect("it encodes");
        }
    }
    let error = |model: &[u8]| read(model, "{}").expect_err("it is refused");
    assert_eq!(
        error(b"version https://git-lfs.github.com/spec/v1"),
        "tokenizer: tokenizer.model: it is no SentencePiece model, or damaged: its fields are cut or broken; copy or \
         download it again"
    );
    assert_eq!(
        error(&model(4, false, false)),
        "tokenizer: tokenizer.model: it is a SentencePiece model of the kind \"char\" (4); supported: bpe, unigram"
    );
    let charsmap = [model(BPE, false, false), message(3, &message(2, &[9, 0, 0, 0, 1]))].concat();
    assert_eq!(error(&charsmap), "tokenizer: the table of replaced letters (precompiled_charsmap) is damaged");
    let far = r#"{"added_tokens_decoder": {"4000000000": {"content": "<x>"}}}"#;
    assert_eq!(
        read(&model(BPE, false, false), far).expect_err("it is refused"),
        "tokenizer: tokenizer_config.json: the token \"<x>\" has the id 4000000000, but there are only 14 tokens before it"
    );
}
