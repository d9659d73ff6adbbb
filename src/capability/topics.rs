//! Topics as a service may use them: the right to publish and subscribe, and the subscriptions it has declared.
//!
//! The messages themselves lie with the topic, a twin of its own kind (`bus`); what is asked here is whether this
//! service may. Names are `component/topic`. A declared subscription says where in the application a topic's messages
//! go; its name has no `/`, so a scope is about a topic or about a subscription, never both.

use std::{collections::BTreeMap, iter};

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Registry, check_name, check_text, components};
use crate::{
    bus::topic::Wish,
    model::{Key, Timestamp},
    twin::{
        Event, Rejection,
        part::{Part, PartTurn, Request, Ruling},
    },
};

/// Most subscriptions of a service.
pub const SUBSCRIPTIONS_MAX: usize = 32;
/// Most bytes of all of them together.
pub const SUBSCRIPTIONS_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a subscription, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest name of a topic, in bytes.
pub const TOPIC_BYTES_MAX: usize = 128;
/// Longest path of an application, in bytes.
pub const PATH_BYTES_MAX: usize = 256;
/// Largest metadata of a subscription, names and values together, in bytes.
pub const METADATA_BYTES_MAX: usize = 512;

/// Hands part and requests to `registry`.
pub fn register(registry: &mut impl Registry) {
    registry.part::<Topics>();
    registry.request::<Permit>();
    registry.request::<GetSubscriptions>();
    registry.request::<SetSubscription>();
    registry.request::<RemoveSubscription>();
}

/// The key of a topic's twin: `namespace/component/topic`.
pub fn topic_key(namespace: &str, component: &str, topic: &str) -> Result<Key, Rejection> {
    let key = Key::parse(&format!("{namespace}/{component}/{topic}"));
    key.map_err(|error| Rejection::invalid(format!("the topic: {error}")))
}

/// Where in the application the messages of a topic go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Its name.
    pub name: CompactString,
    /// The name under which the service knows its topics.
    pub component: CompactString,
    /// The topic.
    pub topic: CompactString,
    /// The application's path.
    pub path: CompactString,
    /// The topic for what cannot be delivered.
    pub dead_letter: Option<CompactString>,
    /// Settings of this subscription.
    #[serde(default)]
    pub metadata: BTreeMap<CompactString, String>,
}

impl Subscription {
    /// The topic as grants name it.
    fn scope(&self, topic: &str) -> CompactString {
        compact_str::format_compact!("{}/{topic}", self.component)
    }

    fn bytes(&self) -> usize {
        let Self { name, component, topic, path, dead_letter, .. } = self;
        let texts = [name, component, topic, path].into_iter().chain(dead_letter);
        texts.map(CompactString::len).sum::<usize>() + self.metadata_bytes()
    }

    fn metadata_bytes(&self) -> usize {
        self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Checks it for a service of this namespace.
    fn check(&self, namespace: &str) -> Result<(), Rejection> {
        check_name("the name of a subscription", &self.name, NAME_BYTES_MAX)?;
        check_name("the name of a component", &self.component, components::NAME_BYTES_MAX)?;
        check_text("a topic", &self.topic, TOPIC_BYTES_MAX)?;
        self.dead_letter.iter().try_for_each(|topic| check_text("a dead letter topic", topic, TOPIC_BYTES_MAX))?;
        for topic in iter::once(&self.topic).chain(&self.dead_letter) {
            topic_key(namespace, &self.component, topic)?;
        }
        check_text("a path", &self.path, PATH_BYTES_MAX)?;
        if !self.path.starts_with('/') {
            return Err(Rejection::invalid("a path begins with '/'"));
        }
        Rejection::within("subscription metadata bytes", METADATA_BYTES_MAX, self.metadata_bytes())
    }
}

/// What the core record holds of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topics {
    subscriptions: Vec<Subscription>,
}

/// A fact about subscriptions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// One was declared, or is another one now.
    Subscribed {
        /// The subscription.
        subscription: Subscription,
    },
    /// One was removed.
    Unsubscribed {
        /// Its name.
        name: CompactString,
    },
}

impl Part for Topics {
    const NAME: &'static str = "topics";
    // No record has an earlier form: the part had no facts, and one without facts is not kept.
    const SCHEMA: u16 = 1;
    type Change = Change;

    fn apply(&mut self, change: &Change, _: Timestamp) {
        match change {
            Change::Subscribed { subscription } => {
                self.subscriptions.retain(|known| known.name != subscription.name);
                self.subscriptions.push(subscription.clone());
            }
            Change::Unsubscribed { name } => self.subscriptions.retain(|known| known.name != *name),
        }
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (name, data) = match change {
            Change::Subscribed { subscription } => {
                ("twin.subscription.set", serde_json::json!({ "subscription": subscription }))
            }
            Change::Unsubscribed { name } => {
                ("twin.subscription.removed", serde_json::json!({ "subscription": { "name": name } }))
            }
        };
        Some(Event { name: name.into(), data: data.to_string().into_bytes().into() })
    }

    fn heap_bytes(&self) -> usize {
        let texts: usize = self.subscriptions.iter().map(Subscription::bytes).sum();
        self.subscriptions.capacity() * size_of::<Subscription>() + texts
    }
}

/// Asks for the right to use a topic; nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// `component/topic`.
    pub name: CompactString,
    /// What for.
    pub wish: Wish,
}

impl Request for Permit {
    type Part = Topics;
    type Reply = ();
    const OPERATION: &'static str = "use";
    const NAME: &'static str = "topics-permit/1";
    const CREATES: bool = true;
    const IS_PUBLIC: bool = false;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, self.wish.operation());
    }

    fn heap_bytes(&self) -> usize {
        self.name.len()
    }

    fn decide(&self, _: &Topics, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        Ok(Ruling::new(()))
    }
}

/// Lists the subscriptions, in order of their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSubscriptions;

impl Request for GetSubscriptions {
    type Part = Topics;
    type Reply = Vec<Subscription>;
    const OPERATION: &'static str = "list";
    const NAME: &'static str = "topics-subscriptions/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each("", "list");
    }

    fn decide(&self, topics: &Topics, _: &PartTurn<'_>) -> Result<Ruling<Change, Self::Reply>, Rejection> {
        let mut subscriptions = topics.subscriptions.clone();
        subscriptions.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Ruling::new(subscriptions))
    }
}

/// Declares a subscription, or another one under a name; whoever does needs the rights that it takes, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSubscription {
    /// The subscription.
    pub subscription: Subscription,
}

impl Request for SetSubscription {
    type Part = Topics;
    type Reply = ();
    const OPERATION: &'static str = "set";
    const NAME: &'static str = "topics-subscription-set/1";
    const CREATES: bool = true;

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        let Self { subscription } = self;
        each(&subscription.name, "set");
        each(&subscription.scope(&subscription.topic), Wish::Subscribe.operation());
        if let Some(dead_letter) = &subscription.dead_letter {
            each(&subscription.scope(dead_letter), Wish::Publish.operation());
        }
    }

    fn heap_bytes(&self) -> usize {
        self.subscription.bytes()
    }

    fn decide(&self, topics: &Topics, turn: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        let namespace = turn.key.as_str().split('/').next().unwrap_or_default();
        self.subscription.check(namespace)?;
        if topics.subscriptions.contains(&self.subscription) {
            return Ok(Ruling::new(()));
        }
        let others = topics.subscriptions.iter().filter(|known| known.name != self.subscription.name);
        let (count, bytes) =
            others.fold((1, self.subscription.bytes()), |(count, bytes), other| (count + 1, bytes + other.bytes()));
        Rejection::within("subscriptions", SUBSCRIPTIONS_MAX, count)?;
        Rejection::within("subscriptions bytes", SUBSCRIPTIONS_BYTES_MAX, bytes)?;
        Ok(Ruling::new(()).change(Change::Subscribed { subscription: self.subscription.clone() }))
    }
}

/// Removes a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveSubscription {
    /// Its name.
    pub name: CompactString,
}

impl Request for RemoveSubscription {
    type Part = Topics;
    type Reply = ();
    const OPERATION: &'static str = "remove";
    const NAME: &'static str = "topics-subscription-remove/1";

    fn wants(&self, each: &mut dyn FnMut(&str, &'static str)) {
        each(&self.name, "remove");
    }

    fn heap_bytes(&self) -> usize {
        self.name.len()
    }

    fn decide(&self, topics: &Topics, _: &PartTurn<'_>) -> Result<Ruling<Change, ()>, Rejection> {
        if topics.subscriptions.iter().all(|known| known.name != self.name) {
            return Err(Rejection::not_found("a subscription of this name"));
        }
        Ok(Ruling::new(()).change(Change::Unsubscribed { name: self.name.clone() }))
    }
}
