//! Learned prefixes and prompts as files, and in generation, against what PEFT writes and generates; fixtures/README.md tells
//! where its numbers come from.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::adapter::{Adapter, PromptKind, PromptStart, adapter_shard};
use luthier_model::checkpoint::{Checkpoint, encode, write_shard};
use luthier_model::config::Mixer;
use luthier_model::{Decoder, Generator, PromptSettings, Tuning};
use luthier_tensor::{DType, Device, Precision, Segment, Tape};
use serde_json::Value;
use support::logits::{device, largest_difference};
use support::{fixture, model_files, read, shared};

const CASES: [&str; 6] =
    ["prefix-llama", "prefix-projection-llama", "prompt-llama", "ptuning-llama", "prompt-gemma2", "prompt-granite"];

/// The model that a case trains.
fn model_of(case: &str) -> String {
    let found: Value = serde_json::from_slice(&read(&fixture("training").join(case).join("train.json"))).unwrap();
    found["settings"]["model"].as_str().unwrap().to_owned()
}

fn adapter(path: &str) -> Adapter {
    let folder = fixture("training").join(path);
    let weights = shared(read(&folder.join("adapter_model.safetensors")));
    Adapter::read("adapter", &read(&folder.join("adapter_config.json")), &weights).unwrap()
}

fn checkpoint(name: &str) -> Checkpoint {
    Checkpoint::from_files(&model_files(name)).unwrap()
}

/// The logits after each of some ids, in one forward pass.
fn logits(device: &Device, decoder: &Decoder, precision: Precision, ids: &[u32]) -> Vec<f32> {
    let mut tape = Tape::without_gradients(device, precision);
    let inputs = decoder.inputs(device, ids, vec![Segment::alone(0..ids.len())]);
    let hidden = decoder.hidden(&mut tape, &inputs, 0);
    let places: Vec<u32> = (0..ids.len() as u32).collect();
    device.download(&tape.logits(&hidden, &decoder.head_options(false), &device.upload_ids(&places)))
}

#[test]
fn greedy_tokens_are_those_that_peft_generates() {
    for case in CASES {
        let file = fixture("training").join(case).join("train.json");
        let found: Value = serde_json::from_slice(&read(&file)).unwrap();
        let ids = |key: &str| -> Vec<u32> {
            let list = found["generated"][key].as_array().unwrap().iter();
            list.map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let (device, checkpoint) = (device(), checkpoint(&model_of(case)));
        let adapter = adapter(&format!("{case}/adapter_final"));
        let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, Some(&adapter)).unwrap();
        let mut generator = Generator::new(&device, &decoder, Precision::F32, 28);
        let tokens = generator.greedy(&ids("prompt"), 20, &[], &mut |_| true);
        assert_eq!(tokens, ids("tokens"), "{case}");
    }
}

/// Feeds, goes back, and feeds something else: what is in the cache is what a forward pass computes, also where keys turn
/// with the length.
#[test]
fn generation_goes_on_from_a_prompt_and_back_to_it() {
    for model in ["llama", "llama-dynamic-rope", "mistral-window", "granite"] {
        let (device, checkpoint) = (device(), checkpoint(model));
        for (kind, network) in [(PromptKind::Prefix, None), (PromptKind::Prompt, None), (PromptKind::PTuning, Some(5))]
        {
            let settings = PromptSettings::new(kind, 4, network, PromptStart::Random, 9, &checkpoint.model.decoder);
            let decoder = Decoder::new(&device, &checkpoint, &Tuning::Prompt(settings), None).unwrap();
            let mut generator = Generator::new(&device, &decoder, Precision::F32, 40);
            let ids: Vec<u32> = (0..40).map(|index| 3 + index * 7 % 120).collect();
            for (kept, end) in [(0, 9), (9, 10), (10, 30), (6, 7), (0, 11), (11, 40)] {
                generator.truncate(kept);
                let found = generator.feed(&ids[kept..end]);
                let all = logits(&device, &decoder, Precision::F32, &ids[..end]);
                let far = largest_difference(&found, &all[all.len() - found.len()..]);
                assert!(far < 1e-4, "{model}, {kind:?}, {kept} and then {end}: {far}");
            }
        }
    }
}

#[test]
fn what_is_written_is_what_peft_writes_and_computes_the_same_to_the_byte() {
    for case in CASES {
        let folder = fixture("training").join(case).join("adapter_final");
        let (device, checkpoint) = (device(), checkpoint(&model_of(case)));
        let adapter = adapter(&format!("{case}/adapter_final"));
        let tuning = Tuning::Prompt(PromptSettings::of(adapter.prompt().unwrap(), 0));
        let config: Value = serde_json::from_slice(&tuning.adapter_config(model_of(case), None).unwrap()).unwrap();
        let expected: Value = serde_json::from_slice(&read(&folder.join("adapter_config.json"))).unwrap();
        assert_eq!(config, expected, "{case}");

        // Written and read again, it needs no network, and computes what the trained one does.
        let trained = Decoder::new(&device, &checkpoint, &tuning, Some(&adapter)).unwrap();
        let tensors = trained.adapter_tensors();
        let shard = adapter_shard(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice())));
        let mut bytes = Vec::new();
        write_shard(&shard, &mut bytes, &mut |spec, writer| {
            let tensor = tensors.iter().find(|tensor| tensor.name == spec.name).unwrap();
            writer.write_all(&encode(&device.download(&tensor.value), DType::F32).unwrap())
        })
        .unwrap();
        let again = Adapter::read("adapter", config.to_string().as_bytes(), &shared(bytes)).unwrap();
        let loaded = Decoder::new(&device, &checkpoint, &Tuning::Nothing, Some(&again)).unwrap();
        let goes_on = Decoder::new(&device, &checkpoint, &tuning, Some(&again)).unwrap();
        assert!(loaded.parameters().is_empty() && goes_on.parameters().count() == trained.parameters().count());
        let ids: Vec<u32> = (0..24).map(|place| (place * 37 + 5) % 128).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let all = [&trained, &loaded, &goes_on].map(|decoder| logits(&device, decoder, precision, &ids));
            assert!(all[0] == all[1] && all[1] == all[2], "{case}, {precision:?}");
        }
    }
}

#[test]
fn a_prompt_begins_with_the_tokens_of_its_text() {
    let (device, checkpoint) = (device(), checkpoint("granite"));
    let model = &checkpoint.model.decoder;
    let start = PromptStart::Text { text: "w".into(), ids: vec![7, 8, 9] };
    let settings = PromptSettings::new(PromptKind::Prompt, 5, None, start, 1, model);
    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Prompt(settings), None).unwrap();
    let plain = Decoder::new(&device, &checkpoint, &Tuning::Nothing, None).unwrap();
    let ids = [30, 31, 32];
    let with_text = [&[7, 8, 9, 7, 8], &ids[..]].concat();
    let (found, all) =
        (logits(&device, &decoder, Precision::F32, &ids), logits(&device, &plain, Precision::F32, &with_text));
    // Rows of the same text before them are the same model's, whatever scales them.
    let far = largest_difference(&found, &all[all.len() - found.len()..]);
    assert!(far < 1e-5, "{far}");

    let sampled = PromptSettings::new(PromptKind::Prompt, 5, None, PromptStart::Vocabulary, 1, model);
    let decoder = Decoder::new(&device, &checkpoint, &Tuning::Prompt(sampled), None).unwrap();
    let first = device.download(&decoder.parameters().iter().next().unwrap().value.slice_rows(0, 1));
    let table = device.download(checkpoint.tensors["model.embed_tokens.weight"].tensor());
    assert!(table.chunks(first.len()).any(|row| row == first), "a row of the embedding");
}

#[test]
fn a_prefix_before_a_recurrent_layer_is_refused() {
    let (device, mut checkpoint) = (device(), checkpoint("llama"));
    checkpoint.model.decoder.layers[1].mixer = Mixer::Recurrence;
    let decoder = |kind| {
        let settings = PromptSettings::new(kind, 5, None, PromptStart::Random, 1, &checkpoint.model.decoder);
        Decoder::new(&device, &checkpoint, &Tuning::Prompt(settings), None)
    };
    let refusal = decoder(PromptKind::Prefix).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "model: a learned prefix is keys and values, and layer 1 of this model is recurrent: it carries a state and has \
         none; use finetuning_type: prompt, whose rows go through every layer"
    );
    assert!(decoder(PromptKind::Prompt).is_ok());
}

#[test]
fn what_is_no_prompt_of_this_model_is_refused() {
    let folder = fixture("training/prefix-llama/adapter_final");
    let weights = shared(read(&folder.join("adapter_model.safetensors")));
    let refused = |key: &str, value: Value| {
        let mut config: Value = serde_json::from_slice(&read(&folder.join("adapter_config.json"))).unwrap();
        config[key] = value;
        Adapter::read("adapter", config.to_string().as_bytes(), &weights).unwrap_err().to_string()
    };
    assert_eq!(
        refused("num_virtual_tokens", 7.into()),
        "adapter/adapter_model.safetensors: tensor `prompt_embeddings` has shape [6, 64]; expected [7, 64], as \
         adapter_config.json says"
    );
    assert_eq!(
        refused("modules_to_save", vec!["lm_head"].into()),
        "adapter/adapter_config.json: `modules_to_save` is [\"lm_head\"], which is not supported: not beside a learned \
         prefix or prompt"
    );
    let adapter = adapter("prefix-llama/adapter_final");
    let error = Decoder::new(&device(), &checkpoint("qwen3"), &Tuning::Nothing, Some(&adapter)).unwrap_err();
    assert!(error.to_string().contains("the adapter is for another model"), "{error}");
}
