//! What a service twin can be told or asked.
//!
//! Every write takes `if_match`, the revision the caller saw last; every write answers with the revision it made.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{
    Json, Service,
    access::{AccessView, CheckAccess, EditAccess, Explained, GetAccess},
    parts::Retire,
    view::{AttributesView, CommandView, CommandsView, DeliveryView, FeatureView, ServiceView, Status},
};
use crate::{
    model::{Lane, telemetry::Batch},
    twin::{Message, Wire},
};

/// The revision a write made, or found if there was nothing to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The twin's revision now.
    pub revision: u64,
}

/// Observations; the twin comes into being with the first ones, also again after its removal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ingest(pub Box<Batch>);

/// Creates the twin, also again after its removal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Create {
    /// Its first attributes: an object.
    pub attributes: Option<Json>,
}

/// Reads everything but behaviour.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct GetView {
    /// Behaviour, too.
    pub behaviour: bool,
}

/// Reads the attributes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct GetAttributes;

/// Reads one feature.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetFeature {
    /// Its name.
    pub feature: CompactString,
}

/// Changes attributes by an RFC 7396 merge patch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetAttributes {
    /// The patch: an object.
    pub patch: Json,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// How a document changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Edit {
    /// Merges this patch (RFC 7396).
    Patch(Json),
    /// Puts this document in its place.
    Replace(Json),
    /// Takes it away.
    Remove,
}

/// Changes what a feature shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetDesired {
    /// Its name.
    pub feature: CompactString,
    /// The change.
    pub edit: Edit,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// What an instance did with a desired version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// The desired version it speaks of.
    pub version: u64,
    /// Why it could not be applied; `None` if it was.
    pub error: Option<CompactString>,
}

/// What a service says about one of its features.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which instance speaks; needed for `applied`.
    pub instance: Option<CompactString>,
    /// The feature.
    pub feature: CompactString,
    /// What it is.
    pub reported: Option<Edit>,
    /// What is in force after merging with what is local to the service.
    pub effective: Option<Edit>,
    /// What the instance did with a desired version.
    pub applied: Option<Applied>,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// Which instances a command is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The first that asks.
    #[default]
    Any,
    /// Every one that is up now.
    All,
    /// This one.
    Instance(CompactString),
}

/// How a command for all instances proceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Most instances at work at once; at least 1.
    pub concurrency_max: u16,
    /// Most failures before the rest is cancelled.
    pub errors_max: u16,
}

/// Puts a command into the inbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostCommand {
    /// Its name; parameters are checked if a schema is defined for it.
    pub name: CompactString,
    /// Its parameters.
    pub parameters: Json,
    /// Who shall do it.
    pub target: Target,
    /// How long it may wait to be collected.
    pub delivery_timeout_ms: Option<u64>,
    /// How long it may take once collected.
    pub execution_timeout_ms: Option<u64>,
    /// How it proceeds over many instances; all at once, any number of errors if absent.
    pub pace: Option<Pace>,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// A command was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// The command's id within the twin.
    pub id: u64,
    /// The twin's revision now.
    pub revision: u64,
}

/// Collects commands for an instance; what is answered counts as delivered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NextCommands {
    /// Who asks.
    pub instance: CompactString,
    /// Most commands to answer; at least 1.
    pub limit: u16,
}

/// An instance has begun with a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AckCommand {
    /// The command.
    pub id: u64,
    /// Who.
    pub instance: CompactString,
}

/// How an instance ended with a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Finish {
    /// Done.
    Succeeded {
        /// What came of it.
        result: Option<Json>,
    },
    /// Not done.
    Failed {
        /// Why.
        error: CompactString,
    },
}

/// An instance has ended with a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishCommand {
    /// The command.
    pub id: u64,
    /// Who.
    pub instance: CompactString,
    /// How.
    pub finish: Finish,
}

/// Takes a command back wherever it has not ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CancelCommand {
    /// The command.
    pub id: u64,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// Reads one command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct GetCommand {
    /// The command.
    pub id: u64,
}

/// Reads commands, newest first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ListCommands {
    /// Only those with a smaller id.
    pub before: Option<u64>,
    /// Most commands to answer.
    pub limit: u16,
}

/// States, or takes away, what parameters a command takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DefineCommand {
    /// The command's name.
    pub name: CompactString,
    /// A small subset of JSON Schema (see [`super::schema`]); `None` takes the definition away.
    pub schema: Option<Json>,
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// What an instance thinks of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfHealth {
    /// How it is.
    pub status: Status,
    /// Why, in words.
    pub reason: CompactString,
}

/// An instance is there; the twin comes into being with it, also again after its removal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who.
    pub instance: CompactString,
    /// Its version.
    pub version: Option<CompactString>,
    /// How it is, if it says so.
    pub health: Option<SelfHealth>,
}

/// An instance goes in good order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deregister {
    /// Who.
    pub instance: CompactString,
}

/// Removes the twin; a tombstone stays, so that its revision goes on growing.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Remove {
    /// Revision the caller saw last.
    pub if_match: Option<u64>,
}

/// Takes every message of the service kind that can leave the process, one by one.
pub trait Registry {
    /// Takes one.
    fn wire<M: Wire + Message<Twin = Service>>(&mut self);
}

/// One line per message: type, name on the wire, reply, lane, whether its turn is short enough for the caller's thread,
/// bytes on the heap.
macro_rules! messages {
    ($($message:ident, $name:literal => $reply:ty, $lane:ident, $inline:literal, |$this:ident| $bytes:expr;)*) => {
        $(
            impl Message for $message {
                type Twin = Service;
                type Reply = $reply;
                const LANE: Lane = Lane::$lane;
                const INLINE: bool = $inline;

                fn heap_bytes(&self) -> usize {
                    let $this = self;
                    $bytes
                }
            }

            impl Wire for $message {
                const NAME: &'static str = $name;
            }
        )*

        /// Hands every message to `registry`.
        pub fn register(registry: &mut impl Registry) {
            $(registry.wire::<$message>();)*
            registry.wire::<Retire>();
        }
    };
}

messages! {
    Ingest, "ingest/1" => (), Telemetry, false, |m| size_of::<Batch>() + m.0.heap_bytes();
    Create, "create/1" => Written, Control, true, |m| m.attributes.as_ref().map_or(0, bytes);
    GetView, "view/1" => Box<ServiceView>, Capability, false, |_m| 0;
    GetAttributes, "attributes/1" => AttributesView, Capability, true, |_m| 0;
    GetFeature, "feature/1" => FeatureView, Capability, true, |m| m.feature.len();
    SetAttributes, "set-attributes/1" => Written, Control, true, |m| bytes(&m.patch);
    SetDesired, "set-desired/1" => Written, Control, true, |m| m.edit.heap_bytes() + m.feature.len();
    Report, "report/1" => Written, Control, true, |m| {
        m.feature.len() + [&m.reported, &m.effective].into_iter().flatten().map(Edit::heap_bytes).sum::<usize>()
    };
    PostCommand, "post-command/1" => Posted, Control, true, |m| m.name.len() + bytes(&m.parameters);
    NextCommands, "next-commands/1" => Vec<DeliveryView>, Control, true, |m| m.instance.len();
    AckCommand, "ack-command/1" => Written, Control, true, |m| m.instance.len();
    FinishCommand, "finish-command/1" => Written, Control, true, |m| m.instance.len() + m.finish.heap_bytes();
    CancelCommand, "cancel-command/1" => Written, Control, true, |_m| 0;
    GetCommand, "command/1" => CommandView, Control, true, |_m| 0;
    ListCommands, "commands/1" => CommandsView, Control, true, |_m| 0;
    DefineCommand, "define-command/1" => Written, Control, true, |m| m.name.len() + m.schema.as_ref().map_or(0, bytes);
    Heartbeat, "heartbeat/1" => Written, Control, true, |m| m.instance.len() + m.health.as_ref().map_or(0, |h| h.reason.len());
    Deregister, "deregister/1" => Written, Control, true, |m| m.instance.len();
    Remove, "remove/1" => Written, Control, true, |_m| 0;
    EditAccess, "edit-access/1" => Written, Control, true, |m| size_of_val(&*m.add) + size_of_val(&*m.remove);
    GetAccess, "access/1" => AccessView, Control, true, |_m| 0;
    CheckAccess, "check-access/1" => Vec<Explained>, Control, true, |m| size_of_val(&*m.rights);
}

fn bytes(json: &Json) -> usize {
    json.text().len()
}

impl Edit {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Patch(json) | Self::Replace(json) => bytes(json),
            Self::Remove => 0,
        }
    }
}

impl Finish {
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Succeeded { result } => result.as_ref().map_or(0, bytes),
            Self::Failed { error } => error.len(),
        }
    }
}
