//! The way to a node: HTTP with a key, an idempotency key on each write, problems as errors.

use std::{path::Path, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    error::Error,
    print,
    sse::{Event, Events},
};

/// How long it may take to reach a node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; the node's own deadline is shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stream may be silent; a node says every 15 seconds that it lives.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How often a write is sent at most; its idempotency key makes that safe.
const ATTEMPTS_MAX: u32 = 3;
/// Pause before a write is sent again.
const PAUSE: Duration = Duration::from_millis(200);
/// Where a node leaves its first key, within its data folder.
pub const KEY_FILE: &str = "operator.key";

/// The key to speak with: the one that is named, otherwise the one that a node left in its data folder.
pub(super) fn key_of(named: Option<&str>, data_dir: &Path) -> Option<String> {
    let from_file = || std::fs::read_to_string(data_dir.join(KEY_FILE)).ok().map(|key| key.trim().to_owned());
    named.map(str::to_owned).or_else(from_file).filter(|key| !key.is_empty())
}

/// What must be there for a write of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// This ETag.
    Etag(u64),
    /// Nothing.
    Absent,
}

/// An answer as it is.
pub(super) struct Bytes {
    /// Its ETag.
    pub(super) etag: Option<u64>,
    /// The version of a secret.
    pub(super) version: Option<u64>,
    /// The body.
    pub(super) bytes: Vec<u8>,
}

impl Bytes {
    /// The body as a document; null if there is none.
    pub(super) fn document(&self) -> Result<Value, Error> {
        parsed(&self.bytes)
    }
}

/// One node, as one caller.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    node: String,
    key: Option<String>,
}

impl Client {
    /// A way to `node`. Without a key, the one in `data_dir` is taken if there is one.
    pub fn new(node: &str, key: Option<&str>, data_dir: &Path) -> Result<Self, Error> {
        let node = node.trim_end_matches('/');
        if node.starts_with("https://") {
            return Err(Error::Usage(format!(
                "--node is '{node}'; https is not supported: connect through a loopback that ends TLS, or a tunnel \
                 (ssh -L 7070:127.0.0.1:7070 HOST), and say http://127.0.0.1:7070"
            )));
        }
        if !node.starts_with("http://") {
            return Err(Error::Usage(format!("--node is '{node}'; it must be a URL such as http://127.0.0.1:7070")));
        }
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).no_proxy().build();
        let http = http.map_err(|error| Error::Usage(format!("the HTTP client does not start: {error}")))?;
        Ok(Self { http, node: node.to_owned(), key: key_of(key, data_dir) })
    }

    /// Whether it has a key to speak with.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Reads what lies at a path.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let response = self.send(self.request(Method::GET, path)).await?;
        parsed(&self.body(response).await?)
    }

    /// The same as a type.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        typed(self.get(path).await?)
    }

    /// Reads a path as it is.
    pub async fn text(&self, path: &str) -> Result<String, Error> {
        let response = self.send(self.request(Method::GET, path)).await?;
        Ok(String::from_utf8_lossy(&self.body(response).await?).into_owned())
    }

    /// Writes, under a key that makes it safe to send again if nobody answered.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        if_match: Option<u64>,
    ) -> Result<Value, Error> {
        let key = uuid::Uuid::now_v7().to_string();
        let mut attempt = 1;
        loop {
            let mut request = self.request(method.clone(), path).header("idempotency-key", &key);
            if let Some(revision) = if_match {
                request = request.header("if-match", format!("\"{revision}\""));
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let answered = match self.send(request).await {
                Ok(response) => self.body(response).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(body) => return parsed(&body),
                Err(error) if attempt < ATTEMPTS_MAX && is_worth_repeating(&error) => {
                    tokio::time::sleep(PAUSE * attempt).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads bytes as they are, with what the answer says of them.
    pub(super) async fn get_bytes(&self, path: &str) -> Result<Bytes, Error> {
        self.bytes(self.send(self.request(Method::GET, path)).await?).await
    }

    /// Writes bytes as they are. It is sent once: not every such write may be repeated without harm.
    pub(super) async fn put_bytes(
        &self,
        path: &str,
        bytes: Vec<u8>,
        expected: Option<Expected>,
    ) -> Result<Bytes, Error> {
        let request = self.request(Method::PUT, path).header("content-type", "application/octet-stream").body(bytes);
        let request = match expected {
            None => request,
            Some(Expected::Etag(etag)) => request.header("if-match", format!("\"{etag}\"")),
            Some(Expected::Absent) => request.header("if-none-match", "*"),
        };
        self.bytes(self.send(request).await?).await
    }

    async fn bytes(&self, response: Response) -> Result<Bytes, Error> {
        let number = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.and_then(|value| value.trim_matches('"').parse().ok())
        };
        let (etag, version) = (number("etag"), number("twin-secret-version"));
        Ok(Bytes { etag, version, bytes: self.body(response).await? })
    }

    /// Follows a path of events, after an event if one is named.
    pub async fn events(&self, path: &str, after: Option<&str>) -> Result<Stream, Error> {
        let mut request = self.http.get(format!("{}{path}", self.node)).header("accept", "text/event-stream");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let response = match tokio::time::timeout(ANSWER_TIMEOUT, self.send(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(silent(&self.node, ANSWER_TIMEOUT)),
        };
        Ok(Stream { response, events: Events::default(), node: self.node.clone(), silence_max: SILENCE_MAX })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.node)).timeout(ANSWER_TIMEOUT);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|error| unreachable(&self.node, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await.unwrap_or_default();
        Err(Error::refused(status, &body))
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, Error> {
        response.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| unreachable(&self.node, &error))
    }
}

fn unreachable(node: &str, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Error::Unreachable { node: node.to_owned(), cause: cause.to_string() }
}

fn silent(node: &str, time: Duration) -> Error {
    Error::Unreachable { node: node.to_owned(), cause: format!("it has said nothing for {} s", time.as_secs()) }
}

/// Nobody answered, or the node asks for patience: the same request under the same key may be sent again.
fn is_worth_repeating(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE.as_u16(),
        Error::Answer(_) | Error::Usage(_) | Error::Node(_) | Error::Io { .. } => false,
    }
}

fn parsed(body: &[u8]) -> Result<Value, Error> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|error| Error::Answer(error.to_string()))
}

/// A document as a type of ours, to be shown: what a terminal would obey is taken out of it.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(print::plain_document(value))
        .map_err(|error| Error::Answer(format!("{error}; are node and 'twin' of one version?")))
}

/// Events as they come.
pub struct Stream {
    response: Response,
    events: Events,
    node: String,
    silence_max: Duration,
}

impl Stream {
    /// The next event; `None` once the node has ended the stream. A node of which nothing is heard, not even that it
    /// lives, is gone.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.events.pop() {
                return Ok(Some(event));
            }
            match tokio::time::timeout(self.silence_max, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.events.push(&bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(unreachable(&self.node, &error)),
                Err(_) => return Err(silent(&self.node, self.silence_max)),
            }
        }
    }
}

/// A part of a path, with everything escaped that has a meaning there.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            for digit in [byte >> 4, byte & 15] {
                escaped.extend(char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
    escaped
}

/// The path of a twin: `namespace/name`, or a name in the namespace `default`.
pub(crate) fn twin_path(id: &str) -> Result<String, Error> {
    let id = if id.contains('/') { id.to_owned() } else { format!("default/{id}") };
    let id = crate::model::ServiceId::parse(&id).map_err(|error| Error::Usage(format!("'{id}': {error}")))?;
    Ok(format!("/api/v1/twins/{}/{}", segment(id.namespace()), segment(id.name())))
}

/// A node that gives a ready answer to each path.
#[cfg(test)]
pub(crate) mod canned {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::{Client, Path};

    pub(crate) struct Canned(String);

    impl Canned {
        /// Connections stay open after the answer.
        pub(crate) async fn new(answer: fn(&str) -> String) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                let mut open = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() > 0 {
                        head.extend(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    stream.write_all(answer(path).as_bytes()).await.unwrap();
                    open.push(stream);
                }
            });
            Self(url)
        }

        pub(crate) fn client(&self) -> Client {
            Client::new(&self.0, Some("twk_test"), Path::new("nowhere")).unwrap()
        }
    }

    /// A whole answer, after which the client connects anew.
    pub(crate) fn canned(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        canned::{Canned, canned},
        *,
    };

    #[test]
    fn a_name_that_needs_it_is_escaped() {
        assert_eq!(segment("orders-v2.1_~"), "orders-v2.1_~");
        assert_eq!(segment("a b/ö"), "a%20b%2F%C3%B6");
    }

    #[test]
    fn a_twin_without_a_namespace_is_in_the_default_one() {
        assert_eq!(twin_path("orders").unwrap(), "/api/v1/twins/default/orders");
        assert_eq!(twin_path("shop/orders").unwrap(), "/api/v1/twins/shop/orders");
        assert_eq!(twin_path("").unwrap_err().exit_code(), super::super::error::code::USAGE);
    }

    #[tokio::test]
    async fn a_stream_of_which_nothing_is_heard_is_given_up() {
        let node =
            Canned::new(|_| "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\n: hello\r\n".into()).await;
        let mut stream = node.client().events("/api/v1/events", None).await.unwrap();
        stream.silence_max = Duration::from_millis(20);
        let error = stream.next().await.unwrap_err();
        assert_eq!(error.exit_code(), super::super::error::code::UNAVAILABLE);
        assert!(error.to_string().contains("said nothing"), "{error}");
    }

    #[tokio::test]
    async fn what_a_node_says_is_typed_without_what_a_terminal_would_obey() {
        let node = Canned::new(|_| canned("200 OK", r#"{"a":"\u001b[31mred"}"#)).await;
        let read: std::collections::BTreeMap<String, String> = node.client().read("/").await.unwrap();
        assert_eq!(read["a"], "\u{fffd}[31mred");
        let whole = node.client().get("/").await.unwrap();
        assert_eq!(whole["a"], "\u{1b}[31mred", "--json hides nothing");
    }

    #[test]
    fn a_node_must_be_a_url() {
        assert!(Client::new("127.0.0.1:7070", None, Path::new("nowhere")).is_err());
        let tls = Client::new("https://twin.example", None, Path::new("nowhere")).map(drop).unwrap_err();
        assert!(tls.to_string().contains("https is not supported"), "{tls}");
        assert!(Client::new("http://127.0.0.1:7070/", None, Path::new("nowhere")).is_ok());
    }
}
