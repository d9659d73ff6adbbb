//! Components: the names under which a service knows its secrets, its configuration and its topics.
//!
//! State has named stores of its own; the other capabilities are one thing a twin, and programs written for Dapr call it
//! by whatever name their component files give it. Each service has [`DEFAULTS`]; more names may be added.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Registry, check_name};
use crate::{
    model::Timestamp,
    twin::{
        Event, Rejection,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// Most names that are added.
pub const COMPONENTS_MAX: usize = 16;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 48;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The secrets of the twin.
    Secrets,
    /// The configuration of the twin.
    Configuration,
    /// The topics of the twin.
    Pubsub,
}

/// The names that every service has.
pub const DEFAULTS: [(&str, Kind); 3] =
    [("secretstore", Kind::Secrets), ("configstore", Kind::Configuration), ("pubsub", Kind::Pubsub)];

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Components>();
    registry.request::<GetComponents>();
    registry.request::<AddComponent>();
    registry.request::<RemoveComponent>();
}

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// The name.
    pub name: CompactString,
    /// What it stands for.
    pub kind: Kind,
}

/// The names that were added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Components {
    added: Vec<Component>,
}

/// A fact about names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A name was added, or stands for something else now.
    Added {
        /// Name and meaning.
        component: Component,
    },
    /// A name was removed.
    Removed {
        /// The name.
        name: CompactString,
    },
}

impl Part for Components {
    const NAME: &'static str = "components";
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Added { component } => {
                self.added.retain(|known| known.name != component.name);
                self.added.push(component.clone());
            }
            Change::Removed { name } => self.added.retain(|known| known.name != *name),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Added { component } => ("twin.component.added", serde_json::json!({ "component": component })),
            Change::Removed { name } => {
                ("twin.component.removed", serde_json::json!({ "component": { "name": name } }))
            }
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn heap_bytes(&self) -> usize {
        self.added.capacity() * size_of::<Component>()
    }
}

/// Lists every name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetComponents;

impl Request for GetComponents {
    type Part = Components;
    type Reply = Vec<Component>;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "components-list/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "list");
    }

    fn decide(&self, components: &Components, _: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let is_new = |name: &str| components.added.iter().all(|added| added.name != name);
        let defaults = DEFAULTS.iter().filter(|(name, _)| is_new(name));
        let defaults = defaults.map(|&(name, kind)| Component { name: name.into(), kind });
        Ok(Ruling::new(defaults.chain(components.added.iter().cloned()).collect()))
    }
}

/// Adds a name, or changes what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddComponent {
    /// Name and meaning.
    pub component: Component,
}

impl Request for AddComponent {
    type Part = Components;
    type Reply = ();
    const OPERATION: &'static str = "add";
    const NAME: &'static str = "components-add/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.component.name, "add");
    }

    fn decide(&self, components: &Components, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let name = &self.component.name;
        check_name("the name of a component", name, NAME_BYTES_MAX)?;
        if components.added.contains(&self.component) {
            return Ok(Ruling::new(()));
        }
        let others = components.added.iter().filter(|known| known.name != *name).count();
        Rejection::within("components", COMPONENTS_MAX, others + 1)?;
        Ok(Ruling::new(()).change(Change::Added { component: self.component.clone() }))
    }
}

/// Removes a name that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveComponent {
    /// The name.
    pub name: CompactString,
}

impl Request for RemoveComponent {
    type Part = Components;
    type Reply = ();
    const OPERATION: &'static str = "remove";
    const NAME: &'static str = "components-remove/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, "remove");
    }

    fn decide(&self, components: &Components, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        if components.added.iter().all(|known| known.name != self.name) {
            return Err(Rejection::not_found("a component of this name that was added"));
        }
        Ok(Ruling::new(()).change(Change::Removed { name: self.name.clone() }))
    }
}
