//! `org/name`, `org/name@revision`, `org/name:file`: how a model on a hub is named.

/// A model on a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubName {
    /// `org/name`
    pub(crate) id: String,
    /// Branch, tag or commit.
    pub(crate) revision: Option<String>,
    /// The name of a GGUF file, or a part of one that only one file has.
    pub(crate) file: Option<String>,
}

impl HubName {
    /// `None` when the text can only be a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (rest, file) = match text.rsplit_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (id, revision) = match rest.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (rest, None),
        };
        let (organisation, name) = id.split_once('/')?;
        let looks_like_a_file = [".gguf", ".safetensors", ".bin", ".yaml", ".json"].iter().any(|end| id.ends_with(end));
        let valid = is_word(organisation)
            && is_word(name)
            && !looks_like_a_file
            && revision.is_none_or(is_path)
            && file.is_none_or(is_path);
        valid.then(|| Self { id: id.to_owned(), revision: revision.map(str::to_owned), file: file.map(str::to_owned) })
    }

    /// The one of these file names that `file` means, or the sentence's end that says why there is none.
    pub(crate) fn pick<'a>(file: &str, names: &[&'a str]) -> Result<&'a str, String> {
        if let Some(name) = names.iter().find(|name| **name == file) {
            return Ok(name);
        }
        let part = file.to_ascii_lowercase();
        let matching: Vec<&str> =
            names.iter().copied().filter(|name| name.to_ascii_lowercase().contains(&part)).collect();
        match matching.as_slice() {
            [only] => Ok(only),
            [] => Err(format!("has no .gguf file {file:?}; it has {}", list(names))),
            several => Err(format!("has several .gguf files that {file:?} fits: {}; name one of them", list(several))),
        }
    }
}

impl HubName {
    /// The file of exactly this name, else the only one whose name ends so, with or without `.gguf`, behind a separator.
    pub(crate) fn pick_end<'a>(file: &str, names: &[&'a str]) -> Option<&'a str> {
        if let Some(name) = names.iter().find(|name| **name == file) {
            return Some(name);
        }
        let bare = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.strip_suffix(".gguf").map(str::to_owned).unwrap_or(name)
        };
        let end = bare(file);
        let fits = |name: &&&str| {
            let name = bare(name);
            name.strip_suffix(end.as_str()).is_some_and(|before| before.is_empty() || before.ends_with(['/', '.', '-']))
        };
        let mut fitting = names.iter().filter(fits);
        fitting.next().filter(|_| fitting.next().is_none()).copied()
    }
}

fn is_word(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !word.contains("..")
}

/// Whether the text can be a revision or a file within a model: it leads nowhere else.
pub(crate) fn is_path(path: &str) -> bool {
    path.split('/').all(is_word)
}

/// Names for a message, the first ten of them.
pub(crate) fn list(names: &[&str]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        1..=10 => names.join(", "),
        more => format!("{} and {} more", names[..10].join(", "), more - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, Option<&str>, Option<&str>)>) {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let expected = expected.map(|(id, revision, file)| HubName {
            id: id.to_owned(),
            revision: owned(revision),
            file: owned(file),
        });
        assert_eq!(HubName::parse(text), expected, "{text}");
    }

    #[test]
    fn names() {
        check("Qwen/Qwen3-0.6B", Some(("Qwen/Qwen3-0.6B", None, None)));
        check("a/b@v1.0", Some(("a/b", Some("v1.0"), None)));
        check("a/b@refs/pr/3", Some(("a/b", Some("refs/pr/3"), None)));
        check("a/b:q4_k_m", Some(("a/b", None, Some("q4_k_m"))));
        check("a/b@main:sub/x.Q8_0.gguf", Some(("a/b", Some("main"), Some("sub/x.Q8_0.gguf"))));
    }

    #[test]
    fn paths() {
        for text in [
            "model",
            "./a/b",
            "../a",
            "/a/b",
            "~/b",
            "a/b/c",
            "a/b.gguf",
            "C:\\a\\b",
            "a\\b",
            "a/..",
            "a/b@",
            "a/b:",
            "a/b:../../x",
            "a/b@../x",
            "",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn one_file_is_picked() {
        let names = ["m.Q4_0.gguf", "m.Q8_0.gguf", "m.Q4_K_M.gguf"];
        assert_eq!(HubName::pick("m.Q4_0.gguf", &names), Ok("m.Q4_0.gguf"));
        assert_eq!(HubName::pick("q8_0", &names), Ok("m.Q8_0.gguf"));
        assert_eq!(
            HubName::pick("q4", &names),
            Err("has several .gguf files that \"q4\" fits: m.Q4_0.gguf, m.Q4_K_M.gguf; name one of them".to_owned())
        );
        assert_eq!(
            HubName::pick("bf16", &names),
            Err("has no .gguf file \"bf16\"; it has m.Q4_0.gguf, m.Q8_0.gguf, m.Q4_K_M.gguf".to_owned())
        );
    }

    #[test]
    fn a_cached_file_is_taken_for_its_own_name_only() {
        let names = ["m.Q4_K_M.gguf", "sub/m-Q8_0.gguf"];
        for (file, expected) in [
            ("m.Q4_K_M.gguf", Some(names[0])),
            ("q4_k_m", Some(names[0])),
            ("m-Q8_0.gguf", Some(names[1])),
            // The hub may have m.Q4_0.gguf, m.Q5_K_M.gguf and m.IQ8_0.gguf.
            ("q4", None),
            ("K_M", None),
            ("8_0", None),
            ("m", None),
        ] {
            assert_eq!(HubName::pick_end(file, &names), expected, "{file}");
        }
        assert_eq!(HubName::pick_end("q8_0", &["a.Q8_0.gguf", "b.Q8_0.gguf"]), None);
    }
}
