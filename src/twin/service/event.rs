//! The event of each change: a CloudEvents type and its data.

use serde::{Serializer as _, ser::SerializeMap as _};

use super::{Change, Core};
use crate::twin::Event;

/// The event by which watchers hear of a change that was just applied; `None` for what concerns nobody.
pub(super) fn of(core: &Core, change: &Change) -> Option<Event> {
    let (name, data) = describe(core, change)?;
    Some(Event { name: name.into(), data: data.into() })
}

/// An object as JSON text, written at once: most events are made and never read.
macro_rules! object {
    ({$($name:literal: $value:expr),+ $(,)?}) => {{
        let mut text = Vec::with_capacity(128);
        let mut serializer = serde_json::Serializer::new(&mut text);
        let written = serializer.serialize_map(None).and_then(|mut object| {
            $(object.serialize_entry($name, &$value)?;)+
            object.end()
        });
        written.expect("texts, numbers and documents serialize into memory");
        text
    }};
}

fn describe(core: &Core, change: &Change) -> Option<(&'static str, Vec<u8>)> {
    let id = |number: &u32| core.instance_number(*number).map(|instance| instance.id.as_str());
    Some(match change {
        Change::Created { attributes } => ("twin.created", object!({"attributes": attributes})),
        Change::Removed => ("twin.removed", b"{}".to_vec()),
        Change::Attributes { attributes } => ("twin.attributes.changed", object!({"attributes": attributes})),
        Change::Environment { environment } => ("twin.environment.changed", object!({"environment": environment})),
        Change::InstanceSeen { id, version } => {
            ("twin.instance.changed", object!({"instance": id, "presence": "up", "version": version, "first": true}))
        }
        Change::InstanceVersion { number, version } => {
            ("twin.instance.changed", object!({"instance": id(number), "version": version}))
        }
        Change::InstancePresence { number, presence } => {
            ("twin.instance.changed", object!({"instance": id(number), "presence": presence}))
        }
        Change::InstanceHealth { number, status, reason } => {
            ("twin.instance.changed", object!({"instance": id(number), "health": status, "reason": reason}))
        }
        Change::InstanceGone { id, farewell, .. } => {
            ("twin.instance.changed", object!({"instance": id, "presence": "gone", "farewell": farewell}))
        }
        Change::PresenceRearmed
        | Change::CommandStopped { .. }
        | Change::Part { .. }
        | Change::PartsRetiring
        | Change::PartRetired { .. } => return None,
        Change::Desired { feature, document, version } => {
            ("twin.desired.changed", object!({"feature": feature, "desired": document, "version": version}))
        }
        Change::Reported { feature, document, version } => {
            ("twin.reported.changed", object!({"feature": feature, "reported": document, "version": version}))
        }
        Change::Effective { feature, document } => {
            ("twin.effective.changed", object!({"feature": feature, "effective": document}))
        }
        Change::Acknowledged { feature, acknowledgement } => (
            "twin.acknowledged",
            object!({
                "feature": feature,
                "instance": id(&acknowledgement.instance),
                "version": acknowledgement.version,
                "error": acknowledgement.error,
            }),
        ),
        Change::InSync { feature, in_sync } => {
            ("twin.insync.changed", object!({"feature": feature, "in_sync": in_sync}))
        }
        Change::CommandPosted { command } => command_event(core, command.id, None)?,
        Change::CommandMoved { id: command, instance, .. } | Change::CommandEnded { id: command, instance, .. } => {
            command_event(core, *command, id(instance))?
        }
        Change::CommandClosed { id, .. } => command_event(core, *id, None)?,
        Change::CommandDefined { name, schema } => {
            ("twin.command.defined", object!({"command": name, "schema": schema}))
        }
        Change::AlertOpened { alert } => (
            "twin.alert.opened",
            object!({"alert": alert.key, "status": alert.status, "value": alert.value, "expected": alert.expected}),
        ),
        Change::AlertClosed { key } => ("twin.alert.closed", object!({"alert": key})),
        Change::Granted { grant } => ("twin.grant.added", object!({"grant": grant})),
        Change::GrantTaken { grant } => ("twin.grant.removed", object!({"grant": grant})),
        Change::ProfileChosen { profile } => ("twin.profile.changed", object!({"profile": profile})),
        Change::Denied { right, rule } => ("twin.denied", object!({"right": right, "rule": rule})),
        Change::Health { from, status, reasons } => {
            ("twin.health.changed", object!({"from": from, "health": status, "reasons": reasons}))
        }
    })
}

fn command_event(core: &Core, id: u64, instance: Option<&str>) -> Option<(&'static str, Vec<u8>)> {
    let command = core.command(id)?;
    let data = object!({
        "id": id,
        "name": command.name,
        "state": command.state,
        "instance": instance,
        "result": command.result,
        "error": command.error,
    });
    Some(("twin.command.changed", data))
}
