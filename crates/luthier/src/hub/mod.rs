//! Where models come from: a path, or `org/name` of the Hugging Face hub. The cache that Hugging Face's own tools fill is
//! looked through first; what it lacks is downloaded into it, in its layout, so that both find what either has fetched.
//!
//! It refuses pickles, files outside the model's folder, and files whose size or hash is not what the hub names. The token is
//! sent to the hub alone, over an encrypted connection, and stands in no message.

mod cache;
mod download;
mod name;
mod transfer;

use std::path::{Path, PathBuf};

pub(crate) use cache::Cache;
use download::Hub;
use name::HubName;

use crate::config::gguf_files;
use crate::eprint_line;

/// A secret that cannot be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// `None` for a text without anything in it.
    pub(crate) fn new(text: &str) -> Option<Self> {
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Token")
    }
}

/// What the environment says about the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HubEnvironment {
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else the usual folder; `None` without a home.
    pub(crate) cache: Option<PathBuf>,
    /// `HF_ENDPOINT`, without a slash at its end.
    pub(crate) endpoint: Option<String>,
    /// `HF_TOKEN`.
    pub(crate) token: Option<Token>,
    /// `HF_TOKEN_PATH`, else `token` in `HF_HOME`: where a login has left one.
    pub(crate) token_file: Option<PathBuf>,
    /// `HF_HUB_OFFLINE`
    pub(crate) offline: bool,
    /// `SSL_CERT_FILE`: the authorities to trust in place of the built-in ones.
    pub(crate) certificates: Option<PathBuf>,
}

/// Where everybody's models are.
pub(crate) const ENDPOINT: &str = "https://huggingface.co";

impl HubEnvironment {
    /// Reads the variables that Hugging Face's own tools read.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let folder = |name: &str| variable(name).map(PathBuf::from);
        let caches = folder("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let hugging_face = folder("HF_HOME").or_else(|| caches.map(|caches| caches.join("huggingface")));
        let within = |name: &str| hugging_face.as_ref().map(|folder| folder.join(name));
        let offline = variable("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_lowercase();
        Self {
            cache: folder("HF_HUB_CACHE").or_else(|| within("hub")),
            endpoint: variable("HF_ENDPOINT").map(|text| text.trim_end_matches('/').to_owned()),
            token: variable("HF_TOKEN").as_deref().and_then(Token::new),
            token_file: folder("HF_TOKEN_PATH").or_else(|| within("token")),
            offline: matches!(offline.as_str(), "1" | "true" | "yes" | "on"),
            certificates: folder("SSL_CERT_FILE"),
        }
    }

    /// The token of the environment, else the one that a login has left.
    pub(crate) fn any_token(&self) -> Option<Token> {
        let stored = || Token::new(&std::fs::read_to_string(self.token_file.as_deref()?).ok()?);
        self.token.clone().or_else(stored)
    }
}

/// What a configuration says about the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HubSettings {
    /// Branch, tag or commit.
    pub(crate) revision: Option<String>,
    /// The cache to use in place of the environment's.
    pub(crate) cache: Option<PathBuf>,
    /// The token to use in place of the environment's.
    pub(crate) token: Option<Token>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Model,
    Adapter,
}

/// Whether a text names something on a hub, and no path.
pub(crate) fn is_elsewhere(text: &str) -> bool {
    !Path::new(text).exists() && HubName::parse(text).is_some()
}

/// What PEFT calls a base model: its name and its revision.
pub(crate) fn name_and_revision(text: &str) -> (String, Option<String>) {
    match HubName::parse(text).filter(|_| is_elsewhere(text)) {
        Some(name) => (name.id, name.revision),
        None => (text.to_owned(), None),
    }
}

/// The path of a model or an adapter that is named by path or by `org/name`, `org/name@revision`, `org/name:file.gguf`.
/// Downloads what is nowhere yet and says so. A text that is neither is returned as a path, for whoever opens it to refuse.
///
/// # Errors
/// When the name is a hub's and the model can be had neither from the cache nor from the hub. `setting` begins the message.
pub(crate) fn locate(
    setting: &str,
    text: &str,
    wanted: Wanted,
    settings: &HubSettings,
    environment: &HubEnvironment,
) -> anyhow::Result<PathBuf> {
    let path = Path::new(text);
    let Some(name) = (!path.exists()).then(|| HubName::parse(text)).flatten() else {
        // A folder with one GGUF file and nothing else of a model means that file.
        let only = match gguf_files(path).as_slice() {
            [only] if wanted == Wanted::Model && !path.join("config.json").exists() => Some(only.clone()),
            _ => None,
        };
        return Ok(only.unwrap_or_else(|| path.to_owned()));
    };
    locate_name(&name, wanted, settings, environment).map_err(|error| anyhow::anyhow!("{setting}: {error:#}"))
}

fn locate_name(
    name: &HubName,
    wanted: Wanted,
    settings: &HubSettings,
    environment: &HubEnvironment,
) -> anyhow::Result<PathBuf> {
    let Some(root) = settings.cache.clone().or_else(|| environment.cache.clone()) else {
        anyhow::bail!("{} is no path, and no folder for downloads is known; set HF_HOME or give a path", name.id);
    };
    let cache = Cache::new(root);
    // The setting is the model's revision; an adapter has its own.
    let given = settings.revision.as_deref().filter(|_| wanted == Wanted::Model);
    let revision = name.revision.as_deref().or(given).unwrap_or("main");
    if !name::is_path(revision) {
        anyhow::bail!("model_revision is {revision:?}; expected a branch, a tag or a commit");
    }
    let found = cache.find(name, revision, wanted);
    let lacking = match &found {
        Ok(path) if wanted == Wanted::Model && name.file.is_none() && !environment.offline => {
            cache.lacks_companions(&name.id, path)
        }
        _ => None,
    };
    let taken = |path: PathBuf| {
        eprint_line(&format!("note: {} is taken from the cache: {}", name.id, path.display()));
        path
    };
    let (missing, usable) = match (found, lacking) {
        (Ok(path), None) => return Ok(taken(path)),
        (Ok(path), Some(commit)) => ("in the cache without tokenizer.json".to_owned(), Some((path, commit))),
        (Err(missing), _) => (missing, None),
    };
    if environment.offline {
        anyhow::bail!(
            "{} is no path, {missing}, and HF_HUB_OFFLINE is set; give a path, set HF_HOME to a cache that has it, or unset \
             HF_HUB_OFFLINE",
            name.id
        );
    }
    let token = settings.token.clone().or_else(|| environment.any_token());
    let endpoint = environment.endpoint.as_deref().unwrap_or(ENDPOINT);
    let hub = Hub::new(endpoint, token, environment.certificates.as_deref())?;
    let Some((path, commit)) = usable else { return hub.download(name, revision, wanted, &cache, &missing) };
    // Of the same commit, so that nothing is fetched but what is missing.
    hub.download(name, &commit, wanted, &cache, &missing).or_else(|error| {
        eprint_line(&format!("note: {error:#}"));
        Ok(taken(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> HubEnvironment {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        HubEnvironment::read(variable, Some(PathBuf::from("/home/me")))
    }

    #[test]
    fn the_cache_is_where_hugging_face_has_it() {
        let cache = |variables: &[(&str, &str)]| environment(variables).cache.expect("a cache").display().to_string();
        assert_eq!(cache(&[]), "/home/me/.cache/huggingface/hub");
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/c")]), "/c/huggingface/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/c")]), "/hf/hub");
        assert_eq!(cache(&[("HF_HUB_CACHE", "/hub"), ("HF_HOME", "/hf")]), "/hub");
    }

    #[test]
    fn a_token_is_never_printed() {
        let environment = environment(&[("HF_TOKEN", " hf_secret\n"), ("HF_ENDPOINT", "https://mirror/")]);
        assert_eq!(environment.any_token(), Token::new("hf_secret"));
        assert!(!format!("{environment:?}").contains("secret"), "{environment:?}");
        assert_eq!(environment.endpoint.as_deref(), Some("https://mirror"));
        assert!(!environment.offline);
    }
}
