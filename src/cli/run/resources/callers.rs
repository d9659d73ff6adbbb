//! What `accessControl` in resources amounts to: the list of callers of one service's twin.
//!
//! The list lets in and does not keep out, and `*` in it stands for any rest. What would take more than that is left out,
//! and said: the list is never wider than the files.

use serde_json::Value as Json;

use super::model::{Policy, PolicyKind, Resources};
use crate::model::ServiceId;

/// Verbs that `*` stands for.
const VERBS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The trust domain of whoever states none.
const TRUST_DOMAIN: &str = "public";

/// An entry of the list, as a twin takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The service.
    pub service: String,
    /// What it may call.
    pub method: String,
}

/// The list that resources ask for, for a service of this namespace; `None` if they let everybody in. And what of it
/// cannot be expressed.
pub fn callers(resources: &Resources, namespace: &str) -> (Option<Vec<Caller>>, Vec<String>) {
    let is_about =
        |policy: &&Policy| policy.kind == PolicyKind::Configuration && !policy.spec["accessControl"].is_null();
    let mut all = resources.policies.iter().filter(is_about);
    let Some(first) = all.next() else { return (None, Vec::new()) };
    let mut reading = Reading { place: format!("configuration '{}'", first.name), notes: Vec::new() };
    let list = reading.list(&first.spec["accessControl"], namespace);
    for other in all {
        let place = &reading.place;
        reading
            .notes
            .push(format!("configuration '{}': 'accessControl' is left out; that of {place} counts", other.name));
    }
    (list, reading.notes)
}

/// Some verb, or each.
type Verb = Option<String>;

/// Part of what can be called.
#[derive(Debug)]
struct Operation {
    verb: Verb,
    path: Path,
}

#[derive(Debug)]
enum Path {
    Exact(String),
    /// Whatever begins so.
    Below(String),
    /// Some of what begins so.
    Within(String),
}

/// What is said of one service.
struct Stated {
    service: String,
    by_default: Option<bool>,
    allowed: Vec<Operation>,
    denied: Vec<Operation>,
}

struct Reading {
    place: String,
    notes: Vec<String>,
}

impl Reading {
    fn note(&mut self, what: impl AsRef<str>) {
        self.notes.push(format!("{}, accessControl: {}", self.place, what.as_ref()));
    }

    /// `None` where nothing is said; what is neither yes nor no is no.
    fn action(&mut self, of: &Json, what: &str) -> Option<bool> {
        match of.as_str() {
            Some("") => None,
            None if of.is_null() => None,
            Some(text) if text.eq_ignore_ascii_case("allow") => Some(true),
            Some(text) if text.eq_ignore_ascii_case("deny") => Some(false),
            Some(_) | None => {
                self.note(format!("the action {of} of {what} is neither allow nor deny; it is taken for deny"));
                Some(false)
            }
        }
    }

    /// The items of a list that may be absent; anything else is noted, and answered with `None`.
    fn items<'a>(&mut self, of: &'a Json, what: &str) -> Option<&'a [Json]> {
        match of {
            Json::Null => Some(&[]),
            Json::Array(items) => Some(items),
            Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
                self.note(format!("{what} must be a list; nobody is let in by it"));
                None
            }
        }
    }

    fn list(&mut self, spec: &Json, namespace: &str) -> Option<Vec<Caller>> {
        let policies = self.items(&spec["policies"], "'policies'");
        let by_default = self.action(&spec["defaultAction"], "'defaultAction'");
        // Whoever states policies and no default means these alone.
        let is_open = policies.is_some_and(|policies| by_default.unwrap_or(policies.is_empty()));
        let own = spec["trustDomain"].as_str().filter(|domain| !domain.is_empty()).unwrap_or(TRUST_DOMAIN);
        let (mut stated, mut is_left_out) = (Vec::<Stated>::new(), false);
        for policy in policies.unwrap_or_default() {
            let Some(one) = self.stated(policy, namespace, own) else {
                is_left_out = true;
                continue;
            };
            if stated.iter().any(|other| other.service == one.service) {
                self.note(format!("two policies are about '{}'; the last one counts", one.service));
                stated.retain(|other| other.service != one.service);
            }
            stated.push(one);
        }
        let keeps_out = |one: &Stated| !one.by_default.unwrap_or(is_open) || !one.denied.is_empty();
        if is_open && !is_left_out && !stated.iter().any(keeps_out) {
            return None;
        }
        if is_open {
            self.note(
                "'defaultAction: allow' with exceptions cannot be expressed: a list of callers keeps nobody out that it lets \
                 in; only services that it allows by name are let in",
            );
        }
        let mut callers = Vec::new();
        for one in stated {
            let methods = self.methods(&one, is_open);
            callers.extend(methods.into_iter().map(|method| Caller { service: one.service.clone(), method }));
        }
        Some(callers)
    }

    /// What one policy says; nothing if it is about nobody that could call.
    fn stated(&mut self, policy: &Json, namespace: &str, own: &str) -> Option<Stated> {
        let text = |name: &str| policy[name].as_str().unwrap_or_default();
        let namespace = if text("namespace").is_empty() { namespace } else { text("namespace") };
        let service = ServiceId::new(namespace, text("appId")).ok().filter(|service| !service.as_str().contains('*'));
        let Some(service) = service else {
            self.note(format!(
                "the policy for appId '{}' in '{namespace}' names no service; it is left out",
                text("appId")
            ));
            return None;
        };
        let service = service.as_str().to_owned();
        let domain = text("trustDomain");
        if !domain.is_empty() && domain != own {
            self.note(format!("'{service}' of the trust domain '{domain}' does not call here; its policy is left out"));
            return None;
        }
        let by_default = self.action(&policy["defaultAction"], &format!("the policy for '{service}'"));
        let (mut allowed, mut denied) = (Vec::new(), Vec::new());
        let Some(operations) = self.items(&policy["operations"], &format!("'operations' of '{service}'")) else {
            return Some(Stated { service, by_default: Some(false), allowed, denied });
        };
        for operation in operations {
            let name = operation["name"].as_str().unwrap_or_default();
            let what = format!("the operation '{name}' of '{service}'");
            let is_allowed = self.action(&operation["action"], &what) == Some(true);
            let verbs = self.items(&operation["httpVerb"], &format!("'httpVerb' of {what}")).unwrap_or_default();
            let verbs: Vec<Verb> = verbs.iter().filter_map(Json::as_str).map(verb).collect();
            let each = |verbs: Vec<Verb>| verbs.into_iter().map(|verb| Operation { verb, path: path(name) });
            if !is_allowed {
                denied.extend(each(if verbs.is_empty() { vec![None] } else { verbs }));
            } else if verbs.is_empty() {
                self.note(format!("{what} names no 'httpVerb', and is left out; calls over gRPC are POST here"));
            } else if matches!(path(name), Path::Within(_)) {
                self.note(format!(
                    "{what} is left out: only a path as it is, or one that ends in '/**', for anything below, can be expressed"
                ));
            } else {
                allowed.extend(each(verbs));
            }
        }
        Some(Stated { service, by_default, allowed, denied })
    }

    /// What a service may call.
    fn methods(&mut self, one: &Stated, is_open: bool) -> Vec<String> {
        if one.by_default.unwrap_or(is_open) {
            if one.denied.is_empty() {
                return vec!["*".to_owned()];
            }
            self.note(format!(
                "'defaultAction: allow' of '{}' with exceptions cannot be expressed; only the operations it allows are let in",
                one.service
            ));
        }
        let mut methods = Vec::new();
        for operation in &one.allowed {
            if one.denied.iter().any(|denied| operation.is_cut_by(denied)) {
                let (service, said) = (&one.service, operation.methods().join(", "));
                self.note(format!("'{said}' of '{service}' with exceptions cannot be expressed; it is left out"));
                continue;
            }
            for method in operation.methods() {
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        }
        methods
    }
}

impl Operation {
    /// Whether the other takes a part of this one away, which is denied since it is no less exact.
    fn is_cut_by(&self, denied: &Self) -> bool {
        let verbs = match (&self.verb, &denied.verb) {
            (Some(one), Some(other)) => one == other,
            (None, _) | (_, None) => true,
        };
        let is_cut = match (&self.path, &denied.path) {
            (Path::Exact(own), Path::Exact(other)) => own.eq_ignore_ascii_case(other),
            (Path::Exact(_), Path::Below(_)) => false,
            (Path::Below(own), Path::Exact(other) | Path::Below(other)) => begins(other, own),
            (Path::Exact(own) | Path::Below(own), Path::Within(other)) => begins(other, own) || begins(own, other),
            (Path::Within(_), _) => true,
        };
        verbs && is_cut
    }

    fn methods(&self) -> Vec<String> {
        let path = match &self.path {
            Path::Exact(path) => path.clone(),
            Path::Below(start) if start == "/" && self.verb.is_none() => return vec!["*".to_owned()],
            Path::Below(start) => format!("{start}*"),
            // It is left out.
            Path::Within(_) => return Vec::new(),
        };
        match &self.verb {
            Some(verb) => vec![format!("{verb} {path}")],
            None => VERBS.iter().map(|verb| format!("{verb} {path}")).collect(),
        }
    }
}

/// Names of operations are equal in any case.
fn begins(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn verb(text: &str) -> Verb {
    (text != "*").then(|| text.to_ascii_uppercase())
}

fn path(name: &str) -> Path {
    let name = format!("/{}", name.strip_prefix('/').unwrap_or(name));
    let (start, rest) = name.split_at(name.find('*').unwrap_or(name.len()));
    // As calls are named: without empty segments and a final slash.
    let is_plain = |text: &str| text == "/" || !(text.ends_with('/') || text.contains("//"));
    match rest {
        "" if is_plain(start) => Path::Exact(start.to_owned()),
        "**" if start == "/" || start.strip_suffix('/').is_some_and(is_plain) => Path::Below(start.to_owned()),
        _ => Path::Within(start.trim_end_matches('/').to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(control: &Json) -> (Option<Vec<String>>, String) {
        let spec = json!({ "accessControl": control });
        let policy = Policy { kind: PolicyKind::Configuration, name: "c".into(), spec, scopes: Vec::new() };
        let (list, notes) = callers(&Resources { policies: vec![policy], ..Resources::default() }, "shop");
        let list = list.map(|list| list.iter().map(|one| format!("{}: {}", one.service, one.method)).collect());
        (list, notes.join("\n"))
    }

    fn policy(rest: &Json) -> Json {
        let mut policy = json!({ "appId": "checkout", "defaultAction": "deny", "trustDomain": "public" });
        policy.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "defaultAction": "deny", "policies": [policy] })
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn without_anybody_kept_out_there_is_no_list_and_with_nobody_let_in_an_empty_one() {
        assert_eq!(of(&json!({})), (None, String::new()));
        assert_eq!(of(&json!({ "defaultAction": "allow" })), (None, String::new()));
        assert_eq!(of(&json!({ "defaultAction": "deny" })), (Some(list(&[])), String::new()));
        let (none, notes) = of(&json!({ "policies": { "appId": "checkout" }, "defaultAction": "allow" }));
        assert!(none == Some(list(&[])) && notes.contains("'policies' must be a list"), "{none:?} {notes}");
        let (none, notes) = of(&json!({ "defaultAction": "Alow" }));
        assert!(none == Some(list(&[])) && notes.contains("neither allow nor deny"), "{none:?} {notes}");
    }

    #[test]
    fn services_and_operations_that_are_allowed_stand_in_the_list() {
        let operations = json!([
            { "name": "/charge", "httpVerb": ["POST", "put"], "action": "allow" },
            { "name": "refunds/**", "httpVerb": ["GET"], "action": "allow" },
        ]);
        assert_eq!(
            of(&policy(&json!({ "operations": operations }))),
            (
                Some(list(&[
                    "shop/checkout: POST /charge",
                    "shop/checkout: PUT /charge",
                    "shop/checkout: GET /refunds/*"
                ])),
                String::new()
            )
        );
        let all = json!([{ "name": "/**", "httpVerb": ["*"], "action": "allow" }]);
        let elsewhere = of(&policy(&json!({ "namespace": "farm", "operations": all })));
        assert_eq!(elsewhere, (Some(list(&["farm/checkout: *"])), String::new()));
        assert_eq!(of(&policy(&json!({ "defaultAction": "allow" }))).0, Some(list(&["shop/checkout: *"])));
        let verbs = of(&policy(&json!({ "operations": [{ "name": "/a", "httpVerb": ["*"], "action": "allow" }] })));
        assert_eq!(verbs.0.unwrap().len(), VERBS.len());
    }

    #[test]
    fn what_a_list_cannot_express_is_left_out_and_said() {
        let deny = |name: &str| json!({ "name": name, "httpVerb": ["POST"], "action": "deny" });
        let allow = |name: &str| json!({ "name": name, "httpVerb": ["POST"], "action": "allow" });
        let cases = [
            (
                json!({ "defaultAction": "allow", "operations": [deny("/charge")] }),
                "'defaultAction: allow' of 'shop/checkout'",
            ),
            (
                json!({ "operations": [allow("/a/**"), deny("/A/secret")] }),
                "'POST /a/*' of 'shop/checkout' with exceptions",
            ),
            (json!({ "operations": [allow("/a/**"), deny("/a/*/b")] }), "with exceptions"),
            (json!({ "operations": [allow("/a"), deny("/a")] }), "with exceptions"),
            (json!({ "operations": [allow("/a/*")] }), "'/a/*' of 'shop/checkout' is left out"),
            (json!({ "operations": [{ "name": "/a", "action": "allow" }] }), "names no 'httpVerb'"),
            (json!({ "operations": { "name": "/a" }, "defaultAction": "allow" }), "must be a list"),
            (json!({ "appId": "*", "defaultAction": "allow" }), "names no service"),
            (json!({ "trustDomain": "other", "defaultAction": "allow" }), "the trust domain 'other'"),
        ];
        for (rest, said) in cases {
            let (callers, notes) = of(&policy(&rest));
            assert!(callers == Some(list(&[])) && notes.contains(said), "{said}: {callers:?} {notes}");
        }
        let narrower = json!({ "operations": [allow("/a/b"), deny("/a/**")] });
        assert_eq!(
            of(&policy(&narrower)),
            (Some(list(&["shop/checkout: POST /a/b"])), String::new()),
            "the more exact one counts"
        );
    }

    #[test]
    fn a_list_that_would_keep_some_out_of_all_lets_in_those_it_names_alone() {
        let control = json!({ "defaultAction": "allow", "policies": [
            { "appId": "checkout", "defaultAction": "deny" }, { "appId": "cart", "defaultAction": "allow" },
        ] });
        let (callers, notes) = of(&control);
        assert!(callers == Some(list(&["shop/cart: *"])) && notes.contains("with exceptions"), "{callers:?} {notes}");
        let left_out = json!({ "defaultAction": "allow", "policies": [{ "appId": "", "defaultAction": "deny" }] });
        assert_eq!(of(&left_out).0, Some(list(&[])));
    }
}
