//! A small byte-level tokenizer and a template for tests.

#![allow(dead_code, reason = "each test file uses some of it")]

use luthier_data::{ChatTemplate, GgufTokenizer, Message, Role, SpecialTexts, TemplateOptions, Tokenizer};

pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                          {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Every byte, "he", "ll", "hell", "hello", " hello", and the special tokens <|endoftext|> (0), <|im_start|> (1),
/// <|im_end|> (2).
pub(crate) fn gguf() -> GgufTokenizer {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).into();
    let mut next = 256;
    for byte in 0..=255_u32 {
        let visible = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if visible { byte } else { next };
        next += u32::from(!visible);
        tokens.extend(char::from_u32(code).map(String::from));
    }
    let mut token_types = vec![1; tokens.len()];
    token_types[..3].fill(3);
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"].map(str::to_owned);
    for merge in &merges {
        tokens.push(merge.replace(' ', ""));
        token_types.push(1);
    }
    GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens,
        token_types,
        merges: merges.into(),
        begin_id: Some(1),
        end_id: Some(2),
        chat_template: Some(CHATML.to_owned()),
        ..GgufTokenizer::default()
    }
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::from_gguf(&gguf()).expect("the tokenizer builds")
}

pub(crate) fn template(source: &str) -> ChatTemplate {
    let options = TemplateOptions { now_unix_seconds: Some(1_709_210_096), ..TemplateOptions::default() };
    let texts = SpecialTexts { begin: Some("<|im_start|>".to_owned()), end: Some("<|im_end|>".to_owned()) };
    ChatTemplate::from_jinja("test", source, texts, &options).expect("the template compiles")
}

pub(crate) fn system(content: &str) -> Message {
    Message::new(Role::System, content)
}

pub(crate) fn user(content: &str) -> Message {
    Message::new(Role::User, content)
}

pub(crate) fn assistant(content: &str) -> Message {
    Message::new(Role::Assistant, content)
}

/// A SentencePiece model: the blank, letters, words with scores, bytes for the rest.
pub(crate) fn sentence_piece() -> GgufTokenizer {
    let mut gguf = GgufTokenizer {
        model: "llama".to_owned(),
        begin_id: Some(1),
        end_id: Some(2),
        unknown_id: Some(0),
        ..GgufTokenizer::default()
    };
    let mut push = |token: &str, kind: i32, score: f32| {
        gguf.tokens.push(token.to_owned());
        gguf.token_types.push(kind);
        gguf.scores.push(score);
    };
    push("<unk>", 2, 0.0);
    push("<s>", 3, 0.0);
    push("</s>", 3, 0.0);
    for byte in 0..=255 {
        push(&format!("<0x{byte:02X}>"), 6, 0.0);
    }
    for (rank, token) in ["▁h", "hi", "▁hi", "▁", "h", "i", "!"].into_iter().enumerate() {
        push(token, 1, -(rank as f32));
    }
    gguf
}
