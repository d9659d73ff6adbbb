//! What scoping in resources amounts to: grants of one service's twin.

use serde_json::Value as Json;

use super::model::{Component, Kind, Policy, PolicyKind, Resources, Value};

/// A grant as a twin takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whether it gives; otherwise it takes.
    pub is_allowed: bool,
    /// The operations.
    pub operations: Vec<&'static str>,
    /// On what.
    pub scope: String,
}

/// Which topics a service may use for one purpose.
enum Reach<'a> {
    /// All but these.
    AllBut(Vec<&'a str>),
    /// These alone.
    Only(Vec<&'a str>),
}

/// The grants that resources ask for, for the service `app_id`, and what of it cannot be expressed.
pub fn grants(resources: &Resources, app_id: &str) -> (Vec<Grant>, Vec<String>) {
    let (mut grants, mut notes) = (Vec::new(), Vec::new());
    for component in resources.components.iter().filter(|component| component.kind == Kind::PubSub) {
        of_topics(component, app_id, &mut grants, &mut notes);
    }
    for policy in &resources.policies {
        match policy.kind {
            PolicyKind::Configuration => of_configuration(policy, resources, &mut grants, &mut notes),
            PolicyKind::Resiliency => notes.push(format!(
                "resiliency '{}' is not supported: the twin has bounds and retries of its own; nothing is done with it",
                policy.name
            )),
        }
    }
    (grants, notes)
}

fn of_topics(component: &Component, app_id: &str, grants: &mut Vec<Grant>, notes: &mut Vec<String>) {
    let mut text = |name: &str| match component.metadata.get(name) {
        None => "",
        Some(Value::Text(text)) => text.as_str(),
        Some(Value::Secret { .. } | Value::Environment(_)) => {
            notes.push(format!("component '{}': '{name}' must be a plain value; it is left out", component.name));
            ""
        }
    };
    let [allowed, protected, publishing, subscription] =
        ["allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes"].map(&mut text);
    let (allowed, protected) = (list(allowed), list(protected));
    for (operation, scopes) in [("publish", publishing), ("subscribe", subscription)] {
        let reach = match of_app(scopes, app_id) {
            Some(topics) if allowed.is_empty() => Reach::Only(topics),
            Some(topics) => Reach::Only(topics.into_iter().filter(|topic| allowed.contains(topic)).collect()),
            None if allowed.is_empty() => Reach::AllBut(protected.clone()),
            None => Reach::Only(allowed.iter().copied().filter(|topic| !protected.contains(topic)).collect()),
        };
        let scope = |topic: &str| format!("topics:{}/{topic}", component.name);
        match reach {
            Reach::AllBut(topics) => topics.into_iter().for_each(|topic| add(grants, false, operation, scope(topic))),
            Reach::Only(topics) => {
                add(grants, false, operation, scope("*"));
                for topic in topics {
                    // A name that ends so stands for others, too.
                    if topic.ends_with('*') {
                        notes.push(format!("component '{}': topic '{topic}' is not given", component.name));
                    } else {
                        add(grants, true, operation, scope(topic));
                    }
                }
            }
        }
    }
}

/// One more operation of the grant on a scope.
fn add(grants: &mut Vec<Grant>, is_allowed: bool, operation: &'static str, scope: String) {
    match grants.iter_mut().find(|grant| grant.is_allowed == is_allowed && grant.scope == scope) {
        Some(grant) if grant.operations.contains(&operation) => {}
        Some(grant) => grant.operations.push(operation),
        None => grants.push(Grant { is_allowed, operations: vec![operation], scope }),
    }
}

/// The topics of `orders=a,b;cart=`; `None` if the service is not named.
fn of_app<'a>(scopes: &'a str, app_id: &str) -> Option<Vec<&'a str>> {
    let mut apps = scopes.split(';').filter_map(|app| app.split_once('='));
    apps.find(|(app, _)| app.trim() == app_id).map(|(_, topics)| list(topics))
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

fn of_configuration(policy: &Policy, resources: &Resources, grants: &mut Vec<Grant>, notes: &mut Vec<String>) {
    let place = format!("configuration '{}'", policy.name);
    for (part, spec) in policy.spec.as_object().into_iter().flatten() {
        match part.as_str() {
            "secrets" => {
                for scope in spec["scopes"].as_array().into_iter().flatten() {
                    of_secrets(scope, &place, resources, grants, notes);
                }
            }
            // It becomes the list of callers.
            "accessControl" => {}
            other => notes.push(format!("{place}: '{other}' is not supported; nothing is done with it")),
        }
    }
}

fn of_secrets(scope: &Json, place: &str, resources: &Resources, grants: &mut Vec<Grant>, notes: &mut Vec<String>) {
    let store = scope["storeName"].as_str().unwrap_or_default();
    let is_named =
        resources.components.iter().any(|component| component.kind == Kind::Secrets && component.name == store);
    if !is_named && store != "secretstore" {
        notes.push(format!("{place}: there is no secret store '{store}' in these files; its scopes are left out"));
        return;
    }
    let names = |list: &str| -> Vec<String> {
        scope[list].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let (allowed, denied) = (names("allowedSecrets"), names("deniedSecrets"));
    let is_closed = scope["defaultAccess"].as_str().is_some_and(|access| access.eq_ignore_ascii_case("deny"));
    // The list of what is allowed decides alone, if there is one.
    if !allowed.is_empty() || is_closed {
        add(grants, false, "get", "secrets:*".to_owned());
        for secret in allowed {
            add(grants, true, "get", format!("secrets:{secret}"));
        }
    } else {
        for secret in denied {
            add(grants, false, "get", format!("secrets:{secret}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(resources: &Resources) -> Vec<String> {
        let (grants, notes) = grants(resources, "orders");
        let grants = grants.into_iter().map(|grant| {
            let effect = if grant.is_allowed { "allow" } else { "deny" };
            format!("{effect} {} {}", grant.operations.join(","), grant.scope)
        });
        grants.chain(notes).collect()
    }

    fn topics(metadata: &[(&str, &str)]) -> Vec<String> {
        let component = Component {
            name: "pubsub".into(),
            kind: Kind::PubSub,
            type_name: "pubsub.twin".into(),
            in_place_of: None,
            version: "v1".into(),
            metadata: metadata.iter().map(|(name, value)| ((*name).into(), Value::Text((*value).into()))).collect(),
            secret_store: None,
            scopes: Vec::new(),
        };
        said(&Resources { components: vec![component], ..Resources::default() })
    }

    #[test]
    fn an_app_that_is_named_has_its_topics_and_no_others() {
        let scopes = "cart=c; orders=a, b;idle=";
        assert_eq!(
            topics(&[("publishingScopes", scopes), ("subscriptionScopes", "orders=")]),
            [
                "deny publish,subscribe topics:pubsub/*",
                "allow publish topics:pubsub/a",
                "allow publish topics:pubsub/b"
            ]
        );
        assert_eq!(topics(&[("publishingScopes", "cart=c")]), [""; 0], "one that is not named has all");
    }

    #[test]
    fn allowed_topics_bound_everybody_and_protected_ones_need_to_be_given() {
        assert_eq!(
            topics(&[("allowedTopics", "a,b"), ("protectedTopics", "b"), ("publishingScopes", "orders=b,c")]),
            [
                "deny publish,subscribe topics:pubsub/*",
                "allow publish topics:pubsub/b",
                "allow subscribe topics:pubsub/a"
            ]
        );
        assert_eq!(topics(&[("protectedTopics", "b")]), ["deny publish,subscribe topics:pubsub/b"]);
        let star = topics(&[("allowedTopics", "a*")]);
        assert_eq!(star[0], "deny publish,subscribe topics:pubsub/*");
        assert!(star[1].contains("topic 'a*' is not given"), "{star:?}");
    }

    fn configured(spec: Json) -> Vec<String> {
        let policy = Policy { kind: PolicyKind::Configuration, name: "c".into(), spec, scopes: Vec::new() };
        said(&Resources { policies: vec![policy], ..Resources::default() })
    }

    #[test]
    fn secrets_are_scoped_by_the_list_of_allowed_ones_or_by_the_denied_ones() {
        let scoped = |rest: &str| {
            let scope: Json = serde_json::from_str(&format!("{{\"storeName\": \"secretstore\", {rest}}}")).unwrap();
            configured(serde_json::json!({ "secrets": { "scopes": [scope] } }))
        };
        let only = ["deny get secrets:*", "allow get secrets:db"];
        assert_eq!(scoped(r#""allowedSecrets": ["db"], "deniedSecrets": ["db"]"#), only);
        assert_eq!(scoped(r#""defaultAccess": "deny""#), ["deny get secrets:*"]);
        assert_eq!(scoped(r#""defaultAccess": "allow", "deniedSecrets": ["db"]"#), ["deny get secrets:db"]);
        assert!(scoped(r#""defaultAccess": "allow""#).is_empty());
    }

    #[test]
    fn what_cannot_be_expressed_is_said() {
        let spec = serde_json::json!({
            "tracing": {}, "secrets": { "scopes": [{ "storeName": "vault" }] },
        });
        let notes = configured(spec);
        for said in ["'tracing' is not supported", "no secret store 'vault'"] {
            assert!(notes.iter().any(|note| note.contains(said)), "{notes:?}");
        }
    }
}
