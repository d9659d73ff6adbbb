//! A small, bounded subset of JSON Schema for the parameters of commands.
//!
//! Keywords: `type`, `required`, `properties`, `additionalProperties` (a boolean), `enum`, `minimum`, `maximum`,
//! `minLength`, `maxLength`, `maxItems`, `items`; `title`, `description` and `default` are taken and mean nothing.
//! Any other keyword is refused when a schema is defined, so that none is silently without effect.

use serde_json::{Map, Value};

use crate::twin::Rejection;

/// Deepest nesting of a schema.
pub const DEPTH_MAX: usize = 8;

const KEYWORDS: [&str; 14] = [
    "type",
    "required",
    "properties",
    "additionalProperties",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "maxItems",
    "items",
    "title",
    "description",
    "default",
];
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];

/// Refuses a schema with an unknown keyword or one of the wrong form.
pub fn check_definition(schema: &Value) -> Result<(), Rejection> {
    define(schema, "schema", DEPTH_MAX).map_err(Rejection::invalid)
}

/// Refuses parameters that contradict a schema; says where and what would be right.
pub fn check(schema: &Value, parameters: &Value) -> Result<(), Rejection> {
    judge(schema, parameters, "parameters", DEPTH_MAX).map_err(Rejection::invalid)
}

fn define(schema: &Value, at: &str, depth: usize) -> Result<(), String> {
    let Value::Object(schema) = schema else { return Err(format!("{at}: a schema is an object")) };
    if depth == 0 {
        return Err(format!("{at}: a schema is nested at most {DEPTH_MAX} deep"));
    }
    for (keyword, value) in schema {
        let is_fine = match keyword.as_str() {
            "type" => value.as_str().is_some_and(|name| TYPES.contains(&name)),
            "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            "additionalProperties" => value.is_boolean(),
            "enum" => value.as_array().is_some_and(|values| !values.is_empty()),
            "minimum" | "maximum" => value.is_number(),
            "minLength" | "maxLength" | "maxItems" => value.is_u64(),
            "properties" | "items" => value.is_object(),
            other => KEYWORDS.contains(&other),
        };
        if !is_fine {
            return Err(format!(
                "{at}: '{keyword}' is unknown or has the wrong form; known are {}",
                KEYWORDS.join(", ")
            ));
        }
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        define(property, &format!("{at}.{name}"), depth - 1)?;
    }
    schema.get("items").map_or(Ok(()), |items| define(items, &format!("{at}[]"), depth - 1))
}

fn judge(schema: &Value, value: &Value, at: &str, depth: usize) -> Result<(), String> {
    let Some(schema) = schema.as_object().filter(|_| depth > 0) else { return Ok(()) };
    if let Some(wanted) = schema.get("type").and_then(Value::as_str)
        && !has_type(value, wanted)
    {
        return Err(format!("{at}: must be of type {wanted}"));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        return Err(format!("{at}: must be one of {}", Value::from(values.clone())));
    }
    match value {
        Value::Number(number) => judge_number(schema, number.as_f64().unwrap_or(f64::NAN), at),
        Value::String(text) => judge_size(schema, text.chars().count(), at, "minLength", "maxLength"),
        Value::Array(items) => {
            judge_size(schema, items.len(), at, "", "maxItems")?;
            let Some(schema) = schema.get("items") else { return Ok(()) };
            items.iter().enumerate().try_for_each(|(i, item)| judge(schema, item, &format!("{at}[{i}]"), depth - 1))
        }
        Value::Object(members) => judge_object(schema, members, at, depth),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Null => wanted == "null",
        Value::Bool(_) => wanted == "boolean",
        Value::Number(number) => wanted == "number" || (wanted == "integer" && (number.is_i64() || number.is_u64())),
        Value::String(_) => wanted == "string",
        Value::Array(_) => wanted == "array",
        Value::Object(_) => wanted == "object",
    }
}

fn judge_number(schema: &Map<String, Value>, number: f64, at: &str) -> Result<(), String> {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        return Err(format!("{at}: must be at least {least}"));
    }
    match bound("maximum").filter(|greatest| number > *greatest) {
        Some(greatest) => Err(format!("{at}: must be at most {greatest}")),
        None => Ok(()),
    }
}

fn judge_size(schema: &Map<String, Value>, size: usize, at: &str, least: &str, most: &str) -> Result<(), String> {
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    if let Some(least) = bound(least).filter(|least| size < *least) {
        return Err(format!("{at}: must have at least {least} characters"));
    }
    match bound(most).filter(|most| size > *most) {
        Some(most) => Err(format!("{at}: must have at most {most} characters or items")),
        None => Ok(()),
    }
}

fn judge_object(
    schema: &Map<String, Value>,
    members: &Map<String, Value>,
    at: &str,
    depth: usize,
) -> Result<(), String> {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Err(format!("{at}: '{name}' is required"));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    for (name, member) in members {
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => judge(schema, member, &format!("{at}.{name}"), depth - 1)?,
            None if is_closed => return Err(format!("{at}: '{name}' is not known here")),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_held_against_their_schema_and_the_refusal_says_where() {
        let schema = json!({
            "type": "object", "required": ["count"], "additionalProperties": false,
            "properties": {"count": {"type": "integer", "minimum": 1, "maximum": 9},
                           "zone": {"enum": ["a", "b"]}, "note": {"type": "string", "maxLength": 3}}
        });
        check_definition(&schema).unwrap();
        assert!(check(&schema, &json!({"count": 3, "zone": "a", "note": "äöü"})).is_ok());
        for (parameters, word) in [
            (json!({}), "'count' is required"),
            (json!({"count": 0}), "parameters.count: must be at least 1"),
            (json!({"count": 1.5}), "of type integer"),
            (json!({"count": 1, "zone": "c"}), "must be one of"),
            (json!({"count": 1, "note": "long"}), "at most 3"),
            (json!({"count": 1, "more": 1}), "'more' is not known"),
            (json!([]), "of type object"),
        ] {
            let refusal = check(&schema, &parameters).unwrap_err().to_string();
            assert!(refusal.contains(word), "{parameters}: {refusal}");
        }
    }

    #[test]
    fn an_unknown_keyword_is_refused_instead_of_ignored() {
        for schema in [json!({"pattern": "a"}), json!({"type": "text"}), json!({"items": {"not": {}}}), json!(1)] {
            assert!(check_definition(&schema).is_err(), "{schema}");
        }
    }
}
