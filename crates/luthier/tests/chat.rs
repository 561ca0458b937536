//! `luthier chat` and `luthier generate` as a user meets them: the program is run and its whole output compared.

mod tiny_model;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A folder with `model`, and with `adapter`, which was trained for it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    tiny_model::write(&folder.path().join("model"));
    let adapter = folder.path().join("adapter");
    std::fs::create_dir(&adapter).expect("made");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let source = tiny_model::fixture("training/lora-llama/adapter_final").join(name);
        std::fs::copy(source, adapter.join(name)).expect("copied");
    }
    folder
}

/// Runs the program in the folder with these lines as its input; gives exit code, output and messages.
fn run(folder: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(arguments)
        .current_dir(folder)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", "hf")
        .env_remove("HF_HUB_CACHE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("an input").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const CHAT: [&str; 7] = ["chat", "--model", "model", "--precision", "fp32", "--max-new-tokens", "12"];
const MODEL: &str = "model: model (llama), fp32, a context of 256 tokens\n";
const USUAL: &str =
    "sampling: temperature 0.95, top_k 50, top_p 0.7, min_p 0, repetition_penalty 1, seed 42, max_new_tokens 12\n";
const CUT: &str = "note: the answer was cut at max_new_tokens\n";

#[track_caller]
fn check(folder: &Path, more: &[&str], input: &str, stdout: &str, stderr: &str) {
    let found = run(folder, &[&CHAT, more].concat(), input);
    assert_eq!(found, (Some(0), stdout.to_owned(), stderr.to_owned()));
}

#[test]
fn a_conversation() {
    let folder = folder();
    let input = "/help\nHello\n\n/retry\n/undo\n/undo\n/system Be brief.\n/system\n//slash\n/set temperature 0\n/set top_k\n\
                 /set heat 3\n/set top_p 7\n/retry\n/save talk.json\n/save talk.json\n/clear\n/retry\n/save b.json\n/jump\n\
                 /set stop x\n/set stop none\n/exit\nnever read\n";
    check(folder.path(), &[], input, CONVERSATION, &format!("{MODEL}{USUAL}{SAID}"));
    assert_eq!(std::fs::read_to_string(folder.path().join("talk.json")).expect("saved"), SAVED);
    assert!(!folder.path().join("b.json").exists());
}

const CONVERSATION: &str = "\
q=& w120-SVA<u7:
 w127_EcEpFxe% w106=
 w126 w127Sx- w103l:n w127 w120 w103
 w126K-K w127 w106V w106V w124 w103R
";
const SAID: &str = "\
/help            show this
/clear           begin again; the system message stays
/system TEXT     set the system message and begin again; without TEXT show it
/undo            take the last message and its answer back
/retry           answer the last message again, with another seed
/set KEY VALUE   change temperature, top_k, top_p, min_p, repetition_penalty, seed or max_new_tokens,
                 add a text to stop (/set stop none takes all away); without KEY show them
/adapter NAMES   go on with these adapters, added; all and none are names too; without NAMES list them
/save FILE       save the conversation as JSON that can be trained on
/exit            end (as Ctrl-D)
A message that begins with a slash is written with two. Ctrl-C stops an answer.
note: the answer was cut at max_new_tokens
note: the answer was cut at max_new_tokens
taken back: Hello
there is nothing to take back
the system message is set, and the conversation begins again
system message: Be brief.
note: the answer was cut at max_new_tokens
temperature 0 (the most likely token, always), repetition_penalty 1, max_new_tokens 12
/set top_k: expected a value, as in /set temperature 0.7
/set: there is no \"heat\"; expected temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens or stop
/set: top_p is \"7\"; expected a number from 0 to 1
note: the temperature is 0, so every retry gives the same answer
note: the answer was cut at max_new_tokens
saved to talk.json
error: /save: talk.json is there already; choose another name
the conversation begins again
there is no message to answer again
error: /save: nothing has been said yet
there is no command /jump (/help lists all); a message that begins with a slash is written with two
temperature 0 (the most likely token, always), repetition_penalty 1, max_new_tokens 12, stop \"x\"
temperature 0 (the most likely token, always), repetition_penalty 1, max_new_tokens 12
";
const SAVED: &str = r#"[
  {
    "messages": [
      {
        "role": "system",
        "content": "Be brief."
      },
      {
        "role": "user",
        "content": "/slash"
      },
      {
        "role": "assistant",
        "content": " w126K-K w127 w106V w106V w124 w103R"
      }
    ]
  }
]
"#;

/// A conversation is computed on from the cache: each answer is what a program that was just started gives.
#[test]
fn a_second_answer_is_that_of_the_whole_conversation() {
    let folder = folder();
    let (_, both, _) = run(folder.path(), &[&CHAT[..], &["--stop", "w"]].concat(), "Hello\nAnd you?\n");
    let answers: Vec<&str> = both.lines().collect();
    let prompt = format!("u:Hello\na:{}\nu:And you?\na:", answers[0]);
    let sampling =
        ["--temperature", "0.95", "--top-k", "50", "--top-p", "0.7", "--stop", "w", "--max-new-tokens", "12"];
    let arguments = ["generate", "--model", "model", "--precision", "fp32", "--prompt", &prompt];
    let (_, alone, _) = run(folder.path(), &[&arguments[..], &sampling].concat(), "");
    assert_eq!(format!("{}\n", answers[1]), alone);
}

#[test]
fn one_prompt() {
    let folder = folder();
    check(folder.path(), &["--prompt", "Hello"], "", "q=& w120-SVA<u7:\n", &format!("{MODEL}{USUAL}{CUT}"));
    // The same seed gives the same, another one does not.
    let answer = |seed| run(folder.path(), &[&CHAT[..], &["--prompt", "Hello", "--seed", seed]].concat(), "").1;
    assert_eq!(answer("42"), "q=& w120-SVA<u7:\n");
    assert_ne!(answer("43"), answer("42"));
    assert_eq!(answer("43"), " w127_EcEpFxe% w106=\n");
}

#[test]
fn stop_strings_are_not_shown() {
    let folder = folder();
    let sampling = |stops: &str| format!("{MODEL}{}{stops}\n", USUAL.trim_end());
    let hello = ["--prompt", "Hello"];
    check(folder.path(), &[&hello[..], &["--stop", "SV"]].concat(), "", "q=& w120-\n", &sampling(", stop \"SV\""));
    check(
        folder.path(),
        &[&hello[..], &["--stop", "A<x", "--stop", "0-SVx"]].concat(),
        "",
        "q=& w120-SVA<u7:\n",
        &format!("{}{CUT}", sampling(", stop \"A<x\", stop \"0-SVx\"")),
    );
    let generate =
        ["generate", "--model", "model", "--precision", "fp32", "--prompt", "Hello", "--max-new-tokens", "9"];
    let found = |more: &[&str]| run(folder.path(), &[&generate[..], more].concat(), "").1;
    let whole = found(&[]);
    let before = &whole[..whole.find("127 w").expect("words")];
    assert_eq!(found(&["--stop", "127 w"]), format!("{before}\n"));
}

#[test]
fn with_and_without_an_adapter() {
    let folder = folder();
    let (_, adapted, said) =
        run(folder.path(), &[&CHAT[..], &["--adapter", "adapter", "--prompt", "Hello"]].concat(), "");
    let model = MODEL.replace(" (llama)", " (llama), adapter adapter");
    assert_eq!(said, format!("{model}{USUAL}{CUT}"));
    let arguments = ["--adapter", "adapter", "--compare"];
    let both = format!("[without adapter]\nq=& w120-SVA<u7:\n[with adapter]\n{adapted}");
    check(
        folder.path(),
        &[&arguments[..], &["--prompt", "Hello"]].concat(),
        "",
        &both,
        &format!("{model}{USUAL}{CUT}{CUT}"),
    );
    // Each side goes on with its own answers, and what is taken back is taken back on both.
    let (code, out, said) =
        run(folder.path(), &[&CHAT[..], &arguments].concat(), "Hello\nHm?\n/undo\n/undo\nHello\n/save a.json\n");
    let turns: Vec<&str> = out.split_inclusive(&both).collect();
    assert_eq!((code, turns.len(), turns[0]), (Some(0), 2, both.as_str()), "{out}{said}");
    assert!(out.ends_with(&both));
    assert!(said.ends_with("saved to a.json (the side with the adapter)\n"), "{said}");
    let saved = std::fs::read_to_string(folder.path().join("a.json")).expect("saved");
    assert!(saved.contains(&format!("\"content\": {:?}", adapted.trim_end_matches('\n'))), "{saved}");
}

#[test]
fn a_configuration_of_llama_factory() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "chat.yaml",
        "model_name_or_path: model\nadapter_name_or_path: adapter\ntemplate: chatml\ninfer_backend: huggingface\n\
         infer_dtype: float32\ntrust_remote_code: true\nfinetuning_type: lora\ncutoff_len: 512\ntemperature: 0.5\n\
         max_new_tokens: 5\ndefault_system: Be brief.\nstop: [a, b]\n",
    );
    let arguments = ["chat", "chat.yaml", "max_new_tokens=7", "top_k=5", "--temperature", "0.3"];
    let (code, _, said) = run(folder.path(), &arguments, "/system\n");
    assert_eq!(code, Some(0));
    assert_eq!(
        said,
        "note: cutoff_len has no effect on a chat\n\
         note: template chatml: the tokenizer of model has no token of its own for <|im_start|>, <|im_end|>; they are written \
         as text, since the vocabulary is not changed\n\
         note: template chatml: the chat template of model itself writes a plain conversation differently, \
         \"u:Hello\\na:Hi.\\nu:How are you?\\na:\" where chatml has \"<|im_start|>user\\nHello<|im_end|>\\n<|im_start|>ass\"\n\
         model: model (llama), adapter adapter, fp32, a context of 256 tokens\n\
         sampling: temperature 0.3, top_k 5, top_p 0.7, min_p 0, repetition_penalty 1, seed 42, max_new_tokens 7, stop \"a\", \
         stop \"b\", stop \"<|im_end|>\", stop \"<|im_start|>\"\n\
         system message: Be brief.\n"
    );
    let (_, _, said) = run(folder.path(), &["chat", "chat.yaml", "do_sample=false", "stop="], "");
    assert!(said.contains("sampling: temperature 0 (the most likely token, always)"), "whatever the file's is: {said}");
    let arguments = ["chat", "chat.yaml", "do_sample=false", "--temperature", "0.3"];
    let (_, _, said) = run(folder.path(), &arguments, "");
    assert!(said.contains("sampling: temperature 0.3, top_k 50"), "an option wins: {said}");
}

#[test]
fn the_model_says_how_it_wants_to_be_sampled() {
    let folder = folder();
    let config = "{\"temperature\": 0.6, \"top_p\": 0.9, \"top_k\": 20, \"do_sample\": true}";
    std::fs::write(folder.path().join("model/generation_config.json"), config).expect("written");
    let sampling = "sampling: temperature 0.2, top_k 20, top_p 0.9, min_p 0, repetition_penalty 1, seed 42, max_new_tokens 12 \
                    (top_k, top_p from generation_config.json)\n";
    check(folder.path(), &["temperature=0.2"], "", "", &format!("{MODEL}{sampling}"));
    let (_, _, said) = run(folder.path(), &[&CHAT[..], &["--temperature", "0.2", "--top-k", "7"]].concat(), "");
    assert!(
        said.ends_with("max_new_tokens 12 (top_p from generation_config.json)\n"),
        "an option is no file's: {said}"
    );
    let greedy = "{\"temperature\": 0.6, \"do_sample\": false}";
    std::fs::write(folder.path().join("model/generation_config.json"), greedy).expect("written");
    let sampling = |more: &[&str]| {
        let said = run(folder.path(), &[&CHAT[..], more].concat(), "").2;
        said.lines().last().expect("a line").replace(", min_p 0, repetition_penalty 1", "").replace(", seed 42", "")
    };
    let always = "sampling: temperature 0 (the most likely token, always)";
    let end = "max_new_tokens 12";
    let from = "from generation_config.json)";
    assert_eq!(sampling(&[]), format!("{always}, repetition_penalty 1, {end} (do_sample {from}"));
    let drawn = format!("sampling: temperature 0.6, top_k 50, top_p 0.7, {end} (temperature {from}");
    assert_eq!(sampling(&["do_sample=true"]), drawn);
    assert_eq!(sampling(&["--temperature", "0.2"]), format!("sampling: temperature 0.2, top_k 50, top_p 0.7, {end}"));
    std::fs::write(folder.path().join("model/generation_config.json"), "{\"top_p\": \"all\"}").expect("written");
    let (code, _, said) = run(folder.path(), &CHAT, "");
    assert_eq!(code, Some(0), "{said}");
    let warning = "warning: model/generation_config.json: top_p is \"all\"; expected a number from 0 to 1; the value is left out\n";
    assert!(said.contains(warning), "{said}");
}

const FULL: &str = "note: the context of 48 tokens is full; the oldest turn was dropped\n";

#[test]
fn a_context_that_is_full() {
    let folder = folder();
    let model = MODEL.replace("256", "48");
    let more = ["--context", "48"];
    let (code, out, said) = run(folder.path(), &[&CHAT[..], &more].concat(), "Hello\nHow are you?\nWell?\n");
    assert_eq!((code, out.lines().count()), (Some(0), 3));
    assert_eq!(said, format!("{model}{USUAL}{CUT}{FULL}{CUT}{FULL}{CUT}"));
    let long = "x".repeat(100);
    check(
        folder.path(),
        &more,
        &format!("{long}\nHello\n"),
        "q=& w120-SVA<u7:\n",
        &format!(
            "{model}{USUAL}error: the message has 105 tokens with what the template adds, and the context has 48; shorten the \
             message or the system message, or raise --context\n{CUT}"
        ),
    );
    // What was said before stays.
    let (_, _, said) = run(folder.path(), &[&CHAT[..], &more].concat(), &format!("Hello\n{long}\n/undo\n"));
    assert!(said.ends_with("or raise --context\ntaken back: Hello\n"), "{said}");
    let nearly = "x".repeat(38);
    let (_, _, said) = run(folder.path(), &[&CHAT[..], &more].concat(), &format!("{nearly}\n"));
    assert_eq!(said, format!("{model}{USUAL}note: the answer was cut where the context is full\n"));
}

#[test]
fn a_message_that_the_template_refuses() {
    let folder = folder();
    let refusal = "error: the chat template of model refuses the conversation: no, thanks\n";
    check(folder.path(), &[], "refuse\nHello\n", "q=& w120-SVA<u7:\n", &format!("{MODEL}{USUAL}{refusal}{CUT}"));
    let found = run(folder.path(), &[&CHAT[..], &["--prompt", "refuse"]].concat(), "");
    assert_eq!(found, (Some(1), String::new(), format!("{MODEL}{USUAL}{refusal}")));
}

#[test]
fn wrong_arguments() {
    let folder = folder();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("bad.yaml", "model_name_or_path: model\nnum_beams: 4\nlora_rnk: 8\ntemperature: hot\n");
    #[track_caller]
    fn fails(folder: &Path, arguments: &[&str], code: i32, stderr: &str) {
        let found = run(folder, &[&["chat"], arguments].concat(), "");
        assert_eq!(found, (Some(code), String::new(), stderr.to_owned()));
    }
    let path = folder.path();
    fails(
        path,
        &[],
        1,
        "error: no model is given; expected --model PATH, or a configuration with model_name_or_path\n",
    );
    fails(
        path,
        &["bad.yaml", "do_sample=perhaps"],
        1,
        "error: bad.yaml, line 2: num_beams is refused: answers are drawn token by token, and not searched for\n\
         error: bad.yaml, line 3: there is no setting \"lora_rnk\"; did you mean \"lora_rank\"? (`luthier train --help` lists \
         all)\n\
         error: bad.yaml, line 4: temperature is \"hot\"; expected a number of 0 or more\n\
         error: command line: do_sample is \"perhaps\"; expected true or false\n",
    );
    fails(
        path,
        &["seed=1", "bad.yaml", "--model", "model"],
        1,
        "error: command line: \"bad.yaml\" is neither key=value nor --key value; a file of settings comes first\n",
    );
    fails(path, &["no.yaml"], 1, "error: no.yaml: the settings cannot be read: there is no such file\n");
    fails(path, &["--model", "model", "--compare"], 1, "error: --compare needs an adapter; expected --adapter PATH\n");
    fails(
        path,
        &["--model", "none", "--adapter", "none"],
        1,
        "error: --model: none does not exist; expected a Hugging Face folder, a GGUF file, or org/name of the hub\n\
         error: adapter: none does not exist; expected a PEFT adapter folder\n",
    );
    fails(
        path,
        &["--model", "model", "--template", "alpacca"],
        1,
        "error: template: there is no template \"alpacca\" (did you mean alpaca?); expected a name of `luthier template list`, \
         or nothing for the model's own\n",
    );
    fails(
        path,
        &["--model", "model", "--context", "100000000000"],
        2,
        "error: invalid value '100000000000' for '--context <N>': 100000000000 is not in 16..=4294967295\n\n\
         For more information, try '--help'.\n",
    );
    fails(
        path,
        &["--model", "model", "--top-p", "2"],
        2,
        "error: invalid value '2' for '--top-p <SHARE>': expected a number from 0 to 1\n\n\
         For more information, try '--help'.\n",
    );
    std::fs::remove_file(path.join("model/tokenizer_config.json")).expect("removed");
    let (code, _, said) = run(path, &CHAT, "");
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "error: model has no chat template, so its conversations cannot be written as it expects them; set `template` to \
         the name of one (luthier template list)\n"
    );
}
