//! What must not be written down.

pub(super) const HIDDEN: &str = "(hidden)";

/// Whether a setting's value is a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_lowercase().replace('-', "_");
    ["_token", "_key", "_password", "_secret"].iter().any(|end| name.ends_with(end))
        || ["token", "key", "password", "secret"].contains(&name.as_str())
}

/// A command line without the values of secret settings: `name=value`, `--name=value`, `--name value`.
pub(crate) fn without_secrets(words: &[String]) -> Vec<String> {
    let mut is_value = false;
    let hide = |word: &String| {
        if std::mem::take(&mut is_value) && !word.starts_with("--") {
            return HIDDEN.to_owned();
        }
        match word.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={HIDDEN}"),
            None if word.starts_with("--") && is_secret(word) => {
                is_value = true;
                word.clone()
            }
            _ => without_tokens(word),
        }
    };
    words.iter().map(hide).collect()
}

/// A text without what looks like a token of the Hugging Face hub.
pub(super) fn without_tokens(text: &str) -> String {
    const MARK: &str = "hf_";
    const LEAST: usize = 20;
    let mut clean = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let after = &rest[at + MARK.len()..];
        let end = after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(after.len());
        clean.push_str(&rest[..at]);
        clean.push_str(if end >= LEAST { HIDDEN } else { &rest[at..at + MARK.len() + end] });
        rest = &after[end..];
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
        for name in ["hf_hub_token", "--hub-token", "swanlab_api_key", "HF_TOKEN", "token"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["token_budget", "lora_rank", "--monkey", "skip_special_tokens"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn command_lines_lose_their_secrets_only() {
        let words = [
            "luthier",
            "hub_token=a",
            "--hub_token",
            "b",
            "--hf-hub-token=c",
            "--hub_token",
            "--seed",
            "7",
            "x=hf_hub",
        ];
        let clean = without_secrets(&words.map(str::to_owned));
        let expected =
            "luthier hub_token=(hidden) --hub_token (hidden) --hf-hub-token=(hidden) --hub_token --seed 7 x=hf_hub";
        assert_eq!(clean.join(" "), expected);
    }

    #[test]
    fn tokens_are_hidden_wherever_they_are() {
        let token = "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ";
        assert_eq!(
            without_tokens(&format!("https://u:{token}@hub/hf_dir, {token}")),
            "https://u:(hidden)@hub/hf_dir, (hidden)"
        );
        assert_eq!(without_tokens("größe hf_ ü"), "größe hf_ ü");
    }
}
