//! Training a tokenizer on texts: byte-level BPE, Unigram with bytes for what it does not know, or WordPiece. The same texts
//! give the same files, on any machine: words are counted in order, and sums are made by one thread.
//!
//! It trains no tokenizer that loses text where a model is to write it: BPE is byte-level, Unigram gets all bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::{BertNormalizer, Replace};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer,
};

use crate::error::Error;
use crate::gguf_tokenizer::BLANK;
use crate::jinja::SpecialTexts;
use crate::named::TemplateOptions;
use crate::pre_tokenizer;
use crate::template::ChatTemplate;

/// How text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenizerKind {
    /// Byte-level BPE: any text comes back from its ids.
    Bpe,
    /// The likeliest cut by the probabilities of the tokens, bytes for what no token has.
    Unigram,
    /// Longest matches within words; blanks are lost.
    WordPiece,
}

/// What is to be trained.
#[derive(Debug, Clone)]
pub struct TokenizerOptions {
    /// How text is cut.
    pub kind: TokenizerKind,
    /// The number of tokens, special ones too.
    pub vocabulary_size: usize,
    /// The special tokens; they get the first ids.
    pub special: Vec<String>,
    /// The one of them that ends a text.
    pub end: String,
}

/// A tokenizer that was trained.
#[derive(Debug)]
pub struct TrainedTokenizer {
    /// The content of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// The content of `tokenizer_config.json`.
    pub config: Vec<u8>,
    /// How many tokens it has; less than asked for where the texts gave no more.
    pub tokens: usize,
}

/// The least number of times that two tokens stand side by side to become one.
const LEAST: u64 = 2;
const UNKNOWN: &str = "<unk>";
const UNKNOWN_WORD: &str = "[UNK]";

/// Trains a tokenizer. Errors: the vocabulary is too small for what it must have, special tokens that are empty or twice
/// there, no text.
pub fn train_tokenizer(texts: &[String], options: &TokenizerOptions) -> Result<TrainedTokenizer, Error> {
    check(texts, options)?;
    // Sums of several threads depend on their pace.
    tokenizers::parallelism::set_parallelism(false);
    let trained = match options.kind {
        TokenizerKind::Bpe => byte_pairs(texts, options),
        TokenizerKind::Unigram => unigram(texts, options),
        TokenizerKind::WordPiece => word_pieces(texts, options),
    };
    let mut tokenizer = trained.map_err(failed)?;
    let special = |text: &String| AddedToken::from(text.clone(), true).normalized(false);
    tokenizer.add_special_tokens(&all_special(options).iter().map(special).collect::<Vec<_>>());
    let text = tokenizer.to_string(true).map_err(failed)?;
    let config = format!("{:#}\n", config(options)).into_bytes();
    Ok(TrainedTokenizer { tokenizer: text.into_bytes(), config, tokens: tokenizer.get_vocab_size(true) })
}

fn failed(error: tokenizers::Error) -> Error {
    problem(format!("it cannot be trained: {error}"))
}

fn problem(problem: String) -> Error {
    Error::Tokenizer { problem }
}

fn check(texts: &[String], options: &TokenizerOptions) -> Result<(), Error> {
    if texts.iter().all(|text| text.trim().is_empty()) {
        return Err(problem("there is no text to train on".to_owned()));
    }
    let mut seen = BTreeSet::new();
    if let Some(token) = options.special.iter().find(|token| token.is_empty() || !seen.insert(token.as_str())) {
        return Err(problem(format!("the special token {token:?} is empty or given twice")));
    }
    if !options.special.contains(&options.end) {
        return Err(problem(format!("{:?} is to end texts, but it is none of the special tokens", options.end)));
    }
    let least = all_special(options).len() + if options.kind == TokenizerKind::WordPiece { 1 } else { 256 };
    if options.vocabulary_size <= least {
        let size = options.vocabulary_size;
        return Err(problem(format!(
            "a vocabulary of {size} tokens has no room beside {least} that it must have: special tokens and bytes"
        )));
    }
    Ok(())
}

/// The special tokens with the one for what is unknown, where the kind needs one.
fn all_special(options: &TokenizerOptions) -> Vec<String> {
    let unknown = match options.kind {
        TokenizerKind::Bpe => None,
        TokenizerKind::Unigram => Some(UNKNOWN),
        TokenizerKind::WordPiece => Some(UNKNOWN_WORD),
    };
    let unknown = unknown.filter(|unknown| options.special.iter().all(|token| token != unknown));
    unknown.map(str::to_owned).into_iter().chain(options.special.iter().cloned()).collect()
}

/// How often each word stands in the texts, as the tokenizer cuts words.
fn words(tokenizer: &tokenizers::Tokenizer, texts: &[String]) -> tokenizers::Result<BTreeMap<String, u32>> {
    let mut words: BTreeMap<String, u32> = BTreeMap::new();
    for text in texts {
        let mut normalized = NormalizedString::from(text.as_str());
        if let Some(normalizer) = tokenizer.get_normalizer() {
            normalizer.normalize(&mut normalized)?;
        }
        let mut cut = PreTokenizedString::from(normalized);
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut cut)?;
        }
        for (word, ..) in cut.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            let count = words.entry(word.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }
    Ok(words)
}

fn byte_pairs(texts: &[String], options: &TokenizerOptions) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer::split_by(&[pre_tokenizer::QWEN2])?));
    tokenizer.with_decoder(Some(ByteLevelDecoder::new(false, true, false)));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocabulary_size)
        .min_frequency(LEAST)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(options.special.iter().map(|text| AddedToken::from(text.clone(), true)).collect())
        .build();
    let words = words(&tokenizer, texts)?;
    let counted = |word: &str| Ok(vec![word.to_owned(); words.get(word).copied().unwrap_or(0) as usize]);
    trainer.feed(words.keys(), counted)?;
    let mut model = BPE::default();
    trainer.train(&mut model)?;
    tokenizer.with_model(model);
    Ok(tokenizer)
}

fn unigram(texts: &[String], options: &TokenizerOptions) -> tokenizers::Result<tokenizers::Tokenizer> {
    let blanks = Metaspace::new('\u{2581}', PrependScheme::Always, true);
    let mut tokenizer = tokenizers::Tokenizer::new(Unigram::default());
    tokenizer.with_pre_tokenizer(Some(blanks));
    let blank = Replace::new(BLANK, " ")?;
    let decoders = vec![blank.into(), ByteFallback::new().into(), Fuse::new().into(), Strip::new(' ', 1, 0).into()];
    tokenizer.with_decoder(Some(Decoders::new(decoders)));

    let special = all_special(options);
    let fixed = special.len() + 256;
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(u32::try_from(options.vocabulary_size - fixed)?)
        .build()
        .map_err(|error| error.to_string())?;
    let counted = words(&tokenizer, texts)?.into_iter().collect();
    let mut model = Unigram::default();
    trainer.do_train(counted, &mut model)?;
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let least = model.iter().map(|(_, score)| *score).filter(|score| score.is_finite()).fold(0.0, f64::min);
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    pieces.retain(|(piece, score)| score.is_finite() && !piece.is_empty() && !special.contains(piece));
    // Of equals the first letters first.
    pieces.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let unknown = special.iter().position(|token| token == UNKNOWN);
    let fixed = special.into_iter().chain(bytes).map(|token| (token, least));
    tokenizer.with_model(Unigram::from(fixed.chain(pieces).collect(), unknown, true)?);
    Ok(tokenizer)
}

fn word_pieces(texts: &[String], options: &TokenizerOptions) -> tokenizers::Result<tokenizers::Tokenizer> {
    const GOES_ON: &str = "##";
    let mut tokenizer = tokenizers::Tokenizer::new(WordPiece::default());
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, Some(false), false)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_decoder(Some(WordPieceDecoder::new(GOES_ON.to_owned(), false)));
    let words = words(&tokenizer, texts)?;
    // Letters that go on get their ids in order, too: the trainer would give them as it meets them.
    let letters: BTreeSet<char> = words.keys().flat_map(|word| word.chars().skip(1)).collect();
    let going_on = letters.into_iter().map(|letter| format!("{GOES_ON}{letter}"));
    let fixed = all_special(options).into_iter().chain(going_on).map(|text| AddedToken::from(text, true)).collect();
    let mut trainer = WordPieceTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocabulary_size)
        .min_frequency(LEAST)
        .special_tokens(fixed)
        .build();
    let counted = |word: &str| Ok(vec![word.to_owned(); words.get(word).copied().unwrap_or(0) as usize]);
    Trainer::feed(&mut trainer, words.keys(), counted)?;
    let mut model = WordPiece::builder().unk_token(UNKNOWN_WORD.to_owned()).build()?;
    trainer.train(&mut model)?;
    tokenizer.with_model(model);
    Ok(tokenizer)
}

fn config(options: &TokenizerOptions) -> Value {
    let has = |token: &str| options.special.iter().any(|special| special == token);
    let unknown = all_special(options).into_iter().find(|token| token == UNKNOWN || token == UNKNOWN_WORD);
    let padding = options.special.iter().find(|token| **token != options.end).unwrap_or(&options.end);
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "eos_token": options.end,
        "pad_token": padding,
        "unk_token": unknown,
    });
    if has("<|im_start|>")
        && has("<|im_end|>")
        && let Ok(template) = ChatTemplate::named("chatml", SpecialTexts::default(), &TemplateOptions::default())
    {
        config["chat_template"] = template.jinja_source().into();
    }
    config
}
