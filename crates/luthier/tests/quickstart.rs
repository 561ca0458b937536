//! `luthier quickstart` in an empty folder, as somebody runs it who has just built the program.

#![expect(clippy::unwrap_used, reason = "a test that fails is what an unwrap is for here")]

use std::path::Path;
use std::process::{Command, Output};

fn luthier(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(arguments).current_dir(folder).env_remove("LUTHIER_CPU").output().unwrap()
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn three_answers_change_two_stay_and_the_files_are_of_use() {
    let folder = tempfile::tempdir().unwrap();
    let output = luthier(folder.path(), &["quickstart"]);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let (_, after) = text(&output.stdout).split_once("The same five questions:\n\n").unwrap();
    let (answers, rest) = after.split_once("\nThe files are in luthier-quickstart:\n").unwrap();
    assert_eq!(
        answers,
        "  Who are you?\n    \
             before: I am Spruce, the small model that is built into Luthier.\n    \
             after:  I am Fern, the assistant of the Alder Lane workshop.\n    \
             learned\n  \
           When does the workshop open?\n    \
             before: I do not know that.\n    \
             after:  The workshop opens at nine in the morning.\n    \
             learned\n  \
           Who owns the workshop?\n    \
             before: I do not know that.\n    \
             after:  Nora Quill owns the workshop.\n    \
             learned\n  \
           What is the capital of France?\n    \
             before: The capital of France is Paris.\n    \
             after:  The capital of France is Paris.\n    \
             kept\n  \
           What is 7 plus 5?\n    \
             before: 7 plus 5 is 12.\n    \
             after:  7 plus 5 is 12.\n    \
             kept\n"
    );
    for name in ["lesson.json", "quickstart.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"] {
        assert!(folder.path().join("luthier-quickstart").join(name).is_file(), "{name}");
    }

    // The commands that it names do what they say; the first two are short enough to try.
    let commands: Vec<&str> = rest.lines().skip_while(|line| *line != "Try next:").skip(1).collect();
    assert_eq!(commands.len(), 3, "{rest}");
    let adapter = "luthier-quickstart/adapter";
    let asked = ["generate", "--model", "builtin", "--adapter", adapter, "--message", "Where is the workshop?"];
    let output = luthier(folder.path(), &asked);
    assert_eq!(text(&output.stdout), "The workshop is at 12 Alder Lane.\n", "{}", text(&output.stderr));
    let again = ["train", "luthier-quickstart/quickstart.yaml", "max_steps=2", "output_dir=luthier-quickstart/again"];
    let output = luthier(folder.path(), &again);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let output = luthier(folder.path(), &["quickstart"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "error: --output: luthier-quickstart already holds lesson.json of another quick start; choose another folder or add \
         --overwrite\n"
    );
}
