//! Packed rows learn what rows alone learn: on the built-in model, with drawn conversations, every token of a packed row
//! has the loss that it has in a row of its own, to the last bit; and the loss of a step is that of its rows.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use luthier_data::{
    ChatTemplate, Dataset, Example, Message, Record, Role, RoleWeights, SftOptions, TemplateOptions, Tokenizer,
    Truncation, first_fit_decreasing, permutation, tokenize_sft,
};
use luthier_model::checkpoint::ModelFiles;
use luthier_model::{Checkpoint, Decoder, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision, SharedBytes};
use luthier_train::{MicroBatch, Row, Step, accumulate, evaluate};

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../builtin/model").join(file)).unwrap()
}

/// Conversations of a few turns, with replies and questions that weigh differently.
fn examples() -> Vec<Example> {
    let tokenizer =
        Tokenizer::from_json(&bytes("tokenizer.json"), Some(&bytes("tokenizer_config.json")), None).unwrap();
    let template = ChatTemplate::choose(None, "builtin", &tokenizer, &TemplateOptions::default()).unwrap();
    let (mut seed, words) = (11_u64, ["yes", "no", " four", " the capital", "\n", "é", " 12", "?"]);
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut records = Vec::new();
    for _ in 0..40 {
        let mut messages = Vec::new();
        for turn in 0..2 * (1 + random(3)) {
            let text: String = (0..1 + random(12)).map(|_| words[random(words.len())]).collect();
            messages.push(Message::new(if turn % 2 == 0 { Role::User } else { Role::Assistant }, text));
        }
        records.push(Record::Conversation(messages.into()));
    }
    let dataset = Dataset { name: "drawn".to_owned(), records, ..Dataset::default() };
    let options = SftOptions {
        cutoff_len: 128,
        truncation: Truncation::LlamaFactory,
        train_on_prompt: false,
        mask_history: false,
        role_weights: Some(RoleWeights { user: 0.25, ..RoleWeights::default() }),
        roles: false,
    };
    tokenize_sft(&[dataset], &tokenizer, &template, &options).unwrap().examples
}

fn row(example: &Example) -> Row<'_> {
    Row { weights: example.weights.as_deref(), ..Row::new(&example.ids, &example.trained, 0) }
}

#[test]
fn packed_rows_have_the_losses_of_rows_alone() {
    let small = ["config.json", "model.safetensors"];
    let files: BTreeMap<String, SharedBytes> =
        small.map(|file| (file.to_owned(), Arc::new(bytes(file)) as SharedBytes)).into_iter().collect();
    let checkpoint = Checkpoint::from_files(&ModelFiles { label: "builtin".to_owned(), files }).unwrap();
    let options = CpuOptions { threads: 2, isa: Isa::detect(), memory_bytes: 1 << 30, poison: true };
    let device = Device::cpu(options, None).unwrap();
    let examples = examples();
    let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    let bins = first_fit_decreasing(&lengths, 256, &permutation(42, 0, lengths.len()));
    assert!(bins.len() < examples.len() / 2, "{} rows of {} examples", bins.len(), examples.len());
    let packed: Vec<MicroBatch> = (0..bins.len())
        .map(|bin| MicroBatch::of(&bins.row(bin).iter().map(|&member| row(&examples[member])).collect::<Vec<_>>()))
        .collect();
    let alone: Vec<MicroBatch> = examples.iter().map(|example| MicroBatch::of(&[row(example)])).collect();

    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None).unwrap();
    let bits = |part: &MicroBatch| -> Vec<u32> {
        let values = evaluate(&device, &decoder, Precision::F32, part);
        values.into_iter().flat_map(|values| values.map(f32::to_bits)).collect()
    };
    for (bin, part) in packed.iter().enumerate() {
        let expected: Vec<u32> = bins.row(bin).iter().flat_map(|&member| bits(&alone[member])).collect();
        assert!(bits(part) == expected, "row {bin}");
    }

    // A step over all of them: its loss is the weighted mean of what was found for each token.
    let (mut sum, mut weight) = (0.0, 0.0);
    for part in &alone {
        for (target, values) in evaluate(&device, &decoder, Precision::F32, part).into_iter().enumerate() {
            sum -= f64::from(values[0]) * f64::from(part.weight(target));
            weight += f64::from(part.weight(target));
        }
    }
    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Full, None).unwrap();
    let step = Step::default();
    for parts in [&packed, &alone] {
        let loss = f64::from(device.download(&accumulate(&device, &decoder, parts, &step))[0]);
        assert!((loss - sum / weight).abs() < 1e-6 * loss, "{loss} and {}", sum / weight);
    }
}
