//! Whether the files that a configuration names are there, and whether its output folder is free: the first look at the disk,
//! before anything is read or computed.

use std::path::{Path, PathBuf};

use super::{ModelSettings, Resume, TrainConfig};
use crate::builtin;
use crate::fail;
use crate::hub::{HubEnvironment, Wanted, is_elsewhere, locate};
use crate::settings::Problem;

impl ModelSettings {
    /// Finds model and adapter where they are named by `org/name`, and downloads what is nowhere yet.
    ///
    /// # Errors
    /// When one of them can be had neither from the cache nor from the hub.
    pub(crate) fn locate(&mut self, environment: &HubEnvironment) -> anyhow::Result<()> {
        self.model = locate("model_name_or_path", &self.name, Wanted::Model, &self.hub, environment)?;
        for adapter in self.adapter.iter_mut().chain(&mut self.beside) {
            let named = adapter.display().to_string();
            *adapter = locate("adapter_name_or_path", &named, Wanted::Adapter, &self.hub, environment)?;
        }
        Ok(())
    }
}

impl TrainConfig {
    /// Looks whether the output folder is free, unless a run in it goes on, and whether model and adapter exist; finds those that
    /// are named by `org/name`. Nothing is downloaded for a run that could not begin.
    ///
    /// # Errors
    /// A sentence for each that is not as it should be.
    pub(crate) fn find_files(&mut self, resumes: bool, environment: &HubEnvironment) -> anyhow::Result<()> {
        let mut problems = self.check_output(resumes);
        let elsewhere = |name: &str| is_elsewhere(name);
        let mut adapters = self.model.adapter.iter().chain(&self.model.beside);
        let adapter = adapters.any(|path| elsewhere(&path.display().to_string()));
        if problems.is_empty() || !(elsewhere(&self.model.name) || adapter) {
            self.model.locate(environment)?;
            problems.splice(0..0, self.check_model_files().err().unwrap_or_default());
        }
        if problems.is_empty() { Ok(()) } else { Err(fail(problems)) }
    }

    fn check_output(&self, resumes: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let folder = &self.output.folder;
        let mut marks = vec!["adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"];
        // A run that is to go on and was killed before its first checkpoint has left a log, and nothing that is lost.
        if self.saving.resume == Resume::No {
            marks.push("trainer_log.jsonl");
        }
        let held = marks.into_iter().find(|name| folder.join(name).exists());
        let held = held.or_else(|| crate::checkpoint::has_any(folder).then_some("checkpoints"));
        // Killed while it saved: the run that is to go on has not ended, so nothing of it is lost when it begins anew.
        let held = held.filter(|_| self.saving.resume == Resume::No || !crate::outcome::is_unfinished(folder));
        let whole = |path: &Path| path.canonicalize().ok();
        if whole(folder).is_some_and(|folder| whole(&self.model.model) == Some(folder)) {
            problems.push(Problem(format!(
                "output_dir: {} is the folder of the model that is trained; choose another, so that it stays as it is",
                folder.display()
            )));
        }
        let above = folder.ancestors().find(|above| above.exists() && !above.as_os_str().is_empty());
        let above = above.or(Some(Path::new(".")));
        if let Some(Err(error)) = above.filter(|above| above.is_dir()).map(luthier_files::check_writable) {
            problems.push(Problem(format!("output_dir: {}: {}", folder.display(), describe(&error))));
        }
        let above = above.filter(|above| *above != folder.as_path());
        match held {
            _ if above.is_some_and(Path::is_file) => {
                let above = above.unwrap_or(folder).display();
                problems.push(Problem(format!(
                    "output_dir: {} cannot be made, since {above} is a file; expected a folder",
                    folder.display()
                )));
            }
            _ if folder.is_file() => {
                problems.push(Problem(format!("output_dir: {} is a file; expected a folder", folder.display())));
            }
            Some(name) if !self.output.overwrite && !resumes => problems.push(Problem(format!(
                "output_dir: {} already holds {name} of another run; choose another folder, set \
                 overwrite_output_dir: true, or go on with that run with resume_from_checkpoint: true",
                folder.display()
            ))),
            _ => {}
        }
        problems
    }

    /// Looks whether the model and the adapter that are named exist.
    ///
    /// # Errors
    /// A sentence for each that does not.
    pub(crate) fn check_model_files(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        problems.extend(check_model(&self.model.model, "model_name_or_path").err());
        for adapter in self.model.beside.iter().chain(&self.model.adapter) {
            problems.extend(check_adapter(adapter, "adapter_name_or_path").err());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// Whether there is something at the path that can be a model; `name` says in the message who named it.
pub(crate) fn check_model(path: &Path, name: &str) -> Result<(), Problem> {
    if builtin::is_named(path) {
        return Ok(());
    }
    let shown = path.display();
    if !path.exists() {
        return Err(Problem(format!(
            "{name}: {shown} does not exist; expected a Hugging Face folder, a GGUF file, or org/name of the hub"
        )));
    }
    if path.is_dir() && !path.join("config.json").exists() {
        if let [one, other, ..] = gguf_files(path).as_slice() {
            let [one, other] = [one, other].map(|path| path.display());
            return Err(Problem(format!("{name}: {shown} has several GGUF files; name one, such as {one} or {other}")));
        }
        return Err(Problem(format!(
            "{name}: {shown} has no config.json; expected a Hugging Face folder or a GGUF file"
        )));
    }
    Ok(())
}

/// The GGUF files in a folder, in the order of their names.
pub(crate) fn gguf_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_gguf = |path: &PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    let mut found: Vec<PathBuf> = entries.filter(is_gguf).collect();
    found.sort();
    found
}

/// Whether there is something at the path that can be an adapter.
pub(crate) fn check_adapter(path: &Path, name: &str) -> Result<(), Problem> {
    if path.join("adapter_config.json").exists() {
        return Ok(());
    }
    let shown = path.display();
    let what = if path.exists() { "has no adapter_config.json" } else { "does not exist" };
    Err(Problem(format!("{name}: {shown} {what}; expected a PEFT adapter folder")))
}

/// What went wrong with a file, without the number that the standard library adds.
pub(crate) fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not text in UTF-8".to_owned(),
        _ => error.to_string(),
    }
}
