//! What a component of Dapr's is here: the twin itself keeps state, configuration and secrets, and has topics.

use super::model::{Component, Kind, Resources};

/// A type that the twin does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("component '{name}' is a '{type_name}', which is not supported; {way_out}")]
pub struct Unsupported {
    /// The component.
    pub name: String,
    /// Its type.
    pub type_name: String,
    /// What to do.
    pub way_out: String,
}

/// The types in whose place a built-in one may be put while somebody develops.
const MAPPED: [(&str, &[&str]); 3] = [
    (
        "state.twin",
        &["state.redis", "state.in-memory", "state.sqlite", "state.postgresql", "state.mysql", "state.mongodb"],
    ),
    ("pubsub.twin", &["pubsub.redis", "pubsub.in-memory", "pubsub.rabbitmq", "pubsub.kafka", "pubsub.mqtt3"]),
    ("configuration.twin", &["configuration.redis", "configuration.postgresql"]),
];

/// What the twin has, and sources that are read for it, under their own names.
const OWN: [&str; 6] = [
    "state.twin",
    "pubsub.twin",
    "configuration.twin",
    "secretstores.twin",
    "secretstores.local.file",
    "secretstores.local.env",
];

/// Keeps components that the twin has, and, with `map`, puts these in the place of well-known others.
///
/// # Errors
/// The first that is left; what it says can be done about it depends on its type.
pub fn choose(resources: &mut Resources, map: bool) -> Result<(), Unsupported> {
    resources.components.iter_mut().try_for_each(|component| one(component, map))
}

fn one(component: &mut Component, map: bool) -> Result<(), Unsupported> {
    if OWN.contains(&component.type_name.as_str()) {
        return Ok(());
    }
    let own = MAPPED.iter().find(|(_, others)| others.contains(&component.type_name.as_str())).map(|(own, _)| *own);
    match own {
        Some(own) if map => {
            component.in_place_of = Some(std::mem::replace(&mut component.type_name, own.to_owned()));
            Ok(())
        }
        own => Err(Unsupported {
            name: component.name.clone(),
            type_name: component.type_name.clone(),
            way_out: way_out(component.kind, own),
        }),
    }
}

fn way_out(kind: Kind, own: Option<&str>) -> String {
    if let Some(own) = own {
        return format!("write 'type: {own}', or say --map-components to have that in its place while you develop");
    }
    let own = match kind {
        Kind::State => "state.twin",
        Kind::PubSub => "pubsub.twin",
        Kind::Secrets => "secretstores.twin",
        Kind::Configuration => "configuration.twin",
        Kind::Other => return "take it out of this folder, or name only other services in its 'scopes'".to_owned(),
    };
    format!("write 'type: {own}', or take it out of this folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_name: &str, map: bool) -> Result<(String, Option<String>), String> {
        let component = Component {
            name: "store".into(),
            kind: Kind::of(type_name),
            type_name: type_name.into(),
            in_place_of: None,
            version: "v1".into(),
            metadata: [].into(),
            secret_store: None,
            scopes: Vec::new(),
        };
        let mut resources = Resources { components: vec![component], ..Resources::default() };
        choose(&mut resources, map).map_err(|error| error.to_string())?;
        let component = resources.components.remove(0);
        Ok((component.type_name, component.in_place_of))
    }

    #[test]
    fn a_built_in_type_takes_the_place_of_a_known_one_only_when_asked_to() {
        assert_eq!(of("state.twin", false), Ok(("state.twin".into(), None)));
        let refused = of("state.redis", false).unwrap_err();
        assert!(refused.contains("'store' is a 'state.redis'") && refused.contains("--map-components"), "{refused}");
        assert_eq!(of("state.redis", true), Ok(("state.twin".into(), Some("state.redis".into()))));
        assert_eq!(of("secretstores.local.env", true), Ok(("secretstores.local.env".into(), None)), "it is read");
    }

    #[test]
    fn a_type_that_nothing_here_is_like_is_refused_with_a_way_out() {
        for (type_name, way_out) in [("bindings.kafka", "'scopes'"), ("state.cosmosdb", "state.twin"), ("", "'scopes'")]
        {
            let refused = of(type_name, true).unwrap_err();
            assert!(refused.contains(way_out) && !refused.contains("--map-components"), "{refused}");
        }
    }
}
