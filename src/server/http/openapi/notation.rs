//! How types are written in the tables, as JSON Schema.
//!
//! One word: `string`, `boolean`, `number`, `integer` (never negative), `1..200` for one between, `object`, `any`; `a|b`
//! for one of some words; a name with a capital for a schema of that name; `[T]` for a list; `T?` for what may be null.

use serde_json::{Map, Value, json};

use super::{schemas::SCHEMAS, special};

/// Name, type, meaning; a `?` behind the name says that it may be left out.
pub(super) type Field = (&'static str, &'static str, &'static str);

/// An object with these fields.
pub(super) struct Schema {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    /// Whether it is refused if it has any other field.
    pub(super) is_closed: bool,
    pub(super) fields: &'static [Field],
}

/// A type with its meaning.
pub(super) fn typed(kind: &str, meaning: &str) -> Value {
    let mut schema = plain(kind);
    if !meaning.is_empty() {
        schema["description"] = meaning.into();
    }
    schema
}

fn plain(kind: &str) -> Value {
    if let Some(kind) = kind.strip_suffix('?') {
        return or_null(plain(kind));
    }
    if let Some(items) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        return json!({ "type": "array", "items": plain(items) });
    }
    match kind {
        "any" => json!({}),
        "string" | "boolean" | "number" | "object" => json!({ "type": kind }),
        "integer" => json!({ "type": kind, "minimum": 0, "maximum": u64::MAX, "format": "uint64" }),
        range if range.contains("..") => {
            let (least, most) = range.split_once("..").unwrap_or_default();
            json!({ "type": "integer", "minimum": least.parse::<u64>().ok(), "maximum": most.parse::<u64>().ok() })
        }
        words if words.contains('|') => json!({ "type": "string", "enum": words.split('|').collect::<Vec<_>>() }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    }
}

fn or_null(schema: Value) -> Value {
    match schema.get("type").cloned() {
        Some(kind) => {
            let mut schema = schema;
            schema["type"] = json!([kind, "null"]);
            schema
        }
        None => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}

/// Every schema by its name.
pub(super) fn all() -> Map<String, Value> {
    let mut all: Map<_, _> = SCHEMAS.iter().map(|schema| (schema.name.to_owned(), object(schema))).collect();
    all.extend(special::all().map(|(name, schema)| (name.to_owned(), schema)));
    all
}

fn object(schema: &Schema) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, kind, meaning) in schema.fields {
        let optional = name.strip_suffix('?');
        if optional.is_none() {
            required.push(*name);
        }
        properties.insert(optional.unwrap_or(name).to_owned(), typed(kind, meaning));
    }
    let mut object = json!({ "type": "object", "description": schema.meaning, "properties": properties });
    if !required.is_empty() {
        object["required"] = required.into();
    }
    if schema.is_closed {
        object["additionalProperties"] = false.into();
    }
    object
}
