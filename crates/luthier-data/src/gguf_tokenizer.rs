//! The tokenizer that a GGUF file carries in its metadata, made into the pieces of the `tokenizers` crate.
//!
//! `gpt2` is byte-level BPE with merges; `gemma4` is BPE with merges over the letters themselves; `llama` is SentencePiece
//! BPE whose merges follow from the scores, derived as transformers does (`convert_slow_tokenizer.py`, `generate_merges`);
//! `t5` is SentencePiece's Unigram; `bert` is WordPiece. Other kinds are refused by name.

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{NFC, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, NormalizerWrapper};

use crate::error::Error;
use crate::pre_tokenizer::PreTokenizer;
use crate::sentence_piece::SentenceNormalizer;

/// Tokenizer metadata of a GGUF file, key by key (`tokenizer.ggml.*`, `tokenizer.chat_template`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufTokenizer {
    /// `model`: `gpt2`, `gemma4`, `llama`, `t5` or `bert`.
    pub model: String,
    /// `pre`: the name of the split before the merges, for `gpt2`.
    pub pre: Option<String>,
    /// `tokens`: the text of each id.
    pub tokens: Vec<String>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty: all normal.
    pub token_types: Vec<i32>,
    /// `merges`: two tokens with a blank between, the first merge first.
    pub merges: Vec<String>,
    /// `scores`: of each id, for `llama`.
    pub scores: Vec<f32>,
    /// `bos_token_id`.
    pub begin_id: Option<u32>,
    /// `eos_token_id`.
    pub end_id: Option<u32>,
    /// `unknown_token_id`.
    pub unknown_id: Option<u32>,
    /// `padding_token_id`.
    pub padding_id: Option<u32>,
    /// `add_bos_token`.
    pub add_begin: Option<bool>,
    /// `add_eos_token`.
    pub add_end: Option<bool>,
    /// `add_space_prefix`: whether a blank is put before the first word; for `llama`, yes unless said.
    pub add_space_prefix: Option<bool>,
    /// `remove_extra_whitespaces`: whether several blanks count as one; no unless said.
    pub remove_extra_whitespaces: Option<bool>,
    /// `precompiled_charsmap`: SentencePiece's table of replaced letters; empty where there is none.
    pub charsmap: Vec<u8>,
    /// `normalizer.lowercase`: for `bert`, yes unless said.
    pub lowercase: Option<bool>,
    /// `normalizer.strip_accents`: for `bert`, where letters become small ones unless said.
    pub strip_accents: Option<bool>,
    /// `chat_template`.
    pub chat_template: Option<String>,
}

/// Names of splits whose merges work on the letters of a text instead of its bytes.
const RAW: [&str; 3] = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"];
pub(crate) const NORMAL: i32 = 1;
pub(crate) const UNKNOWN: i32 = 2;
pub(crate) const CONTROL: i32 = 3;
pub(crate) const USER_DEFINED: i32 = 4;
pub(crate) const UNUSED: i32 = 5;
pub(crate) const BYTE: i32 = 6;
/// SentencePiece's mark for a blank.
pub(crate) const BLANK: &str = "\u{2581}";

/// What [`GgufTokenizer::build`] gives.
pub(crate) struct Built {
    pub(crate) start: tokenizers::Tokenizer,
    /// The same for text that goes on from other text, where that differs: without the blank before the first word.
    pub(crate) continuing: Option<tokenizers::Tokenizer>,
    /// What is done to a text before `start` splits it, where the `tokenizers` crate cannot do it.
    pub(crate) sentence: Option<SentenceNormalizer>,
    pub(crate) add_begin: bool,
    pub(crate) add_end: bool,
}

impl GgufTokenizer {
    /// Builds the tokenizer. Errors: an unknown kind or pre-tokenizer, merges that do not fit the tokens.
    pub(crate) fn build(&self) -> Result<Built, Error> {
        let pre = self.pre.as_deref();
        let (mut start, mut continuing, add_begin) = match self.model.as_str() {
            "gemma4" => (self.raw_pairs().map_err(failed)?, None, true),
            "gpt2" if pre.is_some_and(|pre| RAW.contains(&pre)) => (self.raw_pairs().map_err(failed)?, None, false),
            "gpt2" => {
                let pre = PreTokenizer::named(pre.unwrap_or("default"))?;
                (self.byte_level(pre).map_err(failed)?, None, pre.add_begin)
            }
            "llama" => {
                let plain = self.sentence_piece(false).map_err(failed)?;
                if self.add_space_prefix == Some(false) {
                    (plain, None, true)
                } else {
                    (self.sentence_piece(true).map_err(failed)?, Some(plain), true)
                }
            }
            "t5" => return self.build_pieces(false),
            "bert" => (self.word_piece().map_err(failed)?, None, true),
            other => {
                let supported = "gpt2, gemma4, llama, t5, bert";
                return Err(failed(
                    format!("the kind {other:?} of the GGUF file is not supported; supported: {supported}").into(),
                ));
            }
        };
        for tokenizer in std::iter::once(&mut start).chain(continuing.as_mut()) {
            self.add_tokens(tokenizer);
        }
        let add_begin = self.add_begin.unwrap_or(add_begin);
        Ok(Built { start, continuing, sentence: None, add_begin, add_end: self.add_end == Some(true) })
    }

    /// Builds the tokenizer of SentencePiece's pieces as SentencePiece itself splits: its Unigram models, and the BPE models
    /// of `tokenizer.model`, which say more than GGUF files do. `prefix_after_special`: a blank goes before the first word
    /// after a special token too.
    pub(crate) fn build_pieces(&self, prefix_after_special: bool) -> Result<Built, Error> {
        let mut start = self.pieces().map_err(failed)?;
        self.add_tokens(&mut start);
        let sentence = Some(self.sentence_normalizer(prefix_after_special).map_err(failed)?);
        let is_bpe = self.model == "llama";
        let (add_begin, add_end) = (self.add_begin.unwrap_or(is_bpe), self.add_end.unwrap_or(!is_bpe));
        Ok(Built { start, continuing: None, sentence, add_begin, add_end })
    }

    fn add_tokens(&self, tokenizer: &mut tokenizers::Tokenizer) {
        tokenizer.add_special_tokens(&self.added(&[UNKNOWN, CONTROL], true));
        tokenizer.add_tokens(&self.added(&[USER_DEFINED], false));
    }

    fn vocabulary(&self) -> HashMap<String, u32> {
        self.tokens.iter().cloned().zip(0..).collect()
    }

    pub(crate) fn token_type(&self, id: usize) -> i32 {
        self.token_types.get(id).copied().unwrap_or(NORMAL)
    }

    fn added(&self, types: &[i32], special: bool) -> Vec<AddedToken> {
        let of_type = self.tokens.iter().enumerate().filter(|(id, _)| types.contains(&self.token_type(*id)));
        of_type.map(|(_, text)| AddedToken::from(text.clone(), special).normalized(false)).collect()
    }

    fn pairs(&self) -> tokenizers::Result<Vec<(String, String)>> {
        let pairs = self.merges.iter().map(|merge| merge.split_once(' ').map(|(l, r)| (l.to_owned(), r.to_owned())));
        Ok(pairs.collect::<Option<Vec<_>>>().ok_or("a merge is not two tokens with a blank between")?)
    }

    fn byte_level(&self, pre: &PreTokenizer) -> tokenizers::Result<tokenizers::Tokenizer> {
        let bpe = BPE::builder()
            .vocab_and_merges(self.vocabulary().into_iter().collect::<tokenizers::models::bpe::Vocab>(), self.pairs()?)
            .ignore_merges(pre.ignore_merges)
            .build()?;
        let mut tokenizer = tokenizers::Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(pre.build()?));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, false)));
        if pre.compose {
            tokenizer.with_normalizer(Some(NormalizerWrapper::NFC(NFC)));
        }
        Ok(tokenizer)
    }

    /// Merges over the letters of a text, blanks marked; what no token has is spelled in bytes.
    fn raw_pairs(&self) -> tokenizers::Result<tokenizers::Tokenizer> {
        let mut bpe = BPE::builder()
            .vocab_and_merges(self.vocabulary().into_iter().collect::<tokenizers::models::bpe::Vocab>(), self.pairs()?)
            .fuse_unk(true)
            .byte_fallback(true);
        if let Some(unknown) = self.unknown_id.and_then(|id| self.tokens.get(id as usize)) {
            bpe = bpe.unk_token(unknown.clone());
        }
        let mut tokenizer = tokenizers::Tokenizer::new(bpe.build()?);
        tokenizer.with_normalizer(Some(Replace::new(" ", BLANK)?));
        // No token has an end of line and something else, so that lines can be merged one by one.
        let lines = SplitPattern::Regex(r"\n+".to_owned());
        tokenizer.with_pre_tokenizer(Some(Split::new(lines, SplitDelimiterBehavior::Isolated, false)?));
        let decoders = vec![Replace::new(BLANK, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }

    pub(crate) fn sentence_piece(&self, prefix: bool) -> tokenizers::Result<tokenizers::Tokenizer> {
        let vocabulary = self.vocabulary();
        let merges = self.merges_of_scores(&vocabulary);
        let mut bpe = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .fuse_unk(true)
            .byte_fallback(true);
        if let Some(unknown) = self.unknown_id.and_then(|id| self.tokens.get(id as usize)) {
            bpe = bpe.unk_token(unknown.clone());
        }
        let mut tokenizer = tokenizers::Tokenizer::new(bpe.build()?);
        let mut normalizers: Vec<NormalizerWrapper> = vec![Replace::new(" ", BLANK)?.into()];
        if prefix {
            normalizers.insert(0, Prepend::new(BLANK.to_owned()).into());
        }
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
        let blank = Replace::new(BLANK, " ")?;
        let mut decoders = vec![blank.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.add_space_prefix != Some(false) {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }

    /// Every way to put a token together from two others, the best score first, then the longer left part.
    fn merges_of_scores(&self, vocabulary: &HashMap<String, u32>) -> Vec<(String, String)> {
        let mut merges: Vec<(f32, &str, &str)> = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| self.token_type(*id) == NORMAL) {
            let score = self.scores.get(id).copied().unwrap_or_default();
            let mut ways: Vec<(u32, u32, &str, &str)> = Vec::new();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(&left_id), Some(&right_id)) = (vocabulary.get(left), vocabulary.get(right)) {
                    ways.push((left_id, right_id, left, right));
                }
            }
            ways.sort_unstable();
            merges.extend(ways.into_iter().map(|(_, _, left, right)| (score, left, right)));
        }
        let key = |merge: &(f32, &str, &str)| (merge.1.chars().count(), merge.2.chars().count());
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| key(b).cmp(&key(a))));
        merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer { problem: error.to_string() }
}
