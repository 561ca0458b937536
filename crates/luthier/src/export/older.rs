//! What `--overwrite` may replace: an export and nothing else. A folder is replaced as a whole, so every file in it must be
//! one that an export writes, and its card must say that it was exported.

use std::path::Path;

use luthier_model::checkpoint::{GgufFileType, INDEX_FILE, WEIGHTS_FILE};
use luthier_tensor::DType;

use super::card::MARK;
use super::config::{Target, companions};

/// Whether what is at the target is an older export; the error is the rest of a sentence that begins with the target.
pub(super) fn replaceable(target: &Target) -> Result<(), String> {
    let (folder, card) = match target {
        Target::Folder(folder) => (folder, folder.join("README.md")),
        Target::File(file) => {
            let [_, card, _] = companions(file);
            return match card.exists() && !is_card(&card) {
                true => Err(format!("has a neighbour {} that no export has written", card.display())),
                false => Ok(()),
            };
        }
    };
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot be listed: {error}"))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot be listed: {error}"))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        names.push((entry.file_name().to_string_lossy().into_owned(), is_file));
    }
    names.sort_unstable();
    let name = target.name();
    if let Some((foreign, _)) = names.iter().find(|(file, is_file)| !is_file || !is_of_an_export(file, &name)) {
        return Err(format!("holds {foreign}, which no export writes"));
    }
    if names.iter().filter(|(file, _)| file.ends_with(".gguf")).count() > 1 {
        return Err("holds several .gguf files, and an export writes one".to_owned());
    }
    if !is_card(&card) {
        return Err(format!("is not known as an export, since it has no README.md that says {:?}", MARK.trim()));
    }
    Ok(())
}

fn is_card(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(MARK))
}

/// Whether an export called `name` writes a file that is called `file`.
fn is_of_an_export(file: &str, name: &str) -> bool {
    let is_gguf = || {
        let kind = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".gguf"));
        let names = GgufFileType::ALL.map(|named| named.name).into_iter().chain(DType::BLOCKS.map(DType::name));
        kind.is_some_and(|kind| names.map(str::to_uppercase).any(|name| name == kind))
    };
    luthier_files::COMPANIONS.contains(&file)
        || [WEIGHTS_FILE, INDEX_FILE, "README.md", "Modelfile"].contains(&file)
        || is_shard(file)
        || is_gguf()
}

/// `model-00001-of-00002.safetensors`
fn is_shard(file: &str) -> bool {
    let number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = file.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors")?.split_once("-of-"));
    numbers.is_some_and(|(one, all)| number(one) && number(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_export_writes() {
        let ours = [
            "config.json",
            "model.safetensors",
            "model-00001-of-00012.safetensors",
            "m-Q8_0.gguf",
            "m-Q4_K_M.gguf",
            "Modelfile",
        ];
        for name in ours {
            assert!(is_of_an_export(name, "m"), "{name}");
        }
        for name in ["run.json", "model-1-of-2.safetensors", "m.gguf", "x-Q8_0.gguf", "m-Q4_K_X.gguf", "notes.md"] {
            assert!(!is_of_an_export(name, "m"), "{name}");
        }
    }
}
