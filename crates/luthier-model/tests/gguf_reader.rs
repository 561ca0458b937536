//! GGUF files, written here by a small writer as llama.cpp's converter would, are read as the Hugging Face checkpoints
//! that they came from.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use std::collections::BTreeMap;

use luthier_model::checkpoint::Checkpoint;
use luthier_model::config::RotaryScaling;
use luthier_tensor::DType;
use support::gguf::{Gguf, Meta, Tensor, converted, files, load, permute};
use support::model_files;

#[test]
fn converted_checkpoints_are_the_originals() {
    let cases = [
        ("llama", "llama", true),
        ("llama-tied", "llama", true),
        ("llama-bias", "llama", true),
        ("mistral-window", "llama", true),
        ("qwen2", "qwen2", false),
        ("qwen3", "qwen3", false),
        ("phi3", "phi3", false),
        ("granite", "granite", true),
        ("minicpm", "minicpm", true),
        ("seed_oss", "seed_oss", false),
        ("hunyuan_v1_dense", "hunyuan-dense", false),
        ("arcee", "arcee", true),
    ];
    for (fixture, architecture, permuted) in cases {
        let original = Checkpoint::from_files(&model_files(fixture)).unwrap();
        let mut gguf = converted(fixture, architecture, permuted);
        if original.model.decoder.embedding_scale != 1.0 {
            let model = &original.model.decoder;
            gguf.set(&format!("{architecture}.embedding_scale"), Meta::F32(model.embedding_scale));
            gguf.set(&format!("{architecture}.residual_scale"), Meta::F32(model.residual_scale));
            gguf.set(&format!("{architecture}.logit_scale"), Meta::F32(1.0 / model.logit_scale));
            gguf.set(&format!("{architecture}.attention.scale"), Meta::F32(model.attention_scale));
        }
        let read = load(&gguf).unwrap_or_else(|error| panic!("{fixture}: {error}"));
        let mut expected = original.model.decoder.clone();
        expected.model_type.clone_from(&read.model.decoder.model_type);
        if fixture == "mistral-window" {
            // llama.cpp forgets Mistral's window.
            expected.layers.iter_mut().for_each(|layer| layer.window = None);
        }
        assert_eq!(read.model.decoder, expected, "{fixture}");
        assert_eq!(read.tensors.keys().collect::<Vec<_>>(), original.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &original.tensors {
            assert_eq!(read.tensors[name].bytes(), tensor.bytes(), "{fixture} {name}");
        }
    }
}

#[test]
fn blocks_are_read_and_their_rows_moved_as_they_are() {
    let mut gguf = converted("llama", "llama", true);
    for (name, kind, row_bytes) in
        [("blk.0.attn_q.weight", 8u32, 34), ("blk.1.attn_k.weight", 2, 18), ("output.weight", 3, 20)]
    {
        let tensor = gguf.tensor(name);
        let rows = tensor.dims[0];
        let plain: Vec<u8> = (0..rows).flat_map(|row| vec![row as u8; row_bytes]).collect();
        tensor.bytes = if name == "output.weight" { plain } else { permute(&plain, rows, 8) };
        tensor.kind = kind;
    }
    let read = load(&gguf).unwrap();
    let check = |name: &str, dtype: DType| {
        let tensor = &read.tensors[name];
        assert_eq!(tensor.dtype(), dtype);
        let width = dtype.bytes(32);
        for (row, bytes) in tensor.bytes().chunks(width).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == row as u8), "{name} row {row}");
        }
    };
    check("model.layers.0.self_attn.q_proj.weight", DType::Q8_0);
    check("model.layers.1.self_attn.k_proj.weight", DType::Q4_0);
    check("lm_head.weight", DType::Q4_1);
}

#[test]
fn the_tokenizer_is_handed_on() {
    let mut gguf = converted("llama", "llama", true);
    gguf.set("tokenizer.ggml.pre", Meta::Text("smollm".into()))
        .set("tokenizer.ggml.token_type", Meta::Integers(vec![1; 128]))
        .set("tokenizer.ggml.scores", Meta::Floats(vec![-0.5; 128]))
        .set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into()]))
        .set("tokenizer.ggml.eot_token_id", Meta::U32(9))
        .set("tokenizer.ggml.padding_token_id", Meta::U32(u32::MAX))
        .set("tokenizer.ggml.unknown_token_id", Meta::I32(-1))
        .set("tokenizer.ggml.add_bos_token", Meta::Flag(false))
        .set("tokenizer.chat_template", Meta::Text("{{ x }}".into()));
    let read = load(&gguf).unwrap();
    assert_eq!(read.model.decoder.end_token_ids, [2, 9]);
    let tokenizer = read.gguf_tokenizer.unwrap();
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!((tokenizer.tokens.len(), tokenizer.tokens[5].as_str()), (128, "t5"));
    assert_eq!((tokenizer.token_types[0], tokenizer.scores[0], tokenizer.merges.len()), (1, -0.5, 1));
    assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.eot), (Some(1), Some(2), Some(9)));
    assert_eq!(
        (tokenizer.padding, tokenizer.unknown, tokenizer.add_bos, tokenizer.add_eos),
        (None, None, Some(false), None)
    );
    assert_eq!(tokenizer.chat_template.as_deref(), Some("{{ x }}"));
}

#[test]
fn rotary_scalings() {
    let scaling = |gguf: &Gguf| load(gguf).unwrap().model.decoder.rotary.scaling;
    let mut gguf = converted("llama", "llama", true);
    gguf.set("llama.rope.scaling.type", Meta::Text("linear".into())).set("llama.rope.scaling.factor", Meta::F32(2.5));
    assert_eq!(scaling(&gguf), RotaryScaling::Linear { factor: 2.5 });
    gguf.set("llama.rope.scaling.type", Meta::Text("yarn".into()));
    gguf.set("llama.rope.scaling.original_context_length", Meta::U32(64));
    let yarn = |attention_factor| RotaryScaling::Yarn {
        factor: 2.5,
        trained_positions: 64,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        truncate: true,
    };
    assert_eq!(scaling(&gguf), yarn(0.1 * 2.5f64.ln() + 1.0));
    gguf.set("llama.rope.scaling.attn_factor", Meta::F32(2.0));
    assert_eq!(scaling(&gguf), yarn(2.0 * (0.1 * 2.5f64.ln() + 1.0)));

    let floats = |name: &str, values: &[f32]| Tensor {
        name: name.into(),
        dims: vec![values.len()],
        kind: 0,
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    // Llama 3: the converter stores a divisor for each frequency.
    let mut gguf = converted("llama", "llama", true);
    gguf.tensors.push(floats("rope_freqs.weight", &[1.0, 1.5, 6.0, 8.0]));
    let divisors = vec![1.0, 1.5, 6.0, 8.0];
    let expected = RotaryScaling::LongRope {
        short_factors: divisors.clone(),
        long_factors: divisors,
        trained_positions: 256,
        attention_factor: 1.0,
    };
    assert_eq!(scaling(&gguf), expected);
    assert_eq!(load(&gguf).unwrap().ignored, ["rope_freqs.weight"]);

    let mut gguf = converted("phi3", "phi3", false);
    gguf.set("phi3.rope.scaling.original_context_length", Meta::U32(64));
    gguf.set("phi3.rope.scaling.attn_factor", Meta::F32(1.25));
    gguf.tensors.push(floats("rope_factors_short.weight", &[1.0; 4]));
    gguf.tensors.push(floats("rope_factors_long.weight", &[2.0; 4]));
    let expected = RotaryScaling::LongRope {
        short_factors: vec![1.0; 4],
        long_factors: vec![2.0; 4],
        trained_positions: 64,
        attention_factor: 1.25,
    };
    assert_eq!(scaling(&gguf), expected);
    assert_eq!(load(&gguf).unwrap().config["rope_scaling"]["attention_factor"], 1.25);
}

/// transformers 4 reads `rope_theta` and `rope_scaling`, and not `rope_parameters`; Phi-3 with exactly three keys.
#[test]
fn older_transformers_find_the_rotary_parameters() {
    let config = |gguf: &Gguf| load(gguf).unwrap().config;
    let mut gguf = converted("llama", "llama", true);
    gguf.set("llama.rope.freq_base", Meta::F32(500_000.0));
    let plain = config(&gguf);
    assert_eq!((&plain["rope_theta"], plain.get("rope_scaling")), (&500_000.0.into(), None));
    gguf.set("llama.rope.scaling.type", Meta::Text("linear".into())).set("llama.rope.scaling.factor", Meta::F32(2.5));
    assert_eq!(config(&gguf)["rope_scaling"], serde_json::json!({ "rope_type": "linear", "factor": 2.5 }));
    let read = load(&gguf).unwrap().model.decoder.rotary;
    assert_eq!((read.theta, read.scaling), (500_000.0, RotaryScaling::Linear { factor: 2.5 }));

    let mut gguf = converted("phi3", "phi3", false);
    gguf.set("phi3.rope.scaling.original_context_length", Meta::U32(64));
    for (name, divisor) in [("rope_factors_short.weight", 1.0f32), ("rope_factors_long.weight", 2.0)] {
        let bytes = [divisor; 4].iter().flat_map(|value| value.to_le_bytes()).collect();
        gguf.tensors.push(Tensor { name: name.into(), dims: vec![4], kind: 0, bytes });
    }
    let expected = serde_json::json!({ "type": "longrope", "short_factor": vec![1.0; 4], "long_factor": vec![2.0; 4] });
    assert_eq!(config(&gguf)["rope_scaling"], expected);
}

#[test]
#[ignore = "needs assets: cargo xtask assets"]
fn a_real_file() {
    let assets = std::env::var_os("LUTHIER_ASSETS").expect("LUTHIER_ASSETS names the folder of the assets");
    let path = std::path::Path::new(&assets).join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let bytes = std::fs::read(path).unwrap();
    let read = Checkpoint::from_files(&files(bytes)).unwrap_or_else(|error| panic!("{error}"));
    let mut kinds = BTreeMap::new();
    read.tensors.values().for_each(|tensor| *kinds.entry(tensor.dtype().name()).or_insert(0) += 1);
    assert_eq!(kinds, BTreeMap::from([("f32", 61), ("q4_1", 210), ("q8_0", 1)]));
    let model = read.model.decoder;
    assert_eq!((model.layers.len(), model.heads, model.key_value_heads, model.head_dim), (30, 9, 3, 64));
    assert_eq!((model.rotary.theta, model.norm_epsilon, model.tied_head), (100_000.0, 1e-5, true));
    let tokenizer = read.gguf_tokenizer.unwrap();
    assert_eq!((tokenizer.pre.as_deref(), tokenizer.tokens.len()), (Some("smollm"), 49152));
}
