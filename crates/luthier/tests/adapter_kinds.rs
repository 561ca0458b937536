//! Every kind of adapter as a user trains it: saved and continued to the byte, loaded, trained on, merged; and what is refused.

mod support;
mod tiny_model;

use std::fs;

use support::Place;

/// Settings of each kind.
const KINDS: [(&str, &[&str]); 9] = [
    ("lora", &["lora_dropout=0.1", "rank_pattern=q_proj=2,layers.1.mlp.up_proj=6", "alpha_pattern=down_proj=3"]),
    ("lora", &["use_dora=true"]),
    ("lora", &["pissa_init=true", "lora_rank=4"]),
    ("lora", &["pissa_init=true", "pissa_iter=-1", "lora_rank=4", "use_rslora=true", "loraplus_lr_ratio=16"]),
    ("ia3", &[]),
    ("ia3", &["target_modules=all", "additional_target=norm"]),
    ("vera", &["vera_rank=8", "vera_dropout=0.1"]),
    ("vera", &["vera_rank=8", "target_modules=q_proj,down_proj", "save_projection=false", "projection_prng_key=7"]),
    ("oft", &["oft_block_size=8"]),
];

fn place() -> Place {
    let place = Place::new();
    tiny_model::write(&place.path("model"));
    place
}

#[track_caller]
fn succeeds(place: &Place, words: &[&str]) -> String {
    let (code, said) = place.luthier(words);
    assert_eq!(code, Some(0), "{said}");
    said
}

fn train<'w>(kind: &'w str, own: &[&'w str], more: &[&'w str]) -> Vec<&'w str> {
    let mut words = vec!["train", "train.yaml", kind, "max_steps=4", "save_steps=2", "learning_rate=0.01"];
    words.extend(own);
    words.extend(more);
    words
}

#[test]
fn every_kind_is_continued_loaded_trained_on_and_merged() {
    for (kind, own) in KINDS {
        let place = place();
        let method = format!("finetuning_type={kind}");
        let bytes = |folder: &str| fs::read(place.path(folder).join("adapter_model.safetensors")).expect("saved");
        succeeds(&place, &train(&method, own, &["output_dir=whole"]));
        let from = "resume_from_checkpoint=whole/checkpoint-2";
        succeeds(&place, &train(&method, own, &["output_dir=again", from]));
        assert!(bytes("whole") == bytes("again"), "{kind} {own:?}: a run that goes on is the same run");
        succeeds(&place, &["generate", "--model", "model", "--adapter", "whole", "--prompt", "u:hello"]);
        // PiSSA begins from the weights, and what it saved is plain LoRA.
        let own: Vec<&str> = own.iter().copied().filter(|word| !word.starts_with("pissa")).collect();
        succeeds(&place, &train(&method, &own, &["output_dir=more", "adapter_name_or_path=whole"]));
        assert!(bytes("whole") != bytes("more"), "{kind} {own:?}: it is trained on");
        succeeds(&place, &["export", "--model", "model", "--adapter", "whole", "--output", "merged"]);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let place = place();
    let check = |words: &[&str], expected: &str| {
        let mut all = vec!["train", "train.yaml"];
        all.extend(words);
        let (code, said) = place.luthier(&all);
        assert_ne!(code, Some(0), "{words:?}");
        assert!(said.contains(expected), "{words:?}: {said}");
    };
    check(&["use_dora=true", "lora_dropout=0.1"], "use_dora needs lora_dropout: 0; DoRA with dropout is not there yet");
    check(&["use_dora=true", "pissa_init=true"], "pissa_init and use_dora exclude one another; expected one of them");
    check(&["pissa_init=true", "lora_rank=64"], "has no 64 directions; choose a lower lora_rank");
    check(&["rank_pattern=q_proj=1.5"], "rank_pattern gives q_proj \"1.5\"; expected a whole number of 1 or more");
    check(&["alpha_pattern=q_proj=x"], "alpha_pattern gives q_proj \"x\"; expected a number above 0");
    check(&["lora_target=lm_head"], "lora_target: lm_head gets no adapter yet");
    check(&["finetuning_type=oft", "oft_rank=4", "oft_block_size=8"], "expected one of them above 0, the other 0");
    check(&["finetuning_type=oft", "module_dropout=0.5"], "module_dropout");
    check(&["finetuning_type=ia3", "target_modules=w1"], "target_modules: the model has no linear layer \"w1\"");
    check(&["finetuning_type=vera", "d_initial=0"], "d_initial is 0, so no gradient would reach b");
    check(
        &["finetuning_type=full", "adapter_name_or_path=a"],
        "needs finetuning_type: lora, ia3, vera, oft, prefix, prompt, p_tuning or bottleneck",
    );
}

#[test]
fn an_adapter_of_another_kind_is_not_trained_on() {
    let place = place();
    succeeds(&place, &train("finetuning_type=ia3", &[], &["output_dir=ia3"]));
    let (code, said) = place.luthier(&["train", "train.yaml", "adapter_name_or_path=ia3"]);
    assert_ne!(code, Some(0));
    assert!(
        said.contains("adapter_name_or_path is an adapter of finetuning_type: ia3; expected one of lora"),
        "{said}"
    );
}
