//! Learned prefixes, prompts and bottleneck adapters, and several adapters at once, as a user meets them: trained, resumed to
//! the byte, trained on, loaded, switched, and refused where they cannot be merged.

mod tiny_model;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A folder with a model, records, and settings.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    tiny_model::write(&folder.path().join("model"));
    let rows = "{\"instruction\": \"say w100\", \"output\": \"w101 w102 w103\"}\n{\"instruction\": \"w104\", \"output\": \"w105\"}\n";
    fs::write(folder.path().join("rows.jsonl"), rows.repeat(4)).expect("written");
    let settings = "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nper_device_train_batch_size: 3\n\
                    learning_rate: 1.0e-2\nmax_steps: 6\nsave_steps: 3\nval_size: 2\neval_steps: 3\nload_best_model_at_end: false\nthreads: 1\n";
    fs::write(folder.path().join("train.yaml"), settings).expect("written");
    folder
}

/// Runs the program with these words and this input; gives whether it succeeded, its output and its messages.
fn luthier(folder: &Path, words: &[&str], input: &str) -> (bool, String, String) {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(words)
        .current_dir(folder)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "hf")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("an input").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn trains(folder: &Path, words: &[&str]) -> String {
    let (succeeded, _, said) = luthier(folder, &[&["train", "train.yaml"], words].concat(), "");
    assert!(succeeded, "{said}");
    said
}

const METHODS: [&[&str]; 6] = [
    &["finetuning_type=prefix", "num_virtual_tokens=3"],
    &["finetuning_type=prefix", "num_virtual_tokens=3", "prefix_projection=true", "encoder_hidden_size=5"],
    &["finetuning_type=prompt", "num_virtual_tokens=3", "prompt_tuning_init_text=w99 w98"],
    &["finetuning_type=p_tuning", "num_virtual_tokens=3", "encoder_hidden_size=5"],
    &["finetuning_type=bottleneck", "bottleneck_size=3"],
    &["finetuning_type=bottleneck", "reduction_factor=8", "placement=houlsby", "bottleneck_activation=silu"],
];

#[test]
fn each_method_trains_resumes_to_the_byte_and_loads() {
    for method in METHODS {
        let folder = folder();
        let path = folder.path();
        trains(path, &[method, &["output_dir=whole"]].concat());
        trains(path, method);
        fs::remove_file(path.join("out/adapter_model.safetensors")).expect("removed");
        fs::remove_dir_all(path.join("out/checkpoint-6")).expect("removed");
        let said = trains(path, &[method, &["resume_from_checkpoint=true"]].concat());
        assert!(said.contains("note: going on from out/checkpoint-3 after step 3 of 6\n"), "{said}");
        let read = |name: &str| fs::read(path.join(name)).expect("read");
        for file in ["adapter_model.safetensors", "adapter_config.json"] {
            assert!(read(&format!("out/{file}")) == read(&format!("whole/{file}")), "{method:?}: {file}");
        }

        // What was saved is what goes on: the first loss of another run is that of this one's end.
        let more = [method, &["output_dir=more", "adapter_name_or_path=out", "eval_on_start=true"]].concat();
        trains(path, &more);
        let losses = |folder: &str| -> Vec<f64> {
            let log = fs::read_to_string(path.join(folder).join("trainer_log.jsonl")).expect("read");
            let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
            lines.filter_map(|line| line["eval_loss"].as_f64()).collect()
        };
        assert_eq!(losses("more").first(), losses("out").last(), "{method:?}");

        let generate = |adapter: &[&str]| {
            let words = ["generate", "--model", "model", "--prompt", "w100 w101", "--max-new-tokens", "8"];
            let (succeeded, text, said) = luthier(path, &[&words, adapter].concat(), "");
            assert!(succeeded, "{said}");
            text
        };
        assert!(!generate(&["--adapter", "out"]).is_empty());
        let (succeeded, _, said) =
            luthier(path, &["export", "--model", "model", "--adapter", "out", "--output", "merged"], "");
        assert!(!succeeded && said.contains("it cannot be merged: a "), "{said}");
        assert!(!path.join("merged").exists());
    }
}

#[test]
fn settings_that_contradict_each_other() {
    let folder = folder();
    let fails = |words: &[&str], expected: &str| {
        let (succeeded, _, said) = luthier(folder.path(), &[&["train", "train.yaml"], words].concat(), "");
        assert!(!succeeded && said.contains(expected), "{said}");
    };
    fails(
        &["finetuning_type=prompt", "prompt_tuning_init=TEXT"],
        "prompt_tuning_init: TEXT needs prompt_tuning_init_text, which is empty",
    );
    fails(
        &["finetuning_type=prompt", "prompt_tuning_init=RANDOM", "prompt_tuning_init_text=w99"],
        "prompt_tuning_init_text needs prompt_tuning_init: TEXT",
    );
    fails(
        &["finetuning_type=bottleneck", "bottleneck_size=4", "reduction_factor=2"],
        "bottleneck_size and reduction_factor both say how wide; expected one of them",
    );
    trains(folder.path(), &["output_dir=prefix", "finetuning_type=prefix"]);
    fails(
        &["finetuning_type=lora", "adapter_name_or_path=prefix"],
        "adapter_name_or_path is an adapter of finetuning_type: prefix; expected one of lora",
    );
}

#[test]
fn several_adapters_are_added_and_switched() {
    let folder = folder();
    let path = folder.path();
    trains(path, &["output_dir=one", "learning_rate=0.1"]);
    trains(path, &["output_dir=two", "learning_rate=0.1", "seed=7", "lora_rank=2"]);
    trains(path, &["output_dir=three", "finetuning_type=prompt", "num_virtual_tokens=3", "learning_rate=0.1"]);
    trains(path, &["output_dir=four", "finetuning_type=bottleneck", "learning_rate=0.1"]);
    let words = ["--model", "model", "--precision", "fp32", "--max-new-tokens", "8", "--temperature", "0"];
    let generate = |more: &[&str]| {
        let command = [&["generate", "--message", "say w100"], &words[..], more].concat();
        let (succeeded, text, said) = luthier(path, &command, "");
        assert!(succeeded, "{said}");
        text
    };
    let alone = ["one", "two", "three", "four"].map(|adapter| generate(&["--adapter", adapter]));
    let base = generate(&[]);
    let both = generate(&["--adapter", "one,two"]);
    assert_eq!(generate(&["--adapter", "one,two", "--adapter-weights", "1,0"]), alone[0]);
    assert_eq!(generate(&["--adapter", "one,two", "--adapter-weights", "0,0"]), base);
    assert_eq!(generate(&["--adapter", "two,one"]), both);

    // Four of them in memory, one after another, and the conversation begun again each time.
    let input = "/adapter\n/adapter one\nsay w100\n/clear\n/adapter three\nsay w100\n/clear\n/adapter none\nsay w100\n/clear\n\
                 /adapter four\nsay w100\n/clear\n/adapter one two\nsay w100\n/clear\n/adapter two\nsay w100\n/adapter nobody\n\
                 /adapter three four\n";
    let (succeeded, answers, said) =
        luthier(path, &[&["chat", "--adapter", "one,two,three,four"], &words[..]].concat(), input);
    assert!(succeeded, "{said}");
    let expected = [&alone[0], &alone[2], &base, &alone[3], &both, &alone[1]].map(String::as_str).concat();
    assert_eq!(answers, expected, "{said}");
    for sentence in [
        "note: the adapters: a learned prompt of 3 virtual tokens and bottleneck adapters of size 2 cannot be in use together; \
         choose one of them; the first adapter is in use, and /adapter switches\n",
        "* one: a LoRA adapter of rank 8, one\n  two: a LoRA adapter of rank 2, two\n  three: a learned prompt of 3 virtual \
         tokens, three\n",
        "in use: one + two\n",
        "in use: none\n",
        "/adapter: there is no adapter \"nobody\"; expected one, two, three, four, all or none\n",
    ] {
        assert!(said.contains(sentence), "{sentence}\n{said}");
    }
    let (succeeded, _, said) =
        luthier(path, &["generate", "--model", "model", "--prompt", "w99", "--adapter", "three,four"], "");
    assert!(!succeeded && said.contains("cannot be in use together"), "{said}");
}

#[test]
fn an_adapter_is_trained_on_top_of_another() {
    let folder = folder();
    let path = folder.path();
    trains(path, &["output_dir=one", "learning_rate=0.1"]);
    trains(path, &["output_dir=two", "learning_rate=0.1", "seed=7"]);
    let said = trains(path, &["output_dir=sum", "adapter_name_or_path=one,two", "learning_rate=0"]);
    assert!(said.contains("note: two is trained on and saved; one adds to the base and stays as it is"), "{said}");
    let read = |name: &str| fs::read(path.join(name).join("adapter_model.safetensors")).expect("read");
    assert!(read("sum") == read("two"), "a rate of zero changes nothing");
    let (succeeded, _, said) = luthier(
        path,
        &["train", "train.yaml", "output_dir=prompt", "finetuning_type=prompt", "adapter_name_or_path=one,two"],
        "",
    );
    assert!(!succeeded && said.contains("adapter_name_or_path is an adapter of finetuning_type: lora"), "{said}");
}
