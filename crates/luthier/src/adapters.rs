//! The adapters that a command loads beside its model: one or several, each by its name, all in memory and any of them in
//! use. Low-rank ones that are in use together are added, each by its weight.

use std::path::{Path, PathBuf};

use anyhow::bail;
use luthier_model::Adapter;
use luthier_model::adapter::{Chosen, Loaded, check_together};

use crate::config::check_adapter;
use crate::fail;
use crate::settings::Problem;

/// Adapters that were read.
#[derive(Debug, Default)]
pub(crate) struct Adapters {
    pub(crate) paths: Vec<PathBuf>,
    /// The last part of each path, with a number where two have the same.
    names: Vec<String>,
    adapters: Vec<Adapter>,
    weights: Vec<f32>,
}

impl Adapters {
    /// Reads adapters: `text` names them with commas between, `weights` are numbers in their order. `find` gives the path of
    /// a name; `problems` are those that were found before.
    pub(crate) fn read(
        setting: &str,
        text: Option<&str>,
        weights: Option<&str>,
        find: &dyn Fn(&str) -> anyhow::Result<PathBuf>,
        mut problems: Vec<Problem>,
    ) -> anyhow::Result<Self> {
        let named: Vec<&str> = text.into_iter().flat_map(|text| text.split(',')).map(str::trim).collect();
        let paths = named.iter().map(|name| find(name)).collect::<anyhow::Result<Vec<_>>>()?;
        problems.extend(paths.iter().filter_map(|path| check_adapter(path, setting).err()));
        if !problems.is_empty() {
            return Err(fail(problems));
        }
        let weights = match weights {
            None => vec![1.0; paths.len()],
            Some(weights) => weights.split(',').map(weight).collect::<anyhow::Result<_>>()?,
        };
        if weights.len() != paths.len() {
            bail!("the adapters are {} and their weights {}; expected a weight for each", paths.len(), weights.len());
        }
        let adapters = paths.iter().map(|path| luthier_files::read_adapter(path)).collect::<Result<Vec<_>, _>>()?;
        let names = names(&paths);
        Ok(Self { paths, names, adapters, weights })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The one that was trained last, whose chat template counts.
    pub(crate) fn last_path(&self) -> Option<&Path> {
        self.paths.last().map(PathBuf::as_path)
    }

    /// As a decoder takes them.
    pub(crate) fn loaded(&self) -> Vec<Loaded<'_>> {
        self.adapters.iter().zip(&self.weights).map(|(adapter, &weight)| Loaded { adapter, weight }).collect()
    }

    /// All of them.
    ///
    /// # Errors
    /// When they cannot be in use together.
    pub(crate) fn all(&self) -> anyhow::Result<Chosen> {
        check_together(&self.loaded(), &None)?;
        Ok(None)
    }

    /// Those that `words` name: names with blanks between, `all`, or `none` for the model alone.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(crate) fn named(&self, words: &str) -> anyhow::Result<Chosen> {
        let number = |word: &str| match self.names.iter().position(|name| name == word) {
            Some(number) => Ok(number as u32),
            None => bail!("there is no adapter {word:?}; expected {}, all or none", self.names.join(", ")),
        };
        let chosen: Chosen = match words {
            "all" => None,
            "none" => Some([].into()),
            words => {
                Some(words.split([' ', ',']).filter(|word| !word.is_empty()).map(number).collect::<Result<_, _>>()?)
            }
        };
        check_together(&self.loaded(), &chosen)?;
        Ok(chosen)
    }

    /// What they are, one a line, and which of them are in use.
    pub(crate) fn list(&self, chosen: &Chosen) -> String {
        let line = |(number, name): (usize, &String)| {
            let used = chosen.as_ref().is_none_or(|chosen| chosen.contains(&(number as u32)));
            let weight = self.weights[number];
            let weight = if weight == 1.0 { String::new() } else { format!(", with weight {weight}") };
            format!(
                "{} {name}: {}{weight}, {}",
                if used { "*" } else { " " },
                self.adapters[number].description(),
                self.paths[number].display()
            )
        };
        self.names.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Names of those in use: `a + 0.5 b`.
    pub(crate) fn sum(&self, chosen: &Chosen) -> String {
        let used = |number: &usize| chosen.as_ref().is_none_or(|chosen| chosen.contains(&(*number as u32)));
        let term = |number: usize| match self.weights[number] {
            1.0 => self.names[number].clone(),
            weight => format!("{weight} {}", self.names[number]),
        };
        let terms: Vec<String> = (0..self.names.len()).filter(used).map(term).collect();
        if terms.is_empty() { "none".to_owned() } else { terms.join(" + ") }
    }
}

fn weight(text: &str) -> anyhow::Result<f32> {
    match text.trim().parse::<f32>() {
        Ok(weight) if weight.is_finite() => Ok(weight),
        _ => bail!("{text:?} is no weight of an adapter; expected numbers with commas between, such as 0.7,0.3"),
    }
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    let name =
        |path: &PathBuf| path.file_name().map_or_else(|| path.display().to_string(), |n| n.display().to_string());
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        let own = name(path).replace([' ', ','], "_");
        let alike = |candidate: &String| names.contains(candidate);
        let numbered = (2..).map(|number| format!("{own}-{number}"));
        let free = std::iter::once(own.clone()).chain(numbered).find(|candidate| !alike(candidate));
        names.push(free.unwrap_or(own));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_called_by_the_end_of_their_path() {
        let paths = ["a/poet", "b/poet", "poet", "my adapter"].map(PathBuf::from);
        assert_eq!(names(&paths), ["poet", "poet-2", "poet-3", "my_adapter"]);
        assert!(weight(" 0.5").is_ok_and(|weight| weight == 0.5) && weight("much").is_err() && weight("inf").is_err());
    }
}
