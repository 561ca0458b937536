//! Damaged and ambiguous datasets: what is said, what is set aside, and what is trained, as `transcripts/data/NAME.txt`. Run
//! with `LUTHIER_UPDATE=1` to write the files anew, and read what has changed.

mod support;

use std::fs;

use support::{Place, transcript};

/// Puts something into a place.
type Change<'c> = &'c dyn Fn(&Place);

/// A dataset as `data preview` shows it with the built-in model, and its quarantine file.
fn preview(name: &str, change: Change, words: &[&str]) {
    let place = Place::new();
    place.write("train.yaml", "model_name_or_path: builtin\ncutoff_len: 256\noutput_dir: out\n");
    change(&place);
    let words: Vec<&str> =
        ["data", "preview", "train.yaml", "quarantine=set-aside.jsonl"].iter().chain(words).copied().collect();
    let (_, text) = place.luthier(&words);
    assert!(!text.contains("panicked"), "{name}: {text}");
    transcript(&format!("data/{name}"), &(text + &set_aside(&place, "set-aside.jsonl")));
}

/// What stands in a quarantine file.
fn set_aside(place: &Place, file: &str) -> String {
    fs::read_to_string(place.path(file)).map(|text| format!("$ cat {file}\n{text}")).unwrap_or_default()
}

fn write<'c>(file: &'c str, text: &'c str) -> impl Fn(&Place) + 'c {
    move |place| _ = place.write(file, text)
}

fn bytes<'c>(file: &'c str, bytes: &'c [u8]) -> impl Fn(&Place) + 'c {
    move |place| fs::write(place.path(file), bytes).expect("written")
}

const GOOD: &str = "{\"instruction\": \"Who are you?\", \"output\": \"I am here.\"}\n";

#[test]
fn lines() {
    let lines = [GOOD, "{\"instruction\": \"Who\", \"outp\n", GOOD, GOOD].concat();
    preview("a_line_that_is_cut", &write("rows.jsonl", &lines), &["dataset=rows.jsonl"]);

    let lines = [
        GOOD,
        GOOD,
        GOOD,
        "{\"instruction\": \"No reply.\"}\n",
        "{\"instruction\": \"No text.\", \"output\": null}\n",
        "{\"instruction\": \"A number.\", \"output\": 7}\n",
        "{\"instruction\": \"Again.\"}\n",
        GOOD,
    ]
    .concat();
    preview("records_without_replies", &write("rows.jsonl", &lines), &["dataset=rows.jsonl"]);
    preview("the_first_of_them_where_strict", &write("rows.jsonl", &lines), &["dataset=rows.jsonl", "--strict"]);

    let latin =
        [GOOD.as_bytes(), b"{\"instruction\": \"Gr\xfc\xdfe?\", \"output\": \"Ja.\"}\n", GOOD.as_bytes()].concat();
    preview("a_line_of_latin_1", &bytes("rows.jsonl", &latin), &["dataset=rows.jsonl"]);

    let utf16: Vec<u8> = format!("\u{feff}{GOOD}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    preview("a_file_of_utf_16", &bytes("rows.jsonl", &utf16), &["dataset=rows.jsonl"]);

    let wrong = "{\"instruction\": \"a\", \"output\": [\"b\"]}\n".repeat(5) + GOOD;
    preview("most_records_are_broken", &write("rows.jsonl", &wrong), &["dataset=rows.jsonl"]);
    preview("one_object_over_lines", &write("rows.json", "{\n  \"data\": []\n}\n"), &["dataset=rows.json"]);
}

#[test]
fn files() {
    let array = format!("[{}, {}", GOOD.trim(), &GOOD[..30]);
    preview("an_array_that_is_cut_off", &write("rows.json", &array), &["dataset=rows.json"]);

    let gzip = gzip(GOOD.repeat(50).as_bytes());
    preview(
        "a_gzip_file_that_is_cut_off",
        &bytes("rows.jsonl.gz", &gzip[..gzip.len() - 12]),
        &["dataset=rows.jsonl.gz"],
    );
    preview("a_workbook", &bytes("rows.csv", b"PK\x03\x04\x14\x00"), &["dataset=rows.csv"]);
    preview(
        "a_parquet_file_that_is_cut_off",
        &bytes("rows.parquet", b"PAR1\x15\x04\x15\x80"),
        &["dataset=rows.parquet"],
    );
    preview("an_empty_folder", &|place| _ = place.folder("rows"), &["dataset=rows"]);
    preview("no_file_of_a_pattern", &|_| (), &["dataset=rows/*.jsonl"]);
}

/// Bytes in a gzip file, stored as they are.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(bytes);
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    file.extend((!crc).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

#[test]
fn tables() {
    let table = "instruction,output\nWho are you?,\"I am here, as ever.\"\nNo cell\nAnd you?,\"Me, \"\"too\"\".\"\n";
    preview("a_table_with_a_short_row", &write("rows.csv", table), &["dataset=rows.csv"]);
    let table = "instruction;output\nWho are you?;I am here.\n";
    preview("a_table_of_semicolons", &write("rows.csv", table), &["dataset=rows.csv"]);
}

#[test]
fn formats() {
    let both = "{\"instruction\": \"Hi.\", \"output\": \"Ho.\", \"text\": \"Hi. Ho.\"}\n";
    preview("alpaca_or_documents", &write("rows.jsonl", both), &["dataset=rows.jsonl"]);
    let both =
        "{\"prompt\": \"Hi.\", \"completion\": \"Ho.\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi.\"}]}\n";
    preview("messages_or_prompts", &write("rows.jsonl", both), &["dataset=rows.jsonl"]);
    let unknown = "{\"frage\": \"Hi?\", \"antwort\": \"Ho.\"}\n";
    preview("keys_that_nobody_knows", &write("rows.jsonl", unknown), &["dataset=rows.jsonl"]);
    let chosen = |place: &Place| {
        place.folder("data").write("data/rows.jsonl", unknown).write(
            "data/dataset_info.json",
            "{\"rows\": {\"file_name\": \"rows.jsonl\", \"columns\": {\"prompt\": \"frage\", \"response\": \"antwort\"}}}",
        );
    };
    preview("keys_that_are_explained", &chosen, &["dataset=rows"]);
    let pairs = "{\"prompt\": \"Hi?\", \"chosen\": \"Ho.\", \"rejected\": \"No.\"}\n";
    preview("pairs_are_no_conversations", &write("rows.jsonl", pairs), &["dataset=rows.jsonl"]);
}

#[test]
fn conversations() {
    let turns = |roles: &[&str]| {
        let turns: Vec<String> =
            roles.iter().map(|role| format!("{{\"from\": \"{role}\", \"value\": \"Said by {role}.\"}}")).collect();
        format!("{{\"conversations\": [{}]}}\n", turns.join(", "))
    };
    let text = [
        turns(&["human", "gpt"]),
        turns(&["gpt", "human"]),
        turns(&["human", "human", "gpt"]),
        turns(&["human", "gpt", "human"]),
        turns(&["human", "narrator"]),
        turns(&["system", "human", "gpt", "human", "gpt"]),
        turns(&["human", "gpt"]),
        turns(&["human", "gpt"]),
        turns(&["human", "gpt"]),
    ]
    .concat();
    let change = |place: &Place| {
        place.folder("data").write("data/chats.jsonl", &text).write(
            "data/dataset_info.json",
            "{\"chats\": {\"file_name\": \"chats.jsonl\", \"formatting\": \"sharegpt\"}}",
        );
    };
    preview("turns_that_do_not_alternate", &change, &["dataset=chats", "--rows", "1"]);

    let call =
        "{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"time\", \"arguments\": \"{zone\"}}]}";
    let good = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi?\"}, {\"role\": \"assistant\", \"content\": \"Ho.\"}]}\n";
    let lines = format!(
        "{good}{good}{{\"messages\": [{{\"role\": \"user\", \"content\": \"Time?\"}}, {call}]}}\n{{\"messages\": [{{\"role\": \"user\", \
         \"content\": [{{\"type\": \"image_url\", \"image_url\": \"a.png\"}}]}}, {{\"role\": \"assistant\", \"content\": \"A cat.\"}}]}}\n"
    );
    preview("a_call_and_a_picture", &write("rows.jsonl", &lines), &["dataset=rows.jsonl", "--rows", "1"]);
    let images = good.replace("{\"messages\"", "{\"images\": [\"a.png\"], \"messages\"");
    preview("a_column_of_pictures", &write("rows.jsonl", &images), &["dataset=rows.jsonl"]);
}

#[test]
fn entries() {
    let entry = |entry: &str| {
        let info = format!("{{\"mine\": {entry}}}");
        move |place: &Place| {
            _ = place.folder("data").write("data/dataset_info.json", &info).write("data/rows.jsonl", GOOD)
        }
    };
    preview("an_entry_of_a_hub", &entry("{\"hf_hub_url\": \"org/data\"}"), &["dataset=mine"]);
    preview("an_entry_of_a_script", &entry("{\"script_url\": \"load.py\"}"), &["dataset=mine"]);
    preview(
        "an_entry_that_unsets_the_reply",
        &entry("{\"file_name\": \"rows.jsonl\", \"columns\": {\"prompt\": \"instruction\", \"system\": \"system\"}}"),
        &["dataset=mine"],
    );
    preview(
        "more_samples_than_there_are",
        &entry("{\"file_name\": \"rows.jsonl\", \"num_samples\": 3}"),
        &["dataset=mine", "--rows", "1"],
    );
    preview(
        "shares_that_are_not_one",
        &entry("{}"),
        &["dataset=a,b", "mix_strategy=interleave_under", "interleave_probs=0.5,0.6"],
    );
}

#[test]
fn what_the_template_does_not_write() {
    let chat = |middle: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Hi?\"}}, {middle}{{\"role\": \"assistant\", \"content\": \
             \"Ho.\"}}]}}\n"
        )
    };
    let lines = [
        chat(""),
        chat("{\"role\": \"system\", \"content\": \"Be short.\"}, "),
        chat("{\"role\": \"user\", \"content\": \"You?\"}, "),
        chat(""),
    ];
    let rows = lines.concat();
    let words = ["dataset=rows.jsonl", "template=chatml", "--rows", "1"];
    preview("records_that_the_template_refuses", &write("rows.jsonl", &rows), &words);
    preview("the_first_refused_one_where_strict", &write("rows.jsonl", &rows), &[&words[..], &["--strict"]].concat());
    let most = [lines[1].as_str(), &lines[2], &lines[0]].concat();
    preview("a_template_that_refuses_most", &write("rows.jsonl", &most), &words);
}

#[test]
fn a_folder_with_splits_and_two_datasets_by_turns() {
    let change = |place: &Place| {
        place.folder("hub/data").write("hub/data/train-00000-of-00002.jsonl", GOOD);
        place.write("hub/data/train-00001-of-00002.jsonl", &[GOOD, "{\"instruction\": 1}\n", GOOD].concat());
        place.write("hub/data/test-00000-of-00001.jsonl", GOOD).write("hub/README.md", "A dataset.");
        place.write("other.jsonl", "{\"prompt\": \"Hi?\", \"completion\": \"Ho.\"}\n");
    };
    preview("a_folder_with_splits", &change, &["dataset=hub", "--rows", "1"]);
    preview("datasets_by_turns", &change, &["dataset=hub,other.jsonl", "mix_strategy=interleave_over", "--rows", "4"]);
}

/// A run on tokens: the record is left out, the rest is trained, and the file lies beside the result.
#[test]
fn training_goes_on_without_broken_records() {
    let place = Place::new();
    let rows = fs::read_to_string(place.path("rows.jsonl")).expect("rows");
    place.write("rows.jsonl", &format!("{rows}{{\"input_ids\": [1, \"two\"]}}\n{{\"input_ids\": [1,\n"));
    let (code, text) = place.luthier(&["train", "train.yaml"]);
    assert_eq!(code, Some(0), "{text}");
    let said: String = text
        .lines()
        .filter(|line| line.contains("roken") || line.starts_with("  "))
        .map(|line| line.to_owned() + "\n")
        .collect();
    transcript("data/training_without_broken_records", &(said + &set_aside(&place, "out/quarantine.jsonl")));
}

#[test]
fn rows_that_are_also_evaluated_on_are_counted() {
    let place = Place::new();
    place.write("same.jsonl", "{\"input_ids\": [10, 5, 6, 7, 8, 9]}\n");
    let (code, text) = place.luthier(&["train", "train.yaml", "eval_dataset=same.jsonl", "--dry_run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("note: 1 of 8 rows to train also stand among those to evaluate on"), "{text}");
}
