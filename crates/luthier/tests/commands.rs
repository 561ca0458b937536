//! What each command says when all is well: the whole output, compared with `transcripts/commands/NAME.txt`. Numbers that a
//! machine decides are written as `#`. Run with `LUTHIER_UPDATE=1` to write the files anew, and read what has changed.

mod support;

use support::{Place, transcript};

/// Beginnings of lines whose numbers depend on the machine or its mood.
const MEASURED: [&str; 11] = [
    "step ",
    "memory:",
    "time:",
    "disk:",
    "trained ",
    "steps:",
    "all of it took",
    "wrote ",
    "replay",
    "evaluation: loss",
    "space:",
];

/// Replaces the numbers of measured lines by `#`, and the place by `PLACE`.
fn settle(text: &str, place: &Place) -> String {
    let place = place.path("").display().to_string();
    let line = |line: &str| {
        let mut out = String::new();
        if !MEASURED.iter().any(|measured| line.starts_with(measured)) {
            return line.replace(place.trim_end_matches('/'), "PLACE") + "\n";
        }
        let mut in_number = false;
        for letter in line.chars() {
            let is_number = letter.is_ascii_digit() || in_number && matches!(letter, '.' | ',' | ':');
            match (is_number, in_number) {
                (true, false) => out.push('#'),
                (true, true) => {}
                (false, _) => out.push(letter),
            }
            in_number = is_number;
        }
        // So does the unit, where a number is near its border.
        [" B", " kB", " MB", " GB"].iter().fold(out, |out, unit| out.replace(&format!("#{unit}"), "# bytes")) + "\n"
    };
    text.lines().map(line).collect()
}

#[track_caller]
fn check(name: &str, place: &Place, words: &[&str]) {
    let (code, text) = place.luthier(words);
    assert_eq!(code, Some(0), "{text}");
    transcript(&format!("commands/{name}"), &settle(&text, place));
}

#[test]
fn help() {
    let place = Place::new();
    check("help", &place, &["--help"]);
    for command in ["quickstart", "generate", "chat", "export", "expand", "bench", "plan", "env", "template"] {
        check(&format!("help_{command}"), &place, &[command, "--help"]);
    }
    check("help_data_preview", &place, &["data", "preview", "--help"]);
    check("help_tokenizer_encode", &place, &["tokenizer", "encode", "--help"]);
    check("help_tokenizer_decode", &place, &["tokenizer", "decode", "--help"]);
    check("help_tokenizer_train", &place, &["tokenizer", "train", "--help"]);
}

#[test]
fn tokenizers() {
    let place = Place::new();
    let encode = ["tokenizer", "encode", "--model", "builtin"];
    check("tokenizer_encode", &place, &[&encode[..], &["--text", "Hello, world!\n🚀", "--add-special"]].concat());
    check("tokenizer_encode_json", &place, &[&encode[..], &["--text", "one", "--text", "- two", "--json"]].concat());
    let (_, line) = place.luthier(&[&encode[..], &["--text", "Hello, world!", "--json"]].concat());
    let ids = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).expect("a list of ids").0;
    check("tokenizer_decode", &place, &["tokenizer", "decode", "--model", "builtin", "--ids", ids]);
    place.write("songs.txt", "la la la\nla li lo, la li lo\nthe end of the song, the end\n");
    let train = ["tokenizer", "train", "--files", "songs.txt", "--vocab-size", "280", "--out", "made"];
    check("tokenizer_train", &place, &train);
    check("tokenizer_trained", &place, &["tokenizer", "encode", "--model", "made", "--text", "la la, the song"]);
}

#[test]
fn templates() {
    let place = Place::new();
    place.write(
        "talk.json",
        r#"{"tools": [{"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}}],
            "messages": [{"role": "user", "content": "What time is it?"},
                         {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": {}}}]},
                         {"role": "tool", "content": "12:30"},
                         {"role": "assistant", "content": "Half past twelve."}]}"#,
    );
    place.write("own.jinja", "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}");
    let render = ["template", "render", "--conversation", "talk.json"];
    let with = |words: &[&'static str]| render.iter().copied().chain(words.iter().copied()).collect::<Vec<_>>();
    check("help_template_render", &place, &["template", "render", "--help"]);
    check("template_list", &place, &["template", "list"]);
    check("template_show", &place, &["template", "show", "glm4v"]);
    check("template_show_jinja", &place, &["template", "show", "llama2", "--jinja"]);
    check("template_render", &place, &with(&["--template", "qwen3", "--marked"]));
    check("template_render_of_a_model", &place, &with(&["--model", "builtin", "--template", "mistral", "--marked"]));
    check("template_render_file", &place, &with(&["--file", "own.jinja", "--eos", "</s>"]));
}

#[test]
fn training_with_a_named_template() {
    let place = Place::new();
    place.write(
        "faq.json",
        r#"[{"instruction": "Who are you?", "output": "I am Fern."}, {"instruction": "What is 2 plus 2?", "output": "4."}]"#,
    );
    let model = ["train", "train.yaml", "model_name_or_path=builtin", "dataset=faq.json", "--dry_run"];
    let with = |words: &[&'static str]| model.iter().copied().chain(words.iter().copied()).collect::<Vec<_>>();
    check("train_named_template", &place, &with(&["template=alpaca", "default_system=Be brief."]));
    check("train_thinking_off", &place, &with(&["template=qwen3", "enable_thinking=false"]));
    check(
        "train_then_chat",
        &place,
        &with(&["template=alpaca", "default_system=Be brief.", "dry_run=false", "max_steps=1", "cutoff_len=64"]),
    );
    let source = std::fs::read_to_string(place.path("out/chat_template.jinja")).unwrap();
    assert!(source.starts_with("{# Written by Luthier from the template alpaca #}"), "{source}");
    check(
        "chat_with_the_template_of_the_adapter",
        &place,
        &[
            "chat",
            "--model",
            "builtin",
            "--adapter",
            "out",
            "--prompt",
            "Hello",
            "--precision",
            "fp32",
            "--temperature",
            "0",
        ],
    );
}

#[test]
fn training_on_tokens() {
    let place = Place::new();
    check("plan", &place, &["plan", "train.yaml", "val_size=2"]);
    check("dry_run", &place, &["train", "train.yaml", "--dry_run"]);
    check("train", &place, &["train", "train.yaml", "val_size=2", "save_steps=1", "eval_steps=1", "logging_steps=1"]);
    check(
        "resume",
        &place,
        &[
            "train",
            "train.yaml",
            "val_size=2",
            "eval_steps=1",
            "logging_steps=1",
            "max_steps=3",
            "--resume_from_checkpoint",
        ],
    );
    check("full", &place, &["train", "train.yaml", "finetuning_type=full", "--output_dir", "full"]);
}

#[test]
fn training_on_conversations() {
    let place = Place::new();
    place.write(
        "faq.json",
        r#"[{"instruction": "Who are you?", "output": "I am Fern."}, {"instruction": "What is 2 plus 2?", "output": "4."}]"#,
    );
    let model = ["model_name_or_path=builtin", "dataset=faq.json"];
    let with = |words: &[&'static str]| words.iter().copied().chain(model).collect::<Vec<_>>();
    check("data_preview", &place, &with(&["data", "preview", "train.yaml"]));
    let weighted = ["--role_weights", "user=0.5", "truncation=right", "cutoff_len=22", "--rows=1", "packing=true"];
    check("data_preview_weights", &place, &[&with(&["data", "preview", "train.yaml"])[..], &weighted].concat());
    check("data_preview_json", &place, &with(&["data", "preview", "--json", "train.yaml", "role_weights=user=0.5"]));
    check(
        "plan_packed",
        &place,
        &with(&["plan", "train.yaml", "packing=true", "cutoff_len=64", "train_sampling_strategy=group_by_length"]),
    );
    check("train_builtin", &place, &with(&["train", "train.yaml", "lora_rank=4", "cutoff_len=64"]));
    check(
        "generate",
        &place,
        &["generate", "--model", "builtin", "--message", "What is 2 plus 2?", "--precision", "fp32"],
    );
    check(
        "chat_prompt",
        &place,
        &["chat", "--model", "builtin", "--prompt", "What is 2 plus 2?", "--precision", "fp32", "--temperature", "0"],
    );
    check(
        "chat_compare",
        &place,
        &[
            "chat",
            "--model",
            "builtin",
            "--adapter",
            "out",
            "--compare",
            "--prompt",
            "Who are you?",
            "--precision",
            "fp32",
            "--temperature",
            "0",
        ],
    );
    check(
        "export_gguf",
        &place,
        &[
            "export",
            "--model",
            "builtin",
            "--adapter",
            "out",
            "--output",
            "tuned.gguf",
            "--format",
            "gguf",
            "--outtype",
            "q8_0",
        ],
    );
    check("export_hf", &place, &["export", "--model", "builtin", "--adapter", "out", "--output", "merged"]);
}

#[test]
fn a_page_for_a_browser() {
    let place = Place::new();
    place.write(
        "faq.json",
        r#"[{"instruction": "</script><b>&", "output": "I am Fern."}, {"instruction": "2 plus 2?", "output": "4."}]"#,
    );
    let words =
        ["data", "preview", "train.yaml", "model_name_or_path=builtin", "dataset=faq.json", "--html", "page.html"];
    check("data_preview_html", &place, &words);
    let page = std::fs::read_to_string(place.path("page.html")).expect("the page");
    let begin = page.find("type=\"application/json\">").expect("the data") + "type=\"application/json\">".len();
    let end = begin + page[begin..].find("</script>").expect("its end");
    let data: serde_json::Value = serde_json::from_str(&page[begin..end]).expect("JSON");
    assert_eq!((&data["found"], data["rows"].as_array().map(Vec::len)), (&serde_json::json!(2), Some(2)));
    let row = &data["rows"][0];
    let text: String = row["texts"].as_array().expect("texts").iter().filter_map(|text| text.as_str()).collect();
    assert_eq!(text, "<|im_start|>user\n</script><b>&<|im_end|>\n<|im_start|>assistant\nI am Fern.<|im_end|>\n");
    assert_eq!(row["ids"].as_array().map(Vec::len), row["texts"].as_array().map(Vec::len));
    let roles: Vec<&str> = row["roles"].as_array().expect("roles").iter().filter_map(|run| run[1].as_str()).collect();
    assert_eq!(roles, ["template", "user", "template", "assistant"]);
}

#[test]
fn about_the_program() {
    let place = Place::new();
    check("version", &place, &["version"]);
    let (code, text) = place.luthier(&["env"]);
    assert_eq!(code, Some(0), "{text}");
    let keys: String = text.lines().map(|line| line.split("  ").next().unwrap_or_default().to_owned() + "\n").collect();
    transcript("commands/env_keys", &keys);
}
