//! Errors as callers see them: one exhaustive table from failure to code, HTTP status, gRPC status and retry hint.
//!
//! HTTP speaks problem+json (RFC 9457), gRPC a status with the same words. Every code has a page in `docs/problems/`,
//! which a node also serves at the problem's `type`.

use std::{borrow::Cow, fmt, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use tonic::Code as Grpc;

use crate::{
    model::{InvalidKey, Outcome, Timestamp},
    twin::{Failure, Rejection},
};

macro_rules! codes {
    ($($variant:ident = $name:literal, $http:ident, $grpc:ident, $retry:ident, $title:literal;)*) => {
        /// What went wrong, by name. Names are promises: a code is never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its row of the table.
            pub fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        title: $title,
                        http: StatusCode::$http,
                        grpc: Grpc::$grpc,
                        retry: Retry::$retry,
                        page: include_str!(concat!("../../docs/problems/", $name, ".md")),
                    },)*
                }
            }
        }
    };
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again; the request has to change.
    Never,
    /// After a pause, as it is: nothing happened.
    Later,
    /// Only under the same idempotency key: it may have happened.
    SameKey,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Stable name: the last part of the problem's `type`.
    pub name: &'static str,
    /// The same for people.
    pub title: &'static str,
    /// HTTP status.
    pub http: StatusCode,
    /// gRPC status.
    pub grpc: Grpc,
    /// Whether to try again.
    pub retry: Retry,
    /// The page that explains it.
    pub page: &'static str,
}

codes! {
    NotFound = "not-found", NOT_FOUND, NotFound, Never, "What is asked for does not exist";
    Invalid = "invalid", BAD_REQUEST, InvalidArgument, Never, "The request is malformed or contradicts a schema";
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, FailedPrecondition, Never, "The twin has another revision than expected";
    Conflict = "conflict", CONFLICT, Aborted, Never, "The request contradicts the twin's present state";
    LimitExceeded = "limit-exceeded", UNPROCESSABLE_ENTITY, ResourceExhausted, Never, "A bound of the twin would be crossed";
    Denied = "denied", FORBIDDEN, PermissionDenied, Never, "The caller has no right to this";
    HistoryGone = "history-gone", GONE, OutOfRange, Never, "This part of the history is no longer kept";
    Removed = "removed", GONE, NotFound, Never, "The twin was removed";
    KeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, InvalidArgument, Never, "The idempotency key belongs to another request";
    KeyTooOld = "idempotency-key-too-old", CONFLICT, FailedPrecondition, Never, "The idempotency key is too old to tell whether it was applied";
    Unsupported = "unsupported", NOT_IMPLEMENTED, Unimplemented, Never, "This node does not serve that";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Unavailable, Later, "The node is busy";
    Expired = "deadline-exceeded", GATEWAY_TIMEOUT, DeadlineExceeded, Later, "The deadline passed before the request had its turn";
    Cycle = "ask-cycle", LOOP_DETECTED, Aborted, Never, "Twins would wait for one another";
    Backoff = "twin-unavailable", SERVICE_UNAVAILABLE, Unavailable, Later, "The twin cannot be activated at present";
    Panicked = "turn-panicked", INTERNAL_SERVER_ERROR, Internal, Never, "The twin's turn failed on a bug of the node";
    NotCommitted = "not-committed", SERVICE_UNAVAILABLE, Unavailable, Later, "The change was not made durable and did not happen";
    OutcomeUnknown = "outcome-unknown", INTERNAL_SERVER_ERROR, Unknown, SameKey, "The change may or may not have happened";
    AlreadyDone = "already-done", CONFLICT, AlreadyExists, Never, "The request was done before and its reply is no longer kept";
    Keyless = "idempotency-not-kept", BAD_REQUEST, InvalidArgument, Never, "This kind of twin keeps no idempotency keys";
    Stopping = "stopping", SERVICE_UNAVAILABLE, Unavailable, Later, "The node is stopping";
    KeyMissing = "key-missing", UNAUTHORIZED, Unauthenticated, Never, "The request carries no key";
    KeyInvalid = "key-invalid", UNAUTHORIZED, Unauthenticated, Never, "The key is not known here";
    KeyRevoked = "key-revoked", UNAUTHORIZED, Unauthenticated, Never, "The key was revoked";
    KeyExpired = "key-expired", UNAUTHORIZED, Unauthenticated, Never, "The key's time is over";
    KeyThrottled = "key-throttled", TOO_MANY_REQUESTS, ResourceExhausted, Later, "Too many requests with wrong keys";
    NewTwinsLimited = "new-twins-limited", TOO_MANY_REQUESTS, ResourceExhausted, Later, "The key has created too many twins";
    Throttled = "throttled", TOO_MANY_REQUESTS, ResourceExhausted, Later, "The twin takes no more requests within this second";
    MalformedBody = "malformed-body", BAD_REQUEST, InvalidArgument, Never, "The body cannot be read";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, ResourceExhausted, Never, "The body is too large";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, InvalidArgument, Never, "The body has a type or encoding that is not understood";
    BadHeader = "bad-header", BAD_REQUEST, InvalidArgument, Never, "A header cannot be understood";
    BadQuery = "bad-query", BAD_REQUEST, InvalidArgument, Never, "The query cannot be understood";
    NoSuchPath = "no-such-path", NOT_FOUND, Unimplemented, Never, "There is nothing at this path";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, Unimplemented, Never, "The path exists, but not with this method";
    NotReady = "not-ready", SERVICE_UNAVAILABLE, Unavailable, Later, "The node is not ready yet";
    Internal = "internal", INTERNAL_SERVER_ERROR, Internal, Never, "The node failed on a bug of its own";
}

/// One error on its way to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which one.
    pub code: Code,
    /// What happened this time, and what to do.
    pub detail: Cow<'static, str>,
    /// Earliest useful repeat, where it is known.
    pub retry_after: Option<Duration>,
    /// What is certain about the effect.
    pub outcome: Outcome,
}

impl Problem {
    /// The media type of problem details.
    pub const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");
    /// Pause suggested where nothing better is known.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);

    /// A problem of which it is certain that nothing happened.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = (code.row().retry == Retry::Later).then_some(Self::RETRY_AFTER);
        Self { code, detail: detail.into(), retry_after, outcome: Outcome::NotApplied }
    }

    /// The same with a pause of its own.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// From a twin's or the runtime's failure; `now` turns points in time into pauses.
    pub fn from_failure(failure: &Failure, now: Timestamp) -> Self {
        let problem = Self::new(code_of(failure), failure.to_string());
        match failure {
            Failure::Backoff { until, .. } => problem.retry_after(until.since(now).max(Self::RETRY_AFTER)),
            Failure::Lost { outcome, .. } => Self { outcome: *outcome, ..problem },
            Failure::Rejected(_)
            | Failure::Overloaded { .. }
            | Failure::Expired
            | Failure::Cycle { .. }
            | Failure::Panicked { .. }
            | Failure::AlreadyDone { .. }
            | Failure::Keyless { .. }
            | Failure::Unregistered { .. }
            | Failure::Stopping => problem,
        }
    }

    /// As an HTTP/1.1 answer for a connection that is not read from.
    pub(super) fn to_http1(&self) -> Vec<u8> {
        let (row, body) = (self.code.row(), self.json());
        let retry = self.retry_after.map(|pause| format!("retry-after: {}\r\n", seconds(pause))).unwrap_or_default();
        format!(
            "HTTP/1.1 {}\r\ncontent-type: {}\r\n{retry}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            row.http,
            Self::MEDIA_TYPE.to_str().unwrap_or_default(),
            body.len()
        )
        .into_bytes()
    }

    fn json(&self) -> String {
        let row = self.code.row();
        let mut body = serde_json::json!({
            "type": format!("/problems/{}", row.name),
            "title": row.title,
            "status": row.http.as_u16(),
            "detail": self.detail,
            "code": row.name,
            "outcome": match self.outcome { Outcome::NotApplied => "not_applied", Outcome::Unknown => "unknown" },
            "retry": match row.retry { Retry::Never => "never", Retry::Later => "later", Retry::SameKey => "same_key" },
        });
        if let Some(pause) = self.retry_after {
            body["retry_after_s"] = seconds(pause).into();
        }
        body.to_string()
    }
}

/// Whole seconds, rounded up, as `Retry-After` wants them.
fn seconds(pause: Duration) -> u64 {
    pause.as_secs() + u64::from(pause.subsec_nanos() > 0)
}

fn code_of(failure: &Failure) -> Code {
    match failure {
        Failure::Rejected(rejection) => match rejection {
            Rejection::NotFound { .. } => Code::NotFound,
            Rejection::Invalid { .. } => Code::Invalid,
            Rejection::Precondition { .. } => Code::PreconditionFailed,
            Rejection::Conflict { .. } => Code::Conflict,
            Rejection::Limit { .. } => Code::LimitExceeded,
            Rejection::Denied { .. } => Code::Denied,
            Rejection::Gone { .. } => Code::HistoryGone,
            Rejection::Removed { .. } => Code::Removed,
            Rejection::KeyReused => Code::KeyReused,
            Rejection::KeyTooOld { .. } => Code::KeyTooOld,
            Rejection::Throttled { .. } => Code::Throttled,
            Rejection::Unsupported { .. } => Code::Unsupported,
        },
        Failure::Overloaded { .. } => Code::Overloaded,
        Failure::Expired => Code::Expired,
        Failure::Cycle { .. } => Code::Cycle,
        Failure::Backoff { .. } => Code::Backoff,
        Failure::Panicked { .. } => Code::Panicked,
        Failure::Lost { outcome: Outcome::NotApplied, .. } => Code::NotCommitted,
        Failure::Lost { outcome: Outcome::Unknown, .. } => Code::OutcomeUnknown,
        Failure::AlreadyDone { .. } => Code::AlreadyDone,
        Failure::Keyless { .. } => Code::Keyless,
        Failure::Unregistered { .. } => Code::Unsupported,
        Failure::Stopping => Code::Stopping,
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.row().name, self.detail)
    }
}

impl From<InvalidKey> for Problem {
    fn from(error: InvalidKey) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let row = self.code.row();
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = row.http;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, Self::MEDIA_TYPE);
        if let Some(pause) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds(pause).into());
        }
        if row.http == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"twin\""));
        }
        response
    }
}

impl From<Problem> for tonic::Status {
    fn from(problem: Problem) -> Self {
        tonic::Status::new(problem.code.row().grpc, problem.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{}.md", code.row().name)).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/problems");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "README.md")
            .collect();
        assert_eq!(codes, pages);
        for code in Code::ALL {
            let row = code.row();
            assert!(row.page.starts_with(&format!("# {}\n", row.name)), "{} starts with its name", row.name);
            assert!(row.page.contains("## What to do"), "{} says what to do", row.name);
        }
    }

    #[test]
    fn a_detail_does_not_repeat_its_code() {
        let conflict = Failure::Rejected(Rejection::conflict("service 'a/b' exists"));
        assert_eq!(Problem::from_failure(&conflict, Timestamp::ZERO).to_string(), "conflict: service 'a/b' exists");
        let stopping = Problem::from_failure(&Failure::Stopping, Timestamp::ZERO);
        assert_eq!(stopping.detail, "the runtime is stopping");
    }

    #[test]
    fn a_problem_says_what_is_certain_and_when_to_try_again() {
        let lost = Failure::Lost { outcome: Outcome::Unknown, cause: "disk".into() };
        let problem = Problem::from_failure(&lost, Timestamp::ZERO);
        assert_eq!(
            (problem.code, problem.outcome, problem.retry_after),
            (Code::OutcomeUnknown, Outcome::Unknown, None)
        );
        let backoff = Failure::Backoff { until: Timestamp::from_unix_ms(7_500), cause: "load".into() };
        let response = Problem::from_failure(&backoff, Timestamp::from_unix_ms(5_000)).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }
}
