//! Fitting a conversation into a number of tokens.
//!
//! As LLaMA-Factory does (`data/processor/supervised.py`): turn after turn takes from the budget that is left; where a
//! turn does not fit, prompt and reply share it in proportion, and each is cut at its end. With `mask_history` the last
//! turn is served first. Or plainly on the right; or not at all, and the row is left out, or stops everything.

use crate::example::{Example, RoleSpan, SftOptions};
use crate::owners::{TurnOwners, TurnWeights};

/// What becomes of a row that is longer than `cutoff_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The end of a turn's prompt and of its reply is cut, in proportion, as LLaMA-Factory's `infer_seqlen` does.
    #[default]
    LlamaFactory,
    /// All that stands after `cutoff_len` tokens is cut.
    Right,
    /// The row is left out and counted.
    Drop,
    /// Nothing is trained before someone has decided.
    Error,
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
    /// Its tokens before anything was cut.
    pub(crate) before: usize,
    /// Where they are asked for.
    pub(crate) roles: Vec<RoleSpan>,
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

/// `weights` and `owners`, where they are there, have an entry for each turn.
pub(crate) fn fit(
    turns: &[Turn],
    weights: Option<&[TurnWeights]>,
    owners: &[TurnOwners],
    options: &SftOptions,
) -> Fitted {
    let mut kept = vec![(0, 0); turns.len()];
    let mut total = 0;
    let mut order: Vec<usize> = (0..turns.len()).collect();
    if options.mask_history && options.truncation != Truncation::Right {
        order.reverse();
    }
    for index in order {
        if total >= options.cutoff_len {
            break;
        }
        let (prompt, reply) = (turns[index].prompt.len(), turns[index].reply.len());
        let budget = options.cutoff_len - total;
        kept[index] = match options.truncation {
            Truncation::Right => (prompt.min(budget), reply.min(budget.saturating_sub(prompt))),
            _ => shares(prompt, reply, budget),
        };
        total += kept[index].0 + kept[index].1;
    }
    let last_reply = turns.iter().rposition(|turn| !turn.reply.is_empty());
    let (mut ids, mut counts) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let (mut before, mut replies_without_end) = (0, 0);
    let mut roles = Vec::new();
    for (index, (turn, (prompt, reply))) in turns.iter().zip(kept).enumerate() {
        let weights = weights.map(|weights| &weights[index]);
        let history = options.mask_history && Some(index) != last_reply;
        let reply_weight = if history { 0.0 } else { weights.map_or(1.0, |weights| weights.reply) };
        if let Some(owners) = owners.get(index) {
            owners.spans(ids.len(), prompt, reply, &mut roles);
        }
        ids.extend_from_slice(&turn.prompt[..prompt]);
        match weights.map(|weights| weights.prompt.as_slice()).filter(|weights| !weights.is_empty()) {
            Some(weights) => counts.extend_from_slice(&weights[..prompt]),
            None => counts.resize(ids.len(), f32::from(u8::from(options.train_on_prompt))),
        }
        ids.extend_from_slice(&turn.reply[..reply]);
        counts.resize(ids.len(), reply_weight);
        before += turn.prompt.len() + turn.reply.len();
        replies_without_end += usize::from(reply_weight > 0.0 && !turn.reply.is_empty() && reply <= turn.end);
    }
    Fitted { example: Example::weighted(ids, counts), before, roles, replies_without_end }
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
        SftOptions {
            cutoff_len,
            truncation: Truncation::LlamaFactory,
            train_on_prompt: false,
            mask_history: false,
            role_weights: None,
            roles: false,
        }
    }

    fn fit(turns: &[Turn], options: &SftOptions) -> Fitted {
        super::fit(turns, None, &[], options)
    }

    #[test]
    fn a_later_turn_gets_what_is_left_and_a_lost_end_is_counted() {
        let fitted = fit(&[turn(4, 4), turn(4, 4), turn(4, 4)], &options(12));
        assert_eq!(fitted.example.ids, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 2, 2]);
        assert_eq!(fitted.before, 24);
        assert_eq!(fitted.replies_without_end, 2);
    }

    #[test]
    fn right_cuts_what_stands_last() {
        let fitted = fit(&[turn(4, 4), turn(4, 4)], &SftOptions { truncation: Truncation::Right, ..options(11) });
        assert_eq!(fitted.example.ids, [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1]);
        assert_eq!((fitted.before, fitted.replies_without_end), (16, 1));
    }

    #[test]
    fn mask_history_serves_and_trains_the_last_turn_only() {
        let fitted = fit(&[turn(4, 4), turn(2, 3)], &SftOptions { mask_history: true, ..options(9) });
        assert_eq!(fitted.example.ids, [1, 1, 2, 2, 1, 1, 2, 2, 2]);
        assert_eq!(fitted.example.trained, [false, false, false, false, false, false, true, true, true]);
        assert_eq!((fitted.before, fitted.replies_without_end), (13, 0));
    }

    #[test]
    fn train_on_prompt_trains_all_but_the_first_token() {
        let fitted = fit(&[turn(2, 1)], &SftOptions { train_on_prompt: true, ..options(9) });
        assert_eq!(fitted.example.trained, [false, true, true]);
        assert_eq!(fitted.before, 3);
    }
}
