//! Which files a dataset is made of: a name of `dataset_info.json`, a file, a folder with all data files in it, or a glob. Of a
//! folder that is parted as those of the Hugging Face hub are (`train-00000-of-00002.parquet`, `test.jsonl`, `validation/`), one
//! part is taken; what is left out is said.

use std::path::{Component, Path, PathBuf};

use crate::dataset_info::{DatasetEntry, DatasetInfo};
use crate::error::Error;
use crate::read::{Container, ENDINGS};

/// The files of a dataset, in order, and what is known of it.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) entry: Option<DatasetEntry>,
    /// Which of the records are meant: `[10:]` of a split.
    pub(crate) slice: Option<Slice>,
    /// What was left out.
    pub(crate) notes: Vec<String>,
    /// How `dataset_info.json` would name it.
    pub(crate) file_name: String,
}

/// What stands in a folder of data and is none.
const NOT_DATA: [&str; 5] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "metadata.json"];

/// Endings that a name may leave out, and those of compression.
const COMPRESSED: [&str; 4] = ["", ".gz", ".zst", ".zstd"];

/// Finds the files of a dataset.
///
/// Errors: the name is unknown or means two files; an entry cannot be used; a folder has no data.
pub(crate) fn locate(dataset: &str, folder: &Path) -> Result<Located, Error> {
    let problem = |problem: String| Error::Dataset { dataset: dataset.to_owned(), problem };
    let info_path = folder.join("dataset_info.json");
    let info = match std::fs::read(&info_path) {
        Ok(bytes) => Some(DatasetInfo::parse(&info_path, &bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => return Err(Error::Read { path: info_path, cause }),
    };
    if let Some(info) = &info
        && let Some(entry) = info.entry(dataset)?
    {
        let mut path = folder.join(&entry.file_name);
        path.extend(&entry.inside);
        let split = entry.split.clone();
        let located = at(&path, split.as_deref(), folder)
            .and_then(|found| found.ok_or_else(|| format!("there is no file or folder {}", path.display())))
            .map_err(|problem| info.problem(dataset, problem))?;
        return Ok(Located { entry: Some(entry), ..located });
    }
    // A folder that happens to have the name of a dataset hides none.
    let here = PathBuf::from(dataset);
    let hidden = here.components().count() == 1 && here.is_dir();
    for path in [Some(here.clone()).filter(|_| !hidden), Some(folder.join(dataset))].into_iter().flatten() {
        if let Some(found) = at(&path, None, folder).map_err(problem)? {
            return Ok(found);
        }
    }
    let file = folder.join(dataset);
    let endings = ENDINGS.iter().flat_map(|(ending, _)| COMPRESSED.map(|packed| format!("{dataset}.{ending}{packed}")));
    let mut named = endings.map(|name| folder.join(name)).filter(|path| path.is_file());
    match (named.next(), named.next()) {
        (Some(one), Some(other)) => {
            let (one, other) = (one.display(), other.display());
            Err(problem(format!("it could be {one} or {other}; give the whole name of the file")))
        }
        (Some(path), None) => Ok(Located::of(vec![path], folder)),
        (None, _) if hidden => {
            let found = at(&here, None, folder).map_err(problem)?;
            found.ok_or_else(|| problem("it is neither a file nor a folder with data".to_owned()))
        }
        (None, _) => {
            let known = match info {
                Some(info) => format!("has only {}", info.names().join(", ")),
                None => "does not exist".to_owned(),
            };
            Err(Error::UnknownDataset { dataset: dataset.to_owned(), info: info_path, known, file })
        }
    }
}

impl Located {
    fn of(files: Vec<PathBuf>, folder: &Path) -> Self {
        let named = files.first().map(|file| from_folder(file, folder).display().to_string());
        Self { files, entry: None, slice: None, notes: Vec::new(), file_name: named.unwrap_or_default() }
    }
}

/// How a file is reached from a folder.
fn from_folder(file: &Path, folder: &Path) -> PathBuf {
    if let Ok(inside) = file.strip_prefix(folder) {
        return inside.to_owned();
    }
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if file.is_relative() && folder.components().all(plain) {
        let up = folder.components().filter(|part| matches!(part, Component::Normal(_))).map(|_| "..");
        return up.collect::<PathBuf>().join(file);
    }
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

/// The files at a path: itself, those in a folder, or those that a glob matches.
fn at(path: &Path, split: Option<&str>, folder: &Path) -> Result<Option<Located>, String> {
    let split = split.map(Split::parse).transpose()?;
    if path.is_file() {
        if let Some(split) = split.as_ref().filter(|split| split.name != "train") {
            return Err(format!("\"split\" is {:?}, and a file is \"train\" as a whole", split.name));
        }
        let slice = split.and_then(|split| split.slice);
        return Ok(Some(Located { slice, ..Located::of(vec![path.to_owned()], folder) }));
    }
    let mut notes = Vec::new();
    let file_name = from_folder(path, folder).display().to_string();
    let (root, files) = if path.is_dir() {
        let mut files = Vec::new();
        collect(path, 0, &mut files)
            .map_err(|error| format!("the folder {} cannot be read: {error}", path.display()))?;
        if files.is_empty() {
            let known: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
            return Err(format!(
                "the folder {} has no data files; known endings are {}",
                path.display(),
                known.join(", ")
            ));
        }
        // A licence or a list beside the data is none.
        let is_text = |file: &PathBuf| Container::of_name(&file.to_string_lossy()) == Some(Container::Text);
        let (texts, others): (Vec<_>, Vec<_>) = files.into_iter().partition(is_text);
        if !texts.is_empty() && !others.is_empty() {
            let names: Vec<String> = texts.iter().map(|file| from_folder(file, path).display().to_string()).collect();
            notes.push(format!("the text beside its data is not read: {}", names.join(", ")));
        }
        (path.to_owned(), if others.is_empty() { texts } else { others })
    } else if path.to_string_lossy().contains(['*', '?']) {
        let (root, files) = glob(path);
        if files.is_empty() {
            return Err(format!("no file matches {}", path.display()));
        }
        // Whoever writes a pattern says which files are meant.
        if split.is_none() {
            return Ok(Some(Located { file_name, ..Located::of(files, folder) }));
        }
        (root, files)
    } else {
        return Ok(None);
    };
    let wanted = split.as_ref().map_or("train", |split| split.name.as_str());
    let parted: Vec<(Option<String>, PathBuf)> =
        files.into_iter().map(|file| (part_of(file.strip_prefix(&root).unwrap_or(&file)), file)).collect();
    let mut parts: Vec<&str> = parted.iter().filter_map(|(part, _)| part.as_deref()).collect();
    parts.sort_unstable();
    parts.dedup();
    let known = parts.join(", ");
    let slice = split.as_ref().and_then(|split| split.slice);
    if parts.is_empty() {
        if wanted != "train" {
            return Err(format!("\"split\" is {wanted:?}, and the files of {} have no splits", path.display()));
        }
        let files = parted.into_iter().map(|(_, file)| file).collect();
        return Ok(Some(Located { slice, notes, file_name, ..Located::of(files, folder) }));
    }
    let (taken, left): (Vec<_>, Vec<_>) = parted.iter().partition(|(part, _)| part.as_deref() == Some(wanted));
    if taken.is_empty() {
        return Err(format!(
            "the folder {} has the splits {known}, and not {wanted}; name one with \"split\" in an entry of dataset_info.json, \
             or give the path of a file",
            path.display()
        ));
    }
    let files = taken.iter().map(|(_, file)| file.clone()).collect();
    if !left.is_empty() {
        let (read, all) = (taken.len(), parted.len());
        let bare: Vec<String> = left
            .iter()
            .filter(|(part, _)| part.is_none())
            .map(|(_, file)| from_folder(file, &root).display().to_string())
            .collect();
        let bare = match bare.is_empty() {
            true => String::new(),
            false => format!("; of no split, and left out: {}", bare.join(", ")),
        };
        notes.push(format!("of its splits {known}, {wanted} is read ({read} of {all} files){bare}"));
    }
    Ok(Some(Located { slice, notes, file_name, ..Located::of(files, folder) }))
}

/// The data files of a folder and the folders in it, by name.
fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    const DEEPEST: usize = 4;
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth < DEEPEST {
                collect(&path, depth + 1, files)?;
            }
        } else if Container::of_name(&name).is_some() && !NOT_DATA.contains(&name.as_str()) && !is_cache(&name) {
            files.push(path);
        }
    }
    Ok(())
}

/// What Hugging Face's `datasets` keeps of its work beside the data: the same records once more.
fn is_cache(name: &str) -> bool {
    name.starts_with("cache-") && name.ends_with(".arrow")
}

/// The files that a pattern matches, by name, and the folder that they are in. `*` and `?` stand for a part of one name.
fn glob(pattern: &Path) -> (PathBuf, Vec<PathBuf>) {
    let mut found = vec![PathBuf::new()];
    let mut root = PathBuf::new();
    let mut fixed = true;
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy().into_owned();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            if fixed {
                root.push(part);
            }
            continue;
        }
        fixed = false;
        let mut next = Vec::new();
        for folder in &found {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            for entry in std::fs::read_dir(here).into_iter().flatten().flatten() {
                if matches(text.as_bytes(), entry.file_name().to_string_lossy().as_bytes()) {
                    next.push(folder.join(entry.file_name()));
                }
            }
        }
        next.sort();
        found = next;
    }
    found.retain(|path| path.is_file());
    (root, found)
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star stands, and how much of the name it has taken.
    let (mut at, mut taken, mut star) = (0, 0, None);
    while taken < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[taken] => {
                at += 1;
                taken += 1;
            }
            _ => match star {
                Some((star_at, star_taken)) => {
                    (at, taken) = (star_at + 1, star_taken + 1);
                    star = Some((star_at, taken));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The split that a file belongs to, by its name or that of a folder.
fn part_of(file: &Path) -> Option<String> {
    let mut names: Vec<String> =
        file.components().map(|part| part.as_os_str().to_string_lossy().to_ascii_lowercase()).collect();
    let last = names.pop().unwrap_or_default();
    let stem = last.split('.').next().unwrap_or_default();
    let pieces: Vec<&str> = stem.rsplitn(4, '-').collect();
    if let [count, "of", number, name] = pieces[..] {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits(count) && digits(number) && name != "data" {
            return Some(name.to_owned());
        }
    }
    let words = std::iter::once(stem.to_owned()).chain(names.into_iter().rev());
    words.into_iter().find_map(|name| {
        name.split(|letter: char| !letter.is_ascii_alphabetic()).find_map(|word| match word {
            "train" | "training" => Some("train".to_owned()),
            "test" | "testing" => Some("test".to_owned()),
            "validation" | "valid" | "val" | "dev" | "eval" => Some("validation".to_owned()),
            _ => None,
        })
    })
}

/// `train`, `train[:100]`, `train[10%:90%]`
#[derive(Debug, PartialEq)]
struct Split {
    name: String,
    slice: Option<Slice>,
}

/// A part of the records, from one border to before the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slice {
    from: Option<Border>,
    to: Option<Border>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Border {
    /// From the end when negative.
    Record(i64),
    Percent(i64),
}

impl Split {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("\"split\" is {text:?}; expected a name, or one with a slice such as train[:100] or train[10%:]")
        };
        let Some((name, slice)) = text.split_once('[') else {
            if text.contains('+') {
                return Err(wrong());
            }
            return Ok(Self { name: text.to_owned(), slice: None });
        };
        let (from, to) = slice.strip_suffix(']').and_then(|slice| slice.split_once(':')).ok_or_else(wrong)?;
        let border = |text: &str| match text.trim() {
            "" => Ok(None),
            text => match text.strip_suffix('%') {
                Some(percent) => percent.parse().map(|percent| Some(Border::Percent(percent))),
                None => text.parse().map(|record| Some(Border::Record(record))),
            },
        };
        let slice = Slice { from: border(from).map_err(|_| wrong())?, to: border(to).map_err(|_| wrong())? };
        Ok(Self { name: name.to_owned(), slice: Some(slice) })
    }
}

impl Slice {
    /// The records that are meant of so many.
    pub(crate) fn of(self, records: usize) -> std::ops::Range<usize> {
        let count = i64::try_from(records).unwrap_or(i64::MAX);
        let place = |border: Border| {
            let place = match border {
                Border::Record(record) => record,
                Border::Percent(percent) => (percent.clamp(-100, 100) as f64 / 100.0 * count as f64).round() as i64,
            };
            let place = if place < 0 { count.saturating_add(place) } else { place };
            usize::try_from(place.clamp(0, count)).unwrap_or(0)
        };
        let from = self.from.map_or(0, place);
        from..self.to.map_or(records, place).max(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("*.json", "a.jsonl", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "aXbY", false),
            ("?.csv", "1.csv", true),
            ("?.csv", "12.csv", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn splits_of_files() {
        for (file, expected) in [
            ("data/train-00000-of-00002.parquet", Some("train")),
            ("data/train_sft-00000-of-00001.parquet", Some("train_sft")),
            ("test.jsonl.gz", Some("test")),
            ("validation/data-00000-of-00001.arrow", Some("validation")),
            ("my_dev.csv", Some("validation")),
            ("contest.json", None),
            ("data-00000-of-00001.arrow", None),
        ] {
            assert_eq!(part_of(Path::new(file)).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn slices_of_splits() {
        let slice = |text: &str| Split::parse(text).map(|split| split.slice.expect("a slice").of(200));
        assert_eq!(slice("train[:10]"), Ok(0..10));
        assert_eq!(slice("train[10%:50%]"), Ok(20..100));
        assert_eq!(slice("train[-5:]"), Ok(195..200));
        assert_eq!(slice("train[500:]"), Ok(200..200));
        assert!(Split::parse("train[1]").is_err());
        assert!(Split::parse("train+test").is_err());
    }
}
