//! Damaged and hostile GGUF files are errors, in whole sentences; never a panic and never a large allocation.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::checkpoint::Checkpoint;
use support::gguf::{Gguf, Meta, converted, files, list, load};

fn check(change: impl FnOnce(&mut Gguf), expected: &str) {
    let mut gguf = converted("llama", "llama", true);
    change(&mut gguf);
    assert_eq!(load(&gguf).expect_err("refused"), expected);
}

#[test]
fn what_is_refused() {
    check(
        |gguf| gguf.tensor("blk.0.ffn_up.weight").kind = 23,
        "m.gguf: tensor `blk.0.ffn_up.weight` is stored as IQ4_XS; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, \
         Q2_K to Q6_K and MXFP4; convert the file with llama-quantize --allow-requantize",
    );
    check(
        |gguf| {
            gguf.set("general.architecture", Meta::Text("mamba".into()));
        },
        "m.gguf: `general.architecture` is `mamba`, which is not supported: supported architectures of GGUF files are arcee, \
         baichuan, granite, hunyuan-dense, internlm2, llama, minicpm, phi3, qwen2, qwen3, seed_oss, smollm3",
    );
    check(
        |gguf| {
            gguf.set("llama.expert_count", Meta::U32(8));
        },
        "m.gguf: `llama.expert_count` is 8, which is not supported: mixtures of experts are not yet",
    );
    check(
        |gguf| {
            gguf.set("split.count", Meta::U32(3));
        },
        "m.gguf: `split.count` is 3, which is not supported: merge the parts first: llama-gguf-split --merge FIRST-PART OUTPUT",
    );
    check(
        |gguf| gguf.metadata.retain(|(key, _)| key != "llama.embedding_length"),
        "m.gguf: `llama.embedding_length` is missing; expected a positive whole number",
    );
    check(
        |gguf| {
            gguf.set("llama.block_count", Meta::Text("two".into()));
        },
        "m.gguf: `llama.block_count` is \"two\"; expected a whole number from 0",
    );
    check(
        |gguf| {
            gguf.set("llama.rope.dimension_count", Meta::U32(4));
        },
        "m.gguf: `llama.rope.dimension_count` is 4, which is not supported: this architecture rotates whole heads",
    );
    check(
        |gguf| gguf.tensor("blk.0.ffn_up.weight").name = "blk.0.ffn_extra.weight".into(),
        "m.gguf: 1 of the tensors that the model needs is missing: `model.layers.0.mlp.up_proj.weight`; check that the weights \
         belong to this config.json and that no file is missing",
    );
    check(
        |gguf| {
            let mut extra = gguf.tensor("output_norm.weight").clone();
            extra.name = "blk.0.attn_extra.weight".into();
            gguf.tensors.push(extra);
        },
        "m.gguf: 1 of the tensors is no part of this model: `blk.0.attn_extra.weight`; without them it would compute something \
         else; check `model_type` and the bias switches of config.json",
    );
    check(|gguf| gguf.version = 1, "m.gguf is not a valid GGUF file: version 1 is not known; expected 2 or 3");
    check(
        |gguf| gguf.version = 3u32.swap_bytes(),
        "m.gguf is not a valid GGUF file: it is big-endian; convert it with gguf-py's gguf_convert_endian.py",
    );
}

#[test]
fn lengths_are_not_believed() {
    let huge = |kind: u32| [kind.to_le_bytes().to_vec(), u64::MAX.to_le_bytes().to_vec()].concat();
    for kind in [0, 5, 8, 9, 12] {
        let mut gguf = converted("llama", "llama", true);
        gguf.set("x", Meta::Raw(9, huge(kind)));
        let error = load(&gguf).expect_err("refused");
        assert!(
            error.starts_with("m.gguf is not a valid GGUF file: x is 18446744073709551615, but the rest"),
            "{error}"
        );
    }
    check(
        |gguf| {
            gguf.set("x", Meta::Raw(77, vec![]));
        },
        "m.gguf is not a valid GGUF file: metadata key `x` has the unknown value type 77",
    );
    check(
        |gguf| gguf.tensor("output.weight").dims = vec![1 << 40, 1 << 40],
        "m.gguf is not a valid GGUF file: tensor `output.weight` has absurd dimensions",
    );
    let nested = (0..9).fold(list(4, vec![]), |inner, _| list(9, vec![inner]));
    check(
        |gguf| {
            gguf.set("x", Meta::Raw(9, nested));
        },
        "m.gguf is not a valid GGUF file: metadata key `x` nests lists too deeply",
    );
}

#[test]
fn a_file_that_is_cut_off() {
    let whole = converted("llama", "llama", true).bytes();
    let refused =
        |length: usize| Checkpoint::from_files(&files(whole[..length].to_vec())).expect_err("refused").to_string();
    assert_eq!(
        refused(whole.len() - 1),
        format!(
            "m.gguf is cut off: its header promises {} bytes, found {}; copy or download it again",
            whole.len(),
            whole.len() - 1
        )
    );
    assert_eq!(
        refused(6),
        "m.gguf is not a valid GGUF file: it ends after 6 bytes, within the version; copy or download it again"
    );
    for length in (0..whole.len().min(8000)).step_by(3) {
        refused(length);
    }
}

/// Every byte of the tables replaced, three apart: a value or an error, never a panic.
#[test]
fn damage_anywhere_is_no_panic() {
    let whole = converted("qwen3", "qwen3", false).bytes();
    for place in (0..5000).step_by(3) {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[place] ^= flip;
            drop(Checkpoint::from_files(&files(changed)));
        }
    }
}
