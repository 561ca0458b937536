//! Models written as GGUF files are read back as the same models: equal numbers, equal logits. What llama.cpp would compute
//! differently is refused.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::checkpoint::{
    Checkpoint, GgufCarried, GgufFileType, GgufPlan, GgufSource, GgufStorage, GgufTokenizer, GgufValue, ModelFiles,
    TensorSpec, encode, folder_families, gguf_bytes, gguf_families, plan_gguf, write_gguf,
};
use luthier_model::families::supported_families;
use luthier_model::{Adapter, Merged};
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

fn named(name: &str) -> GgufFileType {
    GgufFileType::named(name).unwrap()
}

fn written(checkpoint: &Checkpoint, plan: &GgufPlan) -> ModelFiles {
    tuned(checkpoint, None, plan)
}

fn tuned(checkpoint: &Checkpoint, adapter: Option<&Adapter>, plan: &GgufPlan) -> ModelFiles {
    let device = device();
    let merged = Merged::new(&device, checkpoint, adapter).unwrap();
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
    let plan = plan_gguf(&original, "test", named(outtype.name()), &tokenizer(), None)
        .unwrap_or_else(|error| panic!("{label}: {error}"));
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
        plan_gguf(&checkpoint, "test", named("f32"), &tokenizer(), None).unwrap_err().to_string()
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
        let plan = plan_gguf(&checkpoint, name, named("f32"), tokenizer, None).unwrap();
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
    let plan = plan_gguf(&base, "test", named("f16"), &tokenizer, carried.as_ref()).unwrap();
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

/// A random llama of eight layers whose rows are whole blocks of 256.
fn wide(tied: bool) -> Checkpoint {
    let config = json!({
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": tied
    });
    let mut files = with_config("llama", config);
    files.files.remove("model.safetensors");
    Checkpoint::from_scratch(&files, 5, None).unwrap()
}

fn types(plan: &GgufPlan) -> Vec<(&str, DType)> {
    plan.tensors.iter().map(|tensor| (tensor.spec.name.as_str(), tensor.spec.dtype)).collect()
}

/// The layers that llama.cpp gives more bits, of eight: 0, 3, 6 and 7. `tests/external/gguf_round_trip.py` compares the types
/// of real models with llama.cpp's own.
#[test]
fn the_mix_of_q4_k_m() {
    let checkpoint = wide(false);
    let plan = plan_gguf(&checkpoint, "test", named("q4_k_m"), &tokenizer(), None).unwrap();
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    for (name, dtype) in types(&plan) {
        let better = ["blk.0.", "blk.3.", "blk.6.", "blk.7."].iter().any(|layer| name.starts_with(layer))
            && (name.ends_with("attn_v.weight") || name.ends_with("ffn_down.weight"));
        let expected = match name {
            "output.weight" => DType::Q6K,
            _ if name.ends_with("norm.weight") => DType::F32,
            _ if better => DType::Q6K,
            _ => DType::Q4K,
        };
        assert_eq!(dtype, expected, "{name}");
    }
    assert!(plan.metadata.contains(&("general.file_type".into(), GgufValue::U32(15))));
    let read = Checkpoint::from_files(&written(&checkpoint, &plan)).unwrap();
    let (one, other) = (logits(&checkpoint, None), logits(&read, None));
    let size = one.iter().fold(0.0f32, |size, logit| size.max(logit.abs()));
    let far = largest_difference(&one, &other);
    assert!(far > 0.0 && far < 0.3 * size, "logits up to {size} differ by {far}");

    let tied = wide(true);
    let plan = plan_gguf(&tied, "test", named("q4_0"), &tokenizer(), None).unwrap();
    let expected = |name: &str| if name == "token_embd.weight" { DType::Q6K } else { DType::Q4_0 };
    assert!(types(&plan).iter().all(|(name, dtype)| name.ends_with("norm.weight") || *dtype == expected(name)));
}

#[test]
fn rows_that_are_no_whole_blocks_are_stored_as_llama_cpp_would() {
    let checkpoint = Checkpoint::from_files(&model_files("llama")).unwrap();
    let plan = plan_gguf(&checkpoint, "test", named("q4_k_m"), &tokenizer(), None).unwrap();
    let counts = |dtype: DType| types(&plan).iter().filter(|(_, found)| *found == dtype).count();
    let expected = [
        format!(
            "{} matrices are stored in q5_0 instead of q4_k: their rows are no multiple of 256 numbers",
            counts(DType::Q5_0)
        ),
        format!(
            "{} matrices are stored in q8_0 instead of q6_k: their rows are no multiple of 256 numbers",
            counts(DType::Q8_0)
        ),
    ];
    let mut notes = plan.notes.clone();
    notes.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(notes, expected);
    // The fixture's rows of 32 numbers are whole blocks of 32.
    assert!(counts(DType::Q5_0) > 0 && counts(DType::Q8_0) > 0 && counts(DType::F16) == 0);
}

/// Low rank pairs for two modules of the first layer, one of which a GGUF file has in another order.
fn adapter(checkpoint: &Checkpoint) -> Adapter {
    use safetensors::tensor::{Dtype, TensorView};

    let mut tensors = Vec::new();
    for module in ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"] {
        let weight = checkpoint.tensors[&format!("{module}.weight")].tensor();
        for (part, rows, columns) in [("A", 2, weight.columns()), ("B", weight.rows(), 2)] {
            let value = |index: usize| ((index * 7919 % 1013) as f32 / 1013.0 - 0.5) * 0.1;
            let bytes: Vec<u8> = (0..rows * columns).flat_map(|index| value(index).to_le_bytes()).collect();
            tensors.push((format!("base_model.model.{module}.lora_{part}.weight"), vec![rows, columns], bytes));
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let file = safetensors::serialize(views, None).unwrap();
    let config = json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"] });
    Adapter::read("adapter", config.to_string().as_bytes(), &shared(file)).unwrap()
}

/// Of a quantised base each tensor keeps its type: what the adapter leaves alone keeps its bytes, the rest is quantised anew.
#[test]
fn a_quantised_base_keeps_its_types_and_bytes() {
    let original = wide(false);
    for storage in ["q4_k_m", "q5_k_m", "q8_0", "q4_1", "f16"] {
        let plan = plan_gguf(&original, "test", named(storage), &tokenizer(), None).unwrap();
        let base_files = written(&original, &plan);
        let base = Checkpoint::from_files(&base_files).unwrap();
        let carried = GgufCarried::read(&base_files).unwrap();
        assert_eq!(carried.as_ref().unwrap().file_type(), Some(named(storage)));
        let tokenizer = base.gguf_tokenizer.clone().unwrap();
        let again = plan_gguf(&base, "test", GgufStorage::AsBase, &tokenizer, carried.as_ref()).unwrap();
        assert_eq!(types(&again), types(&plan), "{storage}");
        // Untouched, the whole file is the same but for the order of its metadata.
        let copy = Checkpoint::from_files(&written(&base, &again)).unwrap();
        let adapter = adapter(&base);
        let files = tuned(&base, Some(&adapter), &again);
        assert_eq!(GgufCarried::read(&files).unwrap().unwrap().file_type(), Some(named(storage)));
        let read = Checkpoint::from_files(&files).unwrap();
        let device = device();
        let merged = Merged::new(&device, &base, Some(&adapter)).unwrap();
        for (name, tensor) in &base.tensors {
            assert_eq!(copy.tensors[name].bytes(), tensor.bytes(), "{storage} {name}");
            assert_eq!(read.tensors[name].dtype(), tensor.dtype(), "{storage} {name}");
            assert_eq!(read.tensors[name].bytes() != tensor.bytes(), merged.changes(name), "{storage} {name}");
            if merged.changes(name) {
                let wanted = merged.rows(name, 0, tensor.tensor().rows());
                let found = device.download(read.tensors[name].tensor());
                let square = |list: &mut dyn Iterator<Item = f32>| list.map(|x| f64::from(x * x)).sum::<f64>();
                let far =
                    square(&mut wanted.iter().zip(&found).map(|(a, b)| a - b)) / square(&mut wanted.iter().copied());
                assert!(far.sqrt() < 0.09, "{storage} {name}: {far}");
            }
        }
    }
}

#[test]
fn a_number_that_is_none_is_refused_with_its_tensor() {
    let checkpoint = Checkpoint::from_files(&model_files("llama")).unwrap();
    let mut lora = adapter(&checkpoint).lora().unwrap().clone();
    lora.modules.values_mut().for_each(|pair| pair.alpha = f64::NAN);
    let adapter = Adapter::Lora(lora);
    let device = device();
    let merged = Merged::new(&device, &checkpoint, Some(&adapter)).unwrap();
    let error = merged.write("model.layers.0.mlp.down_proj.weight", None, DType::Q4_0, &mut Vec::new()).unwrap_err();
    let expected = "tensor `model.layers.0.mlp.down_proj.weight`: NaN has no place in blocks of q4_0; the model or its adapter \
                    is damaged";
    assert_eq!(error.to_string(), expected);
}
