//! What is refused, in the codes and statuses that Dapr's SDKs look for.

use std::borrow::Cow;

use axum::http::StatusCode;
use tonic::Code as Grpc;

use crate::{
    model::Outcome,
    server::problem::{Code, Problem},
    twin::{Failure, Rejection},
};

/// A building block, for the codes of its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Reading state.
    StateGet,
    /// Writing state.
    StateSave,
    /// Deleting state.
    StateDelete,
    /// Several operations at once.
    StateTransaction,
}

impl Block {
    /// The code of an error that has none of its own.
    const fn code(self) -> &'static str {
        match self {
            Self::StateGet => "ERR_STATE_GET",
            Self::StateSave => "ERR_STATE_SAVE",
            Self::StateDelete => "ERR_STATE_DELETE",
            Self::StateTransaction => "ERR_STATE_TRANSACTION",
        }
    }

    /// What it is about, for `ErrorInfo`, and the code for something missing.
    const fn missing(self) -> (&'static str, &'static str) {
        match self {
            Self::StateGet | Self::StateSave | Self::StateDelete | Self::StateTransaction => {
                ("DAPR_STATE_NOT_FOUND", "ERR_STATE_STORE_NOT_FOUND")
            }
        }
    }
}

/// A refusal on its way to an SDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `errorCode`.
    pub code: Cow<'static, str>,
    /// HTTP status.
    pub http: StatusCode,
    /// gRPC status.
    pub grpc: Grpc,
    /// In words.
    pub message: String,
    /// `reason` of the `ErrorInfo`, if there is one.
    pub reason: Option<&'static str>,
}

impl Refusal {
    /// A request that cannot be understood.
    pub fn malformed(message: impl Into<String>) -> Self {
        let (http, grpc) = (StatusCode::BAD_REQUEST, Grpc::InvalidArgument);
        Self { code: "ERR_MALFORMED_REQUEST".into(), http, grpc, message: message.into(), reason: None }
    }

    /// Something that is not served.
    pub fn unimplemented(what: &str) -> Self {
        let message = format!("{what} is not served by this node");
        let (http, grpc) = (StatusCode::NOT_IMPLEMENTED, Grpc::Unimplemented);
        Self { code: "ERR_API_UNIMPLEMENTED".into(), http, grpc, message, reason: None }
    }

    /// What a twin refused.
    pub fn of(block: Block, failure: &Failure, problem: impl FnOnce(&Failure) -> Problem) -> Self {
        let plain = |code: &'static str, http, grpc| Self {
            code: code.into(),
            http,
            grpc,
            message: failure.to_string(),
            reason: None,
        };
        let Failure::Rejected(rejection) = failure else { return Self::from(problem(failure)) };
        match rejection {
            Rejection::NotFound { .. } => {
                let (reason, code) = block.missing();
                Self { reason: Some(reason), ..plain(code, StatusCode::BAD_REQUEST, Grpc::InvalidArgument) }
            }
            Rejection::Precondition { found, .. } => Self {
                message: format!("possible etag mismatch. the etag in the store is '{found}'"),
                ..plain(block.code(), StatusCode::CONFLICT, Grpc::Aborted)
            },
            Rejection::Invalid { .. } => plain("ERR_MALFORMED_REQUEST", StatusCode::BAD_REQUEST, Grpc::InvalidArgument),
            Rejection::Denied { .. } => plain("ERR_PERMISSION_DENIED", StatusCode::FORBIDDEN, Grpc::PermissionDenied),
            Rejection::Limit { .. } => plain(block.code(), StatusCode::PAYLOAD_TOO_LARGE, Grpc::ResourceExhausted),
            Rejection::Throttled { .. } => plain(block.code(), StatusCode::TOO_MANY_REQUESTS, Grpc::ResourceExhausted),
            Rejection::Conflict { .. } => plain(block.code(), StatusCode::CONFLICT, Grpc::Aborted),
            Rejection::Gone { .. }
            | Rejection::Removed { .. }
            | Rejection::KeyReused
            | Rejection::KeyTooOld { .. }
            | Rejection::Unsupported { .. } => Self::from(problem(failure)),
        }
    }

    /// The body of an HTTP answer.
    pub fn json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "errorCode": self.code, "message": self.message });
        if let Some(reason) = self.reason {
            body["details"] = serde_json::json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "dapr.io",
            }]);
        }
        body
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let row = problem.code.row();
        if matches!(problem.code, Code::KeyMissing | Code::KeyInvalid | Code::KeyRevoked) {
            // What every SDK of Dapr knows.
            let message = format!("invalid api token: {}", problem.detail);
            let (http, grpc) = (StatusCode::UNAUTHORIZED, Grpc::Unauthenticated);
            return Self { code: "ERR_UNAUTHENTICATED".into(), http, grpc, message, reason: None };
        }
        let unsure = match problem.outcome {
            Outcome::NotApplied => "",
            Outcome::Unknown => " (whether it was done is not known)",
        };
        let code = format!("ERR_{}", row.name.replace('-', "_").to_uppercase());
        Self {
            code: code.into(),
            http: row.http,
            grpc: row.grpc,
            message: format!("{}{unsure}", problem.detail),
            reason: None,
        }
    }
}
