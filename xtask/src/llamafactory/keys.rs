//! The keys of LLaMA-Factory's command line and their defaults, read from the sources of its dataclasses.
//!
//! It reads the one way in which they are written there, `name: type = field(default=..., ...)`, and nothing is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The list: a key and its default a line, sorted, both as a YAML file would have them.
pub(crate) fn list(llamafactory: &Path, transformers: &Path) -> Result<String> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    let names = enumerations(&read(&llamafactory.join("extras/constants.py"))?);
    let mut keys = BTreeMap::new();
    let files = ["training_args.py", "training_args_seq2seq.py"].map(|name| transformers.join(name));
    let own = ["model", "data", "training", "finetuning", "generating"]
        .map(|name| llamafactory.join(format!("hparams/{name}_args.py")));
    for path in files.iter().chain(&own) {
        for (key, default) in fields(&read(path)?) {
            let value = yaml(&default, &names)
                .with_context(|| format!("{}: the default of {key} is {default:?}", path.display()))?;
            keys.insert(key, value);
        }
    }
    let mut list = String::from(
        "# Keys and defaults of LLaMA-Factory 0.9.5 and transformers 5.6.0; written by `cargo xtask llamafactory`.\n",
    );
    for (key, value) in keys {
        list.push_str(&format!("{key}\t{value}\n"));
    }
    Ok(list)
}

/// The fields of dataclasses that a user may set, with the source of their defaults.
fn fields(source: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((declared, first)) = line.strip_prefix("    ").and_then(|line| line.split_once(" = field(")) else {
            continue;
        };
        let Some((name, _)) = declared.split_once(':').filter(|(name, _)| !name.starts_with(' ')) else { continue };
        let rest = lines[at + 1..].iter().take_while(|line| first.is_empty() && **line != "    )");
        let arguments: String =
            std::iter::once(first).chain(rest.copied()).map(|line| line.trim().to_owned() + " ").collect();
        if arguments.contains("init=False") {
            continue;
        }
        let default = match arguments.split_once("default=") {
            Some((before, default)) if before.trim().is_empty() => default.split(',').next().unwrap_or_default(),
            _ => "None",
        };
        found.push((name.to_owned(), default.trim().trim_end_matches(')').to_owned()));
    }
    found
}

/// `AttentionFunction.AUTO` and its text, for each member of each enumeration.
fn enumerations(source: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut class = "";
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("class ") {
            class = name.split('(').next().unwrap_or_default();
        } else if let Some((member, text)) = line.trim().split_once(" = \"").filter(|_| line.starts_with("    ")) {
            names.insert(format!("{class}.{member}"), text.trim_end_matches('"').to_owned());
        }
    }
    names
}

/// A default as a YAML file would have it; nothing for none.
fn yaml(source: &str, names: &BTreeMap<String, String>) -> Result<String> {
    Ok(match source {
        "None" | "\"\"" => String::new(),
        "True" => "true".to_owned(),
        "False" => "false".to_owned(),
        // Of the versions of torch that transformers 5.6.0 asks for.
        "default_optim" => "adamw_torch_fused".to_owned(),
        text if text.len() > 1 && text.starts_with('"') && text.ends_with('"') => text.trim_matches('"').to_owned(),
        product if product.contains(" * ") => {
            let factors: Vec<u64> = product.split(" * ").map(str::parse).collect::<Result<_, _>>()?;
            factors.iter().product::<u64>().to_string()
        }
        number if number.parse::<f64>().is_ok() => number.to_owned(),
        name => match names.get(name) {
            Some(text) => text.clone(),
            None => bail!("it is no literal"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
class A:
    rank: int = field(
        default=8,
        metadata={\"help\": \"default=9, or not.\"},
    )
    size: int = field(default=768 * 768, metadata={\"help\": \"a, b\"})
    mode: Mode | None = field(
        default=Mode.ON,
    )
    names: list[str] = field(
        default_factory=list, metadata={}
    )
    hidden: int = field(
        default=1,
        init=False,
    )
    name = 5
";

    #[test]
    fn fields_and_their_defaults() {
        let names = enumerations("class Mode(StrEnum):\n    ON = \"on\"\n");
        let found: Vec<_> = fields(SOURCE)
            .into_iter()
            .map(|(key, default)| (key, yaml(&default, &names).expect("a literal")))
            .collect();
        let expected = [("rank", "8"), ("size", "589824"), ("mode", "on"), ("names", "")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
