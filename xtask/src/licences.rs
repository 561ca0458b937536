//! What the project may depend on, checked from `cargo metadata`: permissive licences, crates.io only, nothing that
//! brings a C library of its own for what Rust can do. It does what a configuration of cargo-deny would, without
//! installing it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, output};

const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // Mozilla's list of certificate authorities: data, not a program.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "zlib-acknowledgement",
];

/// Crates that must not come in, and why.
const BANNED: [(&str, &str); 8] = [
    ("openssl", "use rustls"),
    ("openssl-sys", "use rustls"),
    ("native-tls", "use rustls"),
    ("onig", "a C library: use fancy-regex"),
    ("onig_sys", "a C library: use fancy-regex"),
    ("serde_yaml", "no longer maintained"),
    ("serde_pickle", "pickles can run code"),
    ("time", "std::time is enough"),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks every dependency on every platform; names those that are there in several versions.
pub(crate) fn check() -> Result<()> {
    let metadata = output(cargo().args(["metadata", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_slice(&metadata).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let members: Vec<&str> =
        metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut problems = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let (name, version) = (text("name"), text("version"));
        versions.entry(name).or_default().push(version);
        match package["source"].as_str() {
            Some(CRATES_IO) => {}
            None if members.contains(&text("id")) => {}
            other => problems.push(format!("{name} {version} comes from {}", other.unwrap_or("a folder outside"))),
        }
        match package["license"].as_str() {
            None => problems.push(format!("{name} {version} names no licence")),
            Some(licence) if !is_allowed(licence) => {
                problems.push(format!("{name} {version} has the licence {licence}, which is not in the list"));
            }
            Some(_) => {}
        }
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            problems.push(format!("{name} {version} is banned: {reason}"));
        }
    }
    for (name, found) in versions.iter().filter(|(_, found)| found.len() > 1) {
        println!("{name} is there {} times: {}", found.len(), found.join(", "));
    }
    println!("{} packages: licences, sources and bans", packages.len());
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Whether an SPDX expression leaves a choice that is allowed: `AND` needs both sides, `OR` and the older `/` one.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = any(&mut rest);
    allowed && rest.is_empty()
}

fn any(words: &mut &[&str]) -> bool {
    let mut allowed = all(words);
    while let ["OR", rest @ ..] = words {
        *words = rest;
        allowed |= all(words);
    }
    allowed
}

fn all(words: &mut &[&str]) -> bool {
    let mut allowed = one(words);
    while let ["AND", rest @ ..] = words {
        *words = rest;
        allowed &= one(words);
    }
    allowed
}

fn one(words: &mut &[&str]) -> bool {
    match words {
        ["(", rest @ ..] => {
            *words = rest;
            let allowed = any(words);
            if let [")", rest @ ..] = words {
                *words = rest;
            }
            allowed
        }
        [licence, "WITH", exception, rest @ ..] => {
            let name = format!("{licence} WITH {exception}");
            *words = rest;
            ALLOWED.contains(&name.as_str())
        }
        [licence, rest @ ..] => {
            let name = *licence;
            *words = rest;
            ALLOWED.contains(&name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR GPL-3.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in ["GPL-3.0", "MIT AND GPL-3.0", "", "(MIT OR Apache-2.0) AND MPL-2.0", "MIT Apache-2.0"] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
