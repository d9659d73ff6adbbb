//! Resources on their way to the twin: the one place where they leave this command. What is there already is left as it
//! is, so that an unchanged folder changes nothing.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    files::say,
    resources::{self, Component, Kind, Resources, Subscription},
    sources::{self, Secrets},
};
use crate::{
    cli::{
        Client,
        client::{segment, twin_path},
        error::Error,
    },
    model::ServiceId,
};

/// Hands everything over, as whoever `client` speaks for.
pub(super) async fn register(client: &Client, service: &ServiceId, resources: &Resources) -> Result<(), Error> {
    let twin = Twin { client, service, path: twin_path(service.as_str())? };
    let (grants, mut notes) = resources::grants(resources, service.name());
    let (callers, left_out) = resources::callers(resources, service.namespace());
    notes.extend(left_out);
    let mut secrets = Secrets::new();
    for component in &resources.components {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let text = |text: std::ffi::OsString| text.into_string().ok();
            Some((text(name)?, text(value)?))
        });
        secrets.extend(sources::read(component, resources, environment, &mut notes)?.into_iter().flatten());
    }
    resources.notes.iter().chain(&notes).for_each(|note| say(note));
    twin.components(&resources.components).await?;
    twin.grants(&grants).await?;
    if let Some(callers) = callers {
        twin.callers(&callers).await?;
    }
    twin.secrets(secrets).await?;
    twin.subscriptions(&resources.subscriptions).await?;
    for endpoint in &resources.endpoints {
        say(&format!(
            "endpoint '{}' is not supported: a service calls other services here, and nothing else yet",
            endpoint.name
        ));
    }
    Ok(())
}

struct Twin<'a> {
    client: &'a Client,
    service: &'a ServiceId,
    path: String,
}

impl Twin<'_> {
    /// Puts something there, or says what was not and what to do.
    async fn put(&self, method: Method, rest: &str, body: Option<&Value>, what: &str) -> Result<(), Error> {
        let put = self.client.write(method, &format!("{}{rest}", self.path), body, None).await;
        put.map(drop).map_err(|error| self.refused(error, what))
    }

    /// What is there; nothing of a twin that is not there yet.
    async fn there(&self, rest: &str, what: &str) -> Result<Value, Error> {
        match self.client.get(&format!("{}{rest}", self.path)).await {
            Ok(there) => Ok(there),
            Err(Error::Refused { status: 404 | 410, .. }) => Ok(Value::Null),
            Err(error) => Err(self.refused(error, what)),
        }
    }

    fn refused(&self, error: Error, what: &str) -> Error {
        let grant = format!(", or have it allowed: 'twin grant allow {}' with the scope above", self.service);
        refused(error, what, &grant)
    }

    async fn components(&self, components: &[Component]) -> Result<(), Error> {
        if components.is_empty() {
            return Ok(());
        }
        let (stores, names) = (self.there("/state", "a store").await?, self.there("/components", "a component").await?);
        for component in components {
            let name = &component.name;
            let has = |there: &Value, fits: &dyn Fn(&Value) -> bool| there.as_array().into_iter().flatten().any(fits);
            let (kind, said) = match component.kind {
                Kind::State => (None, "state"),
                Kind::PubSub => (Some("pubsub"), "topics"),
                Kind::Secrets => (Some("secrets"), "secrets"),
                Kind::Configuration => (Some("configuration"), "configuration"),
                Kind::Other => (None, "other"),
            };
            let place = component.in_place_of.as_ref();
            let place = place.map(|other| format!(", in the place of {other} (--map-components)")).unwrap_or_default();
            let what = format!("component '{name}'");
            let is_there = match kind {
                Some(kind) => has(&names, &|known| known["name"] == name.as_str() && known["kind"] == kind),
                None => has(&stores, &|known| known["store"] == name.as_str()),
            };
            match (is_there, kind) {
                (true, _) => {}
                (false, Some(kind)) => {
                    let rest = format!("/components/{}", segment(name));
                    self.put(Method::PUT, &rest, Some(&json!({ "kind": kind })), &what).await?;
                }
                (false, None) => self.put(Method::PUT, &format!("/state/{}", segment(name)), None, &what).await?,
            }
            say(&format!("{what}: {said}, {}{place}{}", component.type_name, new(!is_there)));
        }
        Ok(())
    }

    async fn grants(&self, grants: &[resources::Grant]) -> Result<(), Error> {
        if grants.is_empty() {
            return Ok(());
        }
        let what = "what the files say of rights";
        let access = self.there("/access", what).await?;
        let known: Vec<&Value> = access["grants"].as_array().into_iter().flatten().collect();
        let mut missing = Vec::new();
        for grant in grants {
            let effect = if grant.is_allowed { "allow" } else { "deny" };
            let body = json!({ "effect": effect, "operations": grant.operations, "scope": grant.scope });
            let is_there = known.contains(&&body);
            say(&format!("grant: {effect} {} on {}{}", grant.operations.join(","), grant.scope, new(!is_there)));
            if !is_there {
                missing.push(body);
            }
        }
        if !missing.is_empty() {
            self.put(Method::PATCH, "/access", Some(&json!({ "add": missing })), what).await?;
        }
        // What was given before, by whomever, is nobody's to take away here.
        for grant in known.iter().filter(|known| known["effect"] == "allow") {
            let scope = grant["scope"].as_str().unwrap_or_default();
            let is_asked_for = grants.iter().any(|wanted| wanted.is_allowed && wanted.scope == scope);
            let is_about = grants.iter().any(|wanted| {
                !wanted.is_allowed && wanted.scope.strip_suffix('*').is_some_and(|start| scope.starts_with(start))
            });
            if is_about && !is_asked_for {
                let service = self.service;
                say(&format!(
                    "a grant on '{scope}' is not in these files, and stays: twin grant rm {service} '{scope}'"
                ));
            }
        }
        Ok(())
    }

    /// The list as it stands in the files; another one is replaced.
    async fn callers(&self, callers: &[resources::Caller]) -> Result<(), Error> {
        let what = "what the files say of callers";
        let there = match self.client.get(&format!("{}/callers", self.path)).await {
            Ok(mut there) => there["callers"].take(),
            Err(Error::Refused { status: 404 | 410, .. }) => Value::Null,
            Err(error) => return Err(refused(error, what, "")),
        };
        let list: Vec<Value> =
            callers.iter().map(|caller| json!({ "service": caller.service, "method": caller.method })).collect();
        let is_there = there.as_array().is_some_and(|there| *there == list);
        if !is_there {
            let (path, body) = (format!("{}/callers", self.path), json!({ "callers": list }));
            let put = self.client.write(Method::PUT, &path, Some(&body), None).await;
            // No grant lets a service do this.
            put.map_err(|error| refused(error, what, ""))?;
        }
        for caller in callers {
            say(&format!("caller: {} may call '{}'{}", caller.service, caller.method, new(!is_there)));
        }
        if callers.is_empty() {
            say(&format!("callers: nobody may call this service{}", new(!is_there)));
        }
        if !is_there && !there.is_null() {
            say(&format!("another list of callers was there, and is replaced: {there}"));
        }
        Ok(())
    }

    /// Their names are told, never their values.
    async fn secrets(&self, secrets: Secrets) -> Result<(), Error> {
        if secrets.is_empty() {
            return Ok(());
        }
        let there = self.there("/secrets", "a secret").await?;
        for (name, value) in secrets {
            let before = there.as_array().into_iter().flatten().find(|known| known["secret"] == name.as_str());
            let path = format!("{}/secrets/{}?unless_same=true", self.path, segment(&name));
            let what = format!("secret '{name}'");
            let made = self.client.put_bytes(&path, value, None).await.and_then(|made| made.document());
            let made = made.map_err(|error| self.refused(error, &what))?;
            let is_new = before.is_none_or(|before| before["version"] != made["version"]);
            say(&format!("{what}: version {}{}", made["version"], new(is_new)));
        }
        Ok(())
    }

    async fn subscriptions(&self, subscriptions: &[Subscription]) -> Result<(), Error> {
        if subscriptions.is_empty() {
            return Ok(());
        }
        let there = self.there("/subscriptions", "a subscription").await?;
        for subscription in subscriptions {
            let Subscription { name, pubsub, topic, .. } = subscription;
            let what = format!("subscription '{name}'");
            if !subscription.rules.is_empty() {
                let rest =
                    if subscription.default_path.is_some() { "the default route is used" } else { "it is left out" };
                say(&format!("{what}: rules come later; {rest}"));
            }
            let Some(path) = &subscription.default_path else { continue };
            if subscription.bulk.is_some_and(|bulk| bulk.enabled) {
                say(&format!("{what}: 'bulkSubscribe' is not supported; messages come one by one"));
            }
            let path = format!("/{}", path.trim_start_matches('/'));
            let metadata: Map<String, Value> =
                subscription.metadata.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let body = json!({
                "component": pubsub, "topic": topic, "path": path, "dead_letter": subscription.dead_letter_topic,
                "metadata": metadata,
            });
            let mut whole = body.clone();
            whole["name"] = name.as_str().into();
            let is_there = there.as_array().is_some_and(|there| there.contains(&whole));
            if !is_there {
                self.put(Method::PUT, &format!("/subscriptions/{}", segment(name)), Some(&body), &what).await?;
            }
            say(&format!("{what}: {pubsub}/{topic} to {path}{}", new(!is_there)));
        }
        Ok(())
    }
}

/// A refusal in full, with what to do.
fn refused(error: Error, what: &str, or: &str) -> Error {
    let Error::Refused { status, code, detail } = error else { return error };
    let way_out = if status == 403 {
        format!("; run with an operator's key (--key, TWIN_KEY), have one do this once{or}")
    } else {
        String::new()
    };
    Error::Refused { status, code, detail: format!("{what} did not get into the twin: {detail}{way_out}") }
}

fn new(is_new: bool) -> &'static str {
    if is_new { "" } else { " (as it was)" }
}
