//! Downloading into the cache. The hub lists a model's files with their sizes and hashes; those that are needed are fetched
//! one by one, weights last, so that a snapshot with weights is whole. A file arrives beside its place, is checked, flushed
//! and renamed; what arrived of an interrupted one stays there, and the next try asks for the rest.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use luthier_model::adapter::{CONFIG_FILE as ADAPTER_CONFIG, WEIGHTS_FILE as ADAPTER_WEIGHTS};
use luthier_model::checkpoint::{INDEX_FILE, WEIGHTS_FILE, shard_names};
use serde_json::Value;
use sha1::{Digest, Sha1};
use ureq::config::RedirectAuthHeaders;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::cache::{Cache, TOKENIZER};
use super::name::{HubName, list};
use super::transfer::Transfer;
use super::{Token, Wanted};
use crate::eprint_line;

/// How often a file is asked for when the connection breaks.
const TRIES: u32 = 4;
const CONNECT: Duration = Duration::from_secs(15);
const RESPONSE: Duration = Duration::from_secs(60);
/// A connection over which nothing comes for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// A list of files is not longer.
const LIST_BYTES: u64 = 64 << 20;

/// A hub that can be asked.
pub(crate) struct Hub<'a> {
    endpoint: &'a str,
    token: Option<Token>,
    agent: Agent,
}

/// A file that the hub has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remote {
    name: String,
    bytes: Option<u64>,
    /// The name of its content: a SHA-256 or, for small files, git's hash.
    blob: Option<String>,
    sha256: Option<String>,
}

/// Why a file did not arrive.
enum Failure {
    /// Another try may succeed.
    Passing(String),
    Final(anyhow::Error),
}

impl<'a> Hub<'a> {
    /// # Errors
    /// When the endpoint, the token or the certificates cannot be what they should be.
    pub(crate) fn new(endpoint: &'a str, token: Option<Token>, certificates: Option<&Path>) -> anyhow::Result<Self> {
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            bail!("HF_ENDPOINT is {endpoint:?}; expected an address that begins with https://");
        }
        if token.as_ref().is_some_and(|token| !token.0.bytes().all(|byte| byte.is_ascii_graphic())) {
            bail!("the token of the hub has characters that no token has; set HF_TOKEN to the token alone");
        }
        if token.is_some() && !endpoint.starts_with("https://") && !is_this_machine(endpoint) {
            bail!(
                "HF_ENDPOINT is {endpoint:?}, and everybody on the way could read the token that is sent there; expected an \
                 address that begins with https://, or no token"
            );
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = certificates {
            let shown = path.display();
            let text = std::fs::read(path).with_context(|| format!("SSL_CERT_FILE: {shown} cannot be read"))?;
            let mut found: Vec<Certificate<'static>> = Vec::new();
            for item in ureq::tls::parse_pem(&text) {
                if let PemItem::Certificate(one) = item.with_context(|| format!("SSL_CERT_FILE: {shown}"))? {
                    found.push(one);
                }
            }
            tls = tls.root_certs(RootCerts::new_with_certs(&found));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(RESPONSE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("luthier/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        Ok(Self { endpoint, token, agent: config.into() })
    }

    /// Fetches what is needed of a model and returns the path to open. `missing` says what the cache lacked.
    pub(crate) fn download(
        &self,
        name: &HubName,
        revision: &str,
        wanted: Wanted,
        cache: &Cache,
        missing: &str,
    ) -> anyhow::Result<PathBuf> {
        let id = &name.id;
        let (commit, remotes) = self.list(id, revision, missing)?;
        let folder = cache.folder(id);
        let snapshot = folder.join("snapshots").join(&commit);
        let place =
            Place { hub: self, id, commit: &commit, folder: &folder, locks: cache.locks(id), snapshot: &snapshot };
        let names: Vec<&str> = remotes.iter().map(|remote| remote.name.as_str()).collect();
        let choice = choose(name, wanted, &names).map_err(|problem| anyhow::anyhow!("{id} {problem}"))?;
        let find = |name: &str| remotes.iter().find(|remote| remote.name == name);
        let small: Vec<&Remote> = choice.small.iter().filter_map(|name| find(name)).collect();
        place.fetch(&small)?;
        let mut weights = choice.weights.clone();
        if choice.indexed {
            let index = std::fs::read(snapshot.join(INDEX_FILE)).with_context(|| format!("{id}: {INDEX_FILE}"))?;
            weights = shard_names(&format!("{id}/{INDEX_FILE}"), &index)?;
        }
        if let Some(lacking) = weights.iter().find(|name| find(name).is_none()) {
            bail!("{id} has no {lacking}, which its {INDEX_FILE} lists");
        }
        let large: Vec<&Remote> = weights.iter().filter_map(|name| find(name)).collect();
        place.fetch(&large)?;
        if revision != commit {
            let reference = folder.join("refs").join(revision);
            if let Some(parent) = reference.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
            }
            luthier_files::write_atomically(&reference, |writer| writer.write_all(commit.as_bytes()))?;
        }
        if !choice.single && wanted == Wanted::Model && find(TOKENIZER).is_none() {
            cache.note_absent(id, &commit)?;
        }
        let path = if choice.single { snapshot.join(&weights[0]) } else { snapshot };
        eprint_line(&format!("note: {id} is now in the cache: {}", path.display()));
        Ok(path)
    }

    /// The commit that a revision is, and its files.
    fn list(&self, id: &str, revision: &str, missing: &str) -> anyhow::Result<(String, Vec<Remote>)> {
        let revision_part = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{id}/revision/{revision_part}?blobs=true", self.endpoint);
        let mut response = self.get(&url, None).map_err(|error| {
            anyhow::anyhow!(
                "{id} is no path, {missing}, and {} cannot be reached: {error}; give a path, set HF_HOME to a cache that has \
                 it, or HF_ENDPOINT to a mirror that can be reached",
                self.endpoint
            )
        })?;
        let status = response.status().as_u16();
        match status {
            200 => {}
            404 => {
                bail!("{id} is no path, {missing}, and {} has no such model{}", self.endpoint, of_revision(revision))
            }
            401 | 403 => bail!("{}", self.denied(id, status)),
            _ => bail!("{} answers {status} when it is asked for {id}; try again later", self.endpoint),
        }
        let odd = |what: &str| anyhow::anyhow!("{} answers something else than a list of files: {what}", self.endpoint);
        let text = response.body_mut().with_config().limit(LIST_BYTES).read_to_string();
        let text = text.map_err(|error| odd(&error.to_string()))?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| odd(&error.to_string()))?;
        let commit = answer["sha"].as_str().filter(|sha| is_hash(sha)).ok_or_else(|| odd("there is no commit"))?;
        let files = answer["siblings"].as_array().ok_or_else(|| odd("there are no files"))?;
        Ok((commit.to_owned(), files.iter().filter_map(Remote::read).collect()))
    }

    fn denied(&self, id: &str, status: u16) -> String {
        let advice = match self.token {
            Some(_) => {
                "the token may be expired, or its owner has no access to this model yet (ask for it on the model's page)"
            }
            None => "it may be private, gated or misspelt; set HF_TOKEN to a token whose owner has access",
        };
        format!("{id}: {} refuses access ({status}): {advice}", self.endpoint)
    }

    fn get(&self, url: &str, from: Option<u64>) -> Result<ureq::http::Response<Body>, String> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.0));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| error.to_string())
    }
}

/// Whether an address without encryption goes to this machine.
fn is_this_machine(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

fn of_revision(revision: &str) -> String {
    if revision == "main" { String::new() } else { format!(" with revision {revision}") }
}

impl Remote {
    /// `None` for a file outside the model's folder: no name that is written to the disk comes from elsewhere unseen.
    fn read(value: &Value) -> Option<Self> {
        let name = value["rfilename"].as_str()?;
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
        if !name.split('/').all(is_part) {
            return None;
        }
        let text = |value: &Value| value.as_str().filter(|text| is_hash(text)).map(str::to_owned);
        let lfs = &value["lfs"];
        let sha256 = text(&lfs["sha256"]).filter(|hash| hash.len() == 64);
        let blob = sha256.clone().or_else(|| text(&value["blobId"]));
        let bytes = lfs["size"].as_u64().or_else(|| value["size"].as_u64());
        Some(Self { name: name.to_owned(), bytes, blob, sha256 })
    }
}

fn is_hash(text: &str) -> bool {
    (32..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Which files are needed.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    small: Vec<String>,
    weights: Vec<String>,
    /// The weights are what an index among the small files lists.
    indexed: bool,
    /// The one file of `weights` is the model.
    single: bool,
}

/// What is needed of a model that has files of these names; the error is the rest of a sentence that begins with the model.
fn choose(name: &HubName, wanted: Wanted, names: &[&str]) -> Result<Choice, String> {
    let has = |file: &str| names.contains(&file);
    let ending = |end: &str| names.iter().copied().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let single = |file: &str| Choice { small: Vec::new(), weights: owned(&[file]), indexed: false, single: true };
    if wanted == Wanted::Adapter {
        return match (has(ADAPTER_CONFIG), has(ADAPTER_WEIGHTS)) {
            (true, true) => Ok(Choice {
                small: owned(&[ADAPTER_CONFIG]),
                weights: owned(&[ADAPTER_WEIGHTS]),
                indexed: false,
                single: false,
            }),
            _ => Err(format!("is no PEFT adapter that can be read: it has no {ADAPTER_CONFIG} with {ADAPTER_WEIGHTS}")),
        };
    }
    let ggufs = ending(".gguf");
    if let Some(file) = &name.file {
        return HubName::pick(file, &ggufs).map(single);
    }
    let (indexed, whole) = (has(INDEX_FILE), has(WEIGHTS_FILE));
    if has("config.json") && (indexed || whole) {
        let mut small = luthier_files::COMPANIONS.into_iter().filter(|name| has(name)).collect::<Vec<_>>();
        small.extend(indexed.then_some(INDEX_FILE));
        let weights = if indexed { Vec::new() } else { owned(&[WEIGHTS_FILE]) };
        return Ok(Choice { small: owned(&small), weights, indexed, single: false });
    }
    if has(ADAPTER_CONFIG) {
        return Err("is an adapter, not a model; give the base model, and this as its adapter".to_owned());
    }
    match ggufs.as_slice() {
        [only] => return Ok(single(only)),
        [] => {}
        several => {
            return Err(format!(
                "has several .gguf files: {}; name one as {}:FILE, or by a part of its name such as {}:Q4_K_M",
                list(several),
                name.id,
                name.id
            ));
        }
    }
    let pickles: Vec<&str> = [".bin", ".pt", ".pth"].iter().flat_map(|end| ending(end)).collect();
    match pickles.first() {
        Some(pickle) => Err(format!(
            "has its weights as {pickle} only, a Python pickle, which can execute code while it is loaded; choose a version \
             with .safetensors files"
        )),
        None => {
            Err(format!("is no model that can be read: it has no config.json with {WEIGHTS_FILE}, and no .gguf file"))
        }
    }
}

/// Where the files of one commit go.
struct Place<'a> {
    hub: &'a Hub<'a>,
    id: &'a str,
    commit: &'a str,
    folder: &'a Path,
    locks: PathBuf,
    snapshot: &'a Path,
}

impl Place<'_> {
    /// Fetches the files that are not there yet.
    fn fetch(&self, remotes: &[&Remote]) -> anyhow::Result<()> {
        let missing: Vec<&&Remote> =
            remotes.iter().filter(|remote| !self.snapshot.join(&remote.name).exists()).collect();
        std::fs::create_dir_all(self.snapshot)
            .with_context(|| format!("{} cannot be made", self.snapshot.display()))?;
        let needed: u64 = missing.iter().filter_map(|remote| remote.bytes).sum();
        if let Some(free) = luthier_files::free_bytes(self.snapshot).filter(|free| needed > *free) {
            bail!(
                "{}: {:.2} GB are to be downloaded to {}, where {:.2} GB are free; make room or set HF_HOME to another disk",
                self.id,
                needed as f64 / 1e9,
                self.folder.display(),
                free as f64 / 1e9
            );
        }
        missing.into_iter().try_for_each(|remote| self.fetch_one(remote))
    }

    fn fetch_one(&self, remote: &Remote) -> anyhow::Result<()> {
        let pointer = self.snapshot.join(&remote.name);
        // Without a hash for a name the content lies in the snapshot itself, as on systems without links.
        let content = match &remote.blob {
            Some(blob) => self.folder.join("blobs").join(blob),
            None => pointer.clone(),
        };
        for path in [&pointer, &content] {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
            }
        }
        let _lock = self.lock(remote)?;
        if !content.exists() {
            self.receive_whole(remote, &content)?;
        }
        if content != pointer && !pointer.exists() {
            link(&content, &pointer, remote.name.matches('/').count())
                .with_context(|| format!("{} cannot be made", pointer.display()))?;
        }
        Ok(())
    }

    /// Waits until no other program fetches the same content.
    fn lock(&self, remote: &Remote) -> anyhow::Result<File> {
        let name = remote.blob.clone().unwrap_or_else(|| remote.name.replace('/', "--"));
        let path = self.locks.join(format!("{name}.lock"));
        std::fs::create_dir_all(&self.locks).with_context(|| format!("{} cannot be made", self.locks.display()))?;
        let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        if file.try_lock().is_err() {
            eprint_line(&format!("note: another program downloads {}/{}; waiting for it", self.id, remote.name));
            // A disk that knows no locks (some network shares): then there is no one to wait for.
            let _ = file.lock();
        }
        Ok(file)
    }

    fn receive_whole(&self, remote: &Remote, content: &Path) -> anyhow::Result<()> {
        let mut part = content.as_os_str().to_owned();
        part.push(".incomplete");
        let part = PathBuf::from(part);
        let shown = format!("{}/{}", self.id, remote.name);
        let mut transfer = Transfer::new(&shown, remote.bytes);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.receive(remote, &part, &mut transfer) {
                Ok(()) => break,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) if tries == TRIES => bail!(
                    "{shown} could not be downloaded: {reason} ({TRIES} tries); what has arrived is kept, and the next start \
                     goes on from there"
                ),
                Err(Failure::Passing(reason)) => {
                    transfer.say(&format!("note: {shown}: {reason}; trying again"));
                    std::thread::sleep(Duration::from_millis(250 << tries));
                }
            }
        }
        transfer.finish();
        std::fs::rename(&part, content).with_context(|| format!("{} cannot be put in place", content.display()))
    }

    /// Receives what `part` lacks and checks the whole.
    fn receive(&self, remote: &Remote, part: &Path, transfer: &mut Transfer) -> Result<(), Failure> {
        let broken = |action: &str| {
            let message = format!("{} cannot be {action}", part.display());
            move |error: std::io::Error| Failure::Final(anyhow::Error::new(error).context(message))
        };
        let open = OpenOptions::new().create(true).append(true).open(part);
        let mut file = open.map_err(broken("written"))?;
        let mut start = file.metadata().map_err(broken("read"))?.len();
        if remote.bytes.is_some_and(|bytes| start > bytes) {
            file.set_len(0).map_err(broken("written"))?;
            start = 0;
        }
        let mut expected = remote.bytes;
        if expected.is_none_or(|bytes| start < bytes || bytes == 0) {
            let url = format!("{}/{}/resolve/{}/{}", self.hub.endpoint, self.id, self.commit, escaped(&remote.name));
            let response = self.hub.get(&url, (start > 0).then_some(start)).map_err(Failure::Passing)?;
            match response.status().as_u16() {
                206 => {}
                200 => {
                    file.set_len(0).map_err(broken("written"))?;
                    start = 0;
                }
                416 => {
                    file.set_len(0).map_err(broken("written"))?;
                    return Err(Failure::Passing("the hub has no rest of it".to_owned()));
                }
                status @ (401 | 403) => {
                    return Err(Failure::Final(anyhow::anyhow!(self.hub.denied(self.id, status))));
                }
                status @ (408 | 429 | 500..) => return Err(Failure::Passing(format!("the hub answers {status}"))),
                status => {
                    let message = format!("{}/{}: the hub answers {status}", self.id, remote.name);
                    return Err(Failure::Final(anyhow::anyhow!(message)));
                }
            }
            expected = expected.or_else(|| response.body().content_length().map(|rest| start + rest));
            transfer.begin(start);
            let mut reader = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 20];
            loop {
                let count = reader.read(&mut buffer).map_err(|error| Failure::Passing(error.to_string()))?;
                if count == 0 {
                    break;
                }
                file.write_all(&buffer[..count]).map_err(broken("written"))?;
                transfer.add(count as u64);
            }
        }
        file.sync_all().map_err(broken("written"))?;
        let length = file.metadata().map_err(broken("read"))?.len();
        match expected {
            Some(bytes) if length < bytes => {
                return Err(Failure::Passing(format!("the connection ended after {length} of {bytes} bytes")));
            }
            Some(bytes) if length > bytes => {
                file.set_len(0).map_err(broken("written"))?;
                return Err(Failure::Passing(format!("the hub sent {length} bytes in place of {bytes}")));
            }
            _ => {}
        }
        let (kind, named, found) = match (&remote.sha256, &remote.blob) {
            (Some(sha256), _) => ("SHA-256", sha256, luthier_files::sha256_of_file(part)),
            // What git calls a file is a hash too; of forty digits, it is SHA-1.
            (None, Some(blob)) if blob.len() == 40 => ("git hash", blob, git_hash(part, length)),
            _ => return Ok(()),
        };
        if found.map_err(broken("read"))? != *named {
            file.set_len(0).map_err(broken("written"))?;
            return Err(Failure::Passing(format!("its {kind} is not the one that the hub names")));
        }
        Ok(())
    }
}

/// What git calls a file of this length: the SHA-1 of a header and the content.
fn git_hash(path: &Path, length: u64) -> std::io::Result<String> {
    let mut hash = Sha1::new();
    hash.update(format!("blob {length}\0"));
    std::io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes `pointer`, `depth` folders below its snapshot, stand for `content`.
fn link(content: &Path, pointer: &Path, depth: usize) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut target = PathBuf::from("../".repeat(depth + 2));
        target.push("blobs");
        target.push(content.file_name().unwrap_or_default());
        if std::os::unix::fs::symlink(target, pointer).is_ok() {
            return Ok(());
        }
    }
    let _ = depth;
    std::fs::hard_link(content, pointer).or_else(|_| std::fs::rename(content, pointer))
}

/// A path as a part of an address.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: Wanted, names: &[&str], expected: Result<(&[&str], &[&str]), &str>) {
        let name = HubName::parse(text).expect("a name");
        let found = choose(&name, wanted, names).map(|choice| (choice.small, choice.weights));
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let expected = expected.map(|(small, weights)| (owned(small), owned(weights)));
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn only_what_is_needed() {
        let names = ["README.md", "config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "run.py"];
        check("a/b", Wanted::Model, &names, Ok((&["config.json", "tokenizer.json"], &["model.safetensors"])));
        let names = ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "x.gguf"];
        check("a/b", Wanted::Model, &names, Ok((&["config.json", "model.safetensors.index.json"], &[])));
        check("a/b:x", Wanted::Model, &names, Ok((&[], &["x.gguf"])));
        let names = ["m.Q4_0.gguf", "m.Q8_0.gguf"];
        check("a/b:q8", Wanted::Model, &names, Ok((&[], &["m.Q8_0.gguf"])));
        let names = ["adapter_config.json", "adapter_model.safetensors"];
        check("a/b", Wanted::Adapter, &names, Ok((&["adapter_config.json"], &["adapter_model.safetensors"])));
        check(
            "a/b",
            Wanted::Model,
            &names,
            Err("is an adapter, not a model; give the base model, and this as its adapter"),
        );
    }

    #[test]
    fn what_cannot_be_used() {
        check(
            "a/b",
            Wanted::Model,
            &["m.Q4_0.gguf", "m.Q8_0.gguf"],
            Err(
                "has several .gguf files: m.Q4_0.gguf, m.Q8_0.gguf; name one as a/b:FILE, or by a part of its name such as \
                 a/b:Q4_K_M",
            ),
        );
        check(
            "a/b",
            Wanted::Model,
            &["config.json", "pytorch_model.bin"],
            Err(
                "has its weights as pytorch_model.bin only, a Python pickle, which can execute code while it is loaded; \
                 choose a version with .safetensors files",
            ),
        );
        check(
            "a/b",
            Wanted::Model,
            &["README.md"],
            Err("is no model that can be read: it has no config.json with model.safetensors, and no .gguf file"),
        );
    }

    #[test]
    fn names_from_elsewhere_stay_in_the_folder() {
        for name in ["../x", "/etc/x", "a/../../x", "a\\..\\x", "C:x", ""] {
            assert_eq!(Remote::read(&json!({ "rfilename": name })), None, "{name}");
        }
        let hash = "a".repeat(64);
        let found = Remote::read(&json!({
            "rfilename": "a b.safetensors", "size": 1, "blobId": "../../x", "lfs": { "sha256": hash, "size": 7 }
        }));
        let expected =
            Remote { name: "a b.safetensors".to_owned(), bytes: Some(7), blob: Some(hash.clone()), sha256: Some(hash) };
        assert_eq!(found, Some(expected));
        assert_eq!(escaped("x/a b%.safetensors"), "x/a%20b%25.safetensors");
    }

    #[test]
    fn addresses_and_tokens_are_checked() {
        let error =
            |endpoint, token: &str| Hub::new(endpoint, Token::new(token), None).err().expect("refused").to_string();
        assert_eq!(
            error("huggingface.co", ""),
            "HF_ENDPOINT is \"huggingface.co\"; expected an address that begins with https://"
        );
        assert_eq!(
            error("http://mirror", "hf_x"),
            "HF_ENDPOINT is \"http://mirror\", and everybody on the way could read the token that is sent there; expected an \
             address that begins with https://, or no token"
        );
        assert!(Hub::new("http://localhost:80", Token::new("hf_x"), None).is_ok());
        assert!(Hub::new("http://localhost:80.mirror", Token::new("hf_x"), None).is_err());
        let refused = error("https://huggingface.co", "hf_secret\nX-Other: 1");
        assert!(!refused.contains("secret"), "{refused}");
    }
}
