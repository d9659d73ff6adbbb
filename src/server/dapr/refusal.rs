//! What is refused, in the codes and statuses that Dapr's SDKs look for.

use std::borrow::Cow;

use axum::http::StatusCode;
use tonic::Code as Grpc;
use tonic_types::{ErrorDetails, StatusExt as _};

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
    /// Reading secrets.
    SecretGet,
    /// Reading configuration.
    ConfigurationGet,
    /// Invoking another service.
    Invoke,
    /// Publishing and subscribing.
    Publish,
}

impl Block {
    /// The code of an error that has none of its own.
    const fn code(self) -> &'static str {
        match self {
            Self::StateGet => "ERR_STATE_GET",
            Self::StateSave => "ERR_STATE_SAVE",
            Self::StateDelete => "ERR_STATE_DELETE",
            Self::StateTransaction => "ERR_STATE_TRANSACTION",
            Self::SecretGet => "ERR_SECRET_GET",
            Self::ConfigurationGet => "ERR_CONFIGURATION_GET",
            Self::Invoke => "ERR_DIRECT_INVOKE",
            Self::Publish => "ERR_PUBSUB_PUBLISH_MESSAGE",
        }
    }

    /// What a name stands for that is missing: code, reason, statuses, and how it is said.
    fn missing(self, name: &str) -> (&'static str, &'static str, StatusCode, String) {
        match self {
            Self::StateGet | Self::StateSave | Self::StateDelete | Self::StateTransaction => {
                let said = format!("state store {name} is not found");
                ("ERR_STATE_STORE_NOT_FOUND", "DAPR_STATE_NOT_FOUND", StatusCode::BAD_REQUEST, said)
            }
            Self::SecretGet => {
                let said = format!("failed finding secret store with key {name}");
                ("ERR_SECRET_STORE_NOT_FOUND", "DAPR_SECRET_STORE_NOT_FOUND", StatusCode::UNAUTHORIZED, said)
            }
            Self::ConfigurationGet => {
                let (code, reason) = ("ERR_CONFIGURATION_STORE_NOT_FOUND", "DAPR_CONFIGURATION_STORE_NOT_FOUND");
                (code, reason, StatusCode::INTERNAL_SERVER_ERROR, format!("configuration store {name} not found"))
            }
            Self::Invoke => {
                let said = format!("failed to invoke, id: {name}");
                ("ERR_DIRECT_INVOKE", "DAPR_INVOKE_NOT_FOUND", StatusCode::INTERNAL_SERVER_ERROR, said)
            }
            Self::Publish => {
                let said = format!("pubsub {name} not found");
                ("ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", StatusCode::NOT_FOUND, said)
            }
        }
    }
}

/// What else is said about a refusal (`google.rpc`, `error_details`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Its reason, by name.
    Error {
        /// The reason.
        reason: &'static str,
    },
    /// What it is about.
    Resource {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Which field is wrong.
    Field {
        /// The field.
        field: String,
        /// What is wrong with it.
        description: String,
    },
}

/// Whose reasons these are.
const DOMAIN: &str = "dapr.io";

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
    /// What else is said about it.
    pub details: Vec<Detail>,
}

impl Refusal {
    /// A request that cannot be understood.
    pub fn malformed(message: impl Into<String>) -> Self {
        let (http, grpc) = (StatusCode::BAD_REQUEST, Grpc::InvalidArgument);
        Self { code: "ERR_MALFORMED_REQUEST".into(), http, grpc, message: message.into(), details: Vec::new() }
    }

    /// Something that is not served.
    pub fn unimplemented(what: &str) -> Self {
        let message = format!("{what} is not served by this node");
        let (http, grpc) = (StatusCode::NOT_IMPLEMENTED, Grpc::Unimplemented);
        Self { code: "ERR_API_UNIMPLEMENTED".into(), http, grpc, message, details: Vec::new() }
    }

    /// A bound of what is there already; later there may be room.
    pub fn full(code: &'static str, message: String) -> Self {
        let (http, grpc) = (StatusCode::TOO_MANY_REQUESTS, Grpc::ResourceExhausted);
        Self { code: code.into(), http, grpc, message, details: Vec::new() }
    }

    /// A path that does not take a method.
    pub fn no_such_method(method: &str) -> Self {
        let (http, grpc) = (StatusCode::METHOD_NOT_ALLOWED, Grpc::Unimplemented);
        let message = format!("this path does not take {method}");
        Self { code: "ERR_METHOD_NOT_ALLOWED".into(), http, grpc, message, details: Vec::new() }
    }

    /// A failure that Dapr's runtime calls internal.
    pub fn internal(code: &'static str, message: String) -> Self {
        let (http, grpc) = (StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal);
        Self { code: code.into(), http, grpc, message, details: Vec::new() }
    }

    /// A store or component that does not exist.
    pub fn missing(block: Block, name: &str) -> Self {
        let (code, reason, http, message) = block.missing(name);
        Self { code: code.into(), http, grpc: Grpc::InvalidArgument, message, details: vec![Detail::Error { reason }] }
    }

    /// A topic without a name.
    pub fn no_topic(component: &str) -> Self {
        let details = vec![Detail::Error { reason: "DAPR_PUBSUB_TOPICNAME_EMPTY" }];
        let (http, grpc) = (StatusCode::NOT_FOUND, Grpc::InvalidArgument);
        let message = format!("topic is empty in pubsub {component}");
        Self { code: "ERR_TOPIC_EMPTY".into(), http, grpc, message, details }
    }

    /// What a twin refused.
    pub fn of(block: Block, name: &str, failure: &Failure, problem: impl FnOnce(&Failure) -> Problem) -> Self {
        let plain = |code: &'static str, http, grpc| Self {
            code: code.into(),
            http,
            grpc,
            message: failure.to_string(),
            details: Vec::new(),
        };
        let Failure::Rejected(rejection) = failure else { return Self::from(problem(failure)) };
        match rejection {
            Rejection::NotFound { .. } => Self::missing(block, name),
            Rejection::Precondition { found, .. } => Self {
                message: format!("possible etag mismatch. the etag in the store is '{found}'"),
                ..plain(block.code(), StatusCode::CONFLICT, Grpc::Aborted)
            },
            Rejection::Invalid { .. } => plain("ERR_MALFORMED_REQUEST", StatusCode::BAD_REQUEST, Grpc::InvalidArgument),
            Rejection::Denied { .. } if block == Block::Publish => {
                plain("ERR_PUBSUB_FORBIDDEN", StatusCode::FORBIDDEN, Grpc::PermissionDenied)
            }
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
        if !self.details.is_empty() {
            body["details"] = self.details.iter().map(Detail::json).collect();
        }
        body
    }
}

impl Detail {
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Error { reason } => serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": DOMAIN,
            }),
            Self::Resource { kind, name } => serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.ResourceInfo",
                "resource_type": kind, "resource_name": name, "owner": "", "description": "",
            }),
            Self::Field { field, description } => serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": [{ "field": field, "description": description }],
            }),
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        for detail in refusal.details {
            match detail {
                Detail::Error { reason } => {
                    details.set_error_info(reason, DOMAIN, std::collections::HashMap::<String, String>::new());
                }
                Detail::Resource { kind, name } => {
                    details.set_resource_info(kind, name, "", "");
                }
                Detail::Field { field, description } => {
                    details.add_bad_request_violation(field, description);
                }
            }
        }
        tonic::Status::with_error_details(refusal.grpc, refusal.message, details)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let row = problem.code.row();
        if matches!(problem.code, Code::KeyMissing | Code::KeyInvalid | Code::KeyRevoked | Code::KeyExpired) {
            // What every SDK of Dapr knows.
            let message = format!("invalid api token: {}", problem.detail);
            let (http, grpc) = (StatusCode::UNAUTHORIZED, Grpc::Unauthenticated);
            return Self { code: "ERR_UNAUTHENTICATED".into(), http, grpc, message, details: Vec::new() };
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
            details: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_does_not_count_is_said_as_clients_look_for_it_whatever_is_wrong_with_it() {
        for code in [Code::KeyMissing, Code::KeyInvalid, Code::KeyRevoked, Code::KeyExpired] {
            let refusal = Refusal::from(Problem::new(code, "why"));
            assert_eq!((refusal.grpc, refusal.http), (Grpc::Unauthenticated, StatusCode::UNAUTHORIZED), "{code:?}");
            assert!(refusal.message.starts_with("invalid api token"), "{code:?}");
        }
    }
}
