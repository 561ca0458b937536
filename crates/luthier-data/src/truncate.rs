//! Fitting a conversation into a number of tokens.
//!
//! As LLaMA-Factory does (`data/processor/supervised.py`): turn after turn takes from the budget that is left; where a
//! turn does not fit, prompt and reply share it in proportion, and each is cut at its end. With `mask_history` the last
//! turn is served first. Or plainly on the right.

use crate::example::{Example, SftOptions};

/// What is cut of a conversation that is longer than `cutoff_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The end of a turn's prompt and of its reply, in proportion, as LLaMA-Factory's `infer_seqlen` does.
    #[default]
    LlamaFactory,
    /// All that stands after `cutoff_len` tokens.
    Right,
}

/// A prompt and its reply, in tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Turn {
    pub(crate) prompt: Vec<u32>,
    pub(crate) reply: Vec<u32>,
    /// The position of the end token in the reply.
    pub(crate) end: usize,
}

/// What became of a conversation.
pub(crate) struct Fitted {
    pub(crate) example: Example,
    pub(crate) truncated: bool,
    pub(crate) replies_without_end: usize,
}

/// `infer_seqlen`: how many tokens of prompt and reply are kept.
fn shares(prompt: usize, reply: usize, budget: usize) -> (usize, usize) {
    let most = if reply * 2 < budget {
        budget
    } else if prompt * 2 < budget {
        budget - prompt
    } else {
        // As Python computes it: in floating point, cut to an integer.
        (budget as f64 * (reply as f64 / (prompt + reply) as f64)) as usize
    };
    let reply = most.min(reply);
    (prompt.min(budget.saturating_sub(reply)), reply)
}

pub(crate) fn fit(turns: &[Turn], options: &SftOptions) -> Fitted {
    let mut kept = vec![(0, 0); turns.len()];
    let mut total = 0;
    let mut order: Vec<usize> = (0..turns.len()).collect();
    if options.mask_history && options.truncation == Truncation::LlamaFactory {
        order.reverse();
    }
    for index in order {
        if total >= options.cutoff_len {
            break;
        }
        let (prompt, reply) = (turns[index].prompt.len(), turns[index].reply.len());
        let budget = options.cutoff_len - total;
        kept[index] = match options.truncation {
            Truncation::LlamaFactory => shares(prompt, reply, budget),
            Truncation::Right => (prompt.min(budget), reply.min(budget.saturating_sub(prompt))),
        };
        total += kept[index].0 + kept[index].1;
    }
    let last_reply = turns.iter().rposition(|turn| !turn.reply.is_empty());
    let mut example = Example { ids: Vec::with_capacity(total), trained: Vec::with_capacity(total) };
    let (mut truncated, mut replies_without_end) = (false, 0);
    for (index, (turn, (prompt, reply))) in turns.iter().zip(kept).enumerate() {
        let train_reply = !options.mask_history || Some(index) == last_reply;
        example.ids.extend_from_slice(&turn.prompt[..prompt]);
        example.trained.resize(example.ids.len(), options.train_on_prompt);
        example.ids.extend_from_slice(&turn.reply[..reply]);
        example.trained.resize(example.ids.len(), train_reply);
        truncated |= prompt < turn.prompt.len() || reply < turn.reply.len();
        replies_without_end += usize::from(train_reply && !turn.reply.is_empty() && reply <= turn.end);
    }
    if let Some(first) = example.trained.first_mut() {
        *first = false; // nothing stands before it that could predict it
    }
    Fitted { example, truncated, replies_without_end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_infer_seqlens() {
        // LLaMA-Factory 0.9.5, tests/data/processor/test_processor_utils.py
        for (prompt, reply, budget, expected) in [
            (3000, 2000, 1000, (600, 400)),
            (2000, 3000, 1000, (400, 600)),
            (1000, 100, 1000, (900, 100)),
            (100, 1000, 1000, (100, 900)),
            (100, 500, 1000, (100, 500)),
            (500, 100, 1000, (500, 100)),
            (10, 10, 1000, (10, 10)),
        ] {
            assert_eq!(shares(prompt, reply, budget), expected);
        }
    }

    fn turn(prompt: usize, reply: usize) -> Turn {
        Turn { prompt: vec![1; prompt], reply: vec![2; reply], end: reply - 1 }
    }

    fn options(cutoff_len: usize) -> SftOptions {
        SftOptions { cutoff_len, truncation: Truncation::LlamaFactory, train_on_prompt: false, mask_history: false }
    }

    #[test]
    fn a_later_turn_gets_what_is_left_and_a_lost_end_is_counted() {
        let fitted = fit(&[turn(4, 4), turn(4, 4), turn(4, 4)], &options(12));
        assert_eq!(fitted.example.ids, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 2, 2]);
        assert!(fitted.truncated);
        assert_eq!(fitted.replies_without_end, 2);
    }

    #[test]
    fn right_cuts_what_stands_last() {
        let fitted = fit(&[turn(4, 4), turn(4, 4)], &SftOptions { truncation: Truncation::Right, ..options(11) });
        assert_eq!(fitted.example.ids, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1]);
        assert_eq!((fitted.truncated, fitted.replies_without_end), (true, 1));
    }

    #[test]
    fn mask_history_serves_and_trains_the_last_turn_only() {
        let fitted = fit(&[turn(4, 4), turn(2, 3)], &SftOptions { mask_history: true, ..options(9) });
        assert_eq!(fitted.example.ids, [1, 1, 2, 2, 1, 1, 2, 2, 2]);
        assert_eq!(fitted.example.trained, [false, false, false, false, false, false, true, true, true]);
        assert_eq!((fitted.truncated, fitted.replies_without_end), (true, 0));
    }

    #[test]
    fn train_on_prompt_trains_all_but_the_first_token() {
        let fitted = fit(&[turn(2, 1)], &SftOptions { train_on_prompt: true, ..options(9) });
        assert_eq!(fitted.example.trained, [false, true, true]);
        assert!(!fitted.truncated);
    }
}
