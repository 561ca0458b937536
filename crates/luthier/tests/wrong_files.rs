//! Models and data that are not as they should be: one clear error each, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A folder with a small model, one record and a configuration.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    fs::create_dir(&model).expect("made");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), model.join(name)).expect("copied");
    }
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("rows.jsonl", "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, 8]}\n");
    write("train.yaml", "model_name_or_path: model\ndataset: rows.jsonl\nmax_steps: 1\noutput_dir: out\n");
    folder
}

/// Runs `luthier train` and compares all that it says on standard error.
#[track_caller]
fn check(folder: &TempDir, expected: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(["train", "train.yaml"])
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("out").exists(), "something was left behind");
}

/// The header and the data of a safetensors file.
fn parts(file: &[u8]) -> (String, &[u8]) {
    let (length, rest) = file.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    (String::from_utf8(rest[..length].to_vec()).expect("text"), &rest[length..])
}

fn join(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn a_model_that_is_as_it_should_be_trains() {
    let folder = folder();
    let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(["train", "train.yaml", "gradient_checkpointing=true"])
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["adapter_config.json", "adapter_model.safetensors", "trainer_log.jsonl"] {
        assert!(folder.path().join("out").join(name).exists(), "{name}");
    }
}

#[test]
fn a_truncated_safetensors_file() {
    let folder = folder();
    let path = folder.path().join("model/model.safetensors");
    let whole = fs::read(&path).expect("read");
    fs::write(&path, &whole[..whole.len() - 100]).expect("written");
    check(
        &folder,
        &format!(
            "error: model/model.safetensors is cut off: its header promises {} bytes, found {}; copy or download it again\n",
            whole.len(),
            whole.len() - 100
        ),
    );
}

#[test]
fn a_pickled_checkpoint() {
    let folder = folder();
    fs::rename(folder.path().join("model/model.safetensors"), folder.path().join("model/pytorch_model.bin"))
        .expect("renamed");
    check(&folder, PICKLE);
}

const PICKLE: &str = "\
error: model/pytorch_model.bin: refused, because a .bin, .pt or .pth file is a Python pickle, which can execute code while \
it is loaded; convert the model once where you trust it: python -c \"from transformers import AutoModelForCausalLM as M; \
M.from_pretrained('DIR').save_pretrained('DIR-safetensors')\"\n";

#[test]
fn an_unknown_architecture() {
    let folder = folder();
    let path = folder.path().join("model/config.json");
    let text =
        fs::read_to_string(&path).expect("read").replace("\"model_type\": \"llama\"", "\"model_type\": \"eliza\"");
    fs::write(&path, text).expect("written");
    check(
        &folder,
        "error: model/config.json: the model type `eliza` is not supported; supported are arcee, baichuan, gemma2, granite, \
         helium, hunyuan_v1_dense, internlm2, llama, minicpm, mistral, phi3, qwen2, qwen3, seed_oss, smollm3\n",
    );
}

#[test]
fn missing_and_unknown_tensors() {
    let folder = folder();
    let path = folder.path().join("model/model.safetensors");
    let whole = fs::read(&path).expect("read");
    let (header, data) = parts(&whole);
    let renamed = header.replace("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.op_proj.weight");
    fs::write(&path, join(&renamed, data)).expect("written");
    check(&folder, TENSORS);
    let extra = "\"zzz.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":";
    let end = data.len();
    let header = format!("{},{extra}[{end},{}]}}}}", header.trim_end().trim_end_matches('}').to_owned() + "}", end + 4);
    fs::write(&path, join(&header, &[data, &[0; 4]].concat())).expect("written");
    check(&folder, EXTRA);
}

const TENSORS: &str = "\
error: model/model.safetensors: 1 of the tensors that the model needs is missing: `model.layers.1.mlp.up_proj.weight`; \
check that the weights belong to this config.json and that no file is missing\n";
const EXTRA: &str = "\
error: model/model.safetensors: 1 of the tensors is no part of this model: `zzz.weight`; without them it would compute \
something else; check `model_type` and the bias switches of config.json\n";

#[test]
fn a_record_without_output() {
    let folder = folder();
    let records = r#"[{"instruction": "a", "output": "b"}, {"instruction": "c"}]"#;
    fs::write(folder.path().join("faq.json"), records).expect("written");
    let text = fs::read_to_string(folder.path().join("train.yaml")).expect("read").replace("rows.jsonl", "faq.json");
    fs::write(folder.path().join("train.yaml"), text + "strict: true\n").expect("written");
    check(&folder, "error: dataset faq.json, record 2: \"output\" is missing; expected instruction, input, output\n");
}

#[test]
fn a_token_that_the_model_does_not_know() {
    let folder = folder();
    fs::write(folder.path().join("rows.jsonl"), "{\"input_ids\": [5, 600]}\n").expect("written");
    check(
        &folder,
        "note: the records are tokens already: template, train_on_prompt, mask_history have no effect\n\
         error: row 1 has token 600, but the model knows 128 tokens; the tokenizer belongs to another model\n",
    );
}

#[test]
fn text_without_a_tokenizer() {
    let folder = folder();
    fs::write(folder.path().join("rows.jsonl"), "{\"instruction\": \"a\", \"output\": \"b\"}\n").expect("written");
    check(
        &folder,
        "error: model: tokenizer.json is missing; expected it in the same folder, or a tokenizer.model or tiktoken file in \
         its place\n",
    );
}
