//! The models behind SentencePiece's pieces, without the text's preparation: BPE by scores, and Unigram, the likeliest
//! split of a text.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Replace;
use tokenizers::{DecoderWrapper, NormalizerWrapper};

use super::{SentenceNormalizer, Texts};
use crate::gguf_tokenizer::{BLANK, BYTE, CONTROL, GgufTokenizer, NORMAL, UNKNOWN, USER_DEFINED};

impl GgufTokenizer {
    /// The model of pieces: Unigram for the kind `t5`, BPE by scores for `llama`.
    pub(crate) fn pieces(&self) -> tokenizers::Result<tokenizers::Tokenizer> {
        let mut tokenizer = match self.model.as_str() {
            "t5" => tokenizers::Tokenizer::new(self.unigram()?),
            _ => self.sentence_piece(false)?,
        };
        tokenizer.with_normalizer(None::<NormalizerWrapper>);
        let mut decoders: Vec<DecoderWrapper> =
            vec![Replace::new(BLANK, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
        if self.add_space_prefix != Some(false) {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }

    fn unigram(&self) -> tokenizers::Result<Unigram> {
        let normal = |id: &usize| self.token_type(*id) == NORMAL;
        let score = |id: usize| f64::from(self.scores.get(id).copied().unwrap_or_default());
        let least = (0..self.tokens.len()).filter(normal).map(score).reduce(f64::min).unwrap_or_default();
        // Only normal pieces are found in a text. The others have no score in the file; here they get the least, for the
        // penalty of unknown letters is reckoned from the least of all.
        let pieces = self.tokens.iter().enumerate();
        let pieces = pieces.map(|(id, text)| (text.clone(), if normal(&id) { score(id) } else { least })).collect();
        if self.tokens.iter().any(String::is_empty) {
            return Err("a piece of the vocabulary has no text".into());
        }
        Unigram::from(pieces, self.unknown_id.map(|id| id as usize), self.token_types.contains(&BYTE))
    }

    /// What is done to a text before.
    pub(crate) fn sentence_normalizer(&self, prefix_after_special: bool) -> tokenizers::Result<SentenceNormalizer> {
        let of_types = |types: &[i32]| {
            let found = self.tokens.iter().enumerate().filter(|(id, _)| types.contains(&self.token_type(*id)));
            Texts::new(found.map(|(_, text)| text.clone()).collect::<Vec<_>>().into_iter())
        };
        let mut normalizer = SentenceNormalizer {
            prefix: self.add_space_prefix != Some(false),
            prefix_after_special,
            remove_extra: self.remove_extra_whitespaces == Some(true),
            special: of_types(&[UNKNOWN, CONTROL]),
            defined: of_types(&[USER_DEFINED]),
            ..Default::default()
        };
        match normalizer.take_charsmap(&self.charsmap) {
            true => Ok(normalizer),
            false => Err("the table of replaced letters (precompiled_charsmap) is damaged".into()),
        }
    }
}
