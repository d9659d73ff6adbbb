//! What resource files say, in types.

use std::collections::BTreeMap;

/// Everything that was read for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Stores, brokers and whatever else it names.
    pub components: Vec<Component>,
    /// What is to be delivered to it.
    pub subscriptions: Vec<Subscription>,
    /// Policies, kept as they are written.
    pub policies: Vec<Policy>,
    /// Services elsewhere that it calls by a name.
    pub endpoints: Vec<Endpoint>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A `Component`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// What the service calls it.
    pub name: String,
    /// What it is used for.
    pub kind: Kind,
    /// What it is, such as `state.redis`.
    pub type_name: String,
    /// The type that the file names, if a built-in one was put in its place.
    pub in_place_of: Option<String>,
    /// The version of the type.
    pub version: String,
    /// How it is set up.
    pub metadata: BTreeMap<String, Value>,
    /// The component from which its secrets come.
    pub secret_store: Option<String>,
    /// The only services that may use it; empty means all.
    pub scopes: Vec<String>,
}

/// What a component is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys and values.
    State,
    /// Topics.
    PubSub,
    /// Secrets.
    Secrets,
    /// Configuration.
    Configuration,
    /// Anything else.
    Other,
}

impl Kind {
    /// By the first part of a type.
    pub(super) fn of(type_name: &str) -> Self {
        match type_name.split('.').next().unwrap_or_default() {
            "state" => Self::State,
            "pubsub" => Self::PubSub,
            "secretstores" => Self::Secrets,
            "configuration" => Self::Configuration,
            _ => Self::Other,
        }
    }
}

/// A value of a component's metadata, or where it is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As it is written.
    Text(String),
    /// In a secret store.
    Secret {
        /// The secret.
        name: String,
        /// The part of it.
        key: String,
    },
    /// In the environment of whoever reads the file.
    Environment(String),
}

/// A `Subscription`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The resource's own name.
    pub name: String,
    /// The component.
    pub pubsub: String,
    /// The topic.
    pub topic: String,
    /// Where an event goes for which a condition holds, the first that does.
    pub rules: Vec<Rule>,
    /// Where any other event goes.
    pub default_path: Option<String>,
    /// Where events go that cannot be delivered.
    pub dead_letter_topic: Option<String>,
    /// Whether and how events are delivered together.
    pub bulk: Option<Bulk>,
    /// Settings of the component for this subscription.
    pub metadata: BTreeMap<String, String>,
    /// The only services that it is for; empty means all.
    pub scopes: Vec<String>,
}

/// A condition on an event, and where it then goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A condition in CEL, as it is written.
    pub condition: String,
    /// The path.
    pub path: String,
}

/// How events are delivered together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Whether.
    pub enabled: bool,
    /// Most of them together.
    pub messages_max: Option<u64>,
    /// How long they are waited for, in milliseconds.
    pub await_ms_max: Option<u64>,
}

/// A `Configuration` or `Resiliency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which of them.
    pub kind: PolicyKind,
    /// Its name.
    pub name: String,
    /// Its `spec`, as it is written.
    pub spec: serde_json::Value,
    /// The only services that it is for; empty means all.
    pub scopes: Vec<String>,
}

/// Kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    /// Who may call what, which secrets may be read, how much is traced.
    Configuration,
    /// Time-outs, retries, circuit breakers.
    Resiliency,
}

/// An `HTTPEndpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What the service calls it.
    pub name: String,
    /// Where it is.
    pub base_url: String,
    /// What is sent along.
    pub headers: BTreeMap<String, Value>,
    /// The only services that may use it; empty means all.
    pub scopes: Vec<String>,
}
