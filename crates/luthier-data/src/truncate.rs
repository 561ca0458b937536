//! Fitting a conversation into a number of tokens.
//!
//! As LLaMA-Factory does (`data/processor/supervised.py`): turn after turn takes from the budget that is left; where a
//! turn does not fit, prompt and reply share it in proportion, and each is cut at its end. With `mask_history` the last
//! turn is served first. Or plainly on the right; or not at all, and the row is left out, or stops everything.
//!
//! Where a template leaves the end of a reply to what follows (`efficient_eos`), the end token counts there as it does for
//! LLaMA-Factory: as the first token of the next prompt, and behind the last reply as one that every row has room for.

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
    pub(crate) ending: Ending,
}

/// What the end token of a reply is counted with where a row is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    /// The reply.
    #[default]
    Reply,
    /// The prompt behind it, whose first token it is. It is the last token of the reply here.
    NextPrompt,
    /// The row: it stands at its end, whatever is cut. It is the last token of the reply here.
    Row,
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

/// What is kept of a turn: so many tokens of its prompt and of its reply, then an end token that stands behind them.
#[derive(Debug, Clone, Copy, Default)]
struct Kept<'t> {
    prompt: usize,
    reply: usize,
    end: &'t [u32],
}

fn from_the_left(turns: &[Turn], most: usize) -> Vec<Kept<'_>> {
    let mut left = most;
    let mut take = |tokens: usize| {
        let taken = tokens.min(left);
        left -= taken;
        taken
    };
    turns.iter().map(|turn| Kept { prompt: take(turn.prompt.len()), reply: take(turn.reply.len()), end: &[] }).collect()
}

fn shared<'t>(turns: &'t [Turn], options: &SftOptions) -> Vec<Kept<'t>> {
    fn last_token(turn: &Turn) -> &[u32] {
        turn.reply.chunks(1).next_back().unwrap_or_default()
    }
    let row_end = turns.last().filter(|turn| turn.ending == Ending::Row).map(last_token);
    // The turn whose end token is the first of this prompt.
    let lender = |index: usize| index.checked_sub(1).filter(|before| turns[*before].ending == Ending::NextPrompt);
    let mut kept = vec![Kept::default(); turns.len()];
    let mut total = usize::from(row_end.is_some());
    let mut order: Vec<usize> = (0..turns.len()).collect();
    if options.mask_history {
        order.reverse();
    }
    for index in order {
        if total >= options.cutoff_len {
            break;
        }
        let turn = &turns[index];
        let lent = usize::from(lender(index).is_some());
        let own = turn.reply.len() - usize::from(turn.ending != Ending::Reply);
        let (prompt, reply) = shares(turn.prompt.len() + lent, own, options.cutoff_len - total);
        total += prompt + reply;
        (kept[index].prompt, kept[index].reply) = (prompt, reply);
        if let Some(lender) = lender(index).filter(|_| prompt > 0) {
            kept[index].prompt -= 1;
            kept[lender].end = last_token(&turns[lender]);
        }
    }
    // Behind the last turn of which something is left, if only the token that it lends.
    let last = kept.iter().rposition(|kept| kept.prompt + kept.reply > 0);
    if let (Some(end), Some(last)) = (row_end, last) {
        let borrows = !kept[last].end.is_empty();
        kept[last + usize::from(borrows)].end = end;
    }
    kept
}

/// `weights` and `owners`, where they are there, have an entry for each turn.
pub(crate) fn fit(
    turns: &[Turn],
    weights: Option<&[TurnWeights]>,
    owners: &[TurnOwners],
    options: &SftOptions,
) -> Fitted {
    let kept = match options.truncation {
        Truncation::Right => from_the_left(turns, options.cutoff_len),
        _ => shared(turns, options),
    };
    let total = kept.iter().map(|kept| kept.prompt + kept.reply + kept.end.len()).sum();
    let last_reply = turns.iter().rposition(|turn| !turn.reply.is_empty());
    let (mut ids, mut counts) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let (mut before, mut replies_without_end) = (0, 0);
    let mut roles = Vec::new();
    for (index, (turn, kept)) in turns.iter().zip(kept).enumerate() {
        let Kept { prompt, reply, end } = kept;
        let weights = weights.map(|weights| &weights[index]);
        let history = options.mask_history && Some(index) != last_reply;
        let reply_weight = if history { 0.0 } else { weights.map_or(1.0, |weights| weights.reply) };
        if let Some(owners) = owners.get(index) {
            owners.spans(ids.len(), prompt, reply + end.len(), &mut roles);
        }
        ids.extend_from_slice(&turn.prompt[..prompt]);
        match weights.map(|weights| weights.prompt.as_slice()).filter(|weights| !weights.is_empty()) {
            Some(weights) => counts.extend_from_slice(&weights[..prompt]),
            None => counts.resize(ids.len(), f32::from(u8::from(options.train_on_prompt))),
        }
        ids.extend_from_slice(&turn.reply[..reply]);
        ids.extend_from_slice(end);
        counts.resize(ids.len(), reply_weight);
        before += turn.prompt.len() + turn.reply.len();
        let ends = !end.is_empty() || reply > turn.end;
        replies_without_end += usize::from(reply_weight > 0.0 && !turn.reply.is_empty() && !ends);
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
        Turn { prompt: vec![1; prompt], reply: vec![2; reply], end: reply - 1, ending: Ending::Reply }
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

    /// As LLaMA-Factory 0.9.5 with a template that has `efficient_eos`: 3 ends a reply, and is the first token of the prompt
    /// behind it, or the last of the row.
    #[test]
    fn an_end_token_counts_where_the_template_writes_it() {
        let ended = |prompt: usize, reply: usize, ending: Ending| {
            let reply = [vec![2; reply], vec![3]].concat();
            Turn { prompt: vec![1; prompt], end: reply.len() - 1, reply, ending }
        };
        let turns = [ended(4, 4, Ending::NextPrompt), ended(3, 4, Ending::Row)];
        let check = |cutoff_len: usize, mask_history: bool, expected: &[u32], lost: usize| {
            let fitted = fit(&turns, &SftOptions { mask_history, ..options(cutoff_len) });
            assert_eq!(fitted.example.ids, expected, "{cutoff_len}");
            assert_eq!((fitted.before, fitted.replies_without_end), (17, lost), "{cutoff_len}");
        };
        check(17, false, &[1, 1, 1, 1, 2, 2, 2, 2, 3, 1, 1, 1, 2, 2, 2, 2, 3], 0);
        check(13, false, &[1, 1, 1, 1, 2, 2, 2, 2, 3, 1, 2, 2, 3], 0);
        check(10, false, &[1, 1, 1, 1, 2, 2, 2, 2, 3, 3], 0);
        check(9, false, &[1, 1, 1, 1, 2, 2, 2, 2, 3], 1);
        check(7, false, &[1, 1, 1, 2, 2, 2, 3], 1);
        check(14, true, &[1, 1, 1, 2, 2, 3, 1, 1, 1, 2, 2, 2, 2, 3], 0);
        let right = SftOptions { truncation: Truncation::Right, ..options(9) };
        assert_eq!(fit(&turns, &right).example.ids, [1, 1, 1, 1, 2, 2, 2, 2, 3]);
    }
}
