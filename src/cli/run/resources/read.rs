//! From the text of a file to what it says.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    field::{Field, Wrong},
    model::{Bulk, Component, Endpoint, Kind, Policy, PolicyKind, Resources, Rule, Subscription, Value},
};
use crate::cli::print::plain;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is no YAML.
    #[error("{file}{at}: {what}")]
    Syntax {
        /// Which.
        file: String,
        /// Where, as `:line:column`.
        at: String,
        /// What is wrong there.
        what: String,
    },
    /// A field.
    #[error("{file}, document {document}: '{field}' {what}")]
    Field {
        /// Which.
        file: String,
        /// Which of its documents that are not empty, from 1.
        document: usize,
        /// Which field, as `spec.metadata[0].name`.
        field: String,
        /// What is wrong with it.
        what: String,
    },
}

const V1: &str = "dapr.io/v1alpha1";
const V2: &str = "dapr.io/v2alpha1";

/// Reads the documents of one file for the service `app_id`, and adds them to what was read before.
///
/// # Errors
/// With the file, the document and the field; `into` then holds what came before that.
pub fn read(file: &str, text: &str, app_id: &str, into: &mut Resources) -> Result<(), Invalid> {
    let documents: Vec<Json> = serde_saphyr::from_multiple(text).map_err(|error| {
        let at = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let what = error.without_snippet().to_string();
        let what = plain(what.lines().next().unwrap_or_default()).into_owned();
        Invalid::Syntax { file: file.to_owned(), at, what }
    })?;
    for (at, value) in documents.iter().enumerate() {
        let document = at + 1;
        one(&Field::root(value), app_id, into, &format!("{file}, document {document}")).map_err(|wrong| {
            let field = if wrong.field.is_empty() { "document" } else { &wrong.field };
            let [field, what] = [field, &wrong.what].map(|text| plain(text).into_owned());
            Invalid::Field { file: file.to_owned(), document, field, what }
        })?;
    }
    Ok(())
}

fn one(document: &Field<'_>, app_id: &str, into: &mut Resources, place: &str) -> Result<(), Wrong> {
    let version = document.must("apiVersion")?;
    let kind = document.must("kind")?.name()?;
    if !version.text()?.starts_with("dapr.io/") {
        into.notes.push(format!("{place}: a {kind} of '{}' is none of Dapr's; it is left out", version.text()?));
        return Ok(());
    }
    let known = match kind.as_str() {
        "Component" | "Configuration" | "Resiliency" | "HTTPEndpoint" => &[V1][..],
        "Subscription" => &[V1, V2],
        _ => {
            into.notes.push(format!("{place}: {kind} is not supported; it is left out"));
            return Ok(());
        }
    };
    let version_text = version.text()?;
    if !known.contains(&version_text.as_str()) {
        return Err(version.wrong(format!("is '{version_text}'; for a {kind} it must be {}", known.join(" or "))));
    }
    let name = document.must("metadata")?.must("name")?.name()?;
    let scopes = document.texts("scopes")?;
    if !scopes.is_empty() && !scopes.iter().any(|scope| scope == app_id) {
        into.notes.push(format!("{place}: {kind} '{name}' is for {}; it is left out", scopes.join(", ")));
        return Ok(());
    }
    match kind.as_str() {
        "Component" => {
            let component = component(document, name, scopes)?;
            if into.components.iter().any(|other| other.name == component.name) {
                let taken = format!("is '{}', as that of a component read before; give it another", component.name);
                return Err(document.must("metadata")?.must("name")?.wrong(taken));
            }
            into.components.push(component);
        }
        "Subscription" => into.subscriptions.push(subscription(document, name, scopes, version_text == V2)?),
        "HTTPEndpoint" => into.endpoints.push(endpoint(document, name, scopes)?),
        other => {
            let kind = if other == "Resiliency" { PolicyKind::Resiliency } else { PolicyKind::Configuration };
            let spec = document.must("spec")?;
            spec.members()?;
            into.policies.push(Policy { kind, name, spec: spec.value().clone(), scopes });
        }
    }
    Ok(())
}

fn component(document: &Field<'_>, name: String, scopes: Vec<String>) -> Result<Component, Wrong> {
    let spec = document.must("spec")?;
    let type_name = spec.must("type")?.name()?;
    let secret_store = document.may("auth")?.map(|auth| auth.may("secretStore")).transpose()?.flatten();
    Ok(Component {
        name,
        kind: Kind::of(&type_name),
        type_name,
        in_place_of: None,
        version: spec.may("version")?.map_or_else(|| Ok("v1".to_owned()), |version| version.text())?,
        metadata: pairs(&spec, "metadata")?,
        secret_store: secret_store.map(|store| store.name()).transpose()?,
        scopes,
    })
}

/// A list of names with values, or with where these are to be found.
fn pairs(of: &Field<'_>, list: &str) -> Result<BTreeMap<String, Value>, Wrong> {
    let mut pairs = BTreeMap::new();
    let Some(list) = of.may(list)? else { return Ok(pairs) };
    for item in list.items()? {
        let name = item.must("name")?;
        if pairs.insert(name.name()?, value(&item)?).is_some() {
            return Err(name.wrong("stands here twice"));
        }
    }
    Ok(pairs)
}

fn value(item: &Field<'_>) -> Result<Value, Wrong> {
    if let Some(secret) = item.may("secretKeyRef")? {
        let name = secret.must("name")?.name()?;
        // A store with plain values has no parts: the secret is its own.
        let key = secret.may("key")?.map_or_else(|| Ok(name.clone()), |key| key.name())?;
        return Ok(Value::Secret { name, key });
    }
    if let Some(variable) = item.may("envRef")? {
        return Ok(Value::Environment(variable.name()?));
    }
    let Some(value) = item.may("value")? else { return Ok(Value::Text(String::new())) };
    // A document as a value is the text of it in JSON.
    Ok(Value::Text(value.text().unwrap_or_else(|_| value.value().to_string())))
}

fn subscription(document: &Field<'_>, name: String, scopes: Vec<String>, is_v2: bool) -> Result<Subscription, Wrong> {
    let spec = document.must("spec")?;
    let text = |name: &str| spec.may(name)?.map(|field| field.name()).transpose();
    let (mut rules, mut default_path) = (Vec::new(), None);
    if !is_v2 {
        default_path = Some(spec.must("route")?.name()?);
    } else if let Some(routes) = spec.may("routes")? {
        default_path = routes.may("default")?.map(|path| path.name()).transpose()?;
        if let Some(list) = routes.may("rules")? {
            let rule =
                |rule: Field<'_>| Ok(Rule { condition: rule.must("match")?.name()?, path: rule.must("path")?.name()? });
            rules = list.items()?.into_iter().map(rule).collect::<Result<_, _>>()?;
        }
        if rules.is_empty() && default_path.is_none() {
            return Err(routes.wrong("has neither rules nor a default"));
        }
    }
    let metadata = match spec.may("metadata")? {
        Some(metadata) => {
            let member = |(name, field): (&str, Field<'_>)| Ok((name.to_owned(), field.text()?));
            metadata.members()?.into_iter().map(member).collect::<Result<_, _>>()?
        }
        None => BTreeMap::new(),
    };
    Ok(Subscription {
        name,
        pubsub: spec.must("pubsubname")?.name()?,
        topic: spec.must("topic")?.name()?,
        rules,
        default_path,
        dead_letter_topic: text("deadLetterTopic")?,
        bulk: spec.may("bulkSubscribe")?.map(|bulk| self::bulk(&bulk)).transpose()?,
        metadata,
        scopes,
    })
}

fn bulk(of: &Field<'_>) -> Result<Bulk, Wrong> {
    let number = |name: &str| of.may(name)?.map(|field| field.number()).transpose();
    Ok(Bulk {
        enabled: of.may("enabled")?.map(|enabled| enabled.flag()).transpose()?.unwrap_or(false),
        messages_max: number("maxMessagesCount")?,
        await_ms_max: number("maxAwaitDurationMs")?,
    })
}

fn endpoint(document: &Field<'_>, name: String, scopes: Vec<String>) -> Result<Endpoint, Wrong> {
    let spec = document.must("spec")?;
    Ok(Endpoint { name, base_url: spec.must("baseUrl")?.name()?, headers: pairs(&spec, "headers")?, scopes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
spec:
  type: state.redis
  version: v1
  metadata:
  - name: redisHost
    value: localhost:6379
  - name: redisPassword
    secretKeyRef: { name: redis, key: password }
  - name: actorStateStore
    value: true
  - name: region
    envRef: REGION
scopes: [orders, cart]
";

    fn of(text: &str) -> Result<Resources, String> {
        let mut into = Resources::default();
        read("r.yaml", text, "orders", &mut into).map(|()| into).map_err(|error| error.to_string())
    }

    #[test]
    fn a_component_keeps_its_secrets_as_references() {
        let read = of(STORE).unwrap();
        let store = &read.components[0];
        assert_eq!(
            (store.name.as_str(), store.kind, store.type_name.as_str()),
            ("statestore", Kind::State, "state.redis")
        );
        assert_eq!(store.metadata["redisHost"], Value::Text("localhost:6379".into()));
        assert_eq!(store.metadata["redisPassword"], Value::Secret { name: "redis".into(), key: "password".into() });
        assert_eq!(store.metadata["actorStateStore"], Value::Text("true".into()));
        assert_eq!(store.metadata["region"], Value::Environment("REGION".into()));
        assert_eq!(store.scopes, ["orders", "cart"]);
    }

    #[test]
    fn what_is_for_other_services_or_of_another_kind_is_left_out_and_noted() {
        let others = STORE.replace("[orders, cart]", "[cart]");
        let workload = "apiVersion: apps/v1\nkind: Deployment\n";
        let unknown = "apiVersion: dapr.io/v1alpha1\nkind: Agent\nmetadata: { name: a }\n";
        let read = of(&[&others, workload, unknown].join("---\n")).unwrap();
        assert_eq!(read.components, []);
        assert_eq!(read.notes.len(), 3);
        assert!(read.notes[0].contains("'statestore' is for cart"), "{:?}", read.notes);
        assert!(read.notes[2].contains("document 3") && read.notes[2].contains("Agent"), "{:?}", read.notes);
    }

    #[test]
    fn both_versions_of_a_subscription_are_read() {
        let text = "\
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: { name: orders }
spec:
  pubsubname: pubsub
  topic: orders
  routes:
    rules:
    - match: event.type == \"widget\"
      path: /widgets
    default: /orders
  deadLetterTopic: dead
  bulkSubscribe: { enabled: true, maxMessagesCount: 100 }
  metadata: { isBarrier: true }
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: { name: old }
spec: { pubsubname: pubsub, topic: old, route: /old }
";
        let read = of(text).unwrap();
        let [new, old] = &read.subscriptions[..] else { panic!("two: {read:?}") };
        assert_eq!(new.rules, [Rule { condition: "event.type == \"widget\"".into(), path: "/widgets".into() }]);
        assert_eq!((new.default_path.as_deref(), new.dead_letter_topic.as_deref()), (Some("/orders"), Some("dead")));
        assert_eq!(new.bulk, Some(Bulk { enabled: true, messages_max: Some(100), await_ms_max: None }));
        assert_eq!(new.metadata["isBarrier"], "true");
        assert_eq!((old.topic.as_str(), old.default_path.as_deref()), ("old", Some("/old")));
    }

    #[test]
    fn policies_and_endpoints_are_kept() {
        let text = "\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: daprConfig }
spec: { tracing: { samplingRate: '1' } }
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: { name: patience }
spec: { policies: { timeouts: { general: 5s } } }
---
apiVersion: dapr.io/v1alpha1
kind: HTTPEndpoint
metadata: { name: github }
spec:
  baseUrl: https://api.github.com
  headers: [{ name: accept, value: application/json }]
";
        let read = of(text).unwrap();
        let policies: Vec<_> = read.policies.iter().map(|policy| (policy.kind, policy.name.as_str())).collect();
        assert_eq!(policies, [(PolicyKind::Configuration, "daprConfig"), (PolicyKind::Resiliency, "patience")]);
        assert_eq!(read.policies[0].spec["tracing"]["samplingRate"], "1");
        assert_eq!(read.endpoints[0].base_url, "https://api.github.com");
        assert_eq!(read.endpoints[0].headers["accept"], Value::Text("application/json".into()));
    }

    #[test]
    fn an_error_names_file_document_and_field() {
        for (text, said) in [
            (STORE.replace("type: state.redis", "kind: x"), "r.yaml, document 1: 'spec.type' is missing"),
            (STORE.replace("- name: redisHost", "- nam: x"), "'spec.metadata[0].name' is missing"),
            (STORE.replace("scopes: [orders, cart]", "scopes: orders"), "'scopes' must be a list"),
            (STORE.replace("name: statestore", "name: ''"), "'metadata.name' must not be empty"),
            (
                STORE.replace("v1alpha1", "v3"),
                "'apiVersion' is 'dapr.io/v3'; for a Component it must be dapr.io/v1alpha1",
            ),
            (format!("{STORE}---\n{STORE}"), "document 2: 'metadata.name' is 'statestore', as that of a component"),
            (STORE.replace("name: region", "name: redisHost"), "'spec.metadata[3].name' stands here twice"),
            ("- 1".to_owned(), "document 1: 'document' must be a mapping"),
        ] {
            let error = of(&text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let error = of("a: [1\nb: 2").unwrap_err();
        assert!(error.starts_with("r.yaml:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            drop(of(&text));
        }

        #[test]
        fn any_damage_to_a_good_file_is_read_or_refused(at in 0..STORE.len(), with in "[\\x00-\\x7f]{0,4}") {
            drop(of(&format!("{}{with}{}", &STORE[..at], &STORE[at..])));
        }
    }
}
