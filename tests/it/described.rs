//! Holds answers against the node's description of itself (`/api/v1/openapi.json`).
//!
//! Every answer that a test gets through [`crate::api_world::World::send`] is held against it, so that a field, a status
//! or a media type that is answered and not described fails whichever test meets it first. The description leaves
//! objects open, for later releases; here a field that it does not name is an error.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which fail by it")]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use service_twin::server::http::openapi::document;

use crate::api_world::{Answer, World, event};

#[tokio::test]
async fn every_operation_answers_as_it_is_described() {
    let world = World::new().await;
    let twin = "/api/v1/twins/shop/orders";
    let of = |rest: &str| format!("{twin}{rest}");
    let key = world.done("POST", "/api/v1/keys", json!({"kind": "ingest", "namespace": "shop"})).await;
    let key = format!("/api/v1/keys/{}", key["id"].as_str().unwrap());
    let mut seen = BTreeSet::from(["mintKey".to_owned()]);
    for (method, path, body) in [
        ("PUT", of(""), json!({"attributes": {"owner": "team-a"}})),
        ("PATCH", of("/attributes"), json!({"tier": 1})),
        ("PUT", of("/instances/i1"), json!({"health": {"status": "degraded", "reason": "slow"}})),
        ("PUT", of("/features/limits/desired"), json!({"rps": 50})),
        ("PATCH", of("/features/limits/desired"), json!({"burst": 5})),
        ("POST", of("/features/limits/report"), json!({"instance": "i1", "reported": {}, "applied": {"version": 1}})),
        ("PUT", of("/command-definitions/drain"), json!({"type": "object"})),
        ("POST", of("/commands"), json!({"name": "drain"})),
        ("POST", of("/commands"), json!({"name": "stop", "target": "all"})),
        ("POST", "/v1/traces".into(), traces()),
        ("POST", "/v1/metrics".into(), metrics()),
        ("POST", "/v1/logs".into(), logs()),
        ("GET", "/api/v1/openapi.json".into(), Value::Null),
        ("GET", "/api/v1/twins?attr.owner=team-a".into(), Value::Null),
        ("GET", of("?behaviour=true"), Value::Null),
        ("GET", of("/attributes"), Value::Null),
        ("GET", of("/attributes/owner"), Value::Null),
        ("GET", of("/behaviour"), Value::Null),
        ("GET", of("/journal"), Value::Null),
        ("GET", of("/features"), Value::Null),
        ("GET", of("/features/limits"), Value::Null),
        ("GET", of("/features/limits/delta"), Value::Null),
        ("GET", of("/instances"), Value::Null),
        ("GET", of("/commands"), Value::Null),
        ("PATCH", of("/access"), json!({"add": [{"effect": "deny", "scope": "state:statestore/private-*"}]})),
        ("PATCH", of("/access"), json!({"add": [{"effect": "allow", "scope": "egress:127.0.0.1:9"}]})),
        ("GET", of("/access"), Value::Null),
        ("POST", of("/access/check"), json!({"rights": [{"operation": "get", "scope": "state:statestore/a"}]})),
        ("PATCH", of("/configuration"), json!({"keys": {"rps": {"value": "5", "metadata": {"unit": "1/s"}}}})),
        ("GET", of("/configuration"), Value::Null),
        ("POST", of("/configuration/applied"), json!({"instance": "i1", "version": 1})),
        ("POST", of("/configuration/rollback"), json!({"version": 1})),
        ("PUT", of("/callers"), json!({"callers": [{"service": "shop/*", "method": "POST /charge"}]})),
        ("GET", of("/callers"), Value::Null),
        ("DELETE", of("/callers"), Value::Null),
        ("PUT", of("/endpoints/i1"), json!({"url": "http://127.0.0.1:9", "protocol": "grpc"})),
        ("GET", of("/endpoints"), Value::Null),
        ("DELETE", of("/endpoints/i1"), Value::Null),
        ("PUT", of("/components/vault"), json!({"kind": "secrets"})),
        ("GET", of("/components"), Value::Null),
        ("DELETE", of("/components/vault"), Value::Null),
        (
            "PUT",
            of("/subscriptions/new"),
            json!({"component": "pubsub", "topic": "orders", "path": "/orders", "metadata": {"a": "b"}}),
        ),
        ("POST", of("/topics/replay"), json!({"component": "pubsub", "topic": "replayed", "from": "oldest"})),
        ("GET", of("/subscriptions"), Value::Null),
        ("DELETE", of("/subscriptions/new"), Value::Null),
        ("GET", "/api/v1/capabilities".into(), Value::Null),
        ("POST", of("/capabilities/state/stores"), Value::Null),
        ("PUT", of("/secrets/db"), json!("hunter2")),
        ("GET", of("/secrets"), Value::Null),
        ("GET", of("/secrets/db"), Value::Null),
        ("GET", of("/secrets/db/value"), Value::Null),
        ("POST", of("/secrets/db/ack"), json!({"instance": "i1", "version": 1})),
        ("DELETE", of("/secrets/db"), Value::Null),
        ("GET", of("/state"), Value::Null),
        ("PUT", of("/state/extra"), Value::Null),
        ("DELETE", of("/state/extra"), Value::Null),
        ("POST", of("/state/statestore"), json!({"operations": [{"operation": "set", "key": "a", "value": 1}]})),
        ("PUT", of("/state/statestore/a?ttl_s=600"), json!(2)),
        ("GET", of("/state/statestore/a"), Value::Null),
        ("GET", of("/state/statestore?limit=1"), Value::Null),
        ("DELETE", of("/state/statestore/a"), Value::Null),
        ("DELETE", of("/features/limits/desired"), Value::Null),
        ("DELETE", of("/command-definitions/drain"), Value::Null),
        ("GET", "/api/v1/cluster".into(), Value::Null),
        ("GET", "/api/v1/keys".into(), Value::Null),
        ("POST", format!("{key}/rotate"), json!({"overlap_s": 60})),
        ("POST", "/api/v1/keys/revoke".into(), json!({"service": "shop/orders"})),
        ("DELETE", key, Value::Null),
        ("GET", "/livez".into(), Value::Null),
        ("GET", "/readyz".into(), Value::Null),
        ("GET", "/metrics".into(), Value::Null),
        ("GET", "/problems/invalid".into(), Value::Null),
    ] {
        let answer = world.send(method, &path, body).await;
        assert!(answer.status < 300, "{method} {path} {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        seen.insert(id(method, &path));
    }
    let commands = world.done("GET", &of("/commands"), Value::Null).await;
    let (stop, drain) = (&commands["commands"][0]["id"], &commands["commands"][1]["id"]);
    let mut stream = world.request("GET", &of("/instances/i1/commands")).send().await.unwrap();
    event(&mut stream, "command").await;
    for (method, path, body) in [
        ("POST", format!("/commands/{stop}/ack"), json!({"instance": "i1"})),
        ("POST", format!("/commands/{stop}/result"), json!({"instance": "i1", "result": 1})),
        ("POST", format!("/commands/{drain}/cancel"), Value::Null),
        ("GET", format!("/commands/{stop}"), Value::Null),
        ("DELETE", "/instances/i1".into(), Value::Null),
        ("DELETE", String::new(), Value::Null),
    ] {
        world.done(method, &of(&path), body).await;
        seen.insert(id(method, &of(&path)));
    }
    let streams = ["openChannel", "takeCommands", "watchAll", "watchTwin"].map(str::to_owned);
    assert!(seen.is_disjoint(&BTreeSet::from(streams.clone())), "a stream has no end that could be waited for");
    seen.extend(streams);
    let operations =
        document()["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let described = operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect();
    assert_eq!(seen, described);
}

fn id(method: &str, path: &str) -> String {
    let operation = operation(method, path.split('?').next().unwrap()).unwrap();
    operation["operationId"].as_str().unwrap().to_owned()
}

fn resource() -> Value {
    let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
    json!({"attributes": [attribute("service.namespace", "shop"), attribute("service.name", "orders")]})
}

fn traces() -> Value {
    let span = |id: &str, name: &str, kind: u8, attribute: Value| {
        json!({
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "name": name, "kind": kind,
            "startTimeUnixNano": "1795397042000000000", "endTimeUnixNano": "1795397042100000000",
            "attributes": [attribute],
        })
    };
    let database = json!({"key": "db.system.name", "value": {"stringValue": "postgresql"}});
    let route = json!({"key": "http.route", "value": {"stringValue": "/orders"}});
    let spans = [span("b7ad6b7169203331", "SELECT", 3, database), span("b7ad6b7169203332", "GET", 2, route)];
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"spans": spans}]}]})
}

fn metrics() -> Value {
    let points = json!([{"timeUnixNano": "1795397042000000000", "asDouble": 1.5}]);
    let metrics = json!([{"name": "process.memory.usage", "unit": "By", "gauge": {"dataPoints": points}}]);
    json!({"resourceMetrics": [{"resource": resource(), "scopeMetrics": [{"metrics": metrics}]}]})
}

fn logs() -> Value {
    let record =
        json!({"timeUnixNano": "1795397042000000000", "severityNumber": 17, "body": {"stringValue": "failed"}});
    json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"logRecords": [record]}]}]})
}

/// Fails if an answer to `method path` is not as described.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let at = format!("{method} {path} {}", answer.status);
    let problem = answer.kind == "application/problem+json";
    let Some(operation) = operation(method, path.split('?').next().unwrap()) else {
        assert!(problem && [404, 405].contains(&answer.status), "{at}: served, and not described");
        is_a("Problem", &answer.json());
        return;
    };
    let response = &operation["responses"][answer.status.to_string()];
    assert!(!response.is_null(), "{at}: not described; {}", String::from_utf8_lossy(&answer.body));
    let response = resolved(response);
    let tag = resolved(&response["headers"]["ETag"]);
    assert!(tag["required"] != true || answer.etag.is_some(), "{at}: an ETag is described");
    assert!(!tag.is_null() || answer.etag.is_none() || tags_some(operation), "{at}: an ETag is not described");
    let essence = answer.kind.split(';').next().unwrap();
    let Some(content) = response.get("content") else {
        assert!(answer.body.is_empty(), "{at}: a body is not described");
        return;
    };
    let media = &content[essence];
    assert!(!media.is_null(), "{at}: '{essence}' is not described");
    if essence.ends_with("json") {
        hold(&media["schema"], &answer.json(), &at);
    }
}

/// Fails if a document is not of a schema of the description.
pub(crate) fn is_a(name: &str, value: &Value) {
    let schema = &document()["components"]["schemas"][name];
    assert!(!schema.is_null(), "there is no schema '{name}'");
    hold(schema, value, name);
}

/// Fails if `data` of a server-sent event is not of a schema of the description.
pub(crate) fn is_event(kind: &str, data: &Value) {
    let name = match kind {
        "command" => "Delivery",
        "gap" => "Gap",
        "end" => "End",
        _ => "CloudEvent",
    };
    is_a(name, data);
}

/// Whether an operation answers with an ETag if it can.
fn tags_some(operation: &Value) -> bool {
    !operation["responses"]["304"].is_null()
}

fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (wanted, found): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        wanted.len() == found.len()
            && wanted.iter().zip(found).all(|(wanted, found)| wanted.starts_with('{') || *wanted == found)
    };
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().find(|(template, _)| fits(template))?.1.get(method.to_lowercase())
}

fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref") {
        Some(reference) => document().pointer(reference.as_str().unwrap().trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// The part of JSON Schema that the description uses; any other keyword fails.
fn hold(schema: &'static Value, value: &Value, at: &str) {
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$ref" => hold(resolved(schema), value, at),
            "type" => assert!(has_type(wanted, value), "{at} must be of type {wanted}: {value}"),
            "enum" => assert!(wanted.as_array().unwrap().contains(value), "{at} must be one of {wanted}: {value}"),
            "allOf" => wanted.as_array().unwrap().iter().for_each(|schema| hold(schema, value, at)),
            "anyOf" => {
                let fits = |schema: &&'static Value| has_type(&resolved(schema)["type"], value);
                let fitting = wanted.as_array().unwrap().iter().find(fits);
                hold(fitting.unwrap_or_else(|| panic!("{at} must be any of {wanted}: {value}")), value, at);
            }
            "minimum" | "maximum" if !value.is_number() => {}
            "minimum" => assert!(value.as_f64() >= wanted.as_f64(), "{at} must be at least {wanted}: {value}"),
            "maximum" => assert!(value.as_f64() <= wanted.as_f64(), "{at} must be at most {wanted}: {value}"),
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                items.for_each(|(number, item)| hold(wanted, item, &format!("{at}[{number}]")));
            }
            "required" => {
                let missing =
                    wanted.as_array().unwrap().iter().find(|name| value.get(name.as_str().unwrap()).is_none());
                assert!(missing.is_none(), "{at} must have {}: {value}", missing.unwrap());
            }
            "properties" => fields(wanted, schema.get("additionalProperties"), value, at),
            "additionalProperties" if schema.get("properties").is_none() => {
                let fields = value.as_object().into_iter().flatten();
                fields.for_each(|(name, field)| hold(wanted, field, &format!("{at}.{name}")));
            }
            "additionalProperties" | "description" | "format" | "examples" => {}
            unknown => panic!("{at}: '{unknown}' is not understood here"),
        }
    }
}

fn fields(described: &'static Value, others: Option<&Value>, value: &Value, at: &str) {
    let empty = Map::new();
    for (name, field) in value.as_object().unwrap_or(&empty) {
        match described.get(name) {
            Some(schema) => hold(schema, field, &format!("{at}.{name}")),
            None => assert!(others == Some(&Value::Bool(true)), "{at}.{name} is not described: {value}"),
        }
    }
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("there is no type '{other}'"),
    };
    // A schema of several types is fit by each; one of none, such as allOf, by all.
    wanted.as_array().map_or(wanted.is_null() || wanted.is_string() && is(wanted), |names| names.iter().any(is))
}
