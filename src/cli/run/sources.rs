//! Secrets that resources keep in a file or in the environment, read here so that the twin can have them.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value as Json;

use super::resources::{Component, PolicyKind, Resources, Value};
use crate::cli::{error::Error, value};

/// The types of components that are sources.
const FILE: &str = "secretstores.local.file";
const ENVIRONMENT: &str = "secretstores.local.env";

/// Values by name. It prints nothing of them.
pub(super) type Secrets = BTreeMap<String, Vec<u8>>;

/// What a component is a source of; `None` if it is none. What is left out is noted.
pub(super) fn read(
    component: &Component,
    resources: &Resources,
    environment: impl Iterator<Item = (String, String)>,
    notes: &mut Vec<String>,
) -> Result<Option<Secrets>, Error> {
    match component.type_name.as_str() {
        FILE => file(component, notes).map(Some),
        ENVIRONMENT => Ok(Some(variables(component, resources, environment, notes))),
        _ => Ok(None),
    }
}

fn text<'a>(component: &'a Component, name: &str) -> Option<&'a str> {
    match component.metadata.get(name)? {
        Value::Text(text) => Some(text).filter(|text| !text.is_empty()).map(String::as_str),
        Value::Secret { .. } | Value::Environment(_) => None,
    }
}

/// Every value of the file; those within others have both names, with a separator between.
fn file(component: &Component, notes: &mut Vec<String>) -> Result<Secrets, Error> {
    let wrong = |what: &str| Error::Usage(format!("component '{}': {what}", component.name));
    let path = text(component, "secretsFile").ok_or_else(|| wrong("'secretsFile' must name a file of JSON"))?;
    let bytes = value::from_file(Path::new(path))?;
    // What serde would say of a file may quote a value.
    let document = serde_json::from_slice(&bytes).ok().filter(Json::is_object);
    let document = document.ok_or_else(|| wrong(&format!("'{path}' is not an object of JSON")))?;
    if text(component, "multiValued") == Some("true") {
        notes.push(format!(
            "component '{}': 'multiValued' is not supported, a secret has one value; each has its own name",
            component.name
        ));
    }
    let mut secrets = Secrets::new();
    flatten("", &document, text(component, "nestedSeparator").unwrap_or(":"), &mut secrets);
    Ok(secrets)
}

fn flatten(name: &str, value: &Json, separator: &str, into: &mut Secrets) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}{separator}{part}") };
    match value {
        Json::Null => {}
        Json::String(text) => drop(into.insert(name.to_owned(), text.clone().into_bytes())),
        Json::Bool(_) | Json::Number(_) => drop(into.insert(name.to_owned(), value.to_string().into_bytes())),
        Json::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(&below(&at.to_string()), item, separator, into));
        }
        Json::Object(members) => {
            members.iter().for_each(|(member, value)| flatten(&below(member), value, separator, into));
        }
    }
}

/// The variables that begin with the prefix, without it; without a prefix, those that other resources name.
fn variables(
    component: &Component,
    resources: &Resources,
    environment: impl Iterator<Item = (String, String)>,
    notes: &mut Vec<String>,
) -> Secrets {
    let prefix = text(component, "secretsPrefix");
    let named = named(component, resources);
    let secrets: Secrets = environment
        .filter_map(|(variable, value)| {
            let name = match prefix {
                Some(prefix) => variable.strip_prefix(prefix)?.to_owned(),
                None => Some(variable).filter(|variable| named.contains(&variable.as_str()))?,
            };
            (!name.is_empty()).then(|| (name, value.into_bytes()))
        })
        .collect();
    if secrets.is_empty() {
        notes.push(format!(
            "component '{}': no variable is put into the twin; 'secretsPrefix' names those that begin so, and without it \
             a secretKeyRef or 'allowedSecrets' names one",
            component.name
        ));
    }
    secrets
}

/// The secrets of this store that other resources name.
fn named<'a>(store: &Component, resources: &'a Resources) -> Vec<&'a str> {
    let of_components = resources.components.iter().filter(|other| other.secret_store.as_ref() == Some(&store.name));
    let references = of_components.flat_map(|component| component.metadata.values()).filter_map(|value| match value {
        Value::Secret { name, .. } => Some(name.as_str()),
        Value::Text(_) | Value::Environment(_) => None,
    });
    let policies = resources.policies.iter().filter(|policy| policy.kind == PolicyKind::Configuration);
    let scopes = policies.flat_map(|policy| policy.spec["secrets"]["scopes"].as_array().into_iter().flatten());
    let scopes = scopes.filter(|scope| scope["storeName"] == store.name.as_str());
    let allowed = scopes.flat_map(|scope| scope["allowedSecrets"].as_array().into_iter().flatten());
    references.chain(allowed.filter_map(Json::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::resources::Kind;

    fn component(type_name: &str, metadata: &[(&str, &str)]) -> Component {
        Component {
            name: "secrets".into(),
            kind: Kind::Secrets,
            type_name: type_name.into(),
            in_place_of: None,
            version: "v1".into(),
            metadata: metadata.iter().map(|(name, value)| ((*name).into(), Value::Text((*value).into()))).collect(),
            secret_store: None,
            scopes: Vec::new(),
        }
    }

    fn names(secrets: &Secrets) -> Vec<(&str, &str)> {
        secrets.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn a_file_is_flattened_and_what_is_wrong_with_it_is_said_without_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.json");
        std::fs::write(&path, r#"{"db": {"password": "x", "port": 5432}, "keys": ["a"], "none": null}"#).unwrap();
        let file = path.to_str().unwrap();
        let read = |pairs: &[(&str, &str)]| {
            let component = component(FILE, pairs);
            let mut notes = Vec::new();
            super::read(&component, &Resources::default(), std::iter::empty(), &mut notes).map(|read| read.unwrap())
        };
        let secrets = read(&[("secretsFile", file)]).unwrap();
        assert_eq!(names(&secrets), [("db:password", "x"), ("db:port", "5432"), ("keys:0", "a")]);
        let secrets = read(&[("secretsFile", file), ("nestedSeparator", ".")]).unwrap();
        assert_eq!(names(&secrets)[0].0, "db.password");
        std::fs::write(&path, r#"{"db": hunter2"#).unwrap();
        let error = read(&[("secretsFile", file)]).unwrap_err().to_string();
        assert!(error.contains("is not an object of JSON") && !error.contains("hunter2"), "{error}");
        assert!(read(&[]).unwrap_err().to_string().contains("'secretsFile' must name a file"));
    }

    #[test]
    fn of_the_environment_only_what_is_named_is_taken() {
        let environment = [("APP_DB", "x"), ("HOME", "/root"), ("APP_", "y"), ("TOKEN", "z")];
        let environment = || environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let with = |metadata: &[(&str, &str)], resources: &Resources| {
            let mut notes = Vec::new();
            let read = super::read(&component(ENVIRONMENT, metadata), resources, environment(), &mut notes);
            (read.unwrap().unwrap(), notes)
        };
        let (secrets, notes) = with(&[("secretsPrefix", "APP_")], &Resources::default());
        assert_eq!((names(&secrets), notes.len()), (vec![("DB", "x")], 0));
        let (secrets, notes) = with(&[], &Resources::default());
        assert!(secrets.is_empty() && notes[0].contains("secretsPrefix"), "{notes:?}");
        let mut store = component("state.twin", &[]);
        store.secret_store = Some("secrets".into());
        store.metadata.insert("password".into(), Value::Secret { name: "TOKEN".into(), key: "TOKEN".into() });
        let (secrets, _) = with(&[], &Resources { components: vec![store], ..Resources::default() });
        assert_eq!(names(&secrets), [("TOKEN", "z")]);
    }
}
