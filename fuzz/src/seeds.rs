//! Inputs that are well: small, and with as much as possible of what a format has.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use luthier_model::Checkpoint;
use luthier_model::checkpoint::{self, GgufFileType, GgufValue, ModelFiles, plan_gguf, write_gguf};
use luthier_tensor::SharedBytes;

use crate::targets::BORDER;

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&BORDER)
}

pub(crate) fn records() -> Vec<Vec<u8>> {
    let alpaca = r#"[{"instruction": "Say it.", "input": "loud", "output": "IT", "system": "s", "history": [["a", "b"]]},
        {"instruction": "x", "output": "y\u00e9\n"}]"#;
    let sharegpt = r#"[{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value":
        "b"}, {"from": "observation", "value": "{}"}], "tools": "[]"}]"#;
    let openai = concat!(
        r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function","#,
        r#" "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}, {"role": "tool", "content": "3"}, {"role": "assistant","#,
        r#" "content": "yes", "reasoning_content": "hm", "weight": 0.5}]}"#,
        "\n",
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
    );
    let ranking = r#"[{"prompt": "p", "chosen": "c", "rejected": "r"}, {"instruction": "i", "output": ["a", "b"], "label": true}]"#;
    let tokens = r#"[{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}]"#;
    let text = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let table = "instruction,output,n\n\"a, \"\"b\"\"\",c,1\nd,e,2.5\n";
    let texts = [
        ("\0", alpaca),
        ("\0", sharegpt),
        ("\x01", openai),
        ("\0", ranking),
        ("\0", tokens),
        ("\x01", text),
        ("\x02", "a\nb\r\n"),
        ("\x03", table),
        ("\x04", "instruction\toutput\na\tb\n"),
    ]
    .map(|(name, text)| [name.as_bytes(), text.as_bytes()].concat());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let gzip = gzip.write_all(table.repeat(20).as_bytes()).and_then(|()| gzip.finish()).unwrap_or_default();
    let zstd =
        ruzstd::encoding::compress_to_vec(text.repeat(20).as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let packed = [[b"\x03".as_slice(), &gzip].concat(), [b"\x01".as_slice(), &zstd].concat()];
    texts.into_iter().chain(packed).chain(tables()).collect()
}

/// The Parquet and Arrow files of the tests, the small ones, in the order of their names.
fn tables() -> Vec<Vec<u8>> {
    const MOST_BYTES: usize = 16 << 10;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/luthier-data/tests/tables");
    let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    paths.sort();
    let of_type = |path: &Path| match path.extension()?.to_str()? {
        "parquet" => Some(5),
        "arrow" | "arrows" => Some(6),
        _ => None,
    };
    let seeds = paths.iter().filter_map(|path| Some([vec![of_type(path)?], std::fs::read(path).ok()?].concat()));
    seeds.filter(|seed| seed.len() <= MOST_BYTES).collect()
}

pub(crate) fn dataset_info() -> Vec<Vec<u8>> {
    let text = r#"{"a": {"file_name": "data.json", "columns": {"prompt": "instruction", "response": "output"}},
        "b": {"file_name": "data.json", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": {"role_tag": "role",
        "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}},
        "c": {"file_name": "data.json", "ranking": true, "num_samples": 3, "split": "train", "subset": "x", "columns": {"prompt":
        "instruction", "chosen": "output", "rejected": "output"}}}"#;
    vec![text.as_bytes().to_vec()]
}

pub(crate) fn template() -> Vec<Vec<u8>> {
    let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let namespaces = "{{- bos_token }}{%- set ns = namespace(text='a', last=-1) %}{%- for m in messages[::-1] %}{%- set i = (messages|length - \
        1) - loop.index0 %}{%- if ns.last < 0 and m.role == 'user' %}{%- set ns.last = i %}{%- endif %}{%- set ns.text = ns.text ~ \
        ns.text %}{%- endfor %}{{ ns.text[:20] }}{{ ns.text * 3 }}";
    let tools = "{%- macro show(x, n=2) %}{{ x | tojson(indent=n) }}{%- endmacro %}{%- if tools %}{%- for tool in tools %}{{ show(tool, \
        4) }}{%- for k, v in tool.function.parameters.items() %}{{ k ~ ': ' ~ v | string | upper | replace('N', 'nn') | trim \
        }}{%- endfor %}{%- endfor %}{%- endif %}{{ strftime_now('%d %b %Y') }}";
    let marks = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content.strip().split('</think>')[-1] }}{{ \
        eos_token }}{% endgeneration %}{% else %}{{ '[INST] %s [/INST]' % m.content }}{% endif %}{% endfor %}";
    let raising = "{% if messages|selectattr('role', 'equalto', 'tool')|list|count > 0 %}{{ raise_exception('no tools') }}{% endif %}{% \
        set x = messages | map(attribute='content') | join(', ') %}{{ x | indent(4) | center(40) }}{{ range(3) | list | sum }}\
        {{ 'ab'.replace('a', 'cc').ljust(9) ~ x.startswith('H') ~ 5 // 2 ** 3 }}{% set y %}{{ x }}{{ x }}{% endset %}{{ y | wordcount \
        }}{%- call(z) m(1) %}{% endcall %}";
    let conversation = r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "Hello"}, {"role": "assistant", "content":
        "<think>x</think> Hi\n"}]"#;
    let all = [chatml, namespaces, tools, marks, raising];
    all.iter().map(|source| joined(&[source.as_bytes(), conversation.as_bytes()])).collect()
}

fn byte_letters() -> Vec<String> {
    let mut next = 256;
    let letter = |byte: u32| match matches!(byte, 33..=126 | 161..=172 | 174..=255) {
        true => byte,
        false => {
            next += 1;
            next - 1
        }
    };
    (0..=255).map(letter).filter_map(char::from_u32).map(String::from).collect()
}

pub(crate) fn tokenizer_json() -> Vec<Vec<u8>> {
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "chat_template": "{{ x }}",
        "model_max_length": 8}"#;
    let added = |id: usize, text: &str| {
        serde_json::json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": id == 1,
            "normalized": false, "special": id < 3})
    };
    let specials = [added(0, "<s>"), added(1, "</s>"), added(2, "<unk>"), added(3, "<|im_end|>")];
    let file = |normalizer, pre, post, decoder, model| {
        serde_json::json!({"version": "1.0", "truncation": {"max_length": 8, "stride": 1, "strategy": "LongestFirst",
            "direction": "Right"}, "padding": null, "added_tokens": specials, "normalizer": normalizer, "pre_tokenizer": pre,
            "post_processor": post, "decoder": decoder, "model": model})
    };
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let around = json(
        r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A",
        "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}"#,
    );
    let mut vocabulary: serde_json::Map<String, serde_json::Value> = ["<s>", "</s>", "<unk>", "<|im_end|>"]
        .into_iter()
        .map(str::to_owned)
        .chain(byte_letters())
        .zip(0..)
        .map(|(token, id)| (token, id.into()))
        .collect();
    let merges = [("h", "e"), ("Ġ", "t"), ("Ġt", "he"), ("l", "l")];
    for (left, right) in merges {
        vocabulary.insert(format!("{left}{right}"), vocabulary.len().into());
    }
    let bpe = serde_json::json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": true, "vocab": vocabulary,
        "merges": merges});
    let byte_level = json(
        r#"{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+(?!\\S)"}, "behavior":
        "Isolated", "invert": false}, {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": true,
        "trim_offsets": true, "use_regex": false}]}"#,
    );
    let decoder = json(r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}"#);
    let byte = file(json(r#"{"type": "NFC"}"#), byte_level, around, decoder, bpe);

    let pieces = serde_json::json!([
        ["<s>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        ["<|im_end|>", 0.0],
        ["▁", -1.5],
        ["▁the", -2.0],
        ["h", -3.0],
        ["e", -3.5],
        ["he", -2.5]
    ]);
    let unigram = file(
        json(
            r#"{"type": "Sequence", "normalizers": [{"type": "Strip", "strip_left": false, "strip_right": true}, {"type": "Replace",
            "pattern": {"Regex": " {2,}"}, "content": "▁"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "NFKD"}]}"#,
        ),
        json(r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}"#),
        json(
            r#"{"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": true}"#,
        ),
        json(r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#),
        serde_json::json!({"type": "Unigram", "unk_id": 2, "vocab": pieces, "byte_fallback": false}),
    );
    let words = file(
        json(
            r#"{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}"#,
        ),
        json(r#"{"type": "BertPreTokenizer"}"#),
        json(r#"{"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}"#),
        json(r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###),
        json(
            r###"{"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab":
            {"<s>": 0, "</s>": 1, "<unk>": 2, "<|im_end|>": 3, "h": 4, "##i": 5, "the": 6}}"###,
        ),
    );
    let sentence_piece = file(
        json(
            r#"{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "},
            "content": "▁"}]}"#,
        ),
        serde_json::Value::Null,
        serde_json::Value::Null,
        json(
            r#"{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type":
            "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#,
        ),
        json(
            r#"{"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": true, "vocab": {"<s>": 0, "</s>": 1, "<unk>": 2, "<|im_end|>": 3, "▁": 4, "h": 5,
            "▁h": 6, "<0x0A>": 7}, "merges": ["▁ h"]}"#,
        ),
    );
    [byte, unigram, words, sentence_piece]
        .iter()
        .map(|file| joined(&[file.to_string().as_bytes(), config.as_bytes(), "the hello\n".as_bytes()]))
        .collect()
}

/// A field of protobuf.
fn field(number: u8, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut key = usize::from(number) << 3 | usize::from(kind);
    let mut length = content.len();
    let mut put = |value: &mut usize| loop {
        let low = (*value & 0x7f) as u8;
        *value >>= 7;
        out.push(if *value > 0 { low | 0x80 } else { low });
        if *value == 0 {
            break;
        }
    };
    put(&mut key);
    if kind == 2 {
        put(&mut length);
    }
    out.extend(content);
    out
}

/// A table that replaces "A" by "aa".
fn charsmap() -> Vec<u8> {
    let mut units = vec![0_u32; 512];
    units[0] = 256 << 10;
    units[256 ^ 0x41] = 0x41 | 1 << 8 | ((256 ^ 0x41 ^ 1) << 10);
    units[1] = 1 << 31;
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    [&(trie.len() as u32).to_le_bytes()[..], &trie, b"aa\0"].concat()
}

pub(crate) fn tokenizer_model() -> Vec<Vec<u8>> {
    let build = |kind: u8, normalizer: &[Vec<u8>], bytes: bool| {
        let mut pieces: Vec<(String, f32, u8)> =
            vec![("<unk>".to_owned(), 0.0, 2), ("<s>".to_owned(), 0.0, 3), ("</s>".to_owned(), 0.0, 3)];
        if bytes {
            pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
        }
        pieces.push(("<x>".to_owned(), 0.0, 4));
        for (rank, text) in ["▁t", "he", "▁the", "▁", "t", "h", "e", "a", "aa"].into_iter().enumerate() {
            pieces.push((text.to_owned(), -(rank as f32), 1));
        }
        let piece = |(text, score, kind): &(String, f32, u8)| {
            let content =
                [field(1, 2, text.as_bytes()), field(2, 5, &score.to_le_bytes()), field(3, 0, &[*kind])].concat();
            field(1, 2, &content)
        };
        let trainer = [field(3, 0, &[kind]), field(40, 0, &[0]), field(41, 0, &[1]), field(42, 0, &[2])].concat();
        let pieces: Vec<u8> = pieces.iter().flat_map(piece).collect();
        [pieces, field(2, 2, &trainer), field(3, 2, &normalizer.concat())].concat()
    };
    let identity = [field(3, 0, &[1]), field(4, 0, &[0])];
    let table = [field(2, 2, &charsmap()), field(3, 0, &[1]), field(4, 0, &[1])];
    vec![build(2, &identity, true), build(1, &table, false), build(1, &identity, true), build(2, &table, false)]
}

pub(crate) fn tiktoken() -> Vec<Vec<u8>> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(letters[(bits & 63) as usize]);
    let base64 = |bytes: &[u8]| match *bytes {
        [one] => format!("{}{}==", letter(u32::from(one) >> 2), letter(u32::from(one) << 4)),
        [one, two, ..] => {
            let bits = u32::from(one) << 8 | u32::from(two);
            format!("{}{}{}=", letter(bits >> 10), letter(bits >> 4), letter(bits << 2))
        }
        [] => String::new(),
    };
    let tokens = (0..=255_u8).map(|byte| vec![byte]).chain([b"th".to_vec(), b"he".to_vec(), b" t".to_vec()]);
    let ranks: String = tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", base64(&token))).collect();
    let config = r#"{"added_tokens_decoder": {"259": {"content": "<|endoftext|>", "special": true}, "600": {"content": "<tool>",
        "lstrip": true}}, "eos_token": "<|im_end|>", "add_bos_token": false}"#;
    vec![joined(&[ranks.as_bytes(), config.as_bytes()]), ranks.into_bytes()]
}

fn sentence_piece() -> checkpoint::GgufTokenizer {
    let mut found = checkpoint::GgufTokenizer {
        model: "llama".into(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..checkpoint::GgufTokenizer::default()
    };
    let bytes = (0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6));
    let words = ["▁t", "he", "▁the", "▁", "t", "h", "e"].into_iter().map(|word| (word.to_owned(), 1));
    let specials = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].into_iter().map(|(word, kind)| (word.to_owned(), kind));
    for (rank, (token, kind)) in specials.chain(bytes).chain(words).enumerate() {
        found.tokens.push(token);
        found.token_types.push(kind);
        found.scores.push(-(rank as f32));
    }
    found
}

fn vocabulary_only(model: &str, pre: &str, found: &checkpoint::GgufTokenizer) -> Vec<u8> {
    let text = |text: &str| GgufValue::Text(text.into());
    let raw = |bytes: &[u8]| {
        let head = [&0_u32.to_le_bytes()[..], &(bytes.len() as u64).to_le_bytes()].concat();
        GgufValue::Raw { kind: 9, bytes: [&head, bytes].concat() }
    };
    let merges = found.tokens.iter().filter(|token| token.chars().count() == 2 && token.is_ascii());
    let merges = merges.map(|token| format!("{} {}", &token[..1], &token[1..])).collect();
    let metadata = [
        ("general.architecture", text("llama")),
        ("tokenizer.ggml.model", text(model)),
        ("tokenizer.ggml.pre", text(pre)),
        ("tokenizer.ggml.tokens", GgufValue::Texts(found.tokens.clone())),
        ("tokenizer.ggml.scores", GgufValue::Floats(found.scores.clone())),
        ("tokenizer.ggml.token_type", GgufValue::Integers(found.token_types.clone())),
        ("tokenizer.ggml.merges", GgufValue::Texts(merges)),
        ("tokenizer.ggml.bos_token_id", GgufValue::U32(1)),
        ("tokenizer.ggml.unknown_token_id", GgufValue::U32(0)),
        ("tokenizer.ggml.add_space_prefix", GgufValue::Flag(true)),
        ("tokenizer.ggml.remove_extra_whitespaces", GgufValue::Flag(true)),
        ("tokenizer.ggml.precompiled_charsmap", raw(&charsmap())),
        ("tokenizer.chat_template", text("{{ messages }}")),
    ];
    let metadata: Vec<(String, GgufValue)> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut out = Vec::new();
    match write_gguf(&metadata, &[], &mut out, &mut |_, _| Ok(())) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}

/// Files of a fixture.
fn fixture(name: &str) -> ModelFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/models").join(name);
    let read = |file: &str| -> SharedBytes { Arc::new(std::fs::read(folder.join(file)).unwrap_or_default()) };
    let files = ["config.json", "model.safetensors"].map(|file| (file.to_owned(), read(file))).into();
    ModelFiles { label: name.to_owned(), files }
}

/// A whole model, its numbers zero.
fn whole(name: &str) -> Option<Vec<u8>> {
    let checkpoint = Checkpoint::from_files(&fixture(name)).ok()?;
    let mut found = sentence_piece();
    let rows = checkpoint.model.decoder.vocabulary_size;
    found.tokens.truncate(rows);
    found.token_types.truncate(rows);
    found.scores.truncate(rows);
    let plan = plan_gguf(&checkpoint, name, GgufFileType::named("q8_0")?, &found, None).ok()?;
    let specs: Vec<_> = plan.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
    let mut out = Vec::new();
    write_gguf(&plan.metadata, &specs, &mut out, &mut |spec, writer| writer.write_all(&vec![0; spec.bytes() as usize]))
        .ok()?;
    Some(out)
}

pub(crate) fn gguf() -> Vec<Vec<u8>> {
    let mut byte_level = sentence_piece();
    byte_level.tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(byte_letters()).collect();
    byte_level.tokens.extend(["th", "he", "hx"].map(str::to_owned));
    byte_level.tokens.resize_with(byte_level.scores.len(), || "x".to_owned());
    byte_level.token_types.iter_mut().skip(3).for_each(|kind| *kind = 1);
    let mut seeds = vec![
        vocabulary_only("gpt2", "llama-bpe", &byte_level),
        vocabulary_only("t5", "default", &sentence_piece()),
        vocabulary_only("bert", "default", &sentence_piece()),
        vocabulary_only("llama", "default", &sentence_piece()),
    ];
    seeds.extend(["qwen2", "llama"].into_iter().filter_map(whole));
    seeds
}

pub(crate) fn safetensors() -> Vec<Vec<u8>> {
    let seed = |name: &&str| {
        let files = fixture(name);
        let (weights, config) = (files.get("model.safetensors")?, files.get("config.json")?);
        Some([weights, config, &(config.len() as u64).to_le_bytes()].concat())
    };
    ["llama", "qwen2", "phi3", "smollm3"].iter().filter_map(seed).collect()
}
