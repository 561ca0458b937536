//! Models written as GGUF files are read back as the same models: equal numbers, equal logits. What llama.cpp would compute
//! differently is refused.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::Merged;
use luthier_model::checkpoint::{
    Checkpoint, GgufCarried, GgufPlan, GgufSource, GgufTokenizer, GgufValue, ModelFiles, TensorSpec, encode,
    folder_families, gguf_bytes, gguf_families, plan_gguf, write_gguf,
};
use luthier_model::families::supported_families;
use luthier_tensor::DType;
use serde_json::{Value, json};
use support::gguf::{Meta, Tensor, converted, files};
use support::logits::{device, largest_difference, logits};
use support::{changed, model_files, shared};

fn tokenizer() -> GgufTokenizer {
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: (0..128).map(|id| format!("t{id}")).collect(),
        token_types: vec![1; 128],
        merges: vec!["t 1".into()],
        bos: Some(1),
        eos: Some(2),
        add_bos: Some(false),
        chat_template: Some("{{ x }}".into()),
        ..GgufTokenizer::default()
    }
}

fn written(checkpoint: &Checkpoint, plan: &GgufPlan) -> ModelFiles {
    let device = device();
    let merged = Merged::new(&device, checkpoint, None).unwrap();
    let specs: Vec<TensorSpec> = plan.tensors.iter().map(|tensor| tensor.spec.clone()).collect();
    let mut bytes = Vec::new();
    let mut tensors = plan.tensors.iter();
    write_gguf(&plan.metadata, &specs, &mut bytes, &mut |spec, writer| match &tensors.next().unwrap().source {
        GgufSource::Model { name, rows } => merged.write(name, rows.as_deref(), spec.dtype, writer),
        GgufSource::Values(values) => writer.write_all(&encode(values, spec.dtype).unwrap()),
    })
    .unwrap();
    assert_eq!(bytes.len() as u64, gguf_bytes(&plan.metadata, &specs));
    files(bytes)
}

fn with_config(fixture: &str, changes: Value) -> ModelFiles {
    let mut files = model_files(fixture);
    files.files.insert("config.json".into(), shared(changed(fixture, changes).to_string().into_bytes()));
    files
}

#[track_caller]
fn round_trip(label: &str, files: &ModelFiles, outtype: DType) -> (Checkpoint, Checkpoint, GgufPlan) {
    let original = Checkpoint::from_files(files).unwrap();
    let plan =
        plan_gguf(&original, "test", outtype, &tokenizer(), None).unwrap_or_else(|error| panic!("{label}: {error}"));
    let read = Checkpoint::from_files(&written(&original, &plan)).unwrap_or_else(|error| panic!("{label}: {error}"));
    (original, read, plan)
}

#[test]
fn every_family_comes_back_with_its_logits() {
    for fixture in [
        "arcee",
        "baichuan-7b",
        "granite",
        "helium",
        "hunyuan_v1_dense",
        "internlm2",
        "llama",
        "llama-bias",
        "llama-dynamic-rope",
        "llama-linear-rope",
        "llama-tied",
        "llama3-rope",
        "minicpm",
        "mistral-window",
        "phi3",
        "qwen2",
        "qwen2-yarn",
        "qwen3",
        "seed_oss",
    ] {
        // The fixtures' own window and length are shorter than the row.
        let files = match fixture {
            "mistral-window" => with_config(fixture, json!({ "sliding_window": null })),
            "llama-dynamic-rope" => with_config(fixture, json!({ "max_position_embeddings": 64 })),
            _ => model_files(fixture),
        };
        let (original, read, plan) = round_trip(fixture, &files, DType::F32);
        let (one, other) = (logits(&original, None), logits(&read, None));
        let far = largest_difference(&one, &other);
        let size = one.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
        assert!(far <= 1e-5 * size, "{fixture}: logits up to {size} differ by {far}");
        assert!(plan.notes.is_empty() || fixture == "llama-dynamic-rope", "{fixture}: {:?}", plan.notes);
        assert_eq!(read.gguf_tokenizer.unwrap(), tokenizer(), "{fixture}");
    }
    let files = with_config("smollm3", json!({ "no_rope_layers": [1, 1] }));
    let (original, read, _) = round_trip("smollm3", &files, DType::F32);
    assert_eq!(largest_difference(&logits(&original, None), &logits(&read, None)), 0.0);
}

#[test]
fn each_family_has_an_architecture_or_a_reason() {
    let written = gguf_families().map(|(family, _)| family);
    let mut known: Vec<&str> = written.chain(folder_families().map(|(family, _)| family)).collect();
    known.sort_unstable();
    assert_eq!(known, supported_families().collect::<Vec<_>>());
}

#[test]
fn numbers_keep_their_bits_where_the_storage_allows() {
    for (fixture, outtype) in [("qwen2", DType::Bf16), ("llama", DType::F32), ("granite", DType::F32)] {
        let (original, read, plan) = round_trip(fixture, &model_files(fixture), outtype);
        for (name, tensor) in &original.tensors {
            assert_eq!(read.tensors[name].to_f32(), tensor.to_f32(), "{fixture} {name}");
        }
        for tensor in &plan.tensors {
            let expected = if tensor.spec.dims.len() == 1 { DType::F32 } else { outtype };
            assert_eq!(tensor.spec.dtype, expected, "{}", tensor.spec.name);
        }
    }
}

#[test]
fn q8_0_is_near_and_f16_stands_in_where_blocks_do_not_fit() {
    let (original, read, plan) = round_trip("llama", &model_files("llama"), DType::Q8_0);
    assert_eq!(read.tensors["model.layers.0.self_attn.q_proj.weight"].dtype(), DType::Q8_0);
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    let (one, other) = (logits(&original, None), logits(&read, None));
    let far = largest_difference(&one, &other);
    assert!(far > 0.0 && far < 0.15, "{far}");
    // Queries and keys are quantised after their rows moved: blocks lie within a row, so nothing changes.
    let device = device();
    let name = "model.layers.0.self_attn.k_proj.weight";
    let expected = encode(&original.tensors[name].to_f32().unwrap(), DType::Q8_0).unwrap();
    assert_eq!(read.tensors[name].bytes(), expected);
    assert_eq!(device.download(read.tensors[name].tensor()).len(), original.tensors[name].tensor().len());
}

#[test]
fn what_llama_cpp_computes_differently_is_refused() {
    let refusal = |files: &ModelFiles| {
        let checkpoint = Checkpoint::from_files(files).unwrap();
        plan_gguf(&checkpoint, "test", DType::F32, &tokenizer(), None).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&model_files("smollm3")),
        "model: `no_rope_layers` is another pattern, which is not supported: llama.cpp leaves exactly every fourth layer \
         unrotated; export a Hugging Face folder instead"
    );
    assert_eq!(
        refusal(&with_config("llama", json!({ "hidden_act": "gelu" }))),
        "model: `hidden_act` is Gated(Gelu), which is not supported: llama.cpp's `llama` always uses silu; export a Hugging \
         Face folder instead"
    );
    let yarn = json!({ "rope_scaling": { "type": "yarn", "factor": 4.0, "beta_fast": 16.0 } });
    assert!(refusal(&with_config("qwen2-yarn", yarn)).contains("beta_fast 32"));
    let llama3 = json!({ "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    } });
    assert!(refusal(&with_config("qwen2", llama3)).contains("reads no divisors of frequencies"));
}

/// llama.cpp looks into the name of a model: "phi3" demands tokens that other tokenizers do not have.
#[test]
fn a_name_does_not_keep_llama_cpp_from_loading() {
    let checkpoint = Checkpoint::from_files(&model_files("llama")).unwrap();
    let name = |name: &str, tokenizer: &GgufTokenizer| {
        let plan = plan_gguf(&checkpoint, name, DType::F32, tokenizer, None).unwrap();
        plan.metadata.into_iter().find(|(key, _)| key == "general.name").unwrap().1
    };
    assert_eq!(name("my-Phi3-x-phi-3", &tokenizer()), GgufValue::Text("my-Phi 3-x-phi 3".into()));
    let mut phi = tokenizer();
    for (place, token) in ["<s>", "</s>", "<unk>", "<|endoftext|>"].into_iter().enumerate() {
        phi.tokens[place] = token.into();
    }
    assert_eq!(name("phi3", &phi), GgufValue::Text("phi3".into()));
}

#[test]
fn a_window_is_said() {
    let (_, _, plan) = round_trip("mistral-window", &model_files("mistral-window"), DType::F32);
    assert!(
        plan.notes[0].starts_with("llama.cpp has no sliding window for this model: texts longer than "),
        "{:?}",
        plan.notes
    );
}

/// Of a GGUF base everything is carried over that does not describe the old weights.
#[test]
fn metadata_and_tables_of_a_gguf_base_are_carried_over() {
    let mut gguf = converted("llama", "llama", true);
    gguf.set("general.author", Meta::Text("somebody".into()));
    gguf.set("general.file_type", Meta::U32(3));
    gguf.set("quantize.imatrix.file", Meta::Text("x".into()));
    gguf.tensors.push(Tensor {
        name: "rope_freqs.weight".into(),
        dims: vec![4],
        kind: 0,
        bytes: [1.0f32, 1.5, 6.0, 8.0].iter().flat_map(|value| value.to_le_bytes()).collect(),
    });
    let base_files = files(gguf.bytes());
    let base = Checkpoint::from_files(&base_files).unwrap();
    let carried = GgufCarried::read(&base_files).unwrap();
    let tokenizer = base.gguf_tokenizer.clone().unwrap();
    let plan = plan_gguf(&base, "test", DType::F16, &tokenizer, carried.as_ref()).unwrap();
    let keys: Vec<&str> = plan.metadata.iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.contains(&"general.author") && !keys.contains(&"quantize.imatrix.file"));
    assert_eq!(keys.iter().filter(|key| **key == "general.file_type").count(), 1);
    let again = written(&base, &plan);
    let read = Checkpoint::from_files(&again).unwrap();
    assert_eq!(read.model, base.model);
    assert_eq!(read.gguf_tokenizer, base.gguf_tokenizer);
    assert_eq!(read.ignored, ["rope_freqs.weight"]);
    assert!(largest_difference(&logits(&base, None), &logits(&read, None)) < 0.01);
    assert!(GgufCarried::read(&model_files("llama")).unwrap().is_none());
}
