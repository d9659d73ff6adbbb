//! Schemas that are more than an object with fields.

use serde_json::{Value, json};

use super::notation::typed;
use crate::{server::problem::Code, twin::service::view::Status};

/// All of them, by name.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Value)> {
    twins().into_iter().chain(capabilities())
}

fn capabilities() -> [(&'static str, Value); 6] {
    [
        (
            "ReplayFrom",
            json!({
                "oneOf": [
                    { "type": "string", "enum": ["oldest", "now"] },
                    {
                        "type": "object", "required": ["number"], "additionalProperties": false,
                        "properties": { "number": { "type": "integer", "minimum": 0 } },
                    },
                ],
                "description": "The oldest message that is kept, none of those that are there, or the one of a number",
            }),
        ),
        ("Strings", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        (
            "ConfiguredKeys",
            json!({ "type": "object", "additionalProperties": { "$ref": "#/components/schemas/ConfiguredKey" } }),
        ),
        (
            "ConfigurationEdits",
            json!({
                "type": "object",
                "additionalProperties": { "anyOf": [{ "$ref": "#/components/schemas/KeyEdit" }, { "type": "null" }] },
                "description": "What each key is from now on; null removes it",
            }),
        ),
        (
            "StoreName",
            json!({
                "type": "string", "minLength": 1, "maxLength": 48, "pattern": "^[A-Za-z0-9._-]+$",
                "description": "1 to 48 letters, digits, '-', '_' or '.'",
            }),
        ),
        (
            "StateKey",
            json!({
                "type": "string", "minLength": 1, "maxLength": 384, "pattern": NO_CONTROL,
                "description": "1 to 384 bytes, no control characters",
            }),
        ),
    ]
}

fn twins() -> [(&'static str, Value); 17] {
    [
        ("FreshKey", json!({ "allOf": [{ "$ref": "#/components/schemas/Key" }, { "required": ["key"] }] })),
        ("Time", json!({ "type": "integer", "minimum": 0, "description": "Milliseconds since 1970" })),
        ("Count", json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX })),
        (
            "Part",
            json!({
                "type": "string", "maxLength": 254, "pattern": format!("^{PART}$"),
                "description": "Part of a service's id: no '/', no control characters; 256 bytes with the other part",
            }),
        ),
        (
            "Name",
            json!({
                "type": "string", "maxLength": 64, "pattern": format!("^{PART}$"),
                "description": "1 to 64 bytes, no '/', no control characters",
            }),
        ),
        ("Status", json!({ "type": "string", "enum": Status::ALL.map(Status::as_str), "description": "Worst last" })),
        (
            "CommandState",
            typed("queued|delivered|acknowledged|succeeded|failed|expired|cancelled", "The last four are final"),
        ),
        (
            "Terms",
            json!({
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
                },
            }),
        ),
        (
            "Change",
            json!({
                "type": "object", "required": ["change"], "additionalProperties": true,
                "properties": {
                    "change": {
                        "type": "string", "examples": ["created", "attributes", "desired", "instance_seen", "health"],
                    },
                },
                "description": "A fact: what it is, in `change`, and the fields that go with it",
            }),
        ),
        (
            "Target",
            json!({
                "anyOf": [
                    { "const": "any", "description": "The first instance that asks" },
                    { "const": "all", "description": "Every instance that is up now" },
                    {
                        "type": "object", "required": ["instance"], "additionalProperties": false,
                        "properties": { "instance": { "type": "string", "minLength": 1, "maxLength": 64 } },
                    },
                ],
            }),
        ),
        (
            "KeyId",
            json!({ "type": "string", "pattern": "^[0-9a-f]{16}$", "description": "As `twin key ls` and `twin token show` print it" }),
        ),
        (
            "Cursor",
            json!({
                "type": "string", "minLength": 1, "maxLength": 256, "pattern": NO_CONTROL,
                "description": "At most 256 bytes, no control characters",
            }),
        ),
        (
            "TwinId",
            json!({
                "type": "string", "maxLength": 256, "pattern": format!("^({PART}/)?{PART}$"),
                "description": "`namespace/name`; a name alone is one in `default`",
            }),
        ),
        (
            "Moment",
            json!({
                "anyOf": [{ "type": "string", "format": "date-time" }, { "type": "string", "pattern": "^[0-9]{1,14}$" }],
                "description": "RFC 3339, or milliseconds since 1970",
            }),
        ),
        ("CommandSchema", command_schema()),
        ("NewKey", new_key()),
        ("Problem", problem()),
    ]
}

/// Part of a path: no slash, no control characters.
const PART: &str = r"[^/\u0000-\u001f\u007f-\u009f]+";

const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// What a key shall cover: each kind has its own fields.
fn new_key() -> Value {
    let label = json!({
        "type": "string", "maxLength": 128, "pattern": NO_CONTROL,
        "description": "For people; at most 128 bytes",
    });
    let kind = |kind: &str, covers: &str, part: Value| {
        let mut kind = json!({
            "type": "object", "required": ["kind"], "additionalProperties": false,
            "properties": { "kind": { "const": kind, "description": covers }, "label": label },
        });
        for (name, schema) in part.as_object().into_iter().flatten() {
            kind["required"] = json!(["kind", name]);
            kind["properties"][name] = schema.clone();
        }
        kind
    };
    json!({
        "oneOf": [
            kind("operator", "Everything", json!({})),
            kind("ingest", "The telemetry of a namespace", json!({ "namespace": typed("Part", "") })),
            kind("service", "One service, as itself", json!({ "service": typed("TwinId", "") })),
        ],
    })
}

/// What [`crate::twin::service::schema`] understands.
fn command_schema() -> Value {
    let (whole, itself) =
        (json!({ "type": "integer", "minimum": 0 }), json!({ "$ref": "#/components/schemas/CommandSchema" }));
    json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "enum": ["object", "array", "string", "integer", "number", "boolean", "null"] },
            "required": { "type": "array", "items": { "type": "string" } },
            "properties": { "type": "object", "additionalProperties": itself },
            "additionalProperties": { "type": "boolean" },
            "enum": { "type": "array", "minItems": 1 },
            "minimum": { "type": "number" },
            "maximum": { "type": "number" },
            "minLength": whole,
            "maxLength": whole,
            "maxItems": whole,
            "items": itself,
            "title": {},
            "description": {},
            "default": {},
        },
        "description": "A subset of JSON Schema, nested at most 8 deep; all schemas of a twin have at most 1,024 bytes",
    })
}

fn problem() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.row().name).collect();
    json!({
        "type": "object",
        "description": "RFC 9457; each code has a page at its `type`",
        "required": ["type", "title", "status", "detail", "code", "outcome", "retry"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference" },
            "title": { "type": "string", "description": "The code in words" },
            "status": { "type": "integer", "description": "The HTTP status" },
            "detail": { "type": "string", "description": "What happened this time, and what to do" },
            "code": { "type": "string", "enum": codes },
            "outcome": {
                "type": "string", "enum": ["not_applied", "unknown"],
                "description": "Whether it is certain that nothing happened",
            },
            "retry": {
                "type": "string", "enum": ["never", "later", "same_key"],
                "description": "Whether the same request may be sent again; `same_key`: under its Idempotency-Key alone",
            },
            "retry_after_s": { "type": "integer", "description": "Earliest useful repeat, in seconds" },
        },
    })
}
