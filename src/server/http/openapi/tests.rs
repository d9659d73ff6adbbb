use std::collections::BTreeSet;

use super::*;
use crate::server::http::routes;

#[test]
fn every_route_is_described_and_every_description_served() {
    let served: BTreeSet<&str> = routes().iter().map(|(path, _)| *path).collect();
    let described: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
    assert_eq!(served, described);
    let ids: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.id).collect();
    assert_eq!(ids.len(), OPERATIONS.len(), "operation ids are unique");
}

#[test]
fn the_description_names_every_parameter_of_a_path() {
    let document = build();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap();
            let named = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let known = named.filter(|parameter| parameter["example"] != Value::Null).count();
            assert_eq!(known, path.matches('{').count(), "{method} {path}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    let document = build();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "nothing is a {name}");
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_example_is_a_document() {
    for body in OPERATIONS.iter().filter_map(|operation| operation.body) {
        assert!(body.example.is_empty() || serde_json::from_str::<Value>(body.example).is_ok(), "{}", body.example);
    }
}
