//! The tokenizer of a GGUF file of the kind `bert`: WordPiece. A word is the longest tokens that it can be put together
//! from, or unknown as a whole. No model that is trained here has it; it is read because vocabularies are looked at too.
//!
//! GGUF files mark the tokens that begin a word (`▁`); this is turned back into the mark of those that go on (`##`).

use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use crate::gguf_tokenizer::{BLANK, GgufTokenizer};

/// What goes before a token that goes on with a word.
const CONTINUES: &str = "##";

impl GgufTokenizer {
    pub(crate) fn word_piece(&self) -> tokenizers::Result<tokenizers::Tokenizer> {
        let unknown = self.unknown_id.and_then(|id| self.tokens.get(id as usize));
        let unknown =
            unknown.ok_or("the vocabulary names no token for unknown words (tokenizer.ggml.unknown_token_id)")?;
        let vocabulary = self.tokens.iter().map(|token| marked(token)).zip(0..);
        let model = WordPiece::builder()
            .vocab(vocabulary.collect::<tokenizers::models::bpe::Vocab>())
            .unk_token(unknown.clone())
            .continuing_subword_prefix(CONTINUES.to_owned())
            .build()?;
        let mut tokenizer = tokenizers::Tokenizer::new(model);
        let lowercase = self.lowercase != Some(false);
        tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, self.strip_accents, lowercase)));
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.with_decoder(Some(WordPieceDecoder::new(CONTINUES.to_owned(), true)));
        Ok(tokenizer)
    }
}

/// A token as WordPiece has it: `▁word` is `word`, `ing` is `##ing`, `[MASK]` stays.
fn marked(token: &str) -> String {
    match token.strip_prefix(BLANK) {
        Some(word) => word.to_owned(),
        None if token.starts_with('[') && token.ends_with(']') => token.to_owned(),
        None => format!("{CONTINUES}{token}"),
    }
}
