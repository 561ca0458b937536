//! What the program says about itself and the machine: `env`, `version`, `completions`, `man`.

use std::process::{Command, Output};

use tempfile::TempDir;

fn run(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(arguments)
        .current_dir(folder.path())
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .expect("it runs")
}

#[track_caller]
fn text(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&folder, arguments, environment);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn version() {
    let version = text(&["version"], &[]);
    assert!(version.starts_with(concat!("luthier ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert_eq!(version.lines().count(), 1);
    assert_eq!(text(&["--version"], &[]), version);
}

#[test]
fn the_machine() {
    let text = text(
        &["env"],
        &[("LUTHIER_CPU", "portable"), ("HF_HOME", "/hf"), ("HF_TOKEN", "hf_secret"), ("HF_HUB_OFFLINE", "1")],
    );
    let rows: Vec<(&str, &str)> = text.lines().map(|line| line.split_at(18)).collect();
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.trim_end()).collect();
    let expected = [
        "version",
        "target",
        "build",
        "system",
        "processor",
        "threads",
        "instruction sets",
        "used",
        "memory",
        "disk",
        "models from",
        "models kept in",
        "token",
        "offline",
    ];
    assert_eq!(names, expected);
    let value = |name: &str| rows.iter().find(|row| row.0.trim_end() == name).expect("a row").1;
    assert_eq!(value("used"), "portable, LUTHIER_CPU says so; bf16 is multiplied as fp32");
    assert!(value("instruction sets").ends_with("portable"));
    assert_eq!(value("models from"), "https://huggingface.co");
    assert_eq!(value("models kept in"), "/hf/hub");
    assert_eq!((value("token"), value("offline")), ("yes", "yes"));
    assert!(!text.contains("secret"));
    if cfg!(target_os = "linux") {
        assert!(!text.contains("unknown"), "{text}");
    }
}

#[test]
fn completions_know_the_commands_and_their_options() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = text(&["completions", shell], &[]);
        for word in ["train", "chat", "generate", "compare", "repetition-penalty"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&folder, &["completions", "csh"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: invalid value 'csh' for '<SHELL>'\n  [possible values: bash, elvish, fish, powershell, zsh]\n\n  tip: a similar \
         value exists: 'zsh'\n\nFor more information, try '--help'.\n"
    );
}

#[test]
fn the_man_page_has_every_command() {
    let page = text(&["man"], &[]);
    assert!(page.contains(".TH luthier 1"), "{page}");
    for command in ["train", "chat", "generate", "bench", "env", "completions"] {
        assert!(page.contains(&format!(".TH luthier-{command} 1")), "{command}");
    }
    assert!(page.contains("\\-\\-temperature"));
}
