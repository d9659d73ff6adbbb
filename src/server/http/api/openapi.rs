//! The API described in OpenAPI 3.1. One row an operation; a test holds the rows against the routes.

use std::sync::OnceLock;

use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::server::{http::caller, problem::Code};

/// One operation.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    summary: &'static str,
    /// Parameters in the query: name, JSON type, meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    /// Fields of the body; `None` if it takes none.
    body: Option<Body>,
    answer: Answer,
    kind: Kind,
}

enum Body {
    /// An object with these fields: name, JSON type, meaning; a `!` behind the name says it is needed.
    Fields(&'static [(&'static str, &'static str, &'static str)]),
    /// Any document.
    Any(&'static str),
}

#[derive(Clone, Copy)]
enum Answer {
    Json(u16, &'static str),
    Stream(&'static str),
}

/// Which headers an operation understands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Read,
    Write,
    Stream,
}

const fn read(path: &'static str, id: &'static str, summary: &'static str, answer: &'static str) -> Operation {
    let answer = Answer::Json(200, answer);
    Operation { method: "get", path, id, summary, query: &[], body: None, answer, kind: Kind::Read }
}

const fn write(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    let answer = Answer::Json(200, "The revision it made");
    Operation { method, path, id, summary, query: &[], body: None, answer, kind: Kind::Write }
}

const fn stream(path: &'static str, id: &'static str, summary: &'static str, events: &'static str) -> Operation {
    let answer = Answer::Stream(events);
    Operation { method: "get", path, id, summary, query: &[], body: None, answer, kind: Kind::Stream }
}

const LIMIT: (&str, &str, &str) = ("limit", "integer", "Most entries of the page");

/// Every operation of the native API.
pub(super) static OPERATIONS: &[Operation] = &[
    Operation { kind: Kind::Plain, ..read("/api/v1/openapi.json", "describe", "This document", "OpenAPI 3.1") },
    Operation {
        kind: Kind::Plain,
        query: &[
            ("health", "string", "unknown, healthy, degraded or unhealthy"),
            ("name", "string", "Only of this name; one that ends in * stands for all that begin so"),
            ("namespace", "string", "Only of this namespace"),
            ("version", "string", "Only with an instance of this version"),
            ("environment", "string", "Only of this deployment environment"),
            ("in_sync", "string", "Only those whose features are (`true`) or are not (`false`) as desired"),
            ("instances", "integer", "Only with so many instances up"),
            ("attr.{name}", "string", "Only with this value of an attribute, as in attr.owner=team-a"),
            ("after", "string", "Go on after this twin: `next` of the page before"),
            LIMIT,
        ],
        ..read("/api/v1/twins", "find", "Finds twins in the index, in order of their ids", "A page of twins")
    },
    Operation {
        query: &[
            ("behaviour", "boolean", "With what was observed"),
            ("at", "string", "As it was at a revision, or at a time (RFC 3339)"),
        ],
        ..read("/api/v1/twins/{namespace}/{name}", "get", "Reads a twin", "The twin")
    },
    Operation {
        body: Some(Body::Fields(&[("attributes", "object", "Its first attributes")])),
        answer: Answer::Json(201, "The revision it made"),
        ..write("put", "/api/v1/twins/{namespace}/{name}", "create", "Creates a twin, also again after its removal")
    },
    write("delete", "/api/v1/twins/{namespace}/{name}", "remove", "Removes a twin with everything that is its"),
    read("/api/v1/twins/{namespace}/{name}/attributes", "getAttributes", "Reads the attributes", "The attributes"),
    Operation {
        body: Some(Body::Any("A merge patch (RFC 7396)")),
        ..write("patch", "/api/v1/twins/{namespace}/{name}/attributes", "setAttributes", "Changes attributes")
    },
    read(
        "/api/v1/twins/{namespace}/{name}/attributes/{attribute}",
        "getAttribute",
        "Reads one attribute",
        "The attribute's value",
    ),
    Operation {
        kind: Kind::Plain,
        ..read("/api/v1/twins/{namespace}/{name}/behaviour", "getBehaviour", "Reads what was observed", "Behaviour")
    },
    Operation {
        query: &[("after", "integer", "Only later revisions"), LIMIT],
        kind: Kind::Plain,
        ..read("/api/v1/twins/{namespace}/{name}/journal", "getJournal", "Reads what changed", "A page of changes")
    },
    read("/api/v1/twins/{namespace}/{name}/features", "listFeatures", "Reads every feature", "The features"),
    read("/api/v1/twins/{namespace}/{name}/features/{feature}", "getFeature", "Reads one feature", "The feature"),
    Operation {
        body: Some(Body::Any("What the feature shall be")),
        ..write(
            "put",
            "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
            "replaceDesired",
            "Says what a feature shall be",
        )
    },
    Operation {
        body: Some(Body::Any("A merge patch (RFC 7396)")),
        ..write(
            "patch",
            "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
            "patchDesired",
            "Changes what a feature shall be",
        )
    },
    write(
        "delete",
        "/api/v1/twins/{namespace}/{name}/features/{feature}/desired",
        "removeDesired",
        "Takes away what a feature shall be",
    ),
    read(
        "/api/v1/twins/{namespace}/{name}/features/{feature}/delta",
        "getDelta",
        "Reads what is desired of a feature and not so",
        "The delta",
    ),
    Operation {
        body: Some(Body::Fields(&[
            ("instance", "string", "Which instance speaks; needed for `applied`"),
            ("reported", "any", "What the feature is"),
            ("reported_patch", "any", "The same as a merge patch"),
            ("effective", "any", "What is in force"),
            ("effective_patch", "any", "The same as a merge patch"),
            ("applied", "object", "What the instance did with a desired `version`; with `error` if it could not"),
        ])),
        ..write(
            "post",
            "/api/v1/twins/{namespace}/{name}/features/{feature}/report",
            "report",
            "Takes what a service says of a feature",
        )
    },
    Operation {
        kind: Kind::Plain,
        ..read("/api/v1/twins/{namespace}/{name}/instances", "listInstances", "Reads the instances", "The instances")
    },
    Operation {
        body: Some(Body::Fields(&[
            ("version", "string", "Its version"),
            ("health", "object", "`status` and `reason`, as the instance sees itself"),
        ])),
        ..write(
            "put",
            "/api/v1/twins/{namespace}/{name}/instances/{instance}",
            "heartbeat",
            "Notes that an instance is there",
        )
    },
    write(
        "delete",
        "/api/v1/twins/{namespace}/{name}/instances/{instance}",
        "deregister",
        "Notes that an instance has gone in good order",
    ),
    stream(
        "/api/v1/twins/{namespace}/{name}/instances/{instance}/commands",
        "takeCommands",
        "Hands an instance its commands as they come; what is handed over counts as delivered",
        "`command`: id, name, parameters, finish_by",
    ),
    Operation {
        query: &[("before", "integer", "Only commands with a smaller id: `next` of the page before"), LIMIT],
        kind: Kind::Plain,
        ..read(
            "/api/v1/twins/{namespace}/{name}/commands",
            "listCommands",
            "Reads commands, newest first",
            "A page of commands",
        )
    },
    Operation {
        body: Some(Body::Fields(&[
            ("name!", "string", "The command"),
            ("parameters", "any", "Its parameters; checked if a schema is defined"),
            ("target", "any", "`any`, `all` or {\"instance\": id}"),
            ("delivery_timeout_ms", "integer", "How long it may wait to be collected"),
            ("execution_timeout_ms", "integer", "How long it may take once collected"),
            ("pace", "object", "`concurrency_max` and `errors_max` over many instances"),
        ])),
        answer: Answer::Json(202, "The command's id and the revision it made"),
        ..write("post", "/api/v1/twins/{namespace}/{name}/commands", "postCommand", "Posts a command")
    },
    Operation {
        kind: Kind::Plain,
        ..read("/api/v1/twins/{namespace}/{name}/commands/{id}", "getCommand", "Reads one command", "The command")
    },
    Operation {
        body: Some(Body::Fields(&[("instance!", "string", "Who")])),
        ..write(
            "post",
            "/api/v1/twins/{namespace}/{name}/commands/{id}/ack",
            "acknowledgeCommand",
            "Notes that an instance has begun with a command",
        )
    },
    Operation {
        body: Some(Body::Fields(&[
            ("instance!", "string", "Who"),
            ("result", "any", "What came of it"),
            ("error", "string", "Why it failed; absent if it did not"),
        ])),
        ..write(
            "post",
            "/api/v1/twins/{namespace}/{name}/commands/{id}/result",
            "finishCommand",
            "Notes how an instance ended with a command",
        )
    },
    write(
        "post",
        "/api/v1/twins/{namespace}/{name}/commands/{id}/cancel",
        "cancelCommand",
        "Takes a command back wherever it has not ended",
    ),
    Operation {
        body: Some(Body::Any("A schema: a small subset of JSON Schema")),
        ..write(
            "put",
            "/api/v1/twins/{namespace}/{name}/command-definitions/{command}",
            "defineCommand",
            "States what parameters a command takes",
        )
    },
    write(
        "delete",
        "/api/v1/twins/{namespace}/{name}/command-definitions/{command}",
        "undefineCommand",
        "Takes a command's schema away",
    ),
    stream(
        "/api/v1/twins/{namespace}/{name}/events",
        "watchTwin",
        "Follows one twin",
        "CloudEvents by their type; `gap` when some were missed",
    ),
    stream(
        "/api/v1/events",
        "watchAll",
        "Follows every twin",
        "CloudEvents by their type; `gap` when some were missed",
    ),
    Operation {
        query: &[("after", "string", "Go on after this key: `next` of the page before"), LIMIT],
        kind: Kind::Plain,
        ..read("/api/v1/keys", "listKeys", "Lists keys", "A page of keys")
    },
    Operation {
        body: Some(Body::Fields(&[
            ("kind!", "string", "operator, ingest or service"),
            ("namespace", "string", "For ingest: the namespace it covers"),
            ("service", "string", "For service: the one it covers"),
            ("label", "string", "For people; at most 128 bytes"),
        ])),
        answer: Answer::Json(201, "The key, with the only copy of its secret"),
        kind: Kind::Plain,
        ..write("post", "/api/v1/keys", "mintKey", "Makes a key")
    },
    Operation { kind: Kind::Plain, ..write("delete", "/api/v1/keys/{id}", "revokeKey", "Revokes a key") },
];

/// Answers with the document; whoever may enter may read it.
pub(super) async fn document(_: caller::Caller) -> Response {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    caller::json(None, DOCUMENT.get_or_init(build))
}

/// Builds the document.
pub(super) fn build() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        item[operation.method] = describe(operation);
    }
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.row().name).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "service-twin",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Every microservice gets one durable twin",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "key": { "type": "http", "scheme": "bearer", "description": "An API key: twk_… (`twin key new`)" },
            },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457; each code has a page at its `type`",
                    "required": ["type", "title", "status", "detail", "code", "outcome", "retry"],
                    "properties": {
                        "type": { "type": "string", "format": "uri-reference" },
                        "title": { "type": "string" },
                        "status": { "type": "integer" },
                        "detail": { "type": "string" },
                        "code": { "type": "string", "enum": codes },
                        "outcome": { "type": "string", "enum": ["not_applied", "unknown"] },
                        "retry": { "type": "string", "enum": ["never", "later", "same_key"] },
                        "retry_after_s": { "type": "integer" },
                    },
                },
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong",
                    "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
                },
            },
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = names(operation.path)
        .map(|name| {
            parameter(
                "path",
                name,
                if name == "id" && operation.path.contains("commands") { "integer" } else { "string" },
                "",
            )
        })
        .collect();
    parameters.extend(operation.query.iter().map(|(name, kind, meaning)| parameter("query", name, kind, meaning)));
    parameters.push(parameter("header", "Request-Timeout", "number", "How long to wait, in seconds; 30 by default"));
    match operation.kind {
        Kind::Plain => {}
        Kind::Read => {
            parameters.push(parameter(
                "header",
                "If-None-Match",
                "string",
                "The ETag known; 304 if it holds. An answer with observed values has none",
            ));
        }
        Kind::Stream => parameters.push(parameter("header", "Last-Event-ID", "string", "Go on after this event")),
        Kind::Write => parameters.extend([
            parameter(
                "header",
                "If-Match",
                "string",
                "The ETag, or revision, expected; 412 if the twin has another one",
            ),
            parameter("header", "Idempotency-Key", "string", "A UUIDv7: repeats under it change nothing"),
            parameter("header", "Idempotency-Key-Time", "string", "When the key was made, if it is no UUIDv7"),
        ]),
    }
    let (status, answer) = match operation.answer {
        Answer::Json(status, meaning) => {
            (status, json!({ "description": meaning, "content": { "application/json": { "schema": {} } } }))
        }
        Answer::Stream(events) => {
            let schema = json!({ "type": "string" });
            (200, json!({ "description": events, "content": { "text/event-stream": { "schema": schema } } }))
        }
    };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": { status.to_string(): answer, "default": { "$ref": "#/components/responses/Problem" } },
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({ "content": { "application/json": { "schema": schema(body) } } });
    }
    described
}

fn schema(body: &Body) -> Value {
    match body {
        Body::Any(meaning) => json!({ "description": meaning }),
        Body::Fields(fields) => {
            let mut properties = Map::new();
            let mut required = Vec::new();
            for (name, kind, meaning) in *fields {
                let needed = name.strip_suffix('!');
                required.extend(needed);
                properties.insert(needed.unwrap_or(*name).to_owned(), typed(kind, meaning));
            }
            json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
        }
    }
}

fn typed(kind: &str, meaning: &str) -> Value {
    if kind == "any" { json!({ "description": meaning }) } else { json!({ "type": kind, "description": meaning }) }
}

fn parameter(place: &str, name: &str, kind: &str, meaning: &str) -> Value {
    json!({ "in": place, "name": name, "required": place == "path", "description": meaning, "schema": { "type": kind } })
}

/// The `{names}` in a path.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}
