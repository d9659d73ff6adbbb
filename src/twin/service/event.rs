//! The event of each change: a CloudEvents type and its data.

use serde_json::{Value, json};

use super::{Change, Core};
use crate::twin::Event;

/// The event by which watchers hear of a change that was just applied; `None` for what concerns nobody.
pub(super) fn of(core: &Core, change: &Change) -> Option<Event> {
    let (name, data) = describe(core, change)?;
    Some(Event { name, data: data.to_string().into_bytes().into() })
}

fn describe(core: &Core, change: &Change) -> Option<(&'static str, Value)> {
    let id = |number: &u32| core.instance_number(*number).map(|instance| instance.id.as_str());
    Some(match change {
        Change::Created { attributes } => ("twin.created", json!({"attributes": attributes})),
        Change::Removed => ("twin.removed", json!({})),
        Change::Attributes { attributes } => ("twin.attributes.changed", json!({"attributes": attributes})),
        Change::Environment { environment } => ("twin.environment.changed", json!({"environment": environment})),
        Change::InstanceSeen { id, version } => {
            ("twin.instance.changed", json!({"instance": id, "presence": "up", "version": version, "first": true}))
        }
        Change::InstanceVersion { number, version } => {
            ("twin.instance.changed", json!({"instance": id(number), "version": version}))
        }
        Change::InstancePresence { number, presence } => {
            ("twin.instance.changed", json!({"instance": id(number), "presence": presence}))
        }
        Change::InstanceHealth { number, status, reason } => {
            ("twin.instance.changed", json!({"instance": id(number), "health": status, "reason": reason}))
        }
        Change::InstanceGone { id, farewell, .. } => {
            ("twin.instance.changed", json!({"instance": id, "presence": "gone", "farewell": farewell}))
        }
        Change::PresenceRearmed | Change::CommandStopped { .. } => return None,
        Change::Desired { feature, document, version } => {
            ("twin.desired.changed", json!({"feature": feature, "desired": document, "version": version}))
        }
        Change::Reported { feature, document, version } => {
            ("twin.reported.changed", json!({"feature": feature, "reported": document, "version": version}))
        }
        Change::Effective { feature, document } => {
            ("twin.effective.changed", json!({"feature": feature, "effective": document}))
        }
        Change::Acknowledged { feature, acknowledgement } => (
            "twin.acknowledged",
            json!({
                "feature": feature,
                "instance": id(&acknowledgement.instance),
                "version": acknowledgement.version,
                "error": acknowledgement.error,
            }),
        ),
        Change::InSync { feature, in_sync } => ("twin.insync.changed", json!({"feature": feature, "in_sync": in_sync})),
        Change::CommandPosted { command } => command_event(core, command.id, None)?,
        Change::CommandMoved { id: command, instance, .. } | Change::CommandEnded { id: command, instance, .. } => {
            command_event(core, *command, id(instance))?
        }
        Change::CommandClosed { id, .. } => command_event(core, *id, None)?,
        Change::CommandDefined { name, schema } => ("twin.command.defined", json!({"command": name, "schema": schema})),
        Change::AlertOpened { alert } => (
            "twin.alert.opened",
            json!({"alert": alert.key, "status": alert.status, "value": alert.value, "expected": alert.expected}),
        ),
        Change::AlertClosed { key } => ("twin.alert.closed", json!({"alert": key})),
        Change::Health { from, status, reasons } => {
            ("twin.health.changed", json!({"from": from, "health": status, "reasons": reasons}))
        }
    })
}

fn command_event(core: &Core, id: u64, instance: Option<&str>) -> Option<(&'static str, Value)> {
    let command = core.command(id)?;
    let data = json!({
        "id": id,
        "name": command.name,
        "state": command.state,
        "instance": instance,
        "result": command.result,
        "error": command.error,
    });
    Some(("twin.command.changed", data))
}
