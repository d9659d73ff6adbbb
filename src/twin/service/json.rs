//! JSON inside a state: text to the body codec, a document to people.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, value::RawValue};

/// A JSON document, kept as compact text. Valid by construction.
///
/// The body codec is positional and cannot hold a value of unknown type, so it sees a string; a self-describing
/// format such as JSON sees the document itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Arc<str>);

impl Json {
    /// Deepest nesting taken.
    pub const DEPTH_MAX: usize = 32;

    /// Parses a document.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Value>(text).map(|value| Self::from(&value))
    }

    /// The document `{}`.
    pub fn empty() -> Self {
        Self(Arc::from("{}"))
    }

    /// The document as compact text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The document as a value.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }

    /// Whether nothing is nested deeper than [`Json::DEPTH_MAX`].
    pub fn is_shallow(&self) -> bool {
        let (mut depth, mut bytes) = (0_usize, self.0.bytes());
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => {
                    while bytes.next().is_some_and(|byte| byte != b'"' && (byte != b'\\' || bytes.next().is_some())) {}
                }
                b'{' | b'[' if depth == Self::DEPTH_MAX => return false,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        true
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            // Text that is no JSON reads as null.
            serde_json::from_str::<Option<&RawValue>>(&self.0).unwrap_or_default().serialize(serializer)
        } else {
            serializer.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return Value::deserialize(deserializer).map(Self::from);
        }
        // Not parsed: it was when it was made, and its bytes lie under a checksum. Text that is none reads as null.
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

/// Applies an RFC 7396 merge patch.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = target {
        for (name, value) in patch {
            if value.is_null() {
                members.remove(name);
            } else {
                merge(members.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}

/// What of `desired` is not so in `reported`: the fields of `desired` that differ; `None` if there are none.
pub fn delta(desired: &Value, reported: &Value) -> Option<Value> {
    match (desired, reported) {
        (Value::Object(desired), Value::Object(reported)) => {
            let differing: serde_json::Map<_, _> = desired
                .iter()
                .filter_map(|(name, value)| {
                    let found = reported.get(name).unwrap_or(&Value::Null);
                    delta(value, found).map(|differing| (name.clone(), differing))
                })
                .collect();
            (!differing.is_empty()).then_some(Value::Object(differing))
        }
        (desired, reported) => (desired != reported).then(|| desired.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::twin::{from_bytes, to_bytes};

    #[test]
    fn a_document_reads_back_from_both_codecs() {
        let document = Json::from(json!({"a": [1, null, {"b": "ö"}]}));
        assert_eq!(from_bytes::<Json>(&to_bytes(&document)).unwrap(), document);
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(text, r#"{"a":[1,null,{"b":"ö"}]}"#);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), document);
        assert_eq!(serde_json::to_value(&document).unwrap(), document.value());
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_alone() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, is_shallow) in [
            (nested(Json::DEPTH_MAX), true),
            (nested(Json::DEPTH_MAX + 1), false),
            (format!("[{0},{0}]", nested(Json::DEPTH_MAX - 1)), true),
            (format!("[{0},{0}]", nested(Json::DEPTH_MAX)), false),
            (json!(nested(99)).to_string(), true),
            (json!({"\\\"": nested(99), "a": ["\\", "[[", "\""]}).to_string(), true),
        ] {
            assert_eq!(Json::parse(&text).unwrap().is_shallow(), is_shallow, "{text}");
        }
    }

    #[test]
    fn a_merge_patch_follows_rfc_7396() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a"]), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{target} + {patch}");
        }
    }

    #[test]
    fn a_delta_has_only_desired_fields_that_differ() {
        let (desired, reported) =
            (json!({"a": 1, "b": {"c": 2, "d": 3}}), json!({"a": 1, "b": {"c": 5, "d": 3}, "x": 9}));
        assert_eq!(delta(&desired, &reported), Some(json!({"b": {"c": 2}})));
        assert_eq!(delta(&json!({"a": 1}), &reported), None);
    }
}
