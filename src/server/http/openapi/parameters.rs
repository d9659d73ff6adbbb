//! What an operation takes beside its body: parts of the path, the query, headers.

use serde_json::{Value, json};

use super::{
    notation::typed,
    operation::{Kind, Operation},
};

/// Every parameter of an operation.
pub(super) fn of(operation: &Operation) -> Vec<Value> {
    let mut parameters: Vec<Value> = names(operation.path).map(part).collect();
    let query = operation.query.iter();
    parameters.extend(query.map(|(name, kind, meaning)| match *name {
        "attr.*" => attributes(meaning),
        name => parameter("query", name, &typed(kind, ""), meaning),
    }));
    parameters.extend(headers(operation.kind));
    if operation.method == "get" && operation.path.starts_with("/api/v1/twins/{") && operation.kind != Kind::Stream {
        let meaning = "What the answer rests on: the owner's lease; the store; or nothing, from whatever node is asked";
        // A secret that is read is written down, which takes the owner.
        let values = if operation.path.ends_with("/value") { "lease|strict" } else { "lease|strict|stale-ok" };
        parameters.push(parameter("header", "Twin-Consistency", &typed(values, ""), meaning));
    }
    parameters
}

/// The `{names}` in a path.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A parameter in a path; the same name means the same everywhere.
fn part(name: &str) -> Value {
    let (kind, meaning, example) = match name {
        "namespace" => ("Part", "`service.namespace`; `default` for services that state none", json!("shop")),
        "name" => ("Part", "`service.name`", json!("orders")),
        "attribute" => ("string", "The attribute", json!("owner")),
        "feature" => ("Name", "The feature", json!("limits")),
        "instance" => ("string", "`service.instance.id`; beyond 64 bytes cut, with its hash", json!("orders-1")),
        "id" => ("integer", "The command's id within the twin", json!(2)),
        "command" => ("Name", "The command's name", json!("restart")),
        "key" => ("KeyId", "The key's public id", json!("0123456789abcdef")),
        "secret" => ("Name", "The secret", json!("db-password")),
        "component" => ("Name", "The component's name", json!("localsecrets")),
        "capability" => ("string", "The capability", json!("state")),
        "request" => ("string", "The request, by its name within the capability", json!("get")),
        "subscription" => ("Name", "The subscription's name", json!("orders")),
        "store" => ("StoreName", "The store", json!("statestore")),
        "state_key" => ("StateKey", "The key, percent-encoded: `/` is `%2F`", json!("order-1")),
        "code" => ("string", "The problem's code", json!("not-found")),
        other => (other, "", Value::Null),
    };
    let mut part = parameter("path", name, &typed(kind, ""), meaning);
    part["example"] = example;
    part
}

fn parameter(place: &str, name: &str, schema: &Value, meaning: &str) -> Value {
    json!({ "in": place, "name": name, "required": place == "path", "description": meaning, "schema": schema })
}

/// Any number of `attr.NAME=VALUE`.
fn attributes(meaning: &str) -> Value {
    let values = json!({ "type": "string" });
    let schema =
        json!({ "type": "object", "propertyNames": { "pattern": "^attr\\.." }, "additionalProperties": values });
    let mut parameter = parameter("query", "attributes", &schema, meaning);
    parameter["style"] = "form".into();
    parameter["explode"] = true.into();
    parameter
}

/// The headers that operations of a kind understand.
fn headers(kind: Kind) -> Vec<Value> {
    let text = |name, meaning| parameter("header", name, &typed("string", ""), meaning);
    let mut headers = Vec::new();
    if kind != Kind::Open {
        let seconds = json!({ "type": "number", "exclusiveMinimum": 0 });
        let meaning = "How long to wait, in seconds; 30 by default, at most 300";
        headers.push(parameter("header", "Request-Timeout", &seconds, meaning));
    }
    match kind {
        Kind::Open | Kind::Plain | Kind::Look => {}
        Kind::Read { .. } => {
            headers.push(text("If-None-Match", "The ETag known; 304 if it holds"));
        }
        Kind::Stream => {
            let id = json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$" });
            let meaning = "Go on after this event; of one twin it is a revision";
            headers.push(parameter("header", "Last-Event-ID", &id, meaning));
        }
        Kind::Write | Kind::Note | Kind::Keyed => {
            if kind == Kind::Write {
                let tag = json!({ "type": "string", "pattern": "^(\\*|[0-9]+|\"[0-9]+\")$" });
                let meaning = "The ETag, or revision, expected; 412 if the twin has another one";
                headers.push(parameter("header", "If-Match", &tag, meaning));
            }
            let key = json!({ "type": "string", "minLength": 1, "maxLength": 256 });
            let meaning = "Repeats under it change nothing; a UUIDv7, or any text with an `Idempotency-Key-Time`";
            headers.push(parameter("header", "Idempotency-Key", &key, meaning));
            let meaning = "When the key was made; needed if it is no UUIDv7";
            headers.push(parameter("header", "Idempotency-Key-Time", &typed("Moment", ""), meaning));
        }
        Kind::Telemetry => {
            let encoding = typed("gzip|identity", "");
            headers.push(parameter("header", "Content-Encoding", &encoding, "How the body is packed"));
        }
    }
    headers
}
