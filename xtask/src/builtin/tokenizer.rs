//! The tokenizer of the built-in model: byte-level BPE over the corpus, each digit a token of its own, and ChatML.

use anyhow::Result;
use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

const VOCABULARY: usize = 1024;
const END_OF_TEXT: &str = "<|endoftext|>";
const BEGIN: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

/// The content of `tokenizer.json`: trained on texts.
pub(crate) fn train(texts: &[String]) -> Result<String> {
    let failed = |error: tokenizers::Error| anyhow::anyhow!("the tokenizer cannot be trained: {error}");
    let steps: Vec<PreTokenizerWrapper> = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(VOCABULARY)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens([END_OF_TEXT, BEGIN, END].map(|text| AddedToken::from(text, true)).to_vec())
            .build(),
    );
    tokenizer.train(&mut trainer, texts.iter()).map_err(failed)?;
    tokenizer.to_string(false).map_err(failed)
}

/// `tokenizer_config.json`.
pub(crate) fn config() -> Value {
    let template = format!(
        "{{% for message in messages %}}{{{{ '{BEGIN}' + message['role'] + '\\n' + message['content'] + '{END}' + '\\n' }}}}\
         {{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{BEGIN}assistant\\n' }}}}{{% endif %}}"
    );
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 512,
        "chat_template": template,
    })
}
