//! Which tensors a partial training trains: LLaMA-Factory's rules, and what it refuses. That the rules are its own is shown by
//! the cases of `fixtures/training` that its code chose.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

mod support;

use luthier_model::adapter::TargetModules;
use luthier_model::families::ModelDescription;
use luthier_model::{Checkpoint, FreezeSettings, TrainedLayers, added_targets, biases};
use support::model_files;

fn model(name: &str) -> ModelDescription {
    Checkpoint::from_files(&model_files(name)).unwrap().model
}

fn settings(layers: TrainedLayers, modules: &[&str], extra: &[&str]) -> FreezeSettings {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    FreezeSettings { layers, modules: names(modules), extra_modules: names(extra) }
}

/// The tensors, shortened, one after another.
#[track_caller]
fn check(name: &str, settings: &FreezeSettings, expected: &str) {
    let found = settings.tensors(&model(name)).unwrap();
    let short = |name: &String| name.replace("model.layers.", "").replace(".weight", "");
    assert_eq!(found.iter().map(short).collect::<Vec<_>>().join(" "), expected);
}

#[track_caller]
fn refused(name: &str, settings: &FreezeSettings, expected: &str) {
    assert_eq!(settings.tensors(&model(name)).unwrap_err().to_string(), expected);
}

#[test]
fn layers_modules_and_what_is_outside() {
    use TrainedLayers::{First, Last, None};
    let all = "input_layernorm mlp.down_proj mlp.gate_proj mlp.up_proj post_attention_layernorm self_attn.k_proj \
               self_attn.o_proj self_attn.q_proj self_attn.v_proj";
    let of_layer = |layer: usize| all.split(' ').map(|name| format!("{layer}.{name}")).collect::<Vec<_>>().join(" ");
    check("llama", &settings(Last(1), &[], &[]), &of_layer(1));
    check("llama", &settings(First(1), &[], &[]), &of_layer(0));
    check("llama", &settings(Last(1), &["mlp"], &[]), "1.mlp.down_proj 1.mlp.gate_proj 1.mlp.up_proj");
    check("llama", &settings(Last(2), &["mlp.down_proj"], &[]), "0.mlp.down_proj 1.mlp.down_proj");
    check("llama", &settings(None, &[], &["lm_head"]), "lm_head");
    let norms = "0.input_layernorm 0.post_attention_layernorm 1.input_layernorm 1.post_attention_layernorm model.norm";
    check("llama", &settings(None, &[], &["norm"]), norms);
    check("qwen2", &settings(First(1), &["self_attn"], &[]), {
        "0.self_attn.k_proj.bias 0.self_attn.k_proj 0.self_attn.o_proj 0.self_attn.q_proj.bias 0.self_attn.q_proj \
         0.self_attn.v_proj.bias 0.self_attn.v_proj"
    });
    // The beginning of a path: `attention` is `attention_norm` too.
    check(
        "internlm2",
        &settings(Last(1), &["attention"], &["output"]),
        "1.attention.wo 1.attention.wqkv 1.attention_norm output",
    );
}

#[test]
fn a_head_that_is_the_embedding_is_trained_as_that() {
    for extra in [&["embed_tokens"][..], &["lm_head"], &["embed_tokens", "lm_head"]] {
        check("llama-tied", &settings(TrainedLayers::None, &[], extra), "model.embed_tokens");
    }
}

#[test]
fn what_a_model_does_not_have() {
    use TrainedLayers::{Added, Every, First, Last, None};
    refused("llama", &settings(Last(3), &[], &[]), "freeze_trainable_layers is 3, but the model has 2 layers");
    refused("llama", &settings(First(3), &[], &[]), "freeze_trainable_layers is 3, but the model has 2 layers");
    refused("llama", &settings(Every(3), &[], &[]), "freeze_layer_interval is 3, but the model has 2 layers");
    refused(
        "llama",
        &settings(Added(3), &[], &[]),
        "freeze_trainable_layers is 3; with use_llama_pro expected the number of blocks that were added, a divisor of the 2 \
         layers of the model (`luthier expand` adds blocks)",
    );
    refused(
        "llama",
        &settings(Last(1), &["q_proj"], &[]),
        "freeze_trainable_modules: the layers have no module \"q_proj\"; expected some of input_layernorm, mlp, \
         post_attention_layernorm, self_attn, all",
    );
    refused(
        "llama",
        &settings(None, &[], &["mlp"]),
        "freeze_extra_modules: outside its layers the model has no module \"mlp\"; expected some of embed_tokens, lm_head, norm",
    );
    assert_eq!(
        biases(&model("llama")).unwrap_err().to_string(),
        "finetuning_type: bitfit trains the biases, and this model has none; expected a model with biases, such as Qwen 2, or \
         finetuning_type: freeze"
    );
}

#[test]
fn layers_at_intervals() {
    use TrainedLayers::{Added, Every};
    assert_eq!(Every(1).numbers(3), Ok(vec![0, 1, 2]));
    assert_eq!(Every(2).numbers(5), Ok(vec![1, 3]));
    assert_eq!(Every(4).numbers(8), Ok(vec![3, 7]));
    // 32 layers and 8 added ones: LLaMA-Factory's example.
    assert_eq!(Added(8).numbers(40), Ok(vec![4, 9, 14, 19, 24, 29, 34, 39]));
}

#[test]
fn biases_are_all_of_them() {
    let found = biases(&model("llama-bias")).unwrap();
    assert_eq!(found.len(), 14);
    assert!(found.contains("model.layers.1.mlp.down_proj.bias"));
}

#[test]
fn adapters_on_added_layers_alone() {
    let expanded = Checkpoint::from_files(&model_files("llama")).unwrap().expanded(2).unwrap().model;
    let names = |names: &[&str]| TargetModules::Names(names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(
        added_targets(&expanded, 2, &names(&["q_proj", "mlp.down_proj"])),
        Ok(names(&[
            "model.layers.1.self_attn.q_proj",
            "model.layers.1.mlp.down_proj",
            "model.layers.3.self_attn.q_proj",
            "model.layers.3.mlp.down_proj",
        ]))
    );
    let all = added_targets(&expanded, 2, &TargetModules::AllLinear).unwrap();
    assert!(matches!(all, TargetModules::Names(names) if names.len() == 14));
    assert_eq!(
        added_targets(&expanded, 2, &names(&["wqkv"])).unwrap_err().to_string(),
        "lora_target: the added layers have no module \"wqkv\"; expected some of q_proj, k_proj, v_proj, o_proj, gate_proj, \
         up_proj, down_proj"
    );
}
