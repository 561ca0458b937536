//! Models named by `org/name`: from a cache as Hugging Face's tools leave it, and from a hub that the test itself is. No
//! network is used.

mod tiny_model;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secretSECRETsecret";

/// `luthier generate` of a few tokens in a folder that is home and cache at once.
fn generate(folder: &Path, model: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["generate", "--model", model, "--prompt", "Hi", "--max-new-tokens", "4", "--precision", "fp32"]);
    run(command, folder, environment)
}

fn run(mut command: Command, folder: &Path, environment: &[(&str, &str)]) -> Output {
    for name in [
        "HF_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "XDG_CACHE_HOME",
        "SSL_CERT_FILE",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.current_dir(folder).env("HF_HOME", "hf").envs(environment.iter().copied()).output().expect("it runs")
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn a_model_in_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("hf/hub/models--org--tiny");
    tiny_model::write(&model.join("snapshots").join(COMMIT));
    fs::create_dir_all(model.join("refs")).expect("made");
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    let note = format!("note: org/tiny is taken from the cache: hf/hub/models--org--tiny/snapshots/{COMMIT}\n");
    let offline = [("HF_HUB_OFFLINE", "1")];
    let here = generate(folder.path(), "org/tiny", &offline);
    check(&here, 0, &plain(folder.path()), &note);
    check(&generate(folder.path(), &format!("org/tiny@{COMMIT}"), &offline), 0, &plain(folder.path()), &note);
    check(
        &generate(folder.path(), "org/tiny@v2", &offline),
        1,
        "",
        "error: --model: org/tiny is no path, not in the cache hf/hub with revision v2, and HF_HUB_OFFLINE is set; give a path, \
         set HF_HOME to a cache that has it, or unset HF_HUB_OFFLINE\n",
    );
    fs::remove_file(model.join("snapshots").join(COMMIT).join("model.safetensors")).expect("removed");
    check(
        &generate(folder.path(), "org/tiny", &offline),
        1,
        "",
        "error: --model: org/tiny is no path, in the cache hf/hub without model.safetensors, and HF_HUB_OFFLINE is set; give \
         a path, set HF_HOME to a cache that has it, or unset HF_HUB_OFFLINE\n",
    );
}

/// What the model says when it is given by path.
fn plain(folder: &Path) -> String {
    let path = folder.join("plain");
    tiny_model::write(&path);
    let output = generate(folder, "plain", &[]);
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    check(&output, 0, &text, "");
    assert!(!text.trim().is_empty());
    text
}

#[test]
fn a_hub_that_cannot_be_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    // A port that was free a moment ago, and on which nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let output = generate(folder.path(), "org/tiny", &[("HF_ENDPOINT", &endpoint)]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let begin =
        format!("error: --model: org/tiny is no path, not in the cache hf/hub, and {endpoint} cannot be reached: ");
    assert!(stderr.starts_with(&begin), "{stderr}");
    assert!(
        stderr.ends_with(
            "; give a path, set HF_HOME to a cache that has it, or HF_ENDPOINT to a mirror that can be reached\n"
        ) && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("hf").exists(), "something was left behind");
}

/// How the test's hub behaves.
#[derive(Default)]
struct Behaviour {
    /// Refuses whoever does not bring the token.
    private: bool,
    /// Weights end early so many times; `usize::MAX`: always.
    breaks: Mutex<usize>,
    /// Weights are sent with a byte changed.
    damages: bool,
    /// Weights come from another host, which refuses whoever brings a token.
    redirects: bool,
}

/// A hub with the model `org/tiny`; files that no one should ask for are there too.
struct Hub {
    endpoint: String,
    /// Request lines, and what `Range` each brought.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start(behaviour: Behaviour) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        tiny_model::write(folder.path());
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        for entry in fs::read_dir(folder.path()).expect("listed") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            files.insert(name, fs::read(entry.path()).expect("read"));
        }
        for name in ["pytorch_model.bin", "run.py", "README.md", "weights.pt"] {
            files.insert(name.to_owned(), b"not needed".to_vec());
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &files, &behaviour, &heard);
            }
        });
        Self { endpoint, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("whole").clone()
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What git calls a file.
fn git_hash(bytes: &[u8]) -> String {
    let whole = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    Sha1::digest(whole).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Answers one request and closes.
fn serve(mut stream: TcpStream, files: &HashMap<String, Vec<u8>>, behaviour: &Behaviour, heard: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    let Some(Ok(request)) = lines.next() else { return };
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        headers.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = header("range");
    let from =
        range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    heard
        .lock()
        .expect("whole")
        .push(format!("{path}{}", from.map(|from| format!(" from {from}")).unwrap_or_default()));
    let mut answer = |status: &str, body: &[u8], length: usize| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    let is_elsewhere = path.starts_with("/elsewhere/");
    if is_elsewhere && header("authorization").is_some() {
        return answer("400 Bad Request", b"", 0);
    }
    if behaviour.private && !is_elsewhere && header("authorization") != Some(format!("Bearer {TOKEN}")) {
        return answer("401 Unauthorized", b"no", 2);
    }
    if ["main", COMMIT].iter().any(|name| path == format!("/api/models/org/tiny/revision/{name}?blobs=true")) {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, bytes)| {
                let blob = git_hash(bytes);
                let mut file = json!({ "rfilename": name, "size": bytes.len(), "blobId": blob });
                if name.ends_with(".safetensors") {
                    file["lfs"] = json!({ "sha256": sha256(bytes), "size": bytes.len() });
                }
                file
            })
            .collect();
        let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return answer("200 OK", body.as_bytes(), body.len());
    }
    let prefix = format!("/org/tiny/resolve/{COMMIT}/");
    let here = path.strip_prefix(&prefix);
    if behaviour.redirects && here.is_some_and(|name| name.ends_with(".safetensors")) {
        let port = header("host").and_then(|host| host.rsplit(':').next().map(str::to_owned)).unwrap_or_default();
        let place = format!("http://localhost:{port}/elsewhere/model.safetensors");
        return answer(&format!("302 Found\r\nLocation: {place}"), b"", 0);
    }
    let Some((name, bytes)) = here.or(path.strip_prefix("/elsewhere/")).and_then(|name| files.get_key_value(name))
    else {
        return answer("404 Not Found", b"", 0);
    };
    let mut bytes = bytes.clone();
    let is_large = name.ends_with(".safetensors");
    if is_large && behaviour.damages {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    let rest = &bytes[from.unwrap_or(0).min(bytes.len())..];
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut breaks = behaviour.breaks.lock().expect("whole");
    if is_large && *breaks > 0 {
        *breaks -= usize::from(*breaks != usize::MAX);
        return answer(status, &rest[..rest.len() / 2], rest.len());
    }
    answer(status, rest, rest.len());
}

fn sizes(folder: &Path) -> HashMap<String, u64> {
    let size = |name: &str| fs::metadata(folder.join(name)).expect("there").len();
    ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
        .into_iter()
        .map(|name| (name.to_owned(), size(name)))
        .collect()
}

/// What is said while the files arrive, before `end`.
fn downloading(folder: &Path, end: &str) -> String {
    let sizes = sizes(&folder.join("plain"));
    let mut said = String::new();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        let bytes = sizes[name];
        let size = if bytes < 1000 { format!("{bytes} B") } else { format!("{:.1} kB", bytes as f64 / 1e3) };
        said.push_str(&format!("downloading org/tiny/{name} ({size})\n"));
    }
    said + end
}

fn arrived() -> String {
    format!("note: org/tiny is now in the cache: hf/hub/models--org--tiny/snapshots/{COMMIT}\n")
}

fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let text = plain(folder.path());
    (folder, text)
}

#[test]
fn only_what_is_needed_is_downloaded_once() {
    let (folder, text) = folder();
    let hub = Hub::start(Behaviour::default());
    let environment = [("HF_ENDPOINT", hub.endpoint.as_str())];
    check(&generate(folder.path(), "org/tiny", &environment), 0, &text, &downloading(folder.path(), &arrived()));
    let prefix = format!("/org/tiny/resolve/{COMMIT}/");
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
    let mut expected = vec!["/api/models/org/tiny/revision/main?blobs=true".to_owned()];
    expected.extend(files.iter().map(|name| format!("{prefix}{name}")));
    assert_eq!(hub.requests(), expected);
    // As Hugging Face's tools lay it: contents by hash, a snapshot of links, a reference.
    let model = folder.path().join("hf/hub/models--org--tiny");
    assert_eq!(fs::read_to_string(model.join("refs/main")).expect("read"), COMMIT);
    let weights = fs::read(tiny_model::fixture("models/llama/model.safetensors")).expect("read");
    assert_eq!(fs::read(model.join("blobs").join(sha256(&weights))).expect("read"), weights);
    // The second time the hub is not asked.
    let note = format!("note: org/tiny is taken from the cache: hf/hub/models--org--tiny/snapshots/{COMMIT}\n");
    check(&generate(folder.path(), "org/tiny", &environment), 0, &text, &note);
    assert_eq!(hub.requests().len(), expected.len());
}

/// As a program leaves it that wanted the weights only.
#[test]
fn a_tokenizer_that_the_cache_lacks_is_fetched() {
    let (folder, text) = folder();
    let model = folder.path().join("hf/hub/models--org--tiny");
    let snapshot = model.join("snapshots").join(COMMIT);
    tiny_model::write(&snapshot);
    fs::create_dir_all(model.join("refs")).expect("made");
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    fs::remove_file(snapshot.join("tokenizer.json")).expect("removed");
    // Where the hub is not to be had, what is there is used.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    for environment in [("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", &endpoint)] {
        let output = generate(folder.path(), "org/tiny", &[environment]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("note: org/tiny is taken from the cache") && said.contains("tokenizer.json is missing"),
            "{said}"
        );
    }
    let hub = Hub::start(Behaviour::default());
    let environment = [("HF_ENDPOINT", hub.endpoint.as_str())];
    let bytes = sizes(&folder.path().join("plain"))["tokenizer.json"];
    let said = format!("downloading org/tiny/tokenizer.json ({:.1} kB)\n{}", bytes as f64 / 1e3, arrived());
    check(&generate(folder.path(), "org/tiny", &environment), 0, &text, &said);
    let resolved = format!("/org/tiny/resolve/{COMMIT}/tokenizer.json");
    assert_eq!(hub.requests(), [format!("/api/models/org/tiny/revision/{COMMIT}?blobs=true"), resolved]);
}

#[test]
fn a_private_model_needs_the_token() {
    let (folder, text) = folder();
    let hub = Hub::start(Behaviour { private: true, ..Behaviour::default() });
    let endpoint = ("HF_ENDPOINT", hub.endpoint.as_str());
    check(
        &generate(folder.path(), "org/tiny", &[endpoint]),
        1,
        "",
        &format!(
            "error: --model: org/tiny: {} refuses access (401): it may be private, gated or misspelt; set HF_TOKEN to a token \
             whose owner has access\n",
            hub.endpoint
        ),
    );
    let wrong = generate(folder.path(), "org/tiny", &[endpoint, ("HF_TOKEN", "hf_wrongWRONG")]);
    check(
        &wrong,
        1,
        "",
        &format!(
            "error: --model: org/tiny: {} refuses access (401): the token may be expired, or its owner has no access to this \
             model yet (ask for it on the model's page)\n",
            hub.endpoint
        ),
    );
    // What a login has left.
    fs::create_dir_all(folder.path().join("hf")).expect("made");
    fs::write(folder.path().join("hf/token"), format!("{TOKEN}\n")).expect("written");
    let output = generate(folder.path(), "org/tiny", &[endpoint]);
    check(&output, 0, &text, &downloading(folder.path(), &arrived()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.arg("env");
    let output = run(command, folder.path(), &[endpoint, ("HF_TOKEN", TOKEN)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\ntoken             yes\n") && !said.contains(TOKEN), "{said}");
}

#[test]
fn a_model_that_the_hub_does_not_have() {
    let (folder, _) = folder();
    let hub = Hub::start(Behaviour::default());
    check(
        &generate(folder.path(), "org/tony", &[("HF_ENDPOINT", &hub.endpoint)]),
        1,
        "",
        &format!(
            "error: --model: org/tony is no path, not in the cache hf/hub, and {} has no such model\n",
            hub.endpoint
        ),
    );
    check(
        &generate(folder.path(), "org/tiny:q4", &[("HF_ENDPOINT", &hub.endpoint)]),
        1,
        "",
        "error: --model: org/tiny has no .gguf file \"q4\"; it has none\n",
    );
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let (folder, text) = folder();
    let hub = Hub::start(Behaviour { breaks: Mutex::new(1), ..Behaviour::default() });
    let output = generate(folder.path(), "org/tiny", &[("HF_ENDPOINT", &hub.endpoint)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("note: org/tiny/model.safetensors: ") && said.contains("; trying again\n"), "{said}");
    let half = sizes(&folder.path().join("plain"))["model.safetensors"] / 2;
    let last = hub.requests().pop().expect("a request");
    assert_eq!(last, format!("/org/tiny/resolve/{COMMIT}/model.safetensors from {half}"));
}

#[test]
fn a_token_is_not_sent_to_another_host() {
    let (folder, text) = folder();
    let behaviour = Behaviour { private: true, redirects: true, breaks: Mutex::new(1), ..Behaviour::default() };
    let hub = Hub::start(behaviour);
    let output = generate(folder.path(), "org/tiny", &[("HF_ENDPOINT", &hub.endpoint), ("HF_TOKEN", TOKEN)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", String::from_utf8_lossy(&output.stderr));
    let half = sizes(&folder.path().join("plain"))["model.safetensors"] / 2;
    assert_eq!(hub.requests().pop().expect("a request"), format!("/elsewhere/model.safetensors from {half}"));
}

#[test]
fn a_revision_that_is_a_path_out_of_the_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["chat", "model_name_or_path=org/tiny", "model_revision=../../x", "--prompt", "Hi"]);
    check(
        &run(command, folder.path(), &[("HF_HUB_OFFLINE", "1")]),
        1,
        "",
        "error: model_name_or_path: model_revision is \"../../x\"; expected a branch, a tag or a commit\n",
    );
}

#[test]
fn a_download_that_always_breaks_fails_cleanly() {
    for behaviour in [
        Behaviour { breaks: Mutex::new(usize::MAX), ..Behaviour::default() },
        Behaviour { damages: true, ..Behaviour::default() },
    ] {
        let (folder, _) = folder();
        let reason = if behaviour.damages { "its SHA-256 is not the one that the hub names" } else { "" };
        let hub = Hub::start(behaviour);
        let output = generate(folder.path(), "org/tiny", &[("HF_ENDPOINT", &hub.endpoint)]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with(&format!("error: --model: org/tiny/model.safetensors could not be downloaded: {reason}"))
                && last.ends_with(" (4 tries); what has arrived is kept, and the next start goes on from there"),
            "{said}"
        );
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let model = folder.path().join("hf/hub/models--org--tiny");
        assert!(!model.join("snapshots").join(COMMIT).join("model.safetensors").exists());
        assert!(!model.join("refs/main").exists(), "a snapshot without weights has a name");
    }
}

#[test]
fn a_training_takes_revision_cache_and_token_from_its_settings() {
    let (folder, _) = folder();
    let hub = Hub::start(Behaviour { private: true, ..Behaviour::default() });
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("rows.jsonl", "{\"input_ids\": [5, 6, 7, 8]}\n");
    write(
        "train.yaml",
        &format!(
            "model_name_or_path: org/tiny\nmodel_revision: main\ncache_dir: kept\nhf_hub_token: {TOKEN}\ndataset: rows.jsonl\n\
             max_steps: 1\noutput_dir: out\n"
        ),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_luthier"));
    command.args(["train", "train.yaml"]);
    let output = run(command, folder.path(), &[("HF_ENDPOINT", &hub.endpoint)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains(TOKEN), "{said}");
    assert!(folder.path().join("kept/models--org--tiny/refs/main").exists());
    // The adapter names the model as it was named, not the place where it lies.
    let config = fs::read_to_string(folder.path().join("out/adapter_config.json")).expect("read");
    assert!(config.contains("\"base_model_name_or_path\": \"org/tiny\""), "{config}");
}
