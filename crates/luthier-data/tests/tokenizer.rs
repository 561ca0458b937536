//! Text to ids and back.

mod common;

use common::{gguf, sentence_piece, tokenizer};
use luthier_data::{GgufTokenizer, Specials, Tokenizer};

#[test]
fn byte_level_merges_and_special_tokens_in_text() {
    let tokenizer = tokenizer();
    let ids = tokenizer.encode("hello hello<|im_end|>\n", Specials::None).expect("encodes");
    let tokens: Vec<_> = ids.iter().filter_map(|id| tokenizer.token(*id)).collect();
    assert_eq!(tokens, ["hello", "Ġhello", "<|im_end|>", "Ċ"]);
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), "hello hello<|im_end|>\n");
    assert_eq!(tokenizer.end_ids(), [2, 0]);
    assert!(tokenizer.is_special(1) && !tokenizer.is_special(3));
    assert_eq!(tokenizer.vocabulary_size(), 264);
}

#[test]
fn a_stream_holds_back_unfinished_characters() {
    let tokenizer = tokenizer();
    let text = "hello é 今<|im_end|>";
    let mut stream = tokenizer.stream();
    let mut parts = Vec::new();
    for id in tokenizer.encode(text, Specials::None).expect("encodes") {
        parts.push(stream.push(id).expect("decodes"));
    }
    assert_eq!(parts, ["hello", " ", "", "é", " ", "", "", "今", "<|im_end|>"]);
    assert_eq!(stream.finish().expect("decodes"), "");

    let mut cut = tokenizer.stream();
    let ids = tokenizer.encode("é", Specials::None).expect("encodes");
    assert_eq!(cut.push(ids[0]).expect("decodes"), "");
    assert_eq!(cut.finish().expect("decodes"), "\u{fffd}");
}

#[test]
fn the_begin_token_is_added_where_the_file_says_so() {
    let add = GgufTokenizer { add_begin: Some(true), ..gguf() };
    let add = Tokenizer::from_gguf(&add).expect("the tokenizer builds");
    assert!(add.adds_begin() && !tokenizer().adds_begin());
    let ids = add.encode("hello", Specials::Add).expect("encodes");
    assert_eq!(ids, [add.begin_id(), add.token_id("hello")].map(Option::unwrap_or_default));
    assert_eq!(add.encode("hello", Specials::None).expect("encodes").len(), 1);
}

#[test]
fn unknown_kinds_are_named() {
    let error = |gguf: GgufTokenizer| Tokenizer::from_gguf(&gguf).expect_err("it is refused").to_string();
    assert_eq!(
        error(GgufTokenizer { model: "rwkv".to_owned(), ..gguf() }),
        "tokenizer: the kind \"rwkv\" of the GGUF file is not supported; supported: gpt2, gemma4, llama, t5, bert"
    );
    let message = error(GgufTokenizer { pre: Some("new-model".to_owned()), ..gguf() });
    assert!(
        message.starts_with(
            "tokenizer: the pre-tokenizer \"new-model\" of the GGUF file is not known; known: default, gpt-2, "
        ),
        "{message}"
    );
}

#[test]
fn sentence_piece_scores_become_merges_and_unknown_characters_bytes() {
    let tokenizer = Tokenizer::from_gguf(&sentence_piece()).expect("the tokenizer builds");
    let tokens = |ids: &[u32]| -> Vec<String> { ids.iter().filter_map(|id| tokenizer.token(*id)).collect() };
    let ids = tokenizer.encode("hi hi!é", Specials::Add).expect("encodes");
    assert_eq!(tokens(&ids), ["<s>", "▁hi", "▁hi", "!", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.decode(&ids[1..]).expect("decodes"), "hi hi!é");

    // A piece that goes on from text gets no blank of its own; one after a special token does.
    let pieces = tokenizer.encode_pieces(&["hi!", " hi</s>", "hi"]).expect("encodes");
    let pieces: Vec<_> = pieces.iter().map(|ids| tokens(ids)).collect();
    assert_eq!(pieces, [vec!["▁hi", "!"], vec!["▁hi", "</s>"], vec!["▁hi"]]);

    let mut stream = tokenizer.stream();
    let parts: Vec<_> = ids[1..].iter().map(|id| stream.push(*id).expect("decodes")).collect();
    assert_eq!(parts, ["hi", " hi", "!", "", "é"]);
}

fn of_kind(model: &str, tokens: &[(&str, i32)], merges: &[&str]) -> Tokenizer {
    let gguf = GgufTokenizer {
        model: model.to_owned(),
        tokens: tokens.iter().map(|(text, _)| (*text).to_owned()).collect(),
        token_types: tokens.iter().map(|(_, kind)| *kind).collect(),
        scores: (0..tokens.len() as u16).map(|id| -f32::from(id)).collect(),
        merges: merges.iter().map(|merge| (*merge).to_owned()).collect(),
        unknown_id: Some(0),
        ..GgufTokenizer::default()
    };
    Tokenizer::from_gguf(&gguf).expect("the tokenizer builds")
}

#[test]
fn word_pieces_of_gguf_files() {
    let tokens = [("[UNK]", 3), ("[CLS]", 3), ("▁play", 1), ("ing", 1), ("▁cafe", 1), ("▁!", 1), ("▁[", 1), ("▁]", 1)];
    let tokenizer = of_kind("bert", &tokens, &[]);
    let ids = tokenizer.encode("Playing  CAFÉ!\nzebra [UNK] []", Specials::None).expect("encodes");
    assert_eq!(ids, [2, 3, 4, 5, 0, 0, 6, 7]);
    assert_eq!(tokenizer.token(3).as_deref(), Some("##ing"));
}

#[test]
fn merges_over_letters_and_lines() {
    let tokens = [("<unk>", 3), ("▁", 1), ("a", 1), ("▁a", 1), ("\n", 1), ("\n\n", 1), ("<0xC3>", 6), ("<0xA9>", 6)];
    let tokenizer = of_kind("gemma4", &tokens, &["▁ a", "\n \n"]);
    let ids = tokenizer.encode("a a  a\n\n\naé", Specials::None).expect("encodes");
    assert_eq!(ids, [2, 3, 1, 3, 5, 4, 2, 6, 7]);
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), "a a  a\n\n\naé");
}

#[test]
fn likeliest_pieces_of_gguf_files() {
    let tokens = [("<unk>", 2), ("▁ab", 1), ("a", 1), ("b", 1), ("▁", 1), ("<x>", 4)];
    let tokenizer = of_kind("t5", &tokens, &[]);
    assert_eq!(tokenizer.encode("ab ba<x>a é", Specials::None).expect("encodes"), [1, 4, 3, 2, 5, 2, 4, 0]);
    let damaged = GgufTokenizer { model: "t5".to_owned(), charsmap: vec![1], ..sentence_piece() };
    let error = Tokenizer::from_gguf(&damaged).expect_err("it is refused");
    assert_eq!(error.to_string(), "tokenizer: the table of replaced letters (precompiled_charsmap) is damaged");
    let problem = damaged.to_json(None).expect_err("it is refused").to_string();
    assert!(problem.contains("damaged"), "{problem}");
}

#[test]
fn from_tokenizer_json_with_its_configuration() {
    let json = r#"{
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 1, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "▁a": 5}, "merges": [["▁", "a"]]}
    }"#;
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"},
                     "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    let tokenizer = Tokenizer::from_json(json.as_bytes(), Some(config.as_bytes()), None).expect("the files are read");
    assert_eq!((tokenizer.begin_id(), tokenizer.end_ids(), tokenizer.adds_begin()), (Some(0), [1].as_slice(), true));
    assert_eq!(tokenizer.chat_template(), Some("D"));
    assert_eq!(tokenizer.encode("a b", Specials::Add).expect("encodes"), [0, 5, 2, 4]);
    assert_eq!(tokenizer.encode_pieces(&["a", "b", " a"]).expect("encodes"), [vec![5], vec![4], vec![5]]);

    let error = Tokenizer::from_json(b"{", None, None).expect_err("it is refused");
    assert_eq!(error.to_string(), "tokenizer: tokenizer.json: EOF while parsing an object at line 1 column 1");
}

#[test]
fn a_truncation_of_the_file_is_forgotten_for_texts_that_go_on_too() {
    let json = r#"{"version": "1.0", "truncation": {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a",
        "pad_to_multiple_of": null}, "added_tokens": [], "normalizer": {"type": "Prepend", "prepend": "▁"}, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "model": {"type": "BPE", "vocab": {"▁": 0, "a": 1}, "merges": []}}"#;
    let tokenizer = Tokenizer::from_json(json.as_bytes(), None, None).expect("the file is read");
    assert_eq!(tokenizer.encode("aaaa", Specials::None).expect("encodes"), [0, 1, 1, 1, 1]);
    assert_eq!(tokenizer.encode_pieces(&["a", "aaaa"]).expect("encodes"), [vec![0, 1], vec![1, 1, 1, 1]]);
}

#[test]
fn parts_that_the_library_would_fail_at_are_refused() {
    let read = |part: &str| {
        let json = format!(
            r#"{{"version": "1.0", {part}, "model": {{"type": "BPE", "vocab": {{"a": 0, "b": 1, "ab": 2}}, "merges": []}}}}"#
        );
        Tokenizer::from_json(json.as_bytes(), None, None)
    };
    let refused = |part: &str| read(part).expect_err("it is refused").to_string();
    assert_eq!(
        refused(
            r#""decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 1}]}"#
        ),
        "tokenizer: tokenizer.json: a Strip decoder takes from both ends, which can be more than there is"
    );
    assert_eq!(
        refused(
            r#""post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
            "pair": [], "special_tokens": {}}"#
        ),
        "tokenizer: tokenizer.json: the post_processor puts \"<s>\" around a text, which its tokens lack"
    );
    assert_eq!(
        refused(r#""normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}"#),
        "tokenizer: the precompiled_charsmap is cut off"
    );
    assert_eq!(
        refused(
            r#""normalizer": {"type": "Sequence", "normalizers": [{"type": "", "pattern": {"Regex": " {0,}"}, "content": "x"},
            {"type": "Lowercase"}]}"#
        ),
        "tokenizer: tokenizer.json: a Replace normalizer has a pattern that matches where there is nothing, and others follow it"
    );
    assert!(read(r#""normalizer": {"type": "Replace", "pattern": {"Regex": "^"}, "content": "x"}"#).is_ok());
    assert_eq!(
        refused(
            r#""post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {}}"#
        ),
        "tokenizer: tokenizer.json: the post_processor puts a second text around a single one"
    );
    // Each doubles what it gets, so that a few would fill the memory.
    let growing = "tokenizer: tokenizer.json: the parts of normalizer and pre_tokenizer make more than 4096 letters of one, one \
                   after another";
    let list = |kind: &str, part: &str, times: usize| {
        let parts = vec![part; times].join(", ");
        let (key, list) = (kind, if kind == "normalizer" { "normalizers" } else { "pretokenizers" });
        format!(r#""{key}": {{"type": "Sequence", "{list}": [{parts}]}}"#)
    };
    let bytes = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}"#;
    let double = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
    assert_eq!(refused(&list("pre_tokenizer", bytes, 7)), growing);
    assert_eq!(refused(&list("normalizer", double, 13)), growing);
    assert!(read(&list("pre_tokenizer", bytes, 2)).is_ok());
    let single = r#"{"type": "Replace", "pattern": {"String": "…"}, "content": "."}"#;
    assert!(read(&list("normalizer", single, 30)).is_ok());
}
