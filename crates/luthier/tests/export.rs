//! `luthier export` as a user runs it: whole outputs, the files that are left, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn fixture(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// A folder with a small model, its tokenizer, and an adapter.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str, names: &[&str]| {
        fs::create_dir(folder.path().join(to)).unwrap();
        for name in names {
            fs::copy(fixture(from).join(name), folder.path().join(to).join(name)).unwrap();
        }
    };
    copy("models/llama", "model", &["config.json", "model.safetensors"]);
    copy("training/lora-llama/adapter_final", "adapter", &["adapter_config.json", "adapter_model.safetensors"]);
    let write =
        |name: &str, value: Value| fs::write(folder.path().join("model").join(name), value.to_string()).unwrap();
    write("tokenizer.json", tokenizer());
    let config = json!({ "bos_token": null, "eos_token": "<|im_end|>", "chat_template": CHATML });
    write("tokenizer_config.json", config);
    folder
}

/// Three special tokens and the letters of ASCII in the alphabet of byte-level vocabularies.
fn tokenizer() -> Value {
    let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
    let letters = (b'!'..=b'~').map(|letter| char::from(letter).to_string());
    let all = specials.into_iter().map(str::to_owned).chain(["Ġ".to_owned(), "Ċ".to_owned()]).chain(letters);
    let mut vocabulary: Vec<String> = all.collect();
    vocabulary.extend(["th".to_owned(), "Ġth".to_owned()]);
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let added = specials.iter().enumerate().map(|(id, token)| {
        json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": ids, "merges": [["t", "h"], ["Ġ", "th"]] },
    })
}

fn luthier(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luthier")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs an export that succeeds; returns standard output and standard error.
#[track_caller]
fn export(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = luthier(folder, &[&["export"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Runs an export that fails, and compares all that it says.
#[track_caller]
fn fails(folder: &Path, arguments: &[&str], code: i32, stderr: &str) {
    let output = luthier(folder, &[&["export"], arguments].concat());
    assert_eq!(text(&output.stderr), stderr);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("", Some(code)));
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The numbers of a replay: largest difference, agreement in percent, both perplexities.
fn replay(stdout: &str) -> [f64; 4] {
    let after = |what: &str| stdout.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap().trim().to_owned();
    let number = |text: &str| text.trim().parse::<f64>().unwrap();
    let perplexities = after("perplexity before, after");
    let (before, behind) = perplexities.split_once(',').unwrap();
    [
        number(&after("largest logit difference")),
        number(after("most likely token agrees").split('%').next().unwrap()),
        number(before),
        number(behind),
    ]
}

#[test]
fn an_adapter_is_merged_into_a_folder() {
    let folder = folder();
    let (stdout, stderr) =
        export(folder.path(), &["--model", "model", "--adapter", "adapter", "--output", "merged", "--outtype", "f32"]);
    let files = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(&folder.path().join("merged")), files);
    assert_eq!(
        stderr,
        "merge: 14 of 21 tensors change, in f32, rounded once to f32\n\
         numbers: f32, as most of the base's\n\
         writing merged: 0.00 GB in 21 tensors\n\
         replaying 32 prompts through both models\n"
    );
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0], format!("exported to merged: {}", files.join(", ")));
    assert_eq!(
        lines[1],
        "replay of 32 prompts through the chat template, the base with its adapter unmerged against the exported files:"
    );
    let [far, agreement, before, after] = replay(&stdout);
    assert!(far < 1e-4 && agreement == 100.0 && (before - after).abs() < 1e-2, "{stdout}");
    let card = fs::read_to_string(folder.path().join("merged/README.md")).unwrap();
    assert!(card.starts_with("---\nbase_model: \"model\"\nlibrary_name: transformers\n"), "{card}");
    assert!(card.contains("| most likely token agrees | 100.00 % ("), "{card}");
    assert_eq!(names(folder.path()), ["adapter", "merged", "model"], "nothing else is left");

    // What was exported is a model like any other.
    let arguments = ["generate", "--model", "merged", "--message", "hi", "--max-new-tokens", "2"];
    assert!(luthier(folder.path(), &arguments).status.success());
}

#[test]
fn shards_are_limited_and_training_files_go_into_the_card() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join("adapter").join(name), text).unwrap();
    write("run.json", r#"{"settings": {"lora_rank": 4}, "data": [{"file": "faq.json", "rows": 7}]}"#);
    write("train_results.json", r#"{"train_loss": 1.25, "epoch": 3.0}"#);
    fs::write(folder.path().join("model/README.md"), "---\nlicense: apache-2.0\n---\n").unwrap();
    fs::write(
        folder.path().join("merge.yaml"),
        "### as LLaMA-Factory's examples/merge_lora\nmodel_name_or_path: model\nadapter_name_or_path: adapter\n\
         template: qwen3_nothink\ntrust_remote_code: true\n\nexport_dir: saves/merged\nexport_size: 5\nexport_device: cpu\n\
         export_legacy_format: false\n",
    )
    .unwrap();
    let (stdout, stderr) = export(folder.path(), &["merge.yaml", "export_size=0.00003"]);
    assert!(
        stderr.starts_with(
            "note: trust_remote_code has no effect: no code of a model is ever run\n\
             note: template qwen3_nothink: the model's own chat template writes the same and is kept, since it writes tools too\n"
        ),
        "{stderr}"
    );
    let merged = folder.path().join("saves/merged");
    let shards = names(&merged).into_iter().filter(|name| name.ends_with(".safetensors")).count();
    assert!(shards > 1, "{stdout}");
    assert!(names(&merged).contains(&"model.safetensors.index.json".to_owned()));
    let card = fs::read_to_string(merged.join("README.md")).unwrap();
    for line in ["license: apache-2.0", "| settings.lora_rank | 4 |", "| data.1.rows | 7 |", "| train_loss | 1.25 |"] {
        assert!(card.contains(line), "{line} in {card}");
    }
}

#[test]
fn a_gguf_file_with_its_modelfile() {
    let folder = folder();
    let arguments =
        ["--model", "model", "--adapter", "adapter", "--output", "small.gguf", "--outtype", "q8_0", "--modelfile"];
    let (stdout, stderr) = export(folder.path(), &arguments);
    assert_eq!(
        stderr,
        "merge: 14 of 21 tensors change, in f32, rounded once to q8_0\n\
         numbers: quantised from f32 to q8_0: 8 bits in blocks of 32 with one scale each\n\
         writing small.gguf: 0.00 GB in 21 tensors\n\
         replaying 32 prompts through both models\n\
         note: Modelfile: the chat template is chatml's, written as Ollama's TEMPLATE\n\
         next: ollama create small -f ./small.Modelfile\n"
    );
    let [far, agreement, before, after] = replay(&stdout);
    assert!(far > 0.0 && far < 0.2 && agreement > 90.0 && (before / after - 1.0).abs() < 0.01, "{stdout}");
    assert_eq!(names(folder.path()), ["adapter", "model", "small.Modelfile", "small.gguf", "small.md"]);
    assert_eq!(
        fs::read_to_string(folder.path().join("small.Modelfile")).unwrap(),
        "FROM ./small.gguf\nTEMPLATE \"\"\"{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}\
         {{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n\
         {{ .Response }}<|im_end|>\n\"\"\"\nPARAMETER stop \"<|im_start|>\"\nPARAMETER stop \"<|im_end|>\"\n"
    );

    // The GGUF file is a base itself: back to a folder, said to be quantised.
    let (stdout, stderr) = export(folder.path(), &["--model", "small.gguf", "--output", "back"]);
    assert!(
        stderr.contains(
            "numbers: the base is quantised to q8_0; its numbers are decoded and stored as bf16, which takes more room and does \
             not bring back what quantising lost\n"
        ),
        "{stderr}"
    );
    assert!(replay(&stdout)[1] > 90.0, "{stdout}");
    assert!(names(&folder.path().join("back")).contains(&"tokenizer.json".to_owned()));
    // And to another GGUF file, in a folder of its own.
    export(folder.path(), &["--model", "small.gguf", "--output", "again", "--format", "gguf", "--outtype", "f16"]);
    assert_eq!(names(&folder.path().join("again")), ["README.md", "again-F16.gguf"]);
}

/// A quantised file is tuned and written back as it was: types, bytes, metadata; what is quantised anew is said.
#[test]
fn a_quantised_file_keeps_the_type_of_each_tensor() {
    let folder = folder();
    let (_, stderr) = export(folder.path(), &["--model", "model", "--output", "base.gguf", "--outtype", "q4_0"]);
    assert!(
        stderr.starts_with(
            "numbers: quantised from f32 to q4_0: 15 q4_0, 5 f32, 1 q8_0\n\
             note: 1 matrix is stored in q8_0 instead of q6_k: its rows are no multiple of 256 numbers\n"
        ),
        "{stderr}"
    );
    let (_, stderr) = export(folder.path(), &["--model", "base.gguf", "--output", "copy.gguf"]);
    assert!(stderr.starts_with("numbers: all 21 tensors of the base are copied byte for byte\n"), "{stderr}");
    let arguments = ["--model", "base.gguf", "--adapter", "adapter", "--output", "tuned"];
    let (stdout, stderr) = export(folder.path(), &[&arguments[..], &["--format", "gguf"]].concat());
    assert!(
        stderr.starts_with(
            "merge: 14 of 21 tensors change, in f32, rounded once to the type that each has in the base\n\
             numbers: 14 q4_0 are quantised anew, each to the type that it had; the other 7 are copied byte for byte\n"
        ),
        "{stderr}"
    );
    assert_eq!(names(&folder.path().join("tuned")), ["README.md", "tuned-Q4_0.gguf"]);
    assert!(replay(&stdout)[0] > 0.0 && stdout.contains("\n  mean change by the adapter "), "{stdout}");
    let sizes = ["base.gguf", "copy.gguf", "tuned/tuned-Q4_0.gguf"].map(|name| fs::metadata(folder.path().join(name)));
    let [base, copy, tuned] = sizes.map(|size| size.unwrap().len());
    assert!(base == copy && copy == tuned, "{base}, {copy}, {tuned}");
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = folder();
    let arguments = ["--model", "model", "--output", "out"];
    export(folder.path(), &arguments);
    let there = "error: --output: out already exists; choose another path or give --overwrite\n";
    fails(folder.path(), &arguments, 1, there);
    export(folder.path(), &[&arguments[..], &["--overwrite"]].concat());
    for name in ["thesis.docx", "notes.md", "data.json", "other-F16.gguf", "model-1.safetensors"] {
        let path = folder.path().join("out").join(name);
        fs::write(&path, "").unwrap();
        let expected = format!("error: --output: out holds {name}, which no export writes; choose another path\n");
        fails(folder.path(), &[&arguments[..], &["--overwrite"]].concat(), 1, &expected);
        fs::remove_file(&path).unwrap();
    }
    // A model that was downloaded or trained is not one that was exported.
    fs::write(folder.path().join("out/README.md"), "# A model\n").unwrap();
    fails(
        folder.path(),
        &[&arguments[..], &["--overwrite"]].concat(),
        1,
        "error: --output: out is not known as an export, since it has no README.md that says \"exported by Luthier\"; choose \
         another path\n",
    );
    fails(
        folder.path(),
        &["--model", "model", "--output", "model", "--overwrite"],
        1,
        "error: --output: model holds the model or the adapter itself; choose another path\n",
    );
}

#[test]
fn wrong_arguments() {
    let folder = folder();
    fails(
        folder.path(),
        &["--model", "nowhere", "--adapter", "none", "--output", "out"],
        1,
        "error: --model: nowhere does not exist; expected a Hugging Face folder, a GGUF file, or org/name of the hub\n\
         error: --adapter: none does not exist; expected a PEFT adapter folder\n",
    );
    fails(
        folder.path(),
        &["--model", "model", "--output", "out", "--outtype", "q8_0", "--modelfile"],
        1,
        "error: --outtype: q8_0 exists in GGUF files only; expected f32, f16 or bf16, or --format gguf\n\
         error: --modelfile: Ollama reads GGUF files; expected --format gguf besides\n",
    );
    fails(
        folder.path(),
        &["--model", "model", "--output", "out", "--max-shard-size", "5"],
        2,
        "error: invalid value '5' for '--max-shard-size <SIZE>': expected a size with its unit, such as 5GB, 500MB or 2GiB\n\n\
         For more information, try '--help'.\n",
    );
    fs::write(
        folder.path().join("merge.yaml"),
        "export_dri: out\nexport_legacy_format: true\nexport_quantization_bit: 4\nexport_size: many\n",
    )
    .unwrap();
    fails(
        folder.path(),
        &["merge.yaml"],
        1,
        "error: merge.yaml, line 1: there is no setting \"export_dri\" of an export; did you mean \"export_dir\"? (`luthier \
         export --help` lists all)\n\
         error: merge.yaml, line 2: export_legacy_format is refused: it writes pickles, which can execute code while they are \
         loaded; safetensors are written\n\
         error: merge.yaml, line 3: export_quantization_bit is refused: GPTQ, which quantises with data, is not built in; --format \
         gguf --outtype q4_k_m stores 4 bits without, q8_0 8 bits\n\
         error: merge.yaml, line 4: export_size is \"many\"; expected gigabytes of one file, more than 0\n",
    );
    fails(folder.path(), &["merge.yaml", "--model", "model"], 2, CONFLICT);
    assert_eq!(names(folder.path()), ["adapter", "merge.yaml", "model"]);
}

const CONFLICT: &str = "\
error: the argument '[CONFIG.yaml]' cannot be used with '--model <PATH>'

Usage: luthier export <CONFIG.yaml> [key=value]...

For more information, try '--help'.
";

#[test]
fn models_that_cannot_be_exported() {
    let folder = folder();
    let model = folder.path().join("model");
    let gguf = ["--model", "model", "--output", "m.gguf"];
    fs::copy(fixture("models/qwen3/config.json"), model.join("config.json")).unwrap();
    fs::copy(fixture("models/qwen3/model.safetensors"), model.join("model.safetensors")).unwrap();
    fails(
        folder.path(),
        &["--model", "model", "--adapter", "adapter", "--output", "out"],
        1,
        "error: model: the adapter is for another model: its `model.layers.0.self_attn.q_proj.lora_B.weight` has shape [32, 4]; \
         expected [64, 4]\n",
    );
    // A token that no prompt has.
    let stray = tokenizer().to_string().replace("\"~\":98", "\"~\":999");
    fs::write(model.join("tokenizer.json"), &stray).unwrap();
    fails(
        folder.path(),
        &gguf,
        1,
        "error: model: tokenizer: tokenizer.json: token \"~\" has the id 999, but the model knows 128 tokens; the tokenizer \
         belongs to another model\n",
    );
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    fails(
        folder.path(),
        &gguf,
        1,
        "error: model: tokenizer.json is missing, and a GGUF file contains the tokenizer; expected it in the same folder\n",
    );
    // A folder needs none: the replay then takes arbitrary tokens.
    let (stdout, stderr) = export(folder.path(), &["--model", "model", "--output", "out"]);
    assert!(stderr.starts_with("note: the model has no tokenizer.json, so the export has none either\n"), "{stderr}");
    assert!(
        stdout.contains("of arbitrary tokens, as there is no tokenizer, the base against the exported files:"),
        "{stdout}"
    );
    let [far, agreement, ..] = replay(&stdout);
    assert_eq!((far, agreement), (0.0, 100.0), "bf16 goes to bf16 as it is");
}

#[test]
fn a_folder_with_a_gguf_file_means_that_file() {
    let folder = folder();
    fs::create_dir(folder.path().join("files")).unwrap();
    export(folder.path(), &["--model", "model", "--output", "files/one.gguf", "--pre", "gpt-2"]);
    let (said, _) = export(folder.path(), &["--model", "files", "--output", "again"]);
    assert!(said.contains("exported to again"), "{said}");
    fs::copy(folder.path().join("files/one.gguf"), folder.path().join("files/two.gguf")).unwrap();
    let expected = "error: --model: files has several GGUF files; name one, such as files/one.gguf or files/two.gguf\n";
    fails(folder.path(), &["--model", "files", "--output", "more"], 1, expected);
}

#[test]
fn a_chat_template_that_cannot_be_used_is_kept() {
    for template in ["{% if %}", "{{ raise_exception('not like this') }}"] {
        let folder = folder();
        let config = json!({ "bos_token": null, "eos_token": "<|im_end|>", "chat_template": template });
        fs::write(folder.path().join("model/tokenizer_config.json"), config.to_string()).unwrap();
        for arguments in [&["--output", "out"][..], &["--output", "out.gguf", "--modelfile"]] {
            let (stdout, stderr) = export(folder.path(), &[&["--model", "model"], arguments].concat());
            let note = "note: the chat template is kept as it is, and the replay takes plain text: ";
            assert_eq!(stderr.matches(note).count(), 1, "{stderr}");
            assert!(!stderr.contains("warning") && stdout.contains(" prompts as plain text, "), "{stderr}");
        }
        let kept: Value =
            serde_json::from_slice(&fs::read(folder.path().join("out/tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(kept["chat_template"], template);
    }
}

#[test]
fn a_template_is_given_to_a_model_without_one() {
    let folder = folder();
    let config = json!({ "bos_token": null, "eos_token": "<|im_end|>" });
    fs::write(folder.path().join("model/tokenizer_config.json"), config.to_string()).unwrap();
    let arguments = ["--model", "model", "--output", "out", "--template", "chatml"];
    let (stdout, _) = export(folder.path(), &arguments);
    assert!(stdout.contains("through the chat template"), "{stdout}");
    let given = fs::read_to_string(folder.path().join("out/chat_template.jinja")).unwrap();
    assert!(given.contains("<|im_start|>"), "{given}");
    let output = luthier(folder.path(), &["export", "--model", "model", "--output", "b", "--template", "chatty"]);
    assert!(text(&output.stderr).starts_with("error: ") && !folder.path().join("b").exists());
}

#[test]
fn a_template_that_was_named_replaces_one_that_writes_something_else() {
    let folder = folder();
    fs::write(folder.path().join("model/chat_template.jinja"), CHATML).unwrap();
    let (stdout, stderr) = export(folder.path(), &["--model", "model", "--output", "out", "--template", "alpaca"]);
    assert!(
        stderr.contains("note: template alpaca: the chat template of model itself writes a plain conversation"),
        "{stderr}"
    );
    assert!(stderr.contains("note: the export has the template alpaca, written in Jinja"), "{stderr}");
    assert!(!stderr.contains("warning"), "{stderr}");
    assert!(stdout.contains("through the chat template"), "{stdout}");
    let given = fs::read_to_string(folder.path().join("out/chat_template.jinja")).unwrap();
    assert!(given.contains("### Instruction:") && !given.contains("<|im_start|>"), "{given}");
}

#[test]
fn numbers_that_are_none_are_told() {
    let folder = folder();
    let path = folder.path().join("model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    // Every number a NaN, in bf16 as in f32.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let (stdout, stderr) = export(folder.path(), &["--model", "model", "--output", "out"]);
    assert!(stdout.contains("most likely token agrees   0.00 %"), "{stdout}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("warning: logits that are no finite numbers stand at "), "{stderr}");
    assert!(last.ends_with("do not use these files: the model or the adapter itself is damaged"), "{stderr}");
}

#[test]
fn logits_go_into_a_file() {
    let folder = folder();
    let output = luthier(folder.path(), &["logits", "--model", "model", "--ids", "5,6,7", "--output", "l.safetensors"]);
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("3 tokens, 128 logits each\n", ""));
    assert!(fs::metadata(folder.path().join("l.safetensors")).unwrap().len() > 3 * 128 * 4);
    let output = luthier(folder.path(), &["logits", "--model", "model", "--ids", "500", "--output", "l.safetensors"]);
    assert_eq!(text(&output.stderr), "error: there is no token 500: the model knows 128\n");
}

/// SmolLM2 from its quantised GGUF file to a folder, and from there to a GGUF file again: the tokenizer goes both ways.
#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn the_real_model_goes_to_a_folder_and_back() {
    let assets = std::env::var_os("LUTHIER_ASSETS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets"), std::path::PathBuf::from);
    let model = assets.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let folder = tempfile::tempdir().unwrap();
    let (stdout, stderr) =
        export(folder.path(), &["--model", model.to_str().unwrap(), "--output", "smol", "--outtype", "f16"]);
    assert!(!stderr.contains("warning"), "{stderr}");
    let [far, agreement, before, after] = replay(&stdout);
    assert!(far < 0.1 && agreement > 99.0 && (before / after - 1.0).abs() < 5e-3, "{stdout}");
    let (stdout, stderr) = export(folder.path(), &["--model", "smol", "--output", "smol.gguf", "--modelfile"]);
    assert!(!stderr.contains("warning"), "{stderr}");
    let [far, agreement, ..] = replay(&stdout);
    assert_eq!((far, agreement), (0.0, 100.0), "{stdout}");
    let modelfile = fs::read_to_string(folder.path().join("smol.Modelfile")).unwrap();
    assert!(
        modelfile.contains("SYSTEM \"\"\"You are a helpful AI assistant named SmolLM, trained by Hugging Face\"\"\""),
        "{modelfile}"
    );
}
