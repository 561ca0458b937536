//! What a user sees after each of many mistakes: the whole output, compared with `transcripts/wrong/NAME.txt`. Run with
//! `LUTHIER_UPDATE=1` to write the files anew, and read what has changed.

mod support;

use std::fs;

use support::{Place, transcript};

/// A mistake: what is different from a training that works, and what is typed.
fn wrong(name: &str, change: impl FnOnce(&Place), words: &[&str]) {
    let place = Place::new();
    change(&place);
    let (code, text) = place.luthier(words);
    assert_ne!(code, Some(0), "{name} is no mistake: {text}");
    assert!(!text.contains("panicked"), "{name}: {text}");
    assert!(place.left_behind().is_empty(), "{name} left {:?}", place.left_behind());
    transcript(&format!("wrong/{name}"), &text);
}

fn nothing(_: &Place) {}

const TRAIN: [&str; 2] = ["train", "train.yaml"];

/// `luthier train train.yaml` with more words.
fn with<'w>(words: &[&'w str]) -> Vec<&'w str> {
    TRAIN.into_iter().chain(words.iter().copied()).collect()
}

#[test]
fn models() {
    wrong("model_missing", nothing, &with(&["model_name_or_path=models/none"]));
    wrong(
        "model_is_an_adapter",
        |place| _ = place.write("model/adapter_config.json", "{}").remove("model/config.json"),
        &TRAIN,
    );
    wrong(
        "model_is_a_text_file",
        |place| _ = place.write("notes.txt", "hello"),
        &with(&["model_name_or_path=notes.txt"]),
    );
    wrong("config_json_is_no_json", |place| _ = place.write("model/config.json", "{"), &TRAIN);
    wrong(
        "gguf_is_cut_off",
        |place| _ = place.write("cut.gguf", "GGUF\u{3}\0\0\0"),
        &with(&["model_name_or_path=cut.gguf"]),
    );
    wrong("adapter_missing", nothing, &with(&["adapter_name_or_path=none"]));
    wrong("layer_missing", nothing, &with(&["lora_target=q_proj,w_proj"]));
    wrong("more_layers_than_there_are", nothing, &with(&["finetuning_type=freeze", "freeze_trainable_layers=99"]));
}

#[test]
fn tokenizers() {
    let encode = |model| ["tokenizer", "encode", "--model", model, "--text", "a"];
    wrong("tokenizer_missing", nothing, &encode("none"));
    wrong(
        "tokenizer_folder_has_none",
        |place| _ = place.folder("bare").write("bare/config.json", "{}"),
        &encode("bare"),
    );
    wrong("tokenizer_is_a_text_file", |place| _ = place.write("notes.txt", "hello"), &encode("notes.txt"));
    wrong("tokenizer_model_is_none", |place| _ = place.write("tokenizer.model", "hello"), &encode("tokenizer.model"));
    wrong(
        "tokenizer_family_unknown",
        |place| {
            _ = place
                .folder("old")
                .write("old/tokenizer.model", "YQ== 0\n")
                .write("old/config.json", r#"{"model_type": "phi"}"#)
        },
        &encode("old"),
    );
    wrong("tokenizer_id_unknown", nothing, &["tokenizer", "decode", "--model", "builtin", "--ids", "1,4000000"]);
}

#[test]
fn data() {
    wrong("dataset_missing", nothing, &with(&["dataset=none.jsonl"]));
    wrong("dataset_empty", |place| _ = place.write("rows.jsonl", ""), &TRAIN);
    let talk = |text: &'static str| {
        move |place: &Place| {
            place.write("rows.jsonl", text);
        }
    };
    let builtin = ["train", "train.yaml", "model_name_or_path=builtin"];
    let named = |word: &'static str| builtin.iter().copied().chain([word]).collect::<Vec<_>>();
    const ONE: &str = "{\"instruction\": \"a\", \"output\": \"b\"}\n";
    wrong("template_unknown", talk(ONE), &named("template=lama3"));
    wrong("tool_format_unknown", talk(ONE), &[named("template=qwen"), vec!["tool_format=qwn"]].concat());
    wrong(
        "template_needs_turns",
        talk(
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"c\"}]}\n",
        ),
        &named("template=qwen"),
    );
    wrong("dataset_is_a_folder", |place| _ = place.folder("rows"), &with(&["dataset=rows"]));
    wrong(
        "record_is_no_json",
        |place| _ = place.write("rows.jsonl", "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1,\n"),
        &with(&["strict=true"]),
    );
    wrong(
        "record_has_no_reply",
        |place| _ = place.write("rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n"),
        &TRAIN,
    );
    wrong(
        "record_of_unknown_form",
        |place| _ = place.write("rows.jsonl", "{\"frage\": \"a\", \"antwort\": \"b\"}\n"),
        &TRAIN,
    );
    wrong(
        "text_without_a_tokenizer",
        |place| _ = place.write("rows.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n"),
        &TRAIN,
    );
    wrong("token_out_of_range", |place| _ = place.write("rows.jsonl", "{\"input_ids\": [5, 600]}\n"), &TRAIN);
    wrong(
        "no_trained_token",
        |place| _ = place.write("rows.jsonl", "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n"),
        &TRAIN,
    );
    wrong(
        "dataset_not_in_the_list",
        |place| {
            _ = place.folder("data").write("data/dataset_info.json", "{\"alpaca_en\": {\"file_name\": \"a.json\"}}")
        },
        &with(&["dataset=alpaca_eng"]),
    );
    wrong("dataset_info_is_no_json", |place| _ = place.folder("data").write("data/dataset_info.json", "{"), &TRAIN);
    wrong("more_set_aside_than_there_is", nothing, &with(&["val_size=100"]));
    wrong("rows_too_long", nothing, &with(&["cutoff_len=5", "truncation=error"]));
    wrong("all_rows_too_long", nothing, &with(&["cutoff_len=5", "truncation=drop"]));
    wrong("evaluation_data_missing", nothing, &with(&["eval_dataset=none.jsonl"]));
}

#[test]
fn settings() {
    wrong("config_missing", nothing, &["train", "none.yaml"]);
    wrong("config_is_a_folder", nothing, &["train", "model"]);
    wrong("key_unknown", nothing, &with(&["lora_rnk=8"]));
    wrong("flag_unknown", nothing, &["train", "--model_name_or_path", "model", "--dataste", "rows.jsonl"]);
    wrong("role_unknown", nothing, &with(&["role_weights=human=0.5"]));
    wrong("truncation_unknown", nothing, &with(&["truncation=left"]));
    wrong("rate_is_a_word", nothing, &with(&["learning_rate=fast"]));
    wrong("rate_is_not_a_number", nothing, &with(&["learning_rate=nan"]));
    wrong("rate_is_negative", nothing, &with(&["learning_rate=-1e-4"]));
    wrong("rank_is_a_fraction", nothing, &with(&["lora_rank=8.5"]));
    wrong("cutoff_is_zero", nothing, &with(&["cutoff_len=0"]));
    wrong("saved_every_zero_steps", nothing, &with(&["save_steps=0"]));
    wrong("stage_unknown", nothing, &with(&["stage=sfft"]));
    wrong("two_precisions", nothing, &with(&["bf16=true", "fp16=true"]));
    wrong("evaluated_without_data", nothing, &with(&["eval_strategy=steps"]));
    wrong("cannot_be_honoured", nothing, &with(&["add_tokens=one", "resize_vocab=true"]));
}

#[test]
fn output() {
    wrong("output_is_a_file", |place| _ = place.write("file", ""), &with(&["output_dir=file"]));
    wrong("output_lies_in_a_file", |place| _ = place.write("file", ""), &with(&["output_dir=file/out"]));
    wrong("checkpoint_missing", nothing, &with(&["resume_from_checkpoint=out/checkpoint-5"]));
    wrong("checkpoint_is_none", |place| _ = place.folder("thing"), &with(&["resume_from_checkpoint=thing"]));
}

#[test]
fn an_output_folder_that_holds_a_run() {
    let place = Place::new();
    assert_eq!(place.luthier(&TRAIN).0, Some(0));
    let before = fs::read(place.path("out/adapter_model.safetensors")).unwrap();
    let (code, text) = place.luthier(&TRAIN);
    assert_eq!(code, Some(1));
    transcript("wrong/output_holds_a_run", &text);
    assert_eq!(fs::read(place.path("out/adapter_model.safetensors")).unwrap(), before);
}

#[test]
fn an_adapter_of_another_model() {
    let place = Place::new();
    assert_eq!(place.luthier(&TRAIN).0, Some(0));
    place.model("other", "phi3");
    let words = with(&["model_name_or_path=other", "adapter_name_or_path=out", "output_dir=out2"]);
    let (code, text) = place.luthier(&words);
    assert_eq!(code, Some(1), "{text}");
    transcript("wrong/adapter_of_another_model", &text);
}

#[test]
fn rows_longer_than_the_context_are_said_and_trained() {
    let place = Place::new();
    let ids: Vec<u32> = (0..700).map(|number| number % 120).collect();
    place.write("rows.jsonl", &format!("{{\"input_ids\": {ids:?}}}\n"));
    let (code, text) = place.luthier(&TRAIN);
    assert_eq!(code, Some(0), "{text}");
    let warning = text.lines().find(|line| line.contains("the model was made for")).unwrap_or_default().to_owned();
    transcript("wrong/longer_than_the_context", &(warning + "\n"));
}
