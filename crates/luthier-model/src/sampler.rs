//! From logits to the next token, as transformers defines the steps and orders them: repetition penalty, temperature,
//! top-k, top-p, min-p, then a draw. Pure functions of numbers: the random number of a token follows from the seed and
//! the token's position alone, so a run repeats, and a conversation that goes back to an earlier point repeats too.

use crate::generate::most_likely;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f64,
    /// How many of the most likely tokens stay, and those as likely as the last of them; 0: all.
    pub top_k: usize,
    /// The most likely tokens stay until they have this share of the probability; 1: all.
    pub top_p: f64,
    /// Tokens stay that are this share as likely as the most likely one; 0: all.
    pub min_p: f64,
    /// The logit of a token that was there before is divided by it, or multiplied where it is negative; 1: left alone.
    pub repetition_penalty: f32,
    /// Where every random number comes from.
    pub seed: u64,
}

impl Sampler {
    /// The most likely token, always.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

    /// The token that follows `before`. The logits are changed on the way.
    pub fn next(&self, logits: &mut [f32], before: &[u32]) -> u32 {
        if self.temperature <= 0.0 {
            penalise(logits, before, self.repetition_penalty);
            return most_likely(logits);
        }
        let candidates = self.distribution(logits, before);
        let mut left = uniform(self.seed, before.len() as u64);
        for &(id, probability) in &candidates {
            left -= probability;
            if left < 0.0 {
                return id;
            }
        }
        // Rounding can leave a rest; without any finite logit there is nothing to choose from.
        candidates.last().map_or_else(|| most_likely(logits), |&(id, _)| id)
    }

    /// The tokens that may follow `before` and their probabilities, the most likely first, of equals the smaller id first.
    /// The logits are changed on the way. Empty when no logit is finite.
    ///
    /// The temperature must be more than 0.
    pub fn distribution(&self, logits: &mut [f32], before: &[u32]) -> Vec<(u32, f64)> {
        penalise(logits, before, self.repetition_penalty);
        let ids = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
        let mut candidates: Vec<(u32, f64)> = ids.map(|(id, &logit)| (id as u32, f64::from(logit))).collect();
        keep_most_likely(&mut candidates, self.top_k);
        candidates.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        let Some(&(_, highest)) = candidates.first() else { return candidates };
        let mut total = 0.0;
        for (_, logit) in &mut candidates {
            *logit = ((*logit - highest) / self.temperature).exp();
            total += *logit;
        }
        keep_share(&mut candidates, self.top_p * total);
        // The most likely one has the weight 1.
        candidates.retain(|&(_, weight)| weight >= self.min_p.min(1.0));
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in &mut candidates {
            *weight /= total;
        }
        candidates
    }
}

/// Divides the logits of the tokens in `before` by the penalty where they are positive, multiplies them where not.
fn penalise(logits: &mut [f32], before: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = before.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Keeps the `count` largest and what equals the last of them.
fn keep_most_likely(candidates: &mut Vec<(u32, f64)>, count: usize) {
    if count == 0 || count >= candidates.len() {
        return;
    }
    let (_, &mut (_, least), _) = candidates.select_nth_unstable_by(count - 1, |one, other| other.1.total_cmp(&one.1));
    candidates.retain(|&(_, logit)| logit >= least);
}

/// Of weights in descending order keeps those before which less than `share` lies; the first always.
fn keep_share(candidates: &mut Vec<(u32, f64)>, share: f64) {
    let mut above = 0.0;
    let kept = candidates.iter().take_while(|(_, weight)| {
        let stays = above < share;
        above += weight;
        stays
    });
    let kept = kept.count().max(1);
    candidates.truncate(kept);
}

/// A number from 0 to below 1. From: Steele, Lea and Flood 2014 (the output function of SplitMix64), applied to a
/// counter.
fn uniform(seed: u64, index: u64) -> f64 {
    let bits = mix(mix(seed).wrapping_add(index.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(GOLDEN);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Sampler = Sampler { temperature: 1.0, ..Sampler::GREEDY };

    /// Logits of tokens that have the probabilities 1/8, 1/2, 1/8 and 1/4.
    fn logits() -> [f32; 4] {
        [0.125f32, 0.5, 0.125, 0.25].map(f32::ln)
    }

    #[track_caller]
    fn check(sampler: Sampler, expected: &[(u32, f64)]) {
        let found = sampler.distribution(&mut logits(), &[]);
        assert_eq!(
            found.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            expected.iter().map(|(id, _)| id).collect::<Vec<_>>()
        );
        for ((id, found), (_, expected)) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "token {id}: {found} for {expected}");
        }
    }

    #[test]
    fn everything_is_kept_by_default() {
        check(PLAIN, &[(1, 0.5), (3, 0.25), (0, 0.125), (2, 0.125)]);
    }

    #[test]
    fn a_temperature_sharpens() {
        let sum = 0.25 + 0.0625 + 2.0 * 0.015625;
        check(
            Sampler { temperature: 0.5, ..PLAIN },
            &[(1, 0.25 / sum), (3, 0.0625 / sum), (0, 0.015625 / sum), (2, 0.015625 / sum)],
        );
    }

    #[test]
    fn top_k_keeps_equals_of_the_last() {
        check(Sampler { top_k: 2, ..PLAIN }, &[(1, 2.0 / 3.0), (3, 1.0 / 3.0)]);
        check(Sampler { top_k: 3, ..PLAIN }, &[(1, 0.5), (3, 0.25), (0, 0.125), (2, 0.125)]);
        check(Sampler { top_k: 9, ..PLAIN }, &[(1, 0.5), (3, 0.25), (0, 0.125), (2, 0.125)]);
    }

    #[test]
    fn top_p_keeps_the_token_that_reaches_the_share() {
        check(Sampler { top_p: 0.0, ..PLAIN }, &[(1, 1.0)]);
        check(Sampler { top_p: 0.49, ..PLAIN }, &[(1, 1.0)]);
        check(Sampler { top_p: 0.51, ..PLAIN }, &[(1, 2.0 / 3.0), (3, 1.0 / 3.0)]);
        check(Sampler { top_p: 0.76, ..PLAIN }, &[(1, 4.0 / 7.0), (3, 2.0 / 7.0), (0, 1.0 / 7.0)]);
    }

    #[test]
    fn top_p_is_a_share_of_what_top_k_left() {
        // Of two thirds and one third, the first alone has 0.6.
        check(Sampler { top_k: 2, top_p: 0.6, ..PLAIN }, &[(1, 1.0)]);
    }

    #[test]
    fn min_p_is_a_share_of_the_most_likely() {
        check(Sampler { min_p: 0.3, ..PLAIN }, &[(1, 2.0 / 3.0), (3, 1.0 / 3.0)]);
        check(Sampler { min_p: 1.0, ..PLAIN }, &[(1, 1.0)]);
    }

    #[test]
    fn the_penalty_is_applied_once_to_each_token_before() {
        let mut logits = [2.0, 1.0, 0.5, -1.0];
        penalise(&mut logits, &[0, 3, 0, 99], 2.0);
        assert_eq!(logits, [1.0, 1.0, 0.5, -2.0]);
        let sampler = Sampler { repetition_penalty: 4.0, ..Sampler::GREEDY };
        assert_eq!(sampler.next(&mut [2.0, 1.0, 0.5, -1.0], &[0]), 1);
    }

    /// transformers 5.6.0 and torch 2.11.0: `RepetitionPenaltyLogitsProcessor`, `TemperatureLogitsWarper`,
    /// `TopKLogitsWarper`, `TopPLogitsWarper`, `MinPLogitsWarper` in this order, then a softmax.
    #[test]
    fn transformers_gives_the_same() {
        const LOGITS: [f32; 12] = [
            1.328125, 0.53125, 0.125, 1.25, -0.90625, -0.328125, -3.046875, 0.765625, -2.0625, -1.125, -1.78125,
            -0.109375,
        ];
        let check = |sampler: Sampler, expected: &[(u32, f64)]| {
            let found = sampler.distribution(&mut LOGITS.clone(), &[3, 7, 7, 0]);
            assert_eq!(found.len(), expected.len(), "{sampler:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6, "{found:?} for {expected:?}");
            }
        };
        check(
            Sampler { temperature: 0.8, top_k: 8, top_p: 0.9, min_p: 0.05, repetition_penalty: 1.3, seed: 0 },
            &[(0, 0.2761777), (3, 0.2561913), (7, 0.1608028), (1, 0.1496147), (2, 0.0900397), (11, 0.0671737)],
        );
        check(
            Sampler { temperature: 1.5, top_k: 4, ..PLAIN },
            &[(0, 0.3101344), (3, 0.294395), (7, 0.213152), (1, 0.1823186)],
        );
        check(
            Sampler { temperature: 0.7, top_p: 0.8, ..PLAIN },
            &[(0, 0.3755931), (3, 0.3359288), (7, 0.1681632), (1, 0.120315)],
        );
        check(
            Sampler { min_p: 0.2, repetition_penalty: 1.8, ..PLAIN },
            &[
                (0, 0.2075856),
                (3, 0.1987685),
                (1, 0.1688391),
                (7, 0.1518728),
                (2, 0.1124711),
                (11, 0.088972),
                (5, 0.071491),
            ],
        );
        check(
            Sampler { temperature: 2.0, top_p: 0.95, min_p: 0.1, repetition_penalty: 0.5, ..PLAIN },
            &[
                (0, 0.2483739),
                (3, 0.2297083),
                (7, 0.1415192),
                (1, 0.0858357),
                (2, 0.0700571),
                (11, 0.0623101),
                (5, 0.0558544),
                (4, 0.041833),
                (9, 0.0374989),
                (10, 0.0270094),
            ],
        );
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let sampler = Sampler { seed: 7, ..PLAIN };
        let mut counts = [0usize; 4];
        for index in 0..20_000 {
            let before = vec![0; index % 200];
            let sampler = Sampler { seed: (index / 200) as u64, ..sampler };
            counts[sampler.next(&mut logits(), &before) as usize] += 1;
        }
        for (count, probability) in counts.iter().zip([0.125, 0.5, 0.125, 0.25]) {
            let share = *count as f64 / 20_000.0;
            assert!((share - probability).abs() < 0.012, "{share} for {probability}");
        }
    }

    #[test]
    fn a_draw_is_a_function_of_seed_and_position() {
        let row = |seed| {
            (0..64).map(|length| Sampler { seed, ..PLAIN }.next(&mut logits(), &vec![0; length])).collect::<Vec<_>>()
        };
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
    }

    #[test]
    fn broken_logits_are_no_panic() {
        assert_eq!(PLAIN.next(&mut [f32::NAN; 3], &[]), 0);
        assert_eq!(PLAIN.next(&mut [f32::NEG_INFINITY, f32::NAN, 1.0], &[]), 2);
        assert_eq!(PLAIN.next(&mut [], &[]), 0);
    }
}
