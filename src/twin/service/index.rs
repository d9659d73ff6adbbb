//! The search terms under which a service twin is found.

use serde_json::Value;

use super::{Core, Instance, Json};
use crate::twin::Terms;

/// Longest name of an attribute that is searchable, in bytes.
const ATTRIBUTE_NAME_BYTES_MAX: usize = 32;
/// Longest value of an attribute that is searchable, in bytes.
const ATTRIBUTE_VALUE_BYTES_MAX: usize = 64;
/// Most versions that are searchable.
const VERSIONS_MAX: usize = 4;

/// Adds the terms, the most useful first: what does not fit is left out.
pub(super) fn terms(core: &Core, terms: &mut Terms) {
    if !core.exists {
        return;
    }
    let (namespace, name) = core.id.split_once('/').unwrap_or(("", &core.id));
    let in_sync = core.features.iter().all(|feature| feature.diverged_since.is_none());
    let up = core.instances.iter().filter(|instance| instance.is_up());
    let mut room = terms.add("name", name)
        && terms.add("namespace", namespace)
        && terms.add("health", core.health.status.as_str())
        && terms.add("in_sync", if in_sync { "true" } else { "false" })
        && terms.add("instances", &up.clone().count().to_string());
    if !core.environment.is_empty() {
        room = room && terms.add("environment", &core.environment);
    }
    let mut versions: Vec<&str> =
        up.map(|instance: &Instance| instance.version.as_str()).filter(|version| !version.is_empty()).collect();
    versions.sort_unstable();
    versions.dedup();
    for version in versions.iter().rev().take(VERSIONS_MAX) {
        room = room && terms.add("version", version);
    }
    if core.attributes == Json::empty() {
        return;
    }
    let Value::Object(attributes) = core.attributes.value() else { return };
    for (name, value) in attributes.iter().filter(|(name, _)| name.len() <= ATTRIBUTE_NAME_BYTES_MAX) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        if room && text.len() <= ATTRIBUTE_VALUE_BYTES_MAX {
            room = terms.add(&format!("attr.{name}"), &text);
        }
    }
}
