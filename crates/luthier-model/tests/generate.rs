//! A generator that goes on with a sequence, or back to an earlier point of it, computes what a fresh one computes.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::checkpoint::Checkpoint;
use luthier_model::{Decoder, Generator, Sampler, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision};
use support::model_files;

fn with_model(fixture: &str, capacity: usize, test: impl Fn(&dyn Fn() -> Generator<'static>)) {
    let options = CpuOptions { threads: 1, isa: Isa::detect(), memory_bytes: 1 << 30, poison: true };
    // Borrowed for the rest of the test's process, so that generators can be made freely.
    let device: &'static Device = Box::leak(Box::new(Device::cpu(options, None).unwrap()));
    let checkpoint = Checkpoint::from_files(&model_files(fixture)).unwrap();
    let decoder = Decoder::new(device, &checkpoint, &Tuning::Nothing, None).unwrap();
    let decoder: &'static Decoder = Box::leak(Box::new(decoder));
    test(&|| Generator::new(device, decoder, Precision::F32, capacity));
}

fn ids(count: u32, step: u32) -> Vec<u32> {
    (0..count).map(|index| 3 + index * step % 120).collect()
}

fn assert_near(found: &[f32], expected: &[f32]) {
    let worst = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    assert!(found.len() == expected.len() && worst < 1e-4, "logits differ by {worst}");
}

/// Feeds, goes back, feeds something else, on models whose angles do and do not follow from the length.
#[test]
fn going_back_is_as_if_nothing_had_been_there() {
    for fixture in ["llama", "llama-dynamic-rope", "mistral-window", "qwen3"] {
        with_model(fixture, 64, |fresh| {
            // The dynamic fixture was trained on 16 positions: the lengths lie on both sides.
            for (first, kept, second) in [(30, 12, 2), (30, 20, 5), (10, 4, 30), (14, 0, 9)] {
                let mut generator = fresh();
                generator.feed(&ids(first, 7));
                generator.truncate(kept);
                let found = generator.feed(&ids(second, 11));
                let whole = [&ids(first, 7)[..kept], &ids(second, 11)].concat();
                assert_eq!(generator.ids(), whole);
                assert_near(&found, &fresh().feed(&whole));
            }
        });
    }
}

/// A long prompt goes through the model in pieces.
#[test]
fn a_long_prompt_is_the_sum_of_its_parts() {
    with_model("llama", 1300, |fresh| {
        let whole = ids(1300, 7);
        let mut parts = fresh();
        for part in whole.chunks(500) {
            parts.feed(part);
        }
        parts.truncate(1299);
        let mut at_once = fresh();
        assert_near(&at_once.feed(&whole), &parts.feed(&whole[1299..]));
    });
}

#[test]
fn a_conversation_is_not_computed_again_and_does_not_change() {
    with_model("llama", 64, |fresh| {
        let sampler = Sampler { temperature: 1.0, top_k: 20, seed: 3, ..Sampler::GREEDY };
        let mut generator = fresh();
        let answer = generator.generate(&ids(9, 5), 6, &[], &sampler, &mut |_| true);
        let next = [&ids(9, 5), answer.as_slice(), &[50, 51]].concat();
        let found = generator.generate(&next, 6, &[], &sampler, &mut |_| true);
        assert_eq!(found, fresh().generate(&next, 6, &[], &sampler, &mut |_| true));
        // The same prompt once more, as a retry asks: the last token alone is computed, and the answer is the same.
        assert_eq!(generator.generate(&next, 6, &[], &sampler, &mut |_| true), found);
        let other = Sampler { seed: 4, ..sampler };
        assert_ne!(generator.generate(&next, 6, &[], &other, &mut |_| true), found);
    });
}

#[test]
fn ends_limits_and_listeners_stop() {
    with_model("llama", 64, |fresh| {
        let greedy = fresh().greedy(&ids(9, 5), 8, &[], &mut |_| true);
        let generate = |limit, ends: &[u32], most: usize| {
            let mut heard = 0;
            let found = fresh().generate(&ids(9, 5), limit, ends, &Sampler::GREEDY, &mut |_| {
                heard += 1;
                heard < most
            });
            assert_eq!(found.len(), heard);
            found
        };
        assert_eq!(generate(8, &[], 99), greedy);
        assert_eq!(generate(3, &[], 99), greedy[..3]);
        assert_eq!(generate(8, &[], 2), greedy[..2]);
        let end = greedy.iter().position(|id| *id == greedy[4]).unwrap();
        assert_eq!(generate(8, &[greedy[4]], 99), greedy[..=end]);
        // 9 of 64 places are the prompt's; the last token needs none.
        assert_eq!(generate(1000, &[], 9999).len(), 56);
    });
}
