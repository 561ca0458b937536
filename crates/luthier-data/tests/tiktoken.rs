//! Tiktoken files: small ones written here. The ids are those of the Python package tiktoken 0.14.0 with the same ranks.

use luthier_data::{Specials, Tokenizer, is_tiktoken};

/// All bytes, then `ab`, `bc`, `abc`, and a blank before `a`.
fn file() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |number: u8| char::from(LETTERS[usize::from(number)]);
    let bytes = (0..=255_u8).map(|byte| format!("{}{}== {byte}\n", letter(byte >> 2), letter((byte & 3) << 4)));
    bytes.chain(["YWI= 256\n", "YmM= 257\n", "YWJj 258\n", "IGE= 259\n"].map(str::to_owned)).collect()
}

fn read(file: &str, family: Option<&str>) -> Result<Tokenizer, String> {
    Tokenizer::from_tiktoken("x.tiktoken", file.as_bytes(), family, None, None).map_err(|error| error.to_string())
}

#[test]
fn ranks_merge_the_least_first() {
    let tokenizer = read(&file(), Some("qwen")).expect("the file reads");
    let encode = |text: &str| tokenizer.encode(text, Specials::None).expect("it encodes");
    assert_eq!(encode("abc bc abbc a"), [258, 32, 257, 32, 256, 257, 259]);
    assert_eq!(encode("é<|im_start|>"), [195, 169, 261]);
    assert_eq!(tokenizer.decode(&encode("abc é\n🚀")).expect("it decodes"), "abc é\n🚀");
    assert_eq!((tokenizer.begin_id(), tokenizer.end_id(), tokenizer.vocabulary_size()), (None, Some(260), 260 + 208));
    let llama = read(&file(), Some("llama")).expect("the file reads");
    assert_eq!(llama.encode("abc<|eot_id|>", Specials::Add).expect("it encodes"), [260, 258, 269]);
    assert_eq!(llama.vocabulary_size(), 260 + 256);
}

#[test]
fn what_is_no_token_is_refused() {
    assert!(is_tiktoken(file().as_bytes()) && !is_tiktoken(b"\x0a\x0e\x0a\x05<unk>") && !is_tiktoken(b"{\n"));
    let error = |file: &str, family| read(file, family).expect_err("it is refused");
    assert_eq!(
        error(&file(), Some("phi")),
        "tokenizer: x.tiktoken: a tiktoken file does not say how text is split before; that follows from the model_type, and \
         config.json says \"phi\", for which it is not known (known: qwen, llama, mllama); convert it to tokenizer.json"
    );
    for (broken, said) in [
        ("YQ== 0\nYg= 1\n", "line 2 is no token; expected a token in base64, a blank and its rank"),
        ("YQ== 0\nYg==\n", "line 2 is no token; expected a token in base64, a blank and its rank"),
        ("YQ== 0\nYg== 0\n", "line 2 has the rank 0, which an earlier line has too"),
        ("YQ== 0\nYg== 2147483\n", "line 2 has the rank 2147483, but there are only 2 lines; expected less than 1002"),
        ("\n", "it has no tokens"),
    ] {
        assert_eq!(error(broken, Some("qwen")), format!("tokenizer: x.tiktoken: {said}"));
    }
}

/// Of tokens that are one letter again and again, each can be made of any two shorter ones.
#[test]
fn tokens_that_fit_together_in_all_ways_are_refused() {
    let letters = ["YQ==", "YWE="];
    let token = |count: usize| "YWFh".repeat(count / 3) + [&[""], &letters[..]].concat()[count % 3];
    let file: String = (1..1000).map(|count| format!("{} {}\n", token(count), count - 1)).collect();
    assert_eq!(
        read(&file, Some("qwen")).expect_err("it is refused"),
        "tokenizer: x.tiktoken: its tokens can be put together in too many ways"
    );
}
