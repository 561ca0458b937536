//! Documents into examples for `stage: pt`, as LLaMA-Factory does (`data/processor/pretrain.py`).
//!
//! Every document ends with the tokenizer's end token. With packing they are put end to end and cut into blocks of
//! `cutoff_len`; without, each is a row cut at `cutoff_len`. Where the tokenizer begins texts with a token, so does a
//! row: before the document, or, packed, in place of the block's first token. One difference: LLaMA-Factory drops the
//! last block of every thousand documents where it is not full; here blocks run through, and the last one is kept.

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::Error;
use crate::example::{Example, Tokenized, in_record};
use crate::records::Record;
use crate::report::{LongRows, Origin};
use crate::tokenizer::{Specials, Tokenizer};
use crate::truncate::Truncation;

/// LLaMA-Factory's settings of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtOptions {
    /// The most tokens of a row, or the size of a block.
    pub cutoff_len: usize,
    /// Whether documents are put end to end; LLaMA-Factory does so for `stage: pt` unless told not to.
    pub packing: bool,
    /// What becomes of longer rows; a document of its own is always cut at its end.
    pub truncation: Truncation,
}

/// Tokenises documents for `stage: pt`. Empty documents are dropped and counted.
///
/// Errors: the first record that is no document; a tokenizer without an end token; documents that are too long, where
/// that is an error.
pub fn tokenize_pt(datasets: &[Dataset], tokenizer: &Tokenizer, options: &PtOptions) -> Result<Tokenized, Error> {
    let Some(end_id) = tokenizer.end_ids().first().copied() else {
        let problem = "it names no end token, which must follow every document".to_owned();
        return Err(Error::Tokenizer { problem });
    };
    let begin_id = tokenizer.begin_id().filter(|_| tokenizer.adds_begin());
    let block = options.cutoff_len.max(1);
    let mut tokenized = Tokenized::default();
    let mut packed: Vec<u32> = Vec::new();
    let mut long_rows = LongRows::new(block, options.truncation);
    for (number, dataset) in datasets.iter().enumerate() {
        let encode = |record: &Record| match record {
            Record::Text(text) => tokenizer.encode(text, Specials::None),
            Record::Conversation(_) | Record::Preference(_) | Record::Judged(_) => {
                let problem = "it is a conversation, not a document; use stage: sft for conversations".to_owned();
                Err(Error::NothingToTrain { problem })
            }
            Record::Tokens(_) => {
                let problem = "it is tokens already, among documents; keep the two apart".to_owned();
                Err(Error::NothingToTrain { problem })
            }
        };
        let documents: Vec<Result<Vec<u32>, Error>> = dataset.records.par_iter().map(encode).collect();
        for (index, document) in documents.into_iter().enumerate() {
            let document = document.map_err(|source| in_record(dataset, index, source))?;
            if document.is_empty() {
                tokenized.report.rows_dropped += 1;
            } else if options.packing {
                packed.extend(document);
                packed.push(end_id);
            } else {
                let mut ids: Vec<u32> = begin_id.into_iter().chain(document).chain([end_id]).collect();
                let (origin, before) = (Origin { dataset: number, record: index }, ids.len());
                ids.truncate(block);
                if long_rows.keeps(&mut tokenized.report, dataset, origin, before, ids.len()) {
                    tokenized.report.replies_without_end += usize::from(before > block);
                    tokenized.push(row(ids), Some(origin));
                }
            }
        }
    }
    long_rows.finish()?;
    for chunk in packed.chunks(block) {
        let mut ids = chunk.to_vec();
        if let (Some(begin_id), Some(first)) = (begin_id, ids.first_mut()) {
            *first = begin_id;
        }
        tokenized.push(row(ids), None);
    }
    Ok(tokenized)
}

fn row(ids: Vec<u32>) -> Example {
    let trained = (0..ids.len()).map(|position| position > 0).collect();
    Example::new(ids, trained)
}
