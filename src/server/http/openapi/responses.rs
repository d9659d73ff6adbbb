//! What an operation answers: what was asked for, or a problem.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    binary,
    notation::typed,
    operation::{Answer, Kind, Operation},
    schemas::SCHEMAS,
};
use crate::server::problem::Code;

/// What any request with a key may meet.
const DOOR: &[Code] =
    &[Code::BadHeader, Code::KeyMissing, Code::KeyThrottled, Code::Internal, Code::NotReady, Code::Expired];
/// What one that is about a twin may meet, too.
const TWIN: &[Code] = &[Code::Invalid, Code::Denied, Code::NotFound, Code::Removed, Code::OutcomeUnknown];
/// What one with a body may meet, too.
const BODY: &[Code] = &[Code::MalformedBody, Code::BodyTooLarge, Code::UnsupportedMediaType];
/// What a write may meet, too.
const WRITE: &[Code] = &[Code::Conflict, Code::LimitExceeded];

/// Every response of an operation, by status.
pub(super) fn of(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for status in refusals(operation) {
        let problem = json!({ "$ref": format!("#/components/responses/{}", component(status)) });
        responses.insert(status.as_str().to_owned(), problem);
    }
    let mut fine = fine(&operation.answer);
    match operation.kind {
        Kind::Read { is_tagged } => {
            if is_tagged {
                fine["headers"] = tag();
            }
            responses.insert("304".to_owned(), json!({ "description": "As the caller knows it", "headers": tag() }));
        }
        Kind::Write | Kind::Note => {
            fine["headers"] = tag();
            if operation.status != 200 && !matches!(operation.answer, Answer::Nothing) {
                let mut again = fine_json("Written", "Done before; its answer is no longer kept");
                again["headers"] = tag();
                responses.insert("200".to_owned(), again);
            }
        }
        Kind::Look => fine["headers"] = tag(),
        Kind::Open | Kind::Plain | Kind::Keyed | Kind::Stream | Kind::Telemetry => {}
    }
    responses.insert(operation.status.to_string(), fine);
    if let Some(why) = operation.otherwise {
        responses.insert("503".to_owned(), body("text/plain", &typed("string", ""), why));
    }
    responses.into()
}

fn fine(answer: &Answer) -> Value {
    match *answer {
        Answer::Json(kind) => fine_json(kind, meaning(kind)),
        Answer::Nothing => json!({ "description": "Done" }),
        Answer::Text(media, meaning) => body(media, &typed("string", ""), meaning),
        Answer::Otlp(kind) => {
            let mut fine = fine_json(kind, "Taken, at least in part; in the encoding of the request");
            fine["content"]["application/x-protobuf"] = binary();
            fine
        }
        Answer::Stream(events) => {
            let mut fine =
                body("text/event-stream", &typed("string", ""), "Events; `x-events` is their `data` by type");
            let events = events.iter().map(|(name, kind)| ((*name).to_owned(), typed(kind, "")));
            fine["content"]["text/event-stream"]["x-events"] = events.collect::<Map<_, _>>().into();
            fine
        }
    }
}

fn fine_json(kind: &str, meaning: &str) -> Value {
    body("application/json", &typed(kind, ""), meaning)
}

fn body(media: &str, schema: &Value, meaning: &str) -> Value {
    json!({ "description": meaning, "content": { media: { "schema": schema } } })
}

fn meaning(kind: &str) -> &'static str {
    let name = kind.trim_matches(['[', ']']);
    SCHEMAS.iter().find(|schema| schema.name == name).map_or("What was asked for", |schema| schema.meaning)
}

fn tag() -> Value {
    json!({ "ETag": { "$ref": "#/components/headers/ETag" } })
}

/// The statuses of the problems that an operation may have.
fn refusals(operation: &Operation) -> BTreeSet<StatusCode> {
    let is_about_a_twin = operation.path.contains("{namespace}");
    let groups = [
        (operation.kind != Kind::Open, DOOR),
        (!operation.query.is_empty(), &[Code::BadQuery]),
        (is_about_a_twin, TWIN),
        (operation.body.is_some(), BODY),
        (matches!(operation.kind, Kind::Write | Kind::Note | Kind::Keyed), WRITE),
        (operation.kind == Kind::Write, &[Code::PreconditionFailed]),
        (true, operation.refusals),
    ];
    let codes = groups.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, codes)| codes);
    codes.filter(|code| !operation.never.contains(code)).map(|code| code.row().http).collect()
}

/// A response for each status that problems have, with its codes in words.
pub(super) fn problems() -> Map<String, Value> {
    let mut responses = Map::new();
    for status in Code::ALL.iter().map(|code| code.row().http) {
        let rows = Code::ALL.iter().map(|code| code.row()).filter(|row| row.http == status);
        let said: Vec<String> = rows.map(|row| format!("`{}`: {}", row.name, row.title)).collect();
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        let mut response = json!({ "description": said.join(". "), "content": content });
        let header = |required: bool, kind: &str, meaning: &str| json!({ "required": required, "schema": { "type": kind }, "description": meaning });
        match status {
            StatusCode::UNAUTHORIZED => {
                response["headers"] = json!({ "WWW-Authenticate": header(true, "string", "Always Bearer") });
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let meaning = "Earliest useful repeat, in seconds";
                response["headers"] = json!({ "Retry-After": header(true, "integer", meaning) });
            }
            _ => {}
        }
        responses.insert(component(status), response);
    }
    responses
}

/// `NotFound` for 404.
fn component(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or(status.as_str());
    reason.chars().filter(char::is_ascii_alphanumeric).collect()
}
