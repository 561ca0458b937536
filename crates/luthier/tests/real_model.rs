//! The real SmolLM2-135M-Instruct from its GGUF file against what transformers computed with the same weights
//! (`fixtures/smollm2.json`: transformers 5.6.0, torch 2.11, float32), and a fine-tuning of it. `cargo xtask assets`
//! fetches model and data; `cargo xtask ci` runs these tests where they are there.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::path::{Path, PathBuf};
use std::process::Command;

use luthier_data::{
    ChatTemplate, Dataset, Example, GgufTokenizer, Message, ReadOptions, Role, SftOptions, Specials, TemplateOptions,
    Tokenizer, Truncation, tokenize_sft,
};
use luthier_model::{Adapter, Checkpoint, Decoder, Generator, Tuning};
use luthier_tensor::{CpuOptions, Device, Isa, Precision, Tape};
use luthier_train::{MicroBatch, Row, evaluate};
use serde_json::Value;

fn assets() -> PathBuf {
    std::env::var_os("LUTHIER_ASSETS").map_or_else(|| root().join("assets"), PathBuf::from)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model_path() -> PathBuf {
    assets().join("SmolLM2-135M-Instruct.Q4_1.gguf")
}

struct Real {
    device: Device,
    decoder: Decoder,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    reference: Value,
}

impl Real {
    fn open(adapter: Option<&Adapter>) -> Self {
        let isa = std::env::var("LUTHIER_CPU").map_or_else(|_| Isa::detect(), |name| Isa::named(&name).unwrap());
        let options = CpuOptions { threads: 2, isa, memory_bytes: 8 << 30, poison: false };
        let device = Device::cpu(options, None).unwrap();
        let checkpoint = Checkpoint::from_files(&luthier_files::read_model(&model_path()).unwrap()).unwrap();
        let decoder = Decoder::new(&device, &checkpoint, &Tuning::Nothing, adapter).unwrap();
        let found = checkpoint.gguf_tokenizer.unwrap();
        let tokenizer = Tokenizer::from_gguf(&GgufTokenizer {
            model: found.model,
            pre: found.pre,
            tokens: found.tokens,
            token_types: found.token_types,
            merges: found.merges,
            scores: found.scores,
            begin_id: found.bos,
            end_id: found.eos,
            unknown_id: found.unknown,
            padding_id: found.padding,
            add_begin: found.add_bos,
            add_end: found.add_eos,
            add_space_prefix: found.add_space_prefix,
            chat_template: found.chat_template,
            ..GgufTokenizer::default()
        })
        .unwrap();
        let template = ChatTemplate::choose(None, "SmolLM2", &tokenizer, &TemplateOptions::default()).unwrap();
        let text = std::fs::read(root().join("fixtures/smollm2.json")).unwrap();
        Self { device, decoder, tokenizer, template, reference: serde_json::from_slice(&text).unwrap() }
    }

    fn examples(&self, dataset: &str, rows: usize, cutoff_len: usize) -> Vec<Example> {
        let folder = assets().join("data");
        let reading = ReadOptions { folder: &folder, strict: true, max_samples: Some(rows), seed: 42 };
        let dataset = Dataset::open(dataset, &reading).unwrap();
        let options = SftOptions {
            cutoff_len,
            truncation: Truncation::Right,
            train_on_prompt: false,
            mask_history: false,
            role_weights: None,
            roles: false,
        };
        tokenize_sft(&[dataset], &self.tokenizer, &self.template, &options).unwrap().examples
    }

    /// Each row's negative log-probabilities of its reply.
    fn losses(&self, examples: &[Example]) -> Vec<Vec<f64>> {
        let losses = |example: &Example| {
            let row = Row::new(&example.ids, &example.trained, 0);
            let outputs = evaluate(&self.device, &self.decoder, Precision::F32, &MicroBatch::of(&[row]));
            outputs.iter().map(|values| -f64::from(values[0])).collect()
        };
        examples.iter().map(losses).collect()
    }

    /// Lengths and losses of rows against the reference's; returns the mean over all reply tokens.
    fn compare_rows(&self, key: &str, dataset: &str, cutoff_len: usize) -> f64 {
        let expected = self.reference[key]["rows"].as_array().unwrap();
        let examples = self.examples(dataset, expected.len(), cutoff_len);
        let losses = self.losses(&examples);
        for (index, ((example, losses), expected)) in examples.iter().zip(&losses).zip(expected).enumerate() {
            assert_eq!(example.ids.len() as u64, expected["n"].as_u64().unwrap(), "{key} row {index}: tokens");
            assert_eq!(losses.len() as u64, expected["n_label"].as_u64().unwrap(), "{key} row {index}: trained");
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            let far = (mean - expected["loss"].as_f64().unwrap()).abs();
            assert!(far < 0.005, "{key} row {index}: loss {mean}, expected {}", expected["loss"]);
        }
        mean(&losses)
    }
}

fn mean(losses: &[Vec<f64>]) -> f64 {
    let all: Vec<f64> = losses.concat();
    all.iter().sum::<f64>() / all.len() as f64
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn tokens_logits_and_greedy_continuations_are_those_of_transformers() {
    let real = Real::open(None);
    for prompt in real.reference["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let numbers = |key: &str| -> Vec<u32> {
            prompt[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let ids = real.tokenizer.encode(text, Specials::None).unwrap();
        assert_eq!(ids, numbers("ids"), "{text}");

        let mut tape = Tape::without_gradients(&real.device, Precision::F32);
        let inputs = real.decoder.inputs(&real.device, &ids, vec![luthier_tensor::Segment::alone(0..ids.len())]);
        let hidden = real.decoder.hidden(&mut tape, &inputs, 0);
        let last = real.device.upload_ids(&[ids.len() as u32 - 1]);
        let logits = tape.logits(&hidden, &real.decoder.head_options(false), &last);
        let logits = real.device.download(&logits);
        for pair in prompt["top10"].as_array().unwrap() {
            let (id, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
            let far = (f64::from(logits[id]) - expected).abs();
            assert!(far < 1e-3, "{text:?}: logit of {id} is {}, expected {expected}", logits[id]);
        }
        let trained = vec![true; ids.len()];
        let row = Row::new(&ids, &trained, 0);
        let outputs = evaluate(&real.device, &real.decoder, Precision::F32, &MicroBatch::of(&[row]));
        let expected = prompt["logprobs"].as_array().unwrap();
        assert_eq!(outputs.len(), expected.len());
        for (values, expected) in outputs.iter().zip(expected) {
            let far = (f64::from(values[0]) - expected.as_f64().unwrap()).abs();
            assert!(far < 1e-3, "{text:?}: log-probability {}, expected {expected}", values[0]);
        }

        let expected = numbers("greedy16");
        let margins = prompt["greedy_margins"].as_array().unwrap();
        let sure = margins.iter().position(|margin| margin.as_f64().unwrap() < 0.01).unwrap_or(margins.len());
        let mut generator = Generator::new(&real.device, &real.decoder, Precision::F32, ids.len() + expected.len());
        let found = generator.greedy(&ids, expected.len(), &[], &mut |_| true);
        assert_eq!(found[..sure], expected[..sure], "{text}");
    }
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn reply_losses_are_those_of_transformers() {
    let real = Real::open(None);
    let mean = real.compare_rows("identity_rows", "identity.json", 128);
    let expected = real.reference["identity_rows"]["token_mean"].as_f64().unwrap();
    assert!((mean - expected).abs() < 0.005, "mean reply loss {mean}, expected {expected}");
    let mean = real.compare_rows("alpaca_en_demo_first8", "alpaca_en_demo.json", 512);
    let expected = real.reference["alpaca_en_demo_first8"]["token_mean"].as_f64().unwrap();
    assert!((mean - expected).abs() < 0.005, "mean reply loss {mean}, expected {expected}");
}

/// Writes the settings of a training on the identity rows.
fn identity(folder: &Path, output: &Path) -> PathBuf {
    let config = folder.join("identity.yaml");
    let text = format!(
        "model_name_or_path: {}\nstage: sft\nfinetuning_type: lora\ndataset: identity.json\ndataset_dir: {}\n\
         lora_rank: 8\nlora_alpha: 16\nlora_target: all\nlearning_rate: 1.0e-3\nmax_steps: 46\n\
         per_device_train_batch_size: 4\nlr_scheduler_type: constant\ncutoff_len: 128\nlogging_steps: 10\noutput_dir: {}\n",
        model_path().display(),
        assets().join("data").display(),
        output.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

/// Runs the program and returns what it wrote to standard output.
fn luthier(arguments: &[&str]) -> String {
    let found = Command::new(env!("CARGO_BIN_EXE_luthier")).args(arguments).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8_lossy(&found.stdout).into_owned()
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn the_process_takes_what_was_planned() {
    let folder = tempfile::tempdir().unwrap();
    let config = identity(folder.path(), &folder.path().join("adapter"));
    for precision in ["precision=fp32", "precision=bf16"] {
        let arguments = ["bench", config.to_str().unwrap(), "max_steps=3", "per_device_train_batch_size=16", precision];
        let report: Value = serde_json::from_str(&luthier(&arguments)).unwrap();
        let bytes = |key: &str| report[key].as_f64().unwrap();
        let (used, planned) = (bytes("peak_bytes"), bytes("predicted_bytes"));
        assert!(used <= planned && used >= 0.9 * planned, "{precision}: {used} bytes used, {planned} planned");
    }
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn lora_teaches_the_model_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("adapter");
    let config = identity(folder.path(), &output);
    luthier(&["train", config.to_str().unwrap()]);
    let log = std::fs::read_to_string(output.join("trainer_log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 5, "{log}");

    let adapter = luthier_files::read_adapter(&output).unwrap();
    let real = Real::open(Some(&adapter));
    let loss = mean(&real.losses(&real.examples("identity.json", usize::MAX, 128)));
    assert!(loss <= 0.55, "mean reply loss after training: {loss}");

    let model = model_path();
    let adapter = output.to_str().unwrap();
    let answer =
        luthier(&["generate", "--model", model.to_str().unwrap(), "--adapter", adapter, "--message", "Who are you?"]);
    assert!(answer.contains("Ferris") && answer.contains("Rust Tuner"), "{answer}");
    let prompt = real.template.render(&[Message::new(Role::User, "Who are you?")], &[], true).unwrap().text;
    assert!(prompt.ends_with("<|im_start|>assistant\n"), "{prompt}");
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn a_chat_stops_where_it_is_told_to() {
    let model = model_path();
    let model = model.to_str().unwrap();
    let question = "What is the capital of France?";
    let sampling = ["--temperature", "0", "--max-new-tokens", "24", "--precision", "fp32"];
    let chat = ["chat", "--model", model, "--prompt", question];
    let answer = luthier(&[&chat[..], &sampling].concat());
    assert!(answer.contains("Paris"), "{answer}");
    // The same model, template and choice of tokens as a single message has.
    let generate = ["generate", "--model", model, "--message", question];
    assert_eq!(answer, luthier(&[&generate[..], &sampling].concat()));
    let (before, _) = answer.split_once("Paris").unwrap();
    assert_eq!(luthier(&[&chat[..], &sampling, &["--stop", "Paris"]].concat()), format!("{before}\n"));
}
