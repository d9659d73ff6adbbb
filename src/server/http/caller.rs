//! What a request says besides its body: who sends it, until when, under which key, on which revision.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    model::{Consistency, Header, RequestKey, ServiceId, TraceParent},
    server::{
        DEADLINE_MAX, Server,
        connection::Connection,
        identity::{Identity, Wish},
        problem::{Code, Problem},
    },
    twin::{Failure, Message, Wire, part::Request as Capability, service::Service},
};

/// Says what the answer shall rest on; over gRPC it is metadata of this name.
const CONSISTENCY: &str = "twin-consistency";
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A request's head, understood. Only requests that may enter have one.
pub struct Caller {
    /// What every door shares.
    pub server: Arc<Server>,
    /// Who sends it.
    pub identity: Identity,
    /// `If-Match`.
    pub if_match: Option<u64>,
    /// What of a twin the path is about, such as `/attributes`; empty if that does not matter.
    part: String,
    header: Header,
    key: Option<RequestKey>,
    if_none_match: Option<HeaderValue>,
}

impl FromRequestParts<Arc<Server>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        let identity = server.identify(&parts.headers, &Connection::of(&parts.extensions)).await?;
        server.ready()?;
        let part = if identity.is_narrowed() { part(parts).await } else { String::new() };
        let headers = &parts.headers;
        let wait = deadline(headers)?.unwrap_or(Duration::from_secs(server.config.deadline_s));
        if wait.is_zero() {
            return Err(Problem::new(Code::Expired, "Request-Timeout is 0: the time was over before it began"));
        }
        let mut header = identity.header().with_deadline(server.now().after(wait.min(DEADLINE_MAX)));
        if let Some(trace) = text(headers, "traceparent").and_then(TraceParent::parse) {
            header = header.with_trace(trace);
        }
        header = header.with_consistency(consistency(headers)?);
        Ok(Self {
            server: Arc::clone(server),
            identity,
            if_match: if_match(headers)?,
            part,
            header,
            key: request_key(headers)?,
            if_none_match: headers.get(header::IF_NONE_MATCH).cloned(),
        })
    }
}

impl Caller {
    /// Parses a service's id and refuses whoever may not do this to it.
    pub fn service(&self, namespace: &str, name: &str, wish: Wish) -> Result<ServiceId, Problem> {
        let service = ServiceId::new(namespace, name)?;
        self.identity.may(wish, &service, &self.part, self.server.now())?;
        Ok(service)
    }

    /// Parses a service's id and refuses whoever is neither it nor an operator; what of its capabilities the caller may
    /// use is ruled on by its twin.
    pub fn used(&self, namespace: &str, name: &str) -> Result<ServiceId, Problem> {
        let service = ServiceId::new(namespace, name)?;
        self.identity.reaches(&service)?;
        Ok(service)
    }

    /// Refuses whoever is no operator, and one whose token does not leave this operation on this name.
    pub fn operates(&self, capability: &str, name: &str, operation: &str) -> Result<(), Problem> {
        self.identity.operates(capability, name, operation, self.server.now())
    }

    /// Refuses to speak for an instance that the caller's token does not leave.
    pub fn speak_for(&self, instance: &str) -> Result<(), Problem> {
        self.identity.speak_for(instance)
    }

    /// What the answer shall rest on.
    pub fn consistency(&self) -> Consistency {
        self.header.consistency()
    }

    /// Refuses a consistency where the answer is no twin's.
    pub fn asks_no_twin(&self) -> Result<(), Problem> {
        match self.consistency() {
            Consistency::Lease => Ok(()),
            Consistency::Strict | Consistency::StaleOk => {
                Err(Problem::new(Code::Unsupported, format!("{CONSISTENCY} is for requests to one twin")))
            }
        }
    }

    /// What travels beside a message of this request.
    pub fn header(&self) -> Header {
        self.header.clone()
    }

    /// Asks a twin on the caller's behalf, under its idempotency key if it gave one.
    pub async fn ask<M>(&self, service: &ServiceId, message: M) -> Result<M::Reply, Problem>
    where
        M: Wire + Message<Twin = Service>,
    {
        self.try_ask(service, message).await.map_err(|failure| self.server.problem(&failure))
    }

    /// The same with the failure as it is.
    pub async fn try_ask<M>(&self, service: &ServiceId, message: M) -> Result<M::Reply, Failure>
    where
        M: Wire + Message<Twin = Service>,
    {
        self.server.ask(service, message, self.header.clone(), self.key.clone()).await
    }

    /// Asks for a write and answers with what it made; a repeat whose reply is no longer kept answers with its revision.
    pub async fn write<M, T>(
        &self,
        service: &ServiceId,
        status: StatusCode,
        message: M,
        show: impl FnOnce(M::Reply) -> (u64, T),
    ) -> Result<Response, Problem>
    where
        M: Wire + Message<Twin = Service>,
        T: Serialize,
    {
        match self.try_ask(service, message).await {
            Ok(reply) => {
                let (revision, body) = show(reply);
                Ok((status, json(Some(revision), &body)).into_response())
            }
            Err(Failure::AlreadyDone { revision }) => {
                Ok(json(Some(revision), &serde_json::json!({ "revision": revision, "repeated": true })))
            }
            Err(failure) => Err(self.server.problem(&failure)),
        }
    }

    /// Asks a twin for a capability on the caller's behalf.
    pub async fn call<R: Capability>(&self, service: &ServiceId, request: R) -> Result<R::Reply, Problem> {
        let called = self.server.call(service, request, self.header.clone(), self.key.clone()).await;
        called.map_err(|failure| self.server.problem(&failure))
    }

    /// The same of what changes nothing, and is no answer to the caller's idempotency key.
    pub async fn look<R: Capability>(&self, service: &ServiceId, request: R) -> Result<R::Reply, Problem> {
        let called = self.server.call(service, request, self.header.clone(), None).await;
        called.map_err(|failure| self.server.problem(&failure))
    }

    /// Refuses a request with an idempotency key where none is kept, for this reason.
    pub fn keeps_no_key(&self, why: &'static str) -> Result<(), Problem> {
        if self.key.is_none() { Ok(()) } else { Err(Problem::new(Code::Keyless, why)) }
    }

    /// Whether the caller has this revision already.
    pub fn knows(&self, revision: u64) -> bool {
        self.if_none_match.as_ref().is_some_and(|known| known.to_str().is_ok_and(|known| names(known, revision)))
    }

    /// Whether the caller writes only what is not there.
    pub fn wants_absent(&self) -> bool {
        self.if_none_match.as_ref().is_some_and(|known| known == "*")
    }

    /// Answers a read with its revision as `ETag`, or 304 if the caller has it.
    pub fn read<T: Serialize>(&self, revision: u64, body: &T) -> Response {
        if self.knows(revision) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag(revision))]).into_response();
        }
        json(Some(revision), body)
    }
}

/// What comes after a twin's id in a path: `/features/limits/desired`, each part decoded; nothing for other paths.
async fn part(parts: &mut Parts) -> String {
    let Some(path) = parts.extensions.get::<MatchedPath>().cloned() else { return String::new() };
    let Some(path) = path.as_str().strip_prefix("/api/v1/twins/{namespace}/{name}/") else { return String::new() };
    // Whoever needs the parameters says what is wrong with them; without them the twin itself is meant.
    let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return String::new() };
    let mut params = params.iter().skip(2).map(|(_, value)| value);
    path.split('/').fold(String::new(), |part, word| {
        let word = if word.starts_with('{') { params.next().unwrap_or_default() } else { word };
        part + "/" + word
    })
}

/// Whether an `If-None-Match` list names this revision; weak comparison (RFC 9110, section 13.1.2).
fn names(list: &str, revision: u64) -> bool {
    let is_it = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"').parse() == Ok(revision);
    list.split(',').map(str::trim).any(|tag| tag == "*" || is_it(tag))
}

pub(crate) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).expect("digits and quotes are a header value")
}

/// An answer in JSON, with its revision if it has one.
pub(crate) fn json<T: Serialize>(revision: Option<u64>, body: &T) -> Response {
    let mut bytes = Vec::with_capacity(256);
    if let Err(error) = serde_json::to_writer(&mut bytes, body) {
        return Problem::new(Code::Internal, format!("the answer does not encode: {error}")).into_response();
    }
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(revision) = revision {
        headers.insert(header::ETAG, etag(revision));
    }
    response
}

/// A body in JSON; an empty one reads as `null`.
pub(crate) struct Document<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Server>> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Problem> {
        let Raw(bytes) = Raw::from_request(request, server).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| unreadable(&error))
    }
}

/// A body in JSON that nobody has read yet.
pub(crate) struct Raw(pub(crate) Bytes);

impl FromRequest<Arc<Server>> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Problem> {
        let kind = text(request.headers(), "content-type").map_or("application/json", essence);
        if !(kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))) {
            let detail = format!("the body is '{}'; send application/json", kind.chars().take(80).collect::<String>());
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
        body(request, server.config.body_bytes_max).await.map(Self)
    }
}

/// What is wrong with a body in JSON.
pub(crate) fn unreadable(error: &serde_json::Error) -> Problem {
    let code = if error.is_data() { Code::Invalid } else { Code::MalformedBody };
    Problem::new(code, format!("the body: {}", plainly(&error.to_string())))
}

/// A part of a body that is an object, and no list of what its fields would hold, which serde takes for one.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}

/// What a parser says, with types of ours named by what a caller sends for them.
pub(crate) fn plainly(said: &str) -> String {
    let mut plain = String::with_capacity(said.len());
    let mut words = said.split(' ').peekable();
    while let Some(word) = words.next() {
        let meant = match word {
            "struct" => "an object",
            "enum" => "a known word",
            "u16" | "u32" | "u64" => "a whole number",
            "Option" => "a value",
            "unit" if words.next_if_eq(&"struct").is_some() => "null",
            other => other,
        };
        if matches!(word, "struct" | "enum" | "unit") && meant != word {
            words.next_if(|name| name.starts_with(char::is_uppercase));
        }
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.push_str(meant);
    }
    plain
}

/// The media type without its parameters.
pub(crate) fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of at most so many bytes.
pub(crate) async fn body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"));
    let stated = text(request.headers(), "content-length").and_then(|length| length.parse::<u64>().ok());
    if stated.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > bytes_max)) {
        return Err(too_large());
    }
    let body = http_body_util::Limited::new(request.into_body(), bytes_max);
    let collected = tokio::time::timeout(BODY_TIMEOUT, http_body_util::BodyExt::collect(body)).await;
    let Ok(collected) = collected else {
        let detail = format!("the body was not there after {} s", BODY_TIMEOUT.as_secs());
        return Err(Problem::new(Code::Expired, detail));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Problem::new(Code::MalformedBody, format!("the body broke off: {error}"))),
    }
}

/// A header as text, if it is one.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `Twin-Consistency`.
fn consistency(headers: &HeaderMap) -> Result<Consistency, Problem> {
    let Some(value) = headers.get(CONSISTENCY) else { return Ok(Consistency::default()) };
    let said = value.to_str().ok().and_then(Consistency::parse);
    said.ok_or_else(|| bad(CONSISTENCY, &Consistency::ALL.map(Consistency::as_str).join(", ")))
}

fn bad(name: &str, wanted: &str) -> Problem {
    Problem::new(Code::BadHeader, format!("{name} must be {wanted}"))
}

/// `Request-Timeout`, in seconds.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("request-timeout") else { return Ok(None) };
    let seconds = value.to_str().ok().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.min(DEADLINE_MAX.as_secs_f64())).ok());
    wait.map(Some).ok_or_else(|| bad("Request-Timeout", "a number of seconds, such as 1.5"))
}

/// `If-Match`: one revision, or `*` for whatever is there.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let wrong = || bad("If-Match", "the ETag of an earlier answer, such as \"12\"");
    let tag = value.to_str().map_err(|_| wrong())?.trim();
    if tag == "*" {
        return Ok(None);
    }
    let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    digits.parse().map(Some).map_err(|_| wrong())
}

/// `Idempotency-Key`, with its time from itself (a UUIDv7) or from `Idempotency-Key-Time`.
fn request_key(headers: &HeaderMap) -> Result<Option<RequestKey>, Problem> {
    let made_at = headers.get("idempotency-key-time").map(|made_at| {
        let made_at = made_at.to_str().ok().and_then(|text| text.parse().ok());
        made_at.ok_or_else(|| bad("Idempotency-Key-Time", "RFC 3339, such as 2026-01-31T12:00:00Z"))
    });
    let made_at = made_at.transpose()?;
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let wanted = "a UUIDv7, or any text of up to 256 bytes with an Idempotency-Key-Time";
    let key = value.to_str().ok().map(|key| key.trim().trim_matches('"'));
    let key = key.filter(|key| !key.is_empty() && key.len() <= RequestKey::BYTES_MAX);
    let key = key.ok_or_else(|| bad("Idempotency-Key", wanted))?;
    if let Some(made_at) = made_at {
        return Ok(Some(RequestKey::new(key, made_at)));
    }
    RequestKey::from_uuid_v7(key).map(Some).ok_or_else(|| bad("Idempotency-Key", wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_revision_is_read_with_and_without_quotes() {
        assert_eq!(if_match(&headers(&[("if-match", "\"12\"")])), Ok(Some(12)));
        assert_eq!(if_match(&headers(&[("if-match", "12")])), Ok(Some(12)));
        assert_eq!(if_match(&headers(&[("if-match", "*")])), Ok(None));
        for wrong in ["W/\"12\"", "\"a\"", "\"1\", \"2\"", ""] {
            assert_eq!(if_match(&headers(&[("if-match", wrong)])).unwrap_err().code, Code::BadHeader, "{wrong}");
        }
        assert!(names("\"1\", W/\"12\"", 12));
        assert!(!names("\"1\"", 12));
    }

    #[test]
    fn an_idempotency_key_carries_its_time_or_brings_it() {
        let uuid = headers(&[("idempotency-key", "01890a5d-ac96-774b-bcce-b302099a8057")]);
        assert!(request_key(&uuid).unwrap().unwrap().made_at.unix_ms() > 1_600_000_000_000);
        let named = headers(&[("idempotency-key", "order-1"), ("idempotency-key-time", "1970-01-01T00:00:01Z")]);
        assert_eq!(request_key(&named).unwrap().unwrap().made_at.unix_ms(), 1000);
        assert_eq!(request_key(&headers(&[("idempotency-key", "order-1")])).unwrap_err().code, Code::BadHeader);
        assert_eq!(request_key(&HeaderMap::new()), Ok(None));
        let timed = headers(&[("idempotency-key-time", "soon")]);
        assert_eq!(request_key(&timed).unwrap_err().code, Code::BadHeader, "also where no key is");
    }

    #[test]
    fn what_a_parser_says_is_said_without_names_of_types() {
        let said = "invalid type: string \"x\", expected struct SelfHealth at line 1 column 13";
        assert_eq!(plainly(said), "invalid type: string \"x\", expected an object at line 1 column 13");
        assert_eq!(plainly("invalid type: map, expected u64"), "invalid type: map, expected a whole number");
        assert_eq!(plainly("expected enum Target at line 1"), "expected a known word at line 1");
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(deadline(&headers(&[("request-timeout", "1.5")])), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(deadline(&headers(&[("request-timeout", "1e300")])), Ok(Some(DEADLINE_MAX)), "as long as may be");
        for wrong in ["soon", "-1", "inf", "NaN"] {
            assert!(deadline(&headers(&[("request-timeout", wrong)])).is_err(), "{wrong}");
        }
    }
}
