//! No plaintext of a secret anywhere but in the answer to who may read it: a real node that logs everything, secrets
//! through every door and into wrong requests, and then a search of all that it wrote and said.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
    thread::JoinHandle,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use dapr::dapr::proto::runtime::v1::{self as wire, dapr_client::DaprClient};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use service_twin::app::KEY_FILE;
use tonic::transport::Channel;

use super::process::{Ran, twin};

const OWN: &str = "/api/v1/twins/shop/orders";
/// Is set, replaced, rotated; comes with wrong requests.
const SECRETS: [&str; 6] = [
    "first~in~the~clear~KQ7xv",
    "second~in~the~clear~ZpT3w",
    "rotated~in~the~clear~Hd90s",
    "refused~in~the~clear~Lm4Bn",
    "malformed~in~the~clear~Vy6cR",
    "denied~in~the~clear~Xo1eG",
];
/// What secrets are sealed with, given over the environment.
const NODE_KEY: &str = "5ec7e7ba5eba11c0ffee0ddba11ad5015ec7e7ba5eba11c0ffee0ddba11ad501";
/// Lies in files, events and journal, so that the search is seen to find.
const MARKER: &str = "a-text-that-is-found";

/// The forms in which bytes may lie somewhere: as they are, in hexadecimal, in base64 at each place of a group of three,
/// as a list of numbers.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex = hexadecimal(bytes);
    let numbers: Vec<_> = bytes.iter().map(u8::to_string).collect();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex, numbers.join(", "), numbers.join(",")];
    for before in 0..3 {
        // Without the characters that also hold bits of what stands before and behind.
        let whole = BASE64_STANDARD.encode([&vec![0; before][..], bytes].concat());
        let from = [0, 2, 3][before];
        let inner = &whole[from..from + (whole.trim_end_matches('=').len() - from - 1)];
        forms.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
    }
    forms
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// The secrets that lie in some bytes, in whichever form.
fn found(bytes: &[u8]) -> Vec<String> {
    let all = SECRETS.iter().chain([&NODE_KEY]).flat_map(|secret| forms(secret));
    all.filter(|form| holds(bytes, form)).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

/// A node that logs everything, all of which is kept.
struct Loud {
    process: Child,
    log: JoinHandle<String>,
    url: String,
    operator: String,
    client: Client,
}

impl Loud {
    fn start(folder: &Path) -> Self {
        let mut process = twin()
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"])
            .arg(folder)
            .env("TWIN_LOG__FILTER", "trace")
            .env("TWIN_SECRETS_KEY", NODE_KEY)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, urls) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            for line in lines {
                let told: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = told["url"].as_str().filter(|_| told["message"] == "ready") {
                    send.send(url.to_owned()).unwrap();
                }
                log.push_str(&line);
                log.push('\n');
            }
            log
        });
        let url = urls.recv().expect("the node starts");
        let operator = std::fs::read_to_string(folder.join(KEY_FILE)).unwrap().trim().to_owned();
        Self { process, log, url, operator, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn send(&self, key: &str, method: Method, path: &str, body: &str) -> (u16, String) {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(key);
        // Under a key where one is taken, so that the answer is kept.
        let request = if path.contains("/secrets/") {
            request
        } else {
            request.header("idempotency-key", uuid::Uuid::now_v7().to_string())
        };
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let headers = format!("{:?}", answer.headers());
        (answer.status().as_u16(), headers + &answer.text().await.unwrap())
    }

    async fn done(&self, method: Method, path: &str, body: &str) -> String {
        let (status, text) = self.send(&self.operator, method, path, body).await;
        assert!(status < 300, "{path}: {status} {text}");
        text
    }

    /// Ends it in good order; answers with its log.
    fn end(mut self) -> String {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        self.log.join().unwrap()
    }
}

/// Reads what comes until the marker does.
async fn until_marker(mut stream: reqwest::Response) -> String {
    let mut text = String::new();
    while !text.contains(MARKER) {
        text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().expect("the stream goes on")).unwrap());
    }
    text
}

/// Reads secrets over gRPC, as who may.
async fn read_over_grpc(node: &Loud, key: &str) {
    let channel = Channel::from_shared(node.url.clone()).unwrap().connect().await.unwrap();
    let mut client = DaprClient::new(channel);
    let with = |message| {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("dapr-api-token", key.parse().unwrap());
        request
    };
    let get = |key: &str| wire::GetSecretRequest {
        store_name: "secretstore".into(),
        key: key.into(),
        metadata: std::collections::HashMap::new(),
    };
    let read = client.get_secret(with(get("db"))).await.unwrap().into_inner();
    assert_eq!(read.data["db"], SECRETS[2]);
    let status = client.get_secret(with(get("none"))).await.unwrap_err();
    assert_eq!(found(format!("{status:?}").as_bytes()), Vec::<String>::new());
}

#[test]
fn the_search_finds_each_form() {
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{}xyz", SECRETS[0]);
        for hidden in [
            text.clone(),
            BASE64_STANDARD.encode(&text),
            hexadecimal(text.as_bytes()),
            format!("{:?}", text.as_bytes()),
        ] {
            assert!(!found(hidden.as_bytes()).is_empty(), "{before:?}: {hidden}");
        }
    }
    assert!(found(b"nothing").is_empty());
}

#[tokio::test]
async fn no_plaintext_of_a_secret_is_in_anything_a_node_writes_logs_or_says_to_others() {
    let home = tempfile::tempdir().unwrap();
    let (folder, export) = (home.path().join("data"), home.path().join("export.twins"));
    let node = Loud::start(&folder);
    let mut said: Vec<(String, String)> = Vec::new();
    node.done(Method::PUT, OWN, "").await;
    node.done(Method::PUT, &format!("{OWN}/instances/late"), "").await;
    let stream = async |path: &str| {
        let stream = node.client.get(format!("{}{path}", node.url)).bearer_auth(&node.operator).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stream
    };
    let (of_all, of_twin) = (stream("/api/v1/events").await, stream(&format!("{OWN}/events")).await);
    let body = json!({"kind": "service", "service": "shop/orders"});
    let request = node.client.post(format!("{}/api/v1/keys", node.url)).bearer_auth(&node.operator).json(&body);
    let made: Value = request.send().await.unwrap().json().await.unwrap();
    let key = made["key"].as_str().unwrap().to_owned();

    // Through every door that takes one: set, replaced, rotated while an instance lags behind.
    let secret = format!("{OWN}/secrets/db");
    said.push(("set".into(), node.done(Method::PUT, &secret, SECRETS[0]).await));
    said.push(("set anew".into(), node.done(Method::PUT, &secret, SECRETS[1]).await));
    said.push((
        "rotated".into(),
        node.done(Method::PUT, &format!("{secret}?rotate=true&overlap_s=600"), SECRETS[2]).await,
    ));
    said.push(("other".into(), node.done(Method::PUT, &format!("{OWN}/secrets/other"), SECRETS[0]).await));
    // Wrong requests that hold one.
    for (key, method, path, body, statuses) in [
        (&node.operator, Method::PUT, format!("{secret}?rotate=maybe"), SECRETS[3].to_owned(), 400..500),
        (&node.operator, Method::PUT, format!("{secret}?overlap_s=1"), SECRETS[3].to_owned(), 400..500),
        (&node.operator, Method::PUT, format!("{OWN}/secrets/a%2Fb"), SECRETS[3].to_owned(), 400..500),
        (&node.operator, Method::PUT, secret.clone(), SECRETS[3].repeat(1_000), 400..500),
        (&node.operator, Method::POST, secret.clone(), SECRETS[4].to_owned(), 400..500),
        (&node.operator, Method::PUT, format!("{secret}/value"), SECRETS[4].to_owned(), 400..500),
        (&node.operator, Method::POST, format!("{secret}/ack"), format!("{{{}", SECRETS[4]), 400..500),
        (&node.operator, Method::PUT, "/api/v1/twins/bank/a/b/secrets/x".into(), SECRETS[4].to_owned(), 400..500),
        (&node.operator, Method::POST, "/v1.0/secrets/secretstore/db".into(), SECRETS[4].to_owned(), 400..502),
        (&key, Method::PUT, secret.clone(), SECRETS[5].to_owned(), 403..404),
        (&key, Method::PUT, "/api/v1/twins/shop/cart/secrets/db".into(), SECRETS[5].to_owned(), 403..404),
        (&key, Method::PUT, "/v1.0/secrets/secretstore/db".into(), SECRETS[5].to_owned(), 400..502),
        (&"twk_nonsense".to_owned(), Method::PUT, secret.clone(), SECRETS[5].to_owned(), 401..402),
    ] {
        let (status, text) = node.send(key, method.clone(), &path, &body).await;
        assert!(statuses.contains(&status), "{method} {path}: {status} {text}");
        said.push((format!("{method} {path}"), text));
    }
    // Read by who may: the only answers that hold it.
    for path in
        [format!("{secret}/value"), "/v1.0/secrets/secretstore/db".into(), "/v1.0/secrets/secretstore/bulk".into()]
    {
        let (status, text) = node.send(&key, Method::GET, &path, "").await;
        assert!(status == 200 && text.contains(SECRETS[2]), "{path}: {status} {text}");
    }
    read_over_grpc(&node, &key).await;
    node.done(Method::PUT, &format!("{OWN}/secrets/gone"), SECRETS[0]).await;
    node.done(Method::DELETE, &format!("{OWN}/secrets/gone"), "").await;

    node.done(Method::PATCH, &format!("{OWN}/attributes"), &json!({"marker": MARKER}).to_string()).await;
    for path in ["", "/secrets", "/secrets/db", "/journal", "/access", "/commands", "/configuration", "/attributes"] {
        said.push((format!("GET {path}"), node.done(Method::GET, &format!("{OWN}{path}"), "").await));
    }
    for path in ["/metrics", "/api/v1/twins", "/api/v1/keys"] {
        said.push((format!("GET {path}"), node.done(Method::GET, path, "").await));
    }
    let events = [until_marker(of_all).await, until_marker(of_twin).await];
    assert!(events.iter().all(|events| events.contains("secret")), "events tell of secrets, without them");
    said.extend(events.map(|events| ("events".to_owned(), events)));
    let running = files(&folder);
    let log = node.end();
    assert!(log.lines().count() > 100 && log.contains("\"level\":\"TRACE\""), "everything was logged");
    said.push(("the log".into(), log));
    let ran = Ran::from(twin().arg("export").arg(&export).env("TWIN_DATA_DIR", &folder).output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.errors);
    said.extend([("export, out".to_owned(), ran.text), ("export, errors".to_owned(), ran.errors)]);
    for (what, text) in &said {
        assert_eq!(found(text.as_bytes()), Vec::<String>::new(), "{what}: {text}");
    }
    let written = [running, files(home.path())].concat();
    assert!(written.iter().any(|(name, bytes)| name.ends_with("db") && holds(bytes, MARKER)), "the marker is found");
    assert!(holds(&std::fs::read(&export).unwrap(), MARKER), "the marker is found in the export");
    for (file, bytes) in &written {
        assert_eq!(found(bytes), Vec::<String>::new(), "{file}");
    }
}
