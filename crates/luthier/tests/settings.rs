//! Settings as people type them: with and without a file, in every style, in every format, and files that are none.

mod support;

use std::fs;

use support::Place;

const QUICK: [&str; 6] = ["--max_steps", "1", "--threads", "1", "--precision", "fp32"];

/// Runs `luthier train` with these words, which must succeed, and returns what it said.
#[track_caller]
fn train(place: &Place, words: &[&str]) -> String {
    let words: Vec<&str> = ["train"].iter().chain(words).copied().collect();
    let (code, text) = place.luthier(&words);
    assert_eq!(code, Some(0), "{text}");
    text
}

#[test]
fn the_line_of_older_versions_works() {
    let place = Place::new();
    place.folder("data");
    fs::rename(place.path("rows.jsonl"), place.path("data/rows.jsonl")).expect("moved");
    let line = ["--stage", "sft", "--model_name_or_path", "model", "--dataset", "rows", "--lora_rank", "8"];
    let text = train(&place, &[&line, QUICK.as_slice()].concat());
    assert!(text.contains("\nnote: output_dir is not given: it is saves/model/lora/sft\n"), "{text}");
    let adapter = fs::read_to_string(place.path("saves/model/lora/sft/adapter_config.json")).expect("saved");
    assert!(adapter.contains("\"r\": 8"), "{adapter}");
    let differences = "note: defaults that are not LLaMA-Factory's: plot_loss true (there false), save_steps 100 (there 500); \
                       see docs/differences.md\n";
    assert!(text.contains(differences), "{text}");
    // The name in the list of datasets wins.
    place.write("data/dataset_info.json", "{\"rows\": {\"file_name\": \"none.json\"}}");
    let (code, text) = place.luthier(&[["train"].as_slice(), &line, &["--overwrite_output_dir"]].concat());
    assert_eq!(code, Some(1));
    assert!(text.contains("none.json"), "{text}");
}

#[test]
fn the_script_of_its_examples_works() {
    let place = Place::new();
    let script = "--model_name_or_path model --trust_remote_code --stage sft --do_train --finetuning_type lora --lora_rank 8 \
                  --lora_target all --dataset rows.jsonl --template qwen3_nothink --cutoff_len 2048 --max_samples 1000 \
                  --preprocessing_num_workers 16 --dataloader_num_workers 4 --output_dir out --logging_steps 10 \
                  --save_steps 500 --plot_loss --overwrite_output_dir --save_only_model false --report_to none \
                  --per_device_train_batch_size 1 --gradient_accumulation_steps 8 --learning_rate 1e-4 \
                  --num_train_epochs 3.0 --lr_scheduler_type cosine --warmup_ratio 0.1 --bf16 --ddp_timeout 180000000";
    let words: Vec<&str> = script.split_whitespace().collect();
    let text = train(&place, &words);
    assert!(text.contains("note: preprocessing_num_workers, dataloader_num_workers have no effect: "), "{text}");
    assert!(!text.contains("differ from LLaMA-Factory"), "{text}");
    assert!(place.path("out/adapter_model.safetensors").exists());
}

#[test]
fn the_formats_train_the_same() {
    let place = Place::new();
    place.write(
        "a.json",
        "{\"model_name_or_path\": \"model\", \"dataset\": [\"rows.jsonl\"], \"max_steps\": 2, \"output_dir\": \"json\",\n\
         \"threads\": 1, \"precision\": \"fp32\", \"learning_rate\": 1e-3}",
    );
    place.write(
        "a.toml",
        "model_name_or_path = \"model\"\ndataset = \"rows.jsonl\"\nmax_steps = 2\noutput_dir = \"toml\"\nthreads = 1\n\
         precision = 'fp32'\nlearning_rate = 1e-3\n",
    );
    // With a byte order mark and the line ends of Windows.
    place.write(
        "a.yaml",
        "\u{feff}model_name_or_path: model\r\ndataset: rows.jsonl\r\nmax_steps: 2\r\noutput_dir: yaml\r\nthreads: 1\r\n\
         precision: fp32\r\nlearning_rate: 1e-3\r\n",
    );
    for name in ["json", "toml", "yaml"] {
        train(&place, &[&format!("a.{name}")]);
    }
    train(&place, &["train.yaml", "output_dir=words", "--learning-rate=1e-3"]);
    let adapter = |folder: &str| fs::read(place.path(folder).join("adapter_model.safetensors")).expect("saved");
    for folder in ["toml", "yaml", "words"] {
        assert!(adapter(folder) == adapter("json"), "{folder} trained something else");
    }
}

#[test]
fn help_is_found_among_settings() {
    let place = Place::new();
    for words in [["train", "--lora_rank", "8", "--help"], ["plan", "train.yaml", "seed=1", "-h"]] {
        let (code, text) = place.luthier(&words);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("Usage: luthier "), "{text}");
    }
}

/// Writes a file of settings and compares what `luthier train` says about it.
#[track_caller]
fn wrong(name: &str, bytes: &[u8], expected: &str) {
    let place = Place::new();
    fs::write(place.path(name), bytes).expect("written");
    let (code, text) = place.luthier(&["train", name]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(text, format!("$ luthier train {name}\n{expected}\nexit code 1\n"));
}

#[test]
fn files_that_are_no_settings() {
    wrong("a.yaml", b"\0\x01\x02", "error: a.yaml: this is not a text file; expected settings in YAML, JSON or TOML");
    wrong(
        "a.yaml",
        b"seed: 1\ntemplate: \xff\n",
        "error: a.yaml, line 2: this is not text in UTF-8; save the file as UTF-8",
    );
    wrong("a.yaml", b"\xff\xfes\0", "error: a.yaml: this is text in UTF-16; save it as UTF-8");
    wrong(
        "a.gguf",
        b"GGUF\x03\0\0\0",
        "error: a.gguf: this is a GGUF model, not settings; give it as model_name_or_path=PATH",
    );
    wrong(
        "a.yaml",
        b"- seed: 1\n",
        "error: a.yaml, line 1: this is a list; expected settings, one `key: value` a line",
    );
    wrong(
        "a.yaml",
        b"seed: 1\n\tlora_rank: 8\n",
        "error: a.yaml, line 2: a tab indents this line; YAML wants blanks there",
    );
    wrong("a.json", b"{\"seed\": 1,\n}", "error: a.json, line 2: this is not valid JSON: trailing comma");
    wrong("a.json", b"[1]", "error: a.json, line 1: expected settings in one object, such as {\"lora_rank\": 8}");
    wrong(
        "a.json",
        b"{\"seed\": 1,\n\"lora_rnk\": 8,\n\"seed\": 2}",
        "error: a.json, line 2: there is no setting \"lora_rnk\"; did you mean \"lora_rank\"? (`luthier train --help` lists \
         all)\nerror: a.json, line 3: seed was already set on line 1; expected it once",
    );
}

#[test]
fn values_that_make_no_sense() {
    wrong(
        "a.yaml",
        b"learning_rate: -1\nmax_grad_norm: nan\nwarmup_ratio: inf\nadam_epsilon: 1e400\nlora_rank: 8.5\ntemplate: \"\"\n\
          max_steps: 99999999999999999999\nnum_train_epochs: {a: 1}\n",
        "error: a.yaml, line 1: learning_rate is \"-1\"; expected a number of 0 or more\n\
         error: a.yaml, line 2: max_grad_norm is \"nan\"; expected a number of 0 or more\n\
         error: a.yaml, line 3: warmup_ratio is \"inf\"; expected a number from 0 to 1\n\
         error: a.yaml, line 4: adam_epsilon is \"1e400\", which is too large; expected a number of \
         0.000000000000000000000000000001 or more\n\
         error: a.yaml, line 5: lora_rank is \"8.5\"; expected a whole number from 1 to 65536\n\
         error: a.yaml, line 6: template is \"\"; expected one text\n\
         error: a.yaml, line 7: max_steps is \"99999999999999999999\", which is too large; expected a whole number of -1 or \
         more\n\
         error: a.yaml, line 8: num_train_epochs is {a: 1}; expected a number of 0 or more",
    );
}

#[test]
fn rows_are_previewed() {
    let place = Place::new();
    place.write("rows.jsonl", "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n{\"input_ids\": [4, 5, 6, 7]}\n");
    let (code, text) = place.luthier(&["data", "preview", "train.yaml", "--row", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text,
        format!(
            "$ luthier data preview train.yaml --row 1\nrow 1 of 2 (rows.jsonl record 1): 3 tokens, 2 trained\nids: 1⟦2 3⟧\n\n\
             2 rows, 7 tokens, 5 of them trained\ntokens of a row: 3 to 4, 4 in the mean\n  3-3  {bar}  1\n  4-4  {bar}  1\n\
             note: the records are tokens already: template, train_on_prompt, mask_history have no effect\n",
            bar = "#".repeat(40)
        )
    );
    let (code, text) = place.luthier(&["data", "preview", "train.yaml", "--row", "9"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("error: --row is 9, but there are 2 rows\n"), "{text}");
    let (code, text) = place.luthier(&["data", "preview", "train.yaml", "--rows=many"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("error: command line: --rows is \"many\"; expected a whole number of 1 or more\n"), "{text}");
}
